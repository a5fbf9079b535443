#include "dispatch.h"
#include "cpu.h"
#include "verbose.h"
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is compiled: the build defines ATTN_BUILT_NAME as 1 or 0 for each line of isa.def but scalar's. */
#define ATTN_BUILT_SCALAR     1
#define TABLE_0(name)         NULL
#define TABLE_1(name)         &attn_kernels_##name
#define TABLE_(built, name)   TABLE_##built(name)
#define TABLE(built, name)    TABLE_(built, name)
#define ISA(name, NAME, arch) [ATTN_ISA_##NAME] = TABLE(ATTN_BUILT_##NAME, name),
static const struct attn_kernels *const tables[ATTN_ISA_COUNT] = {
#include "isa.def"
};
#undef ISA

#define ISA(name, NAME, arch) [ATTN_ISA_##NAME] = #name,
const char *const attn_isa_names[ATTN_ISA_COUNT] = {
    [ATTN_ISA_BEST] = "best",
#include "isa.def"
};
#undef ISA

/* What the build's architecture is called in isa.def. */
enum architecture { ARCHITECTURE_any, ARCHITECTURE_x86, ARCHITECTURE_arm };
#if defined(__x86_64__)
#define ARCHITECTURE_HERE ARCHITECTURE_x86
#elif defined(__aarch64__)
#define ARCHITECTURE_HERE ARCHITECTURE_arm
#else
#define ARCHITECTURE_HERE ARCHITECTURE_any
#endif

#define ISA(name, NAME, arch) [ATTN_ISA_##NAME] = ARCHITECTURE_##arch,
static const unsigned char architectures[ATTN_ISA_COUNT] = {
#include "isa.def"
};
#undef ISA

/* What this process has found out about the machine, 0 until then: bit i is set where ISA number i runs here, the next
 * one where it is slow at pairs, and the number of the chosen ISA is in the top byte. Remembered, because CPUID is slow
 * on virtual machines; one word, so that threads see all of it or nothing. */
static _Atomic(uint32_t) selection;
#define SLOW_AT_PAIRS (UINT32_C(1) << ATTN_ISA_COUNT)
#define CHOSEN_SHIFT  24
_Static_assert((int)ATTN_ISA_COUNT < CHOSEN_SHIFT, "a bit for each ISA, and one");

bool attn_isa_find(const char *name, attn_isa *isa) {
    for (int i = 0; i < ATTN_ISA_COUNT; i++)
        if (strcmp(name, attn_isa_names[i]) == 0) {
            *isa = (attn_isa)i;
            return true;
        }
    return false;
}

const struct attn_kernels *attn_table(attn_isa isa) {
    return (unsigned)isa < ATTN_ISA_COUNT ? tables[isa] : NULL;
}

const struct attn_kernels *attn_table_on(attn_isa isa, bool slow_at_pairs) {
    const struct attn_kernels *table = attn_table(isa);
    return slow_at_pairs && table && table->by_fma ? table->by_fma : table;
}

static bool runs_here(uint32_t selected, attn_isa isa) {
    return selected >> isa & 1;
}

static uint32_t find_supported(const struct attn_cpu_registers *registers) {
    uint32_t found = 0;
    for (int isa = ATTN_ISA_SCALAR; isa < ATTN_ISA_COUNT; isa++)
        if (tables[isa] && attn_cpu_supports(registers, (attn_isa)isa))
            found |= UINT32_C(1) << isa;
    return found;
}

/* The best of those that run here, in isa.def's order, up to `highest`. */
static attn_isa best_of(uint32_t supported, attn_isa highest) {
    int isa = (int)highest;
    while (isa > ATTN_ISA_SCALAR && !runs_here(supported, (attn_isa)isa))
        isa--;
    return (attn_isa)isa;
}

/* Bytes of the longest name with its zero, or more. */
enum { LONGEST_NAME = 16 };

