#include "dispatch.h"
#include "cpu.h"
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

/* The process remembers one pointer into this array, because CPUID is slow on virtual machines. The pointer's row is
 * the best ISA that runs here, its column the one that ATTN_MAX_ISA leaves of it: threads see both answers or neither.
 * The array's contents are never read. */
static const char selections[ATTN_ISA_COUNT * ATTN_ISA_COUNT] = {0};
static _Atomic(const char *) selection;

/* attn_cpu_features: stored before `selection` is. */
static _Atomic(uint32_t) cpu_features;

struct selected {
    const struct attn_kernels *best, *chosen;
};

static const char *encode(struct selected s) {
    return &selections[(size_t)s.best->isa * ATTN_ISA_COUNT + (size_t)s.chosen->isa];
}

static struct selected decode(const char *entry) {
    size_t index = (size_t)(entry - selections);
    return (struct selected){tables[index / ATTN_ISA_COUNT], tables[index % ATTN_ISA_COUNT]};
}

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

/* `isa`'s table where it is `from` or below it, else NULL. */
static const struct attn_kernels *lowered(const struct attn_kernels *from, attn_isa isa) {
    while (from && from->isa != isa)
        from = from->lower;
    return from;
}

static const struct attn_kernels *best_supported(void) {
    struct attn_cpu_registers registers;
    attn_cpu_read(&registers);
    atomic_store_explicit(&cpu_features, attn_cpu_features(&registers), memory_order_relaxed);
    const struct attn_kernels *best = tables[ATTN_ISA_SCALAR];
    for (int isa = ATTN_ISA_SCALAR; isa < ATTN_ISA_COUNT; isa++)
        if (tables[isa] && lowered(tables[isa], best->isa) && attn_cpu_supports(&registers, (attn_isa)isa))
            best = tables[isa];
    return best;
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

/* What is left of `best` under ATTN_MAX_ISA's value. *understood is false where that names nothing built here. */
static const struct attn_kernels *cap(const struct attn_kernels *best, const char *name, bool *understood) {
    char lower[LONGEST_NAME];
    attn_isa isa;
    lower_case(name, lower);
    *understood = attn_isa_find(lower, &isa) && (isa == ATTN_ISA_BEST || tables[isa]);
    if (!*understood)
        return best;
    const struct attn_kernels *table = lowered(best, isa);
    return table ? table : best;
}

static struct selected select_tables(void) {
    const char *entry = atomic_load_explicit(&selection, memory_order_acquire);
    if (entry)
        return decode(entry);

    struct selected s = {.best = best_supported()};
    const char *name = getenv("ATTN_MAX_ISA");
    bool understood = true;
    s.chosen = name && *name ? cap(s.best, name, &understood) : s.best;

    /* Threads that come here at once all find the same; the one whose store succeeds reports. */
    bool first = atomic_compare_exchange_strong_explicit(&selection, &entry, encode(s), memory_order_release,
                                                         memory_order_acquire);
    if (first && !understood)
        report_unknown(name);
    return first ? s : decode(entry);
}

attn_status attn_table_for(attn_isa isa, const struct attn_kernels **table) {
    if (isa != ATTN_ISA_BEST && !attn_table(isa))
        return ATTN_UNKNOWN_ISA;
    struct selected s = select_tables();
    const struct attn_kernels *found = isa == ATTN_ISA_BEST ? s.chosen : lowered(s.best, isa);
    if (!found)
        return ATTN_UNSUPPORTED_ISA;
    *table = found;
    return ATTN_OK;
}

const struct attn_gemm_kernel *attn_gemm_find(const struct attn_kernels *table, enum attn_class arithmetic,
                                              uint32_t features) {
    for (; table; table = table->lower)
        for (const struct attn_gemm_kernel *const *kernel = table->gemm; kernel && *kernel; kernel++)
            if ((*kernel)->arithmetic == arithmetic && ((*kernel)->features & ~features) == 0)
                return *kernel;
    return NULL;
}

const struct attn_gemm_kernel *attn_gemm_for(const struct attn_kernels *table, enum attn_class arithmetic) {
    return attn_gemm_find(table, arithmetic, atomic_load_explicit(&cpu_features, memory_order_relaxed));
}
