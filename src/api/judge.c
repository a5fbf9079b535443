#include "api/judge.h"

attn_status judge_memory(const void *memory, size_t bytes, size_t needed, const char *name, const char **field) {
    if (needed == 0)
        return ATTN_OK;
    JUDGE(judge_pointer(memory, name, field));
    if ((uintptr_t)memory % ATTN_ALIGNMENT != 0)
        return judge_fail(ATTN_MISALIGNED, name, field);
    return bytes < needed ? judge_fail(ATTN_TOO_SMALL, "bytes", field) : ATTN_OK;
}

attn_status judge_parallel(const attn_parallel *parallel, const char *name, const char **field) {
    return parallel && parallel->threads > 1 && !parallel->run ? judge_fail(ATTN_NULL_POINTER, name, field) : ATTN_OK;
}

attn_status judge_valid_lens(const attn_valid_lens *valid, const char *kind_name, const char *lens_name,
                             const char **field) {
    JUDGE(judge_enum((int)valid->kind, ATTN_VALID_PER_ROW, kind_name, field));
    return valid->kind == ATTN_VALID_ALL ? ATTN_OK : judge_pointer(valid->lens, lens_name, field);
}

attn_status judge_apart(const size_t dims[JUDGE_DIMS], const size_t strides[JUDGE_DIMS], size_t width, const char *name,
                        const char **field) {
    size_t covered = width;
    bool done[JUDGE_DIMS] = {false};
    for (int d = 0; d < JUDGE_DIMS; d++)
        if (dims[d] == 0)
            return ATTN_OK;
    for (int n = 0; n < JUDGE_DIMS; n++) {
        int least = -1;
        for (int d = 0; d < JUDGE_DIMS; d++)
            if (!done[d] && dims[d] > 1 && (least < 0 || strides[d] < strides[least]))
                least = d;
        if (least < 0)
            return ATTN_OK;
        if (strides[least] < covered)
            return judge_fail(ATTN_BAD_STRIDE, name, field);
        /* judge_extent has seen that this does not wrap. */
        covered += (dims[least] - 1) * strides[least];
        done[least] = true;
    }
    return ATTN_OK;
}

attn_status judge_disjoint(const void *a, size_t a_bytes, const void *b, size_t b_bytes, const char *name,
                           const char **field) {
    uintptr_t a_begin = (uintptr_t)a, b_begin = (uintptr_t)b;
    if (a_bytes == 0 || b_bytes == 0 || a_begin >= b_begin + b_bytes || b_begin >= a_begin + a_bytes)
        return ATTN_OK;
    return judge_fail(ATTN_OVERLAP, name, field);
}

attn_status judge_linear(const attn_linear *linear, size_t in, size_t out, const char *weight_name, const char *in_name,
                         const char *out_name, const char **field) {
    size_t bytes;
    JUDGE(judge_pointer(linear->weight, weight_name, field));
    if (in > 1 && linear->in_stride == 0)
        return judge_fail(ATTN_BAD_STRIDE, in_name, field);
    if (out > 1 && linear->out_stride == 0)
        return judge_fail(ATTN_BAD_STRIDE, out_name, field);
    return judge_extent((size_t[]){1, in, out}, (size_t[]){0, linear->in_stride, linear->out_stride}, 1, &bytes,
                        weight_name, field);
}