/* The name in lower case. One that is cut off is longer than any ISA's. */
static void lower_case(const char *name, char lower[LONGEST_NAME]) {
    size_t n = 0;
    for (; name[n] && n + 1 < LONGEST_NAME; n++)
        lower[n] = (char)(name[n] >= 'A' && name[n] <= 'Z' ? name[n] - 'A' + 'a' : name[n]);
    lower[n] = '\0';
}

static void report_unknown(const char *name) {
    char known[(LONGEST_NAME + 1) * ATTN_ISA_COUNT] = ""; /* with commas */
    size_t used = 0;
    for (int isa = 0; isa < ATTN_ISA_COUNT; isa++)
        if (tables[isa])
            used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", used ? ", " : "", attn_isa_names[isa]);
    fprintf(stderr, "attn: ATTN_MAX_ISA=%s is not an instruction set of this library (%s), ignored\n", name, known);
}

/* What ATTN_MAX_ISA's value names. */
enum name_kind { NAME_OF_HERE, NAME_OF_ELSEWHERE, NAME_UNKNOWN };

/* *highest: the ISA that the value names, or the last of all where it lowers nothing. */
static enum name_kind read_max_isa(const char *name, attn_isa *highest) {
    char lower[LONGEST_NAME];
    attn_isa isa = ATTN_ISA_BEST;
    *highest = (attn_isa)(ATTN_ISA_COUNT - 1);
    if (!name || !*name)
        return NAME_OF_HERE;
    lower_case(name, lower);
    if (!attn_isa_find(lower, &isa))
        return NAME_UNKNOWN;
    if (isa == ATTN_ISA_BEST)
        return NAME_OF_HERE;
    if (architectures[isa] != ARCHITECTURE_any && architectures[isa] != ARCHITECTURE_HERE)
        return NAME_OF_ELSEWHERE;
    *highest = isa;
    return NAME_OF_HERE;
}

static void report(uint32_t selected, const struct attn_cpu_registers *registers, const char *name,
                   enum name_kind kind) {
    if (kind == NAME_UNKNOWN)
        report_unknown(name);
    if (kind == NAME_OF_ELSEWHERE)
        attn_verbose("ATTN_MAX_ISA=%s is of another architecture, ignored", name);
    if (registers->amx_permission < 0)
        attn_verbose("amx is left out: the system refuses it to this process (arch_prctl: errno %d)",
                     -registers->amx_permission);
    if (selected & SLOW_AT_PAIRS && runs_here(selected, ATTN_ISA_AVX512_BF16))
        attn_verbose("VDPBF16PS is slow on this processor: avx512_bf16 and amx multiply class BF16 as avx512 does");
}

/* Out of line, or every call saves the registers that this needs. */
static __attribute__((noinline)) uint32_t look_at_machine(void) {
    uint32_t selected = 0;
    struct attn_cpu_registers registers;
    attn_cpu_read(&registers);
    const char *name = getenv("ATTN_MAX_ISA");
    attn_isa highest;
    enum name_kind kind = read_max_isa(name, &highest);
    uint32_t supported = find_supported(&registers);
    uint32_t found = supported | (uint32_t)best_of(supported, highest) << CHOSEN_SHIFT;
    if (attn_cpu_is_slow_at_pairs(&registers))
        found |= SLOW_AT_PAIRS;

    /* Threads that come here at once all find the same; the one whose store succeeds reports. */
    if (atomic_compare_exchange_strong_explicit(&selection, &selected, found, memory_order_relaxed,
                                                memory_order_relaxed))
        report(found, &registers, name, kind);
    return found;
}

static uint32_t select_isas(void) {
    uint32_t selected = atomic_load_explicit(&selection, memory_order_relaxed);
    return selected ? selected : look_at_machine();
}

attn_status attn_table_for(attn_isa isa, const struct attn_kernels **table) {
    if (isa != ATTN_ISA_BEST && !attn_table(isa))
        return ATTN_UNKNOWN_ISA;
    uint32_t selected = select_isas();
    if (isa == ATTN_ISA_BEST)
        isa = (attn_isa)(selected >> CHOSEN_SHIFT);
    if (!runs_here(selected, isa))
        return ATTN_UNSUPPORTED_ISA;
    *table = attn_table_on(isa, selected & SLOW_AT_PAIRS);
    return ATTN_OK;
}

