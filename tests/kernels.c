/* Lists the kernels that each ISA of this build takes, one a line, for tools/conformance:
 *
 *   ISA GROUP CLASS TYPE OWNER NAME
 *
 * GROUP is the table's; CLASS is the order of operations, TYPE that of B, or of keys and values, "-" where a group has
 * neither; OWNER is the ISA whose table has the kernel: itself, or one below. */
#include <stdio.h>

#include "dispatch.h"

static const char *const classes[] = {
    [ATTN_CLASS_F32] = "F32",   [ATTN_CLASS_BF16] = "BF16", [ATTN_CLASS_BF16_TILE] = "BF16_TILE",
    [ATTN_CLASS_INT8] = "INT8", [ATTN_CLASS_INT4] = "INT4", [ATTN_CLASS_INT8_BLOCKS] = "INT8_BLOCKS"};
static const char *const types[] = {
    [ATTN_F32] = "F32",   [ATTN_BOOL] = "BOOL", [ATTN_BF16] = "BF16",       [ATTN_F16] = "F16",
    [ATTN_INT8] = "INT8", [ATTN_INT4] = "INT4", [ATTN_F8_E4M3] = "F8_E4M3", [ATTN_F8_E5M2] = "F8_E5M2"};

enum { CLASSES = sizeof classes / sizeof *classes, TYPES = sizeof types / sizeof *types };

static void print(const struct attn_kernels *table, const char *group, const char *of_class, const char *type,
                  const struct attn_kernels *owner, const char *name) {
    printf("%s %s %s %s %s %s\n", attn_isa_name(table->isa), group, of_class, type, attn_isa_name(owner->isa), name);
}

/* The table that has the kernel in its own list. */
static const struct attn_kernels *owner_of(const struct attn_kernels *table, const struct attn_gemm_kernel *gemm) {
    for (;; table = table->lower)
        for (const struct attn_gemm_kernel *const *kernel = table->gemm; kernel && *kernel; kernel++)
            if (*kernel == gemm)
                return table;
}

static void print_gemm(const struct attn_kernels *table) {
    for (int c = 0; c < CLASSES; c++)
        for (int t = 0; t < TYPES; t++) {
            const struct attn_gemm_kernel *gemm = attn_gemm_find_type(table, (enum attn_class)c, (attn_type)t);
            if (!gemm)
                continue;
            const struct attn_kernels *owner = owner_of(table, gemm);
            if (c == ATTN_CLASS_BF16_TILE && table->lower && !owner->lower) /* which no call takes */
                continue;
            print(table, "gemm", classes[c], types[t], owner, gemm->name);
            if (gemm->of_floats)
                print(table, "gemm", classes[c], "BF16_as_floats", owner, gemm->of_floats->name);
        }
}

/* What a call of the type takes: none, where the GEMM kernel's products take its place. */
static void print_decode(const struct attn_kernels *table) {
    for (int t = 0; t < TYPES; t++) {
        enum attn_class of_keys = t == ATTN_BF16 ? ATTN_CLASS_BF16 : ATTN_CLASS_F32;
        const struct attn_gemm_kernel *gemm = attn_gemm_find_type(table, of_keys, (attn_type)t);
        const struct attn_decode_kernel *decode = gemm ? attn_decode_for(table, gemm) : NULL;
        const struct attn_kernels *owner = table;
        while (decode && owner->lower && attn_decode_for(owner->lower, gemm) == decode)
            owner = owner->lower;
        if (decode)
            print(table, "decode", classes[of_keys], types[t], owner, decode->name);
    }
}

#define PRINT(group, of_class, type)                                                                                   \
    do {                                                                                                               \
        const struct attn_kernels *owner = table;                                                                      \
        while (!owner->group)                                                                                          \
            owner = owner->lower;                                                                                      \
        print(table, #group, of_class, type, owner, owner->group->name);                                               \
    } while (0)

int main(void) {
    for (int isa = ATTN_ISA_SCALAR; isa < ATTN_ISA_COUNT; isa++) {
        const struct attn_kernels *table = attn_table((attn_isa)isa);
        if (!table)
            continue;
        print_gemm(table);
        print_decode(table);
        PRINT(attention, "F32", "-");
        PRINT(bf16, "BF16", "-");
        PRINT(small, "F32", "-");
        if (attn_table_small(table)->has_bf16)
            PRINT(small, "BF16", "-");
        PRINT(softmax, "F32", "-");
        PRINT(elementary, "F32", "-");
        PRINT(copy, "-", "-");
        PRINT(convert, "-", "-");
    }
    return 0;
}
