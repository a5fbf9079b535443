#include "ops/visible.h"

#include <math.h>
#include <string.h>

/* a + b, saturated. */
static int64_t sum(int64_t a, int64_t b) {
    int64_t result;
    if (__builtin_add_overflow(a, b, &result))
        return a < 0 ? INT64_MIN : INT64_MAX;
    return result;
}

static size_t clamped(int64_t x, size_t most) {
    return x <= 0 ? 0 : (uint64_t)x < most ? (size_t)x : most;
}

size_t attn_valid_len(const attn_valid_lens *valid, size_t b, size_t i, size_t rows, size_t keys) {
    if (valid->kind == ATTN_VALID_ALL)
        return keys;
    bool per_row = valid->kind == ATTN_VALID_PER_ROW, dense = (valid->batch_stride | valid->row_stride) == 0;
    size_t at = dense ? (per_row ? b * rows + i : b) : b * valid->batch_stride + (per_row ? i * valid->row_stride : 0);
    return clamped(attn_ints_at(&valid->lens, at), keys);
}

static int64_t offset_of(const attn_options *options, size_t b) {
    const attn_ints *offsets = &options->position_offsets;
    return attn_ints_given(offsets) ? attn_ints_at(offsets, b) : options->position_offset;
}

static int64_t first_position(const attn_options *options, size_t b, size_t q_len, size_t kv_len) {
    switch (options->position) {
    case ATTN_POSITION_TOP_LEFT:
        return 0;
    case ATTN_POSITION_OFFSET:
        return offset_of(options, b);
    case ATTN_POSITION_VALID_END: /* there are no lengths for each row: the check refused them */
        return (int64_t)attn_valid_len(&options->valid, b, 0, q_len, kv_len) - (int64_t)q_len;
    case ATTN_POSITION_BOTTOM_RIGHT:
        break;
    }
    return (int64_t)kv_len - (int64_t)q_len;
}

struct attn_sequence attn_sequence_of(const struct attn_problem *problem, size_t b) {
    struct attn_sequence s = {.q_len = problem->q_len, .kv_len = problem->kv_len};
    if (attn_ints_given(&problem->q_cu)) {
        s.q_row = (size_t)attn_ints_at(&problem->q_cu, b);
        s.q_len = (size_t)attn_ints_at(&problem->q_cu, b + 1) - s.q_row;
    }
    if (attn_ints_given(&problem->kv_cu)) {
        s.kv_row = (size_t)attn_ints_at(&problem->kv_cu, b);
        s.kv_len = (size_t)attn_ints_at(&problem->kv_cu, b + 1) - s.kv_row;
    }
    if (problem->cache) {
        s.kv_len = problem->cache->lengths[b];
        s.oldest = problem->cache->oldest[b];
    }
    s.position = first_position(problem->options, b, s.q_len, s.kv_len);
    return s;
}

struct attn_interval attn_row_interval(const struct attn_problem *problem, const struct attn_sequence *sequence,
                                       size_t b, size_t i) {
    const attn_options *options = problem->options;
    int64_t position = sum(sequence->position, (int64_t)i);
    size_t begin = sequence->oldest, end = attn_valid_len(&options->valid, b, i, problem->q_len, sequence->kv_len);
    if (attn_ints_given(&options->starts)) {
        size_t start = clamped(attn_ints_at(&options->starts, b), sequence->kv_len);
        begin = start > begin ? start : begin;
    }
    if (options->mask_len > 0)
        end = attn_min(end, options->mask_len);
    if (options->bias_len > 0)
        end = attn_min(end, options->bias_len);
    if (options->causal)
        end = clamped(sum(position, 1), end);
    if (options->window_left > 0) { /* i is added last: position + i may saturate, and the window would be misplaced */
        size_t left =
            clamped(sum(sum(sequence->position, 1 - (int64_t)options->window_left), (int64_t)i), sequence->kv_len);
        begin = left > begin ? left : begin;
    }
    if (options->window_right > 0)
        end = clamped(sum(position, (int64_t)options->window_right), end);
    return begin < end ? (struct attn_interval){begin, end} : (struct attn_interval){0, 0};
}

static struct attn_interval enclosing(struct attn_interval a, struct attn_interval b) {
    if (a.begin == a.end)
        return b;
    if (b.begin == b.end)
        return a;
    return (struct attn_interval){a.begin < b.begin ? a.begin : b.begin, a.end > b.end ? a.end : b.end};
}