const struct attn_gemm_kernel *attn_gemm_find_type(const struct attn_kernels *table, enum attn_class arithmetic,
                                                   attn_type type) {
    for (; table; table = table->lower)
        for (const struct attn_gemm_kernel *const *kernel = table->gemm; kernel && *kernel; kernel++)
            if ((*kernel)->arithmetic == arithmetic && (*kernel)->b.type == type)
                return *kernel;
    return NULL;
}

static bool has_gemm(const struct attn_kernels *table, const struct attn_gemm_kernel *gemm) {
    for (const struct attn_gemm_kernel *const *kernel = table->gemm; kernel && *kernel; kernel++)
        if (*kernel == gemm)
            return true;
    return false;
}

static bool lists(const struct attn_kernels *table, enum attn_class arithmetic) {
    for (const struct attn_gemm_kernel *const *kernel = table->gemm; kernel && *kernel; kernel++)
        if ((*kernel)->arithmetic == arithmetic)
            return true;
    return false;
}

enum attn_class attn_class_for(const struct attn_kernels *table, attn_type type, attn_arithmetic arithmetic) {
    enum attn_class portable = attn_class_of(type);
    if (portable != ATTN_CLASS_BF16)
        return portable;
    for (; arithmetic == ATTN_ARITHMETIC_FASTEST && table->lower; table = table->lower)
        if (lists(table, ATTN_CLASS_BF16_TILE))
            return ATTN_CLASS_BF16_TILE;
    return portable;
}

/* The table's own, over keys and values of `type`. */
static const struct attn_decode_kernel *decode_of(const struct attn_kernels *table, enum attn_class arithmetic,
                                                  attn_type type) {
    for (const struct attn_decode_kernel *const *kernel = table->stored_decode; kernel && *kernel; kernel++)
        if ((*kernel)->arithmetic == arithmetic && (*kernel)->type == type)
            return *kernel;
    return NULL;
}

/* Kernels of the ISAs below gemm's read other panels. */
const struct attn_decode_kernel *attn_decode_for(const struct attn_kernels *table,
                                                 const struct attn_gemm_kernel *gemm) {
    if (gemm->arithmetic == ATTN_CLASS_F32 && gemm->b.type == ATTN_F32)
        return attn_table_decode(table);
    const struct attn_decode_kernel *found = decode_of(table, gemm->arithmetic, gemm->b.type);
    while (!found && table->lower && !has_gemm(table, gemm)) {
        table = table->lower;
        found = decode_of(table, gemm->arithmetic, gemm->b.type);
    }
    return found;
}

/* There are no panels, so that the ISAs below serve too, with one or two rows: more rows take less time in gemm's wider
 * registers, packed. */
const struct attn_decode_kernel *attn_decode_in_place(const struct attn_kernels *table,
                                                      const struct attn_gemm_kernel *gemm, attn_type type,
                                                      size_t rows) {
    if (gemm->arithmetic == ATTN_CLASS_F32 && type == ATTN_F32) {
        const struct attn_decode_kernel *found = attn_table_decode(table);
        return rows <= found->rows_in_place ? found : NULL;
    }
    for (bool below = false; table; table = table->lower) {
        const struct attn_decode_kernel *found = decode_of(table, gemm->arithmetic, type);
        if (found && found->x == gemm->a && found->scores_in_place)
            return rows <= (below ? found->rows : found->rows_in_place) ? found : NULL;
        below |= has_gemm(table, gemm);
    }
    return NULL;
}

const struct attn_bf16_kernel *attn_bf16_for(const struct attn_kernels *table, const struct attn_gemm_kernel *gemm) {
    if (!attn_class_is_bf16(gemm->arithmetic))
        return NULL;
    while (!table->bf16 || table->bf16->type != gemm->a)
        table = table->lower;
    return table->bf16;
}
