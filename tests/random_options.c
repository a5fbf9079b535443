#include "random_options.h"

#include "typed.h"
#include "types.h"

#include <inttypes.h>
#include <stdio.h>

static int now_and_then(struct test_random *random) {
    return random_below(random, 4) == 0;
}

static void *keep(struct drawn_options *drawn, void *memory) {
    assert_in_range(drawn->arrays, 0, OPTIONS_ARRAYS - 1);
    drawn->memory[drawn->arrays++] = memory;
    return memory;
}

/* Strides of [batch, heads, q_len, kv_len], any of them 0, and how many elements they span. */
struct spread {
    size_t batch_stride, head_stride, row_stride, count;
};

static struct spread draw_spread(struct test_random *random, size_t batch, size_t heads, size_t q_len, size_t kv_len) {
    size_t gap = random_below(random, 2) * random_below(random, 5);
    struct spread s = {0};
    if (random_below(random, 4))
        s.row_stride = kv_len + gap;
    if (random_below(random, 3))
        s.head_stride = q_len * (kv_len + gap);
    if (random_below(random, 3))
        s.batch_stride = heads * q_len * (kv_len + gap);
    s.count = (batch - 1) * s.batch_stride + (heads - 1) * s.head_stride + (q_len - 1) * s.row_stride + kv_len;
    return s;
}

static attn_tensor draw_mask(struct test_random *random, struct drawn_options *drawn, const struct spread *s) {
    uint8_t *mask = keep(drawn, guarded_alloc(s->count, 1, FLUSH_END));
    for (size_t i = 0; i < s->count; i++)
        mask[i] = random_below(random, 4) ? (uint8_t)random_between(random, 1, 255) : 0;
    return (attn_tensor){mask, ATTN_BOOL, s->batch_stride, s->head_stride, s->row_stride, 1};
}

static attn_tensor draw_bias(struct test_random *random, struct drawn_options *drawn, const struct spread *s) {
    attn_type type = random_type(random);
    void *bias = keep(drawn, guarded_alloc(s->count * attn_type_size(type), attn_type_size(type), FLUSH_END));
    for (size_t i = 0; i < s->count; i++) {
        float x = random_below(random, 8) ? random_normal(random) : -INFINITY;
        attn_table_convert(&attn_kernels_scalar)->narrow(type, 1, &x, (char *)bias + i * attn_type_size(type));
    }
    return (attn_tensor){bias, type, s->batch_stride, s->head_stride, s->row_stride, 1};
}

static const float *draw_per_head(struct test_random *random, struct drawn_options *drawn, size_t heads) {
    float *x = keep(drawn, guarded_floats(heads, FLUSH_END));
    random_fill(random, TEST_UNIFORM, x, heads);
    return x;
}

static size_t draw_window(struct test_random *random, size_t kv_len) {
    return random_below(random, 8) ? random_between(random, 1, kv_len + 2) : PTRDIFF_MAX;
}

/* One offset for all, or one for each sequence, as integers of either size. */
static void draw_offsets(struct test_random *random, struct drawn_options *drawn, size_t batch, size_t q_len,
                         size_t kv_len) {
    attn_options *o = &drawn->options;
    size_t which = random_below(random, 3);
    int64_t *i64 = which == 1 ? keep(drawn, guarded_alloc(batch * sizeof *i64, sizeof *i64, FLUSH_END)) : NULL;
    int32_t *i32 = which == 2 ? keep(drawn, guarded_alloc(batch * sizeof *i32, sizeof *i32, FLUSH_END)) : NULL;
    for (size_t b = 0; b < batch; b++) {
        int64_t offset = (int64_t)random_below(random, q_len + kv_len + 1) - (int64_t)q_len;
        if (i64)
            i64[b] = offset;
        else if (i32)
            i32[b] = (int32_t)offset;
        else
            o->position_offset = offset;
    }
    o->position_offsets = (attn_ints){i64, i32};
}

static void draw_position(struct test_random *random, struct drawn_options *drawn, size_t batch, size_t q_len,
                          size_t kv_len) {
    attn_options *o = &drawn->options;
    o->position = (attn_position)random_below(random, ATTN_POSITION_OFFSET + 1);
    if (o->position == ATTN_POSITION_VALID_END && o->valid.kind == ATTN_VALID_PER_ROW)
        o->position = ATTN_POSITION_BOTTOM_RIGHT;
    if (o->position == ATTN_POSITION_OFFSET)
        draw_offsets(random, drawn, batch, q_len, kv_len);
}

