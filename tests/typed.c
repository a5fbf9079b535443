#include "typed.h"

#include "types.h"

enum { MOST = 1024 /* elements of a row that are rounded at once */ };

/* What lies between the elements of inputs, a NaN in both types, and everywhere in outputs at first. */
enum { POISON = 0x7fff, UNTOUCHED = 0xfe5a };

static const struct attn_convert_kernel *convert(void) {
    return attn_table_convert(&attn_kernels_scalar);
}

attn_type random_type(struct test_random *random) {
    static const attn_type types[] = {ATTN_F32, ATTN_BF16, ATTN_F16};
    return types[random_below(random, 3)];
}

attn_type random_stored_type(struct test_random *random) {
    return random_below(random, 2) ? ATTN_BF16 : ATTN_F32;
}

const attn_type cache_types[CACHE_TYPES] = {ATTN_F32, ATTN_BF16, ATTN_F16, ATTN_INT8, ATTN_F8_E4M3, ATTN_F8_E5M2};

attn_type random_cache_type(struct test_random *random) {
    return cache_types[random_below(random, CACHE_TYPES)];
}

bool is_widened_type(attn_type type) {
    return type != ATTN_F32 && type != ATTN_BF16;
}

void round_floats(attn_type type, float *x, size_t n) {
    uint16_t halves[MOST];
    for (size_t done = 0, count; type != ATTN_F32 && done < n; done += count) {
        count = n - done < MOST ? n - done : MOST;
        convert()->narrow(type, count, x + done, halves);
        convert()->widen(type, count, halves, x + done);
    }
}

/* The element with which each row begins, in turn. */
#define FOR_EACH_ROW(t, at)                                                                                            \
    for (size_t b_ = 0; b_ < (t)->batch && tensor_count(t); b_++)                                                      \
        for (size_t h_ = 0; h_ < (t)->heads; h_++)                                                                     \
            for (size_t i_ = 0, at = tensor_offset(t, b_, h_, 0); i_ < (t)->len; i_++, at += (t)->row_stride)

void tensor_round(const struct tensor *t, attn_type type) {
    FOR_EACH_ROW(t, at)
    round_floats(type, t->data + at, t->size);
}

static uint16_t *new_halves(const struct tensor *t, uint16_t filled, enum flush flush) {
    size_t count = tensor_count(t);
    uint16_t *x = guarded_alloc(count * sizeof *x, sizeof *x, flush);
    for (size_t i = 0; i < count; i++)
        x[i] = filled;
    return x;
}

attn_tensor typed_input(const struct tensor *t, attn_type type, enum flush flush, void **memory) {
    attn_tensor in = tensor_in(t);
    *memory = NULL;
    if (type == ATTN_F32)
        return in;
    uint16_t *x = new_halves(t, POISON, flush);
    FOR_EACH_ROW(t, at)
    convert()->narrow(type, t->size, t->data + at, x + at);
    in.data = *memory = x;
    in.type = type;
    return in;
}

attn_tensor_out typed_output(const struct tensor *t, attn_type type, enum flush flush, void **memory) {
    attn_tensor_out out = tensor_out(t);
    *memory = NULL;
    if (type == ATTN_F32)
        return out;
    out.data = *memory = new_halves(t, UNTOUCHED, flush);
    out.type = type;
    return out;
}

void typed_read(const struct tensor *t, attn_type type, void *memory) {
    uint16_t *x = memory;
    if (type == ATTN_F32)
        return;
    FOR_EACH_ROW(t, at) {
        convert()->widen(type, t->size, x + at, t->data + at);
        for (size_t j = 0; j < t->size; j++)
            x[at + j] = UNTOUCHED;
    }
    for (size_t i = 0; i < tensor_count(t); i++)
        if (x[i] != UNTOUCHED)
            test_fail("element %zu of 16 bits, between the elements of a tensor, was written", i);
    guarded_free(memory);
}
