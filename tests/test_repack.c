/* Packed weights without the kernel: what attn_repack writes is what the kernel packs, and is read back as it was. */
#include "weights.h"

#include <stdlib.h>
#include <string.h>

#include "dispatch.h"
#include "ops/layouts.h"

/* A packed weight in memory of its own. */
static struct attn_packed pack(const struct attn_gemm_kernel *kernel, const struct weight *weight) {
    struct attn_packed packed;
    struct attn_arena measure = {0};
    attn_packed_layout(&packed, kernel, weight->in, weight->out, &weight->linear, &measure);
    struct attn_arena arena = {.base = guarded_alloc(measure.used, ATTN_ALIGNMENT, FLUSH_END)};
    memset(arena.base, 0, measure.used);
    attn_packed_layout(&packed, kernel, weight->in, weight->out, &weight->linear, &arena);
    attn_packed_fill(&packed, &weight->linear);
    return packed;
}

static size_t panel_bytes(const struct attn_packed *packed) {
    size_t cols = packed->panels.cols;
    return (packed->n + cols - 1) / cols * packed->panels.stride;
}

/* A copy of `from` in the format of a kernel, its memory full of poison before. */
static struct attn_packed repack(const struct attn_gemm_kernel *kernel, const struct attn_packed *from) {
    const struct attn_packed_reader reader = {from->kernel->b, *from};
    struct attn_weight_source source = attn_packed_source(&reader);
    struct attn_packed to = {.kernel = kernel, .k = from->k, .n = from->n, .scaling = from->scaling};
    struct attn_arena measure = {0};
    attn_packed_take(&to, &kernel->b, false, &measure);
    struct attn_arena arena = {.base = poisoned_alloc(measure.used, FLUSH_END)};
    attn_packed_take(&to, &kernel->b, false, &arena);
    attn_repack(&kernel->b, &to, &source);
    return to;
}

static void assert_same_panels(const struct attn_packed *expected, const struct attn_packed *actual) {
    size_t bytes = panel_bytes(expected);
    assert_int_equal(bytes, panel_bytes(actual));
    if (memcmp(expected->panels.data, actual->panels.data, bytes) != 0)
        test_fail("panels differ");
}

/* Through the format of `by` and of the scalar kernel and back: each is what its own kernel packs. */
static void check_weight(const struct attn_gemm_kernel *by, const struct weight *weight) {
    const struct attn_gemm_kernel *scalar = attn_gemm_find_type(&attn_kernels_scalar, by->arithmetic, by->b.type);
    struct attn_packed here = pack(by, weight), there = pack(scalar, weight);
    struct attn_packed to_scalar = repack(scalar, &here), back = repack(by, &to_scalar);
    assert_true(attn_format_is_known(&by->b, &here.scaling));
    assert_same_panels(&there, &to_scalar);
    assert_same_panels(&here, &back);
    guarded_free(here.panels.data);
    guarded_free(there.panels.data);
    guarded_free(to_scalar.panels.data);
    guarded_free(back.panels.data);
}

/* Kernels of the table and of those below it that pack weights of this kind. */
static bool packs(const struct attn_gemm_kernel *kernel, const struct weight_kind *kind) {
    const struct attn_scaling scaling = {.block = kind->block ? kind->block : ATTN_INT8_PART};
    enum attn_class portable = kind->dequantised ? ATTN_CLASS_F32 : attn_class_of_weights(kind->type, &scaling);
    return kernel->b.type == kind->type && !kernel->b.wide && /* of keys and values alone */
           (kernel->arithmetic == portable ||
            (portable == ATTN_CLASS_BF16 && kernel->arithmetic == ATTN_CLASS_BF16_TILE));
}

static void every_format_is_read_back(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    static const size_t widths[] = {1, 2, 7, 33, 127, 128, 129, 256, 300}, columns[] = {1, 15, 16, 17, 31, 32, 33, 70};
    size_t checked = 0;
    for (size_t i = 0; i < weight_kind_count; i++)
        for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
            for (size_t c = 0; c < sizeof columns / sizeof *columns; c++) {
                const struct weight_kind *kind = &weight_kinds[i];
                size_t in = kind->block ? (w % 3 + 1) * kind->block : widths[w];
                struct weight weight = new_weight(&random, *kind, in, columns[c], false);
                for (const struct attn_kernels *t = test_table(); t; t = t->lower)
                    for (const struct attn_gemm_kernel *const *kernel = t->gemm; kernel && *kernel; kernel++)
                        if (packs(*kernel, kind)) {
                            test_case("%s, %zu x %zu, kind %zu", (*kernel)->name, in, columns[c], i);
                            check_weight(*kernel, &weight);
                            checked++;
                        }
                free_weight(&weight);
            }
    assert_true(checked >= weight_kind_count * 72);
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_format_is_read_back),
    };
    return test_run(tests);
}