struct drawn_options draw_options(struct test_random *random, size_t batch, size_t heads, size_t q_len, size_t kv_len) {
    struct drawn_options drawn = {0};
    attn_options *o = &drawn.options;
    struct spread s;
    if (now_and_then(random)) {
        o->valid.kind = (attn_valid_kind)random_between(random, 1, 2);
        o->valid.lens.i64 =
            keep(&drawn, random_lens(random, lens_count(o->valid.kind, batch, q_len), kv_len, FLUSH_END));
    }
    if (now_and_then(random))
        o->starts.i64 = keep(&drawn, random_lens(random, batch, kv_len / 2, FLUSH_END));
    o->causal = random_below(random, 4) != 0;
    draw_position(random, &drawn, batch, q_len, kv_len);
    o->window_left = now_and_then(random) ? draw_window(random, kv_len) : 0;
    o->window_right = now_and_then(random) ? draw_window(random, kv_len) : 0;
    s = draw_spread(random, batch, heads, q_len, kv_len);
    if (now_and_then(random))
        o->mask = draw_mask(random, &drawn, &s);
    o->soft_cap = now_and_then(random) ? random_uniform(random, 0.5f, 30.0f) : 0;
    o->alibi = now_and_then(random) ? draw_per_head(random, &drawn, heads) : NULL;
    s = draw_spread(random, batch, heads, q_len, kv_len);
    if (now_and_then(random))
        o->bias = draw_bias(random, &drawn, &s);
    o->bias_factors = o->bias.data && random_below(random, 2) ? draw_per_head(random, &drawn, heads) : NULL;
    o->sinks = now_and_then(random) ? draw_per_head(random, &drawn, heads) : NULL;
    o->empty = (attn_empty_rows)random_below(random, 2);
    o->score_stage = (attn_score_stage)random_below(random, 3);
    return drawn;
}

void drawn_options_free(struct drawn_options *drawn) {
    for (size_t i = 0; i < drawn->arrays; i++)
        guarded_free(drawn->memory[i]);
    drawn->arrays = 0;
}

attn_options options_of_sequence(const attn_options *options, size_t b, size_t q_len) {
    attn_options o = *options;
    if (o.valid.kind != ATTN_VALID_ALL)
        o.valid.lens.i64 += o.valid.kind == ATTN_VALID_PER_ROW ? b * q_len : b;
    if (o.starts.i64)
        o.starts.i64 += b;
    if (o.rotary_offsets.i64)
        o.rotary_offsets.i64 += b;
    if (o.position_offsets.i64)
        o.position_offsets.i64 += b;
    if (o.position_offsets.i32)
        o.position_offsets.i32 += b;
    if (o.mask.data)
        o.mask.data = (const uint8_t *)o.mask.data + b * o.mask.batch_stride;
    if (o.bias.data)
        o.bias.data = (const char *)o.bias.data + b * o.bias.batch_stride * attn_type_size(o.bias.type);
    o.weights = o.scores = o.log_sum_exp = (attn_tensor_out){0};
    return o;
}

attn_options options_without_intervals(const attn_options *options) {
    attn_options o = *options;
    o.valid = (attn_valid_lens){0};
    o.causal = 0;
    o.position = ATTN_POSITION_BOTTOM_RIGHT;
    o.position_offset = 0;
    o.position_offsets = (attn_ints){NULL, NULL};
    o.window_left = o.window_right = 0;
    return o;
}

const char *options_text(const attn_options *o) {
    static char text[320];
    snprintf(text, sizeof text,
             "valid=%d starts=%d causal=%d position=%d offset=%" PRId64
             " offsets=%d%d window=%zu,%zu mask=%d soft_cap=%g alibi=%d bias=%d factors=%d "
             "sinks=%d empty=%d rotary=%d stage=%d",
             (int)o->valid.kind, o->starts.i64 != NULL, o->causal, (int)o->position, o->position_offset,
             o->position_offsets.i64 != NULL, o->position_offsets.i32 != NULL, o->window_left, o->window_right,
             o->mask.data != NULL, (double)o->soft_cap, o->alibi != NULL, o->bias.data ? (int)o->bias.type : -1,
             o->bias_factors != NULL, o->sinks != NULL, (int)o->empty, o->rotary != NULL, (int)o->score_stage);
    return text;
}

attn_rotary *draw_rotary(struct test_random *random, size_t positions, size_t head_size, void **memory) {
    attn_rotary_config config = {.positions = positions, .pairs = (attn_rotary_pairs)random_below(random, 2)};
    attn_rotary *rotary = NULL;
    size_t bytes = 0;
    *memory = NULL;
    if (head_size < 2)
        return NULL;
    config.dims = 2 * random_between(random, 1, head_size / 2);
    config.base = random_below(random, 2) ? 0 : 500000;
    assert_ok(attn_rotary_size(&config, &bytes, NULL));
    *memory = poisoned_alloc(bytes, FLUSH_END);
    assert_ok(attn_rotary_create(&config, *memory, bytes, &rotary, NULL));
    return rotary;
}
