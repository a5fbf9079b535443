/* Which kernels calls take on a processor that is slow at pairs of BF16, whatever this one is. None of them runs. */
#define attn_cpu_read read_really
#include "cpu.c"
#undef attn_cpu_read

#include "first_calls.h"
#include "processors.h"
#include "support.h"

#include "dispatch.h"
#include "ops/problem.h"

/* Emerald Rapids, to which the system grants AMX. */
void attn_cpu_read(struct attn_cpu_registers *registers) {
    *registers = sapphire_rapids;
    registers->vendor = INTEL;
    registers->leaf1_eax = EMERALD_RAPIDS;
}

static const struct attn_kernels *table_for(attn_isa isa) {
    const struct attn_kernels *table = NULL;
    assert_ok(attn_table_for(isa, &table));
    return table;
}

static void says_so_once(void **state) {
    (void)state;
    assert_string_equal(first_calls_said,
                        "attn: VDPBF16PS is slow on this processor: avx512_bf16 and amx multiply class "
                        "BF16 as avx512 does\n");
}

/* Asked for by name or as the best. */
static void takes_one_table_for_each_isa(void **state) {
    (void)state;
    assert_int_equal(attn_isa_chosen(), ATTN_ISA_AMX);
    assert_ptr_equal(table_for(ATTN_ISA_BEST), table_for(ATTN_ISA_AMX));
    for (int isa = ATTN_ISA_SCALAR; isa <= ATTN_ISA_AMX; isa++)
        if (attn_table((attn_isa)isa))
            assert_ptr_equal(table_for((attn_isa)isa), attn_table_on((attn_isa)isa, true));
}

static struct attn_plan plan_of(attn_isa isa, attn_arithmetic arithmetic, size_t rows, size_t group) {
    const attn_options options = {0};
    struct attn_problem problem = {.table = table_for(isa),
                                   .batch = 1,
                                   .heads = group,
                                   .kv_heads = 1,
                                   .group = group,
                                   .q_len = rows,
                                   .kv_len = 100,
                                   .longest = {rows, 100},
                                   .head_size = 64,
                                   .value_size = 64,
                                   .k = {.type = ATTN_BF16},
                                   .v = {.type = ATTN_BF16},
                                   .stored = ATTN_BF16,
                                   .arithmetic = arithmetic,
                                   .options = &options};
    assert_true(attn_plan_make(&problem));
    return problem.plan;
}

/* Two rows and fewer decode by pairs; the others' products, and what these take, are avx512's. */
static void plans_by_rows(void **state) {
    (void)state;
    const struct attn_kernels *by_fma = attn_table(ATTN_ISA_AVX512), *by_pairs = attn_table(ATTN_ISA_AVX512_BF16);
    static const size_t shapes[][2] = {{1, 1}, {2, 1}, {1, 2}, {3, 1}, {1, 3}, {2, 2}, {100, 1}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int isa = ATTN_ISA_AVX512_BF16; isa <= ATTN_ISA_AMX; isa++) {
            size_t rows = shapes[i][0], group = shapes[i][1];
            const struct attn_kernels *expected = rows * group <= 2 ? by_pairs : by_fma;
            struct attn_plan plan = plan_of((attn_isa)isa, ATTN_ARITHMETIC_PORTABLE, rows, group);
            test_case("%s, %zu rows of %zu heads", attn_isa_name((attn_isa)isa), rows, group);
            assert_ptr_equal(plan.gemm, attn_gemm_find(expected, ATTN_CLASS_BF16));
            assert_ptr_equal(plan.decode, attn_decode_for(expected, plan.gemm));
            assert_ptr_equal(plan.bf16, expected->bf16);
            assert_int_equal(plan.path == ATTN_PATH_IN_PLACE, expected == by_pairs);
        }
}

/* Tiles are not slow. */
static void leaves_tiles_alone(void **state) {
    (void)state;
    for (size_t rows = 1; rows < 5; rows++) {
        struct attn_plan plan = plan_of(ATTN_ISA_AMX, ATTN_ARITHMETIC_FASTEST, rows, 1);
        assert_ptr_equal(plan.gemm, attn_gemm_find(attn_table(ATTN_ISA_AMX), ATTN_CLASS_BF16_TILE));
        assert_int_equal(plan.bf16->type, plan.gemm->a);
    }
}

int main(int argc, char **argv) {
    call_first();
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(says_so_once),
        cmocka_unit_test(takes_one_table_for_each_isa),
        cmocka_unit_test(plans_by_rows),
        cmocka_unit_test(leaves_tiles_alone),
    };
    return test_run(tests);
}