struct attn_interval attn_sequence_interval(const struct attn_problem *problem, const struct attn_sequence *sequence,
                                            size_t b) {
    const attn_options *options = problem->options;
    struct attn_interval all = {0, 0};
    if ((options->empty == ATTN_EMPTY_MEAN && !options->sinks) || options->scores_hidden)
        return (struct attn_interval){sequence->oldest, sequence->kv_len};
    if (sequence->q_len == 0)
        return all;
    /* Without a window to the left all rows begin at the same key; unless each has its own length, the last row sees
     * the most. */
    bool last = options->valid.kind != ATTN_VALID_PER_ROW && options->window_left == 0;
    for (size_t i = last ? sequence->q_len - 1 : 0; i < sequence->q_len; i++)
        all = enclosing(all, attn_row_interval(problem, sequence, b, i));
    return all;
}

/* Positions first .. last. */
static bool range_exists(const attn_rotary *rotary, int64_t first, int64_t last) {
    return first >= 0 && (uint64_t)last < rotary->positions;
}

bool attn_positions_exist(const struct attn_problem *problem) {
    const attn_options *options = problem->options;
    for (size_t b = 0; b < problem->batch; b++) {
        struct attn_sequence s = attn_sequence_of(problem, b);
        int64_t offset = attn_ints_or_0(&options->rotary_offsets, b);
        for (size_t i = 0; i < s.q_len; i++) {
            struct attn_interval seen = options->scores_hidden ? (struct attn_interval){s.oldest, s.kv_len}
                                                               : attn_row_interval(problem, &s, b, i);
            int64_t position = sum(sum(s.position, offset), (int64_t)i);
            if (seen.begin == seen.end)
                continue;
            if (!range_exists(options->rotary, position, position))
                return false;
            if (!problem->cache &&
                !range_exists(options->rotary, sum((int64_t)seen.begin, offset), sum((int64_t)seen.end - 1, offset)))
                return false;
        }
    }
    return true;
}

bool attn_ring_holds(const struct attn_problem *problem) {
    const attn_options *options = problem->options;
    for (size_t b = 0; b < problem->batch; b++) {
        struct attn_sequence s = attn_sequence_of(problem, b);
        size_t oldest = s.oldest;
        s.oldest = 0; /* what rows would see if the ring had lost no key */
        for (size_t i = 0; oldest > 0 && i < s.q_len; i++) {
            struct attn_interval seen = attn_row_interval(problem, &s, b, i);
            if (seen.begin < seen.end && (options->window_left > 0 ? seen.begin : seen.end - 1) < oldest)
                return false;
        }
    }
    return true;
}

struct attn_row_masks attn_row_masks_of(const struct attn_problem *problem, size_t b, size_t head, size_t i) {
    const attn_tensor *mask = &problem->options->mask, *bias = &problem->options->bias;
    struct attn_row_masks masks = {NULL, NULL};
    if (mask->data)
        masks.mask =
            (const uint8_t *)mask->data + b * mask->batch_stride + head * mask->head_stride + i * mask->row_stride;
    if (bias->data)
        masks.bias = attn_typed_row_at(bias, b, head, i);
    return masks;
}

/* The high bit of bytes that are 0; of others too, but only above one that is. */
static uint64_t zero_bytes(uint64_t word) {
    return (word - 0x0101010101010101u) & ~word & 0x8080808080808080u;
}

/* Eight keys a step, because this runs for each row of each block. */
enum attn_seen attn_mask_sees(const uint8_t *mask, size_t n) {
    uint64_t any = 0, none = 0, word;
    size_t c = 0;
    for (; c + sizeof word <= n; c += sizeof word) {
        memcpy(&word, mask + c, sizeof word);
        any |= word;
        none |= zero_bytes(word);
    }
    for (; c < n; c++) {
        any |= mask[c];
        none |= mask[c] == 0;
    }
    return !any ? ATTN_SEES_NONE : none ? ATTN_SEES_SOME : ATTN_SEES_ALL;
}

/* Reads up to the first key that the mask leaves visible. */
bool attn_bias_hides_all(const float *bias, size_t n) {
    size_t c = 0;
    while (c < n && bias[c] == -INFINITY)
        c++;
    return c == n;
}
