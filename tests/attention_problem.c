#include "attention_problem.h"

#include <float.h>

#include "oracle.h"
#include "typed.h"
#include "types.h"

/* ---- Random problems ---- */

static const size_t head_sizes[] = {1, 2, 3, 7, 8, 15, 16, 17, 20, 33, 64, 72, 80, 128};
#define HEAD_SIZES (sizeof head_sizes / sizeof *head_sizes)

size_t sweep(size_t full, size_t quick) {
    return test_quick() ? quick : full;
}

/* Lengths 0 to 70 in turn, and now and then one around a border of blocks. */
static size_t kv_len_of(struct test_random *random, size_t index) {
    static const size_t borders[] = {255, 256, 257, 511, 512, 513, 600};
    if (index % 8 == 5)
        return borders[random_below(random, sizeof borders / sizeof *borders)];
    return index % 71;
}

/* Each size goes through its list with a period of its own, so that a sweep meets all of them early; the rest is
 * random. */
attn_attention_args random_args(struct test_random *random, size_t index) {
    attn_attention_args args = {.isa = test_isa(), .batch = random_between(random, 1, 3)};
    args.kv_heads = random_between(random, 1, 3);
    args.heads = args.kv_heads * random_between(random, 1, 3);
    args.q_len = index % 36;
    args.kv_len = kv_len_of(random, index);
    args.head_size = head_sizes[index % HEAD_SIZES];
    args.value_size = random_below(random, 3) ? 0 : head_sizes[random_below(random, HEAD_SIZES)];
    args.scale = random_below(random, 3) ? 0 : random_uniform(random, -1.0f, 1.0f);
    if (args.kv_heads == args.heads && random_below(random, 2))
        args.kv_heads = 0;
    set_order(&args.options, (enum order)(index % 3));
    args.options.valid.kind = (attn_valid_kind)(index / 3 % 3);
    args.options.empty = (attn_empty_rows)random_below(random, 2);
    return args;
}

enum flush random_flush(struct test_random *random) {
    return random_below(random, 2) ? FLUSH_END : FLUSH_START;
}

static struct tensor random_input(struct test_random *random, enum test_values values, size_t batch, size_t heads,
                                  size_t len, size_t size) {
    enum layout layout = (enum layout)random_below(random, LAYOUT_COUNT);
    return tensor_random(random, values, layout, batch, heads, len, size, random_flush(random));
}

static size_t kv_heads_of(const attn_attention_args *args) {
    return args->kv_heads ? args->kv_heads : args->heads;
}

struct problem problem_new(struct test_random *random, enum test_values values, const attn_attention_args *args) {
    struct problem p = {.args = *args};
    size_t value_size = args->value_size ? args->value_size : args->head_size;
    size_t q_batch = args->q_cu.cu.i64 ? 1 : args->batch, q_len = args->q_cu.cu.i64 ? args->q_cu.total : args->q_len;
    size_t kv_batch = args->kv_cu.cu.i64 ? 1 : args->batch,
           kv_len = args->kv_cu.cu.i64 ? args->kv_cu.total : args->kv_len;
    p.q = random_input(random, values, q_batch, args->heads, q_len, args->head_size);
    p.k = random_input(random, values, kv_batch, kv_heads_of(args), kv_len, args->head_size);
    p.v = random_input(random, values, kv_batch, kv_heads_of(args), kv_len, value_size);
    p.lens =
        random_lens(random, lens_count(args->options.valid.kind, args->batch, args->q_len), args->kv_len, FLUSH_END);
    p.args.q = tensor_in(&p.q);
    p.args.k = tensor_in(&p.k);
    p.args.v = tensor_in(&p.v);
    p.args.options.valid = valid_lens(args->options.valid.kind, p.lens);
    return p;
}

void problem_free(struct problem *p) {
    tensor_free(&p->q);
    tensor_free(&p->k);
    tensor_free(&p->v);
    tensor_free(&p->bias);
    guarded_free(p->lens);
    guarded_free(p->starts);
    guarded_free(p->rotary_offsets);
    guarded_free(p->position_offsets);
    guarded_free(p->mask);
    guarded_free(p->typed_bias);
    guarded_free(p->alibi);
    guarded_free(p->bias_factors);
    guarded_free(p->sinks);
    guarded_free(p->rotary_memory);
}

void describe(const attn_attention_args *a) {
    const attn_options *o = &a->options;
    test_case("batch=%zu heads=%zu kv_heads=%zu q_len=%zu kv_len=%zu head_size=%zu value_size=%zu scale=%g valid=%d "
              "causal=%d position=%d offset=%lld offsets=%d%d left=%zu right=%zu starts=%d mask=%d bias=%d factors=%d "
              "alibi=%d "
              "soft_cap=%g sinks=%d "
              "rotary=%d packed=%d%d stage=%d empty=%d",
              a->batch, a->heads, a->kv_heads, a->q_len, a->kv_len, a->head_size, a->value_size, (double)a->scale,
              (int)o->valid.kind, o->causal, (int)o->position, (long long)o->position_offset,
              o->position_offsets.i64 != NULL, o->position_offsets.i32 != NULL, o->window_left, o->window_right,
              o->starts.i64 != NULL, o->mask.data != NULL, o->bias.data ? (int)o->bias.type : -1,
              o->bias_factors != NULL, o->alibi != NULL, (double)o->soft_cap, o->sinks != NULL, o->rotary != NULL,
              a->q_cu.cu.i64 != NULL, a->kv_cu.cu.i64 != NULL, (int)o->score_stage, (int)o->empty);
}

/* ---- Masks at random ---- */

attn_attention_args masked_args(struct test_random *random, size_t index) {
    static const size_t borders[] = {255, 256, 257, 300, 511, 512, 513, 600}, spans[] = {4095, 4096, 4097, 4400};
    attn_attention_args args = {.isa = test_isa(), .batch = random_between(random, 1, 2)};
    args.heads = random_between(random, 1, 3);
    args.q_len = random_between(random, 1, 21);
    args.kv_len = random_below(random, 72);
    args.head_size = head_sizes[index % HEAD_SIZES];
    args.value_size = random_below(random, 3) ? 0 : head_sizes[random_below(random, HEAD_SIZES)];
    args.options.empty = (attn_empty_rows)random_below(random, 2);
    args.options.score_stage = (attn_score_stage)(index % 3);
    if (random_below(random, 6) == 0)
        args.kv_len = borders[random_below(random, sizeof borders / sizeof *borders)];
    if (random_below(random, sweep(48, 96)) == 0) {
        args.batch = args.heads = 1;
        args.q_len = random_between(random, 1, 3);
        args.kv_len = spans[random_below(random, sizeof spans / sizeof *spans)];
        args.head_size = 16;
        args.value_size = 0;
    }
    return args;
}

static int one_at_most(unsigned kinds) {
    return (kinds & (kinds - 1)) == 0;
}

int kinds_agree(unsigned kinds) {
    return one_at_most(kinds & (KIND(VALID_SEQUENCE) | KIND(VALID_ROW))) && one_at_most(kinds & KINDS_OF_RULES) &&
           one_at_most(kinds & (KIND(VALID_END) | KIND(VALID_ROW)));
}

unsigned random_kinds(struct test_random *random, unsigned among) {
    unsigned kinds = 0;
    for (unsigned kind = 1u << random_below(random, KINDS), i = 0; i < KINDS; i++) {
        if ((among & kind) && kinds_agree(kinds | kind) && random_below(random, 2))
            kinds |= kind;
        kind = kind << 1 < 1u << KINDS ? kind << 1 : 1;
    }
    return kinds;
}

/* An offset by which a row may stand anywhere from before the first key to behind the last; now and then the least
 * or the largest number of the type. */
static int64_t random_offset(struct test_random *random, size_t below, size_t above) {
    switch (random_below(random, 12)) {
    case 0:
        return INT64_MIN;
    case 1:
        return INT64_MAX;
    default:
        return (int64_t)random_below(random, below + above + 1) - (int64_t)below;
    }
}

/* Not the ends of the type with a rotation, whose table they are not in, nor with ALiBi, whose logits would be
 * rounding errors alone. */
static int64_t random_position(struct test_random *random, const attn_attention_args *args, unsigned kinds) {
    int64_t offset;
    do
        offset = random_offset(random, args->q_len, args->kv_len);
    while (kinds & (KIND(ROTARY) | KIND(ALIBI)) && (offset == INT64_MIN || offset == INT64_MAX));
    return offset;
}

static size_t random_window(struct test_random *random, size_t kv_len) {
    switch (random_below(random, 8)) {
    case 0:
        return PTRDIFF_MAX;
    case 1:
    case 2:
    case 3:
        return random_between(random, 1, 16);
    default:
        return random_between(random, 1, kv_len + 3);
    }
}

static void choose_scalars(struct test_random *random, attn_attention_args *args, unsigned kinds) {
    attn_options *options = &args->options;
    *options = (attn_options){.empty = options->empty, .score_stage = options->score_stage};
    options->valid.kind = kinds & KIND(VALID_ROW)        ? ATTN_VALID_PER_ROW
                          : kinds & KIND(VALID_SEQUENCE) ? ATTN_VALID_PER_SEQUENCE
                                                         : ATTN_VALID_ALL;
    options->causal = kinds & KIND(CAUSAL) ? 1 : 0;
    options->position = kinds & (KIND(OFFSET) | KIND(OFFSETS)) ? ATTN_POSITION_OFFSET
                        : kinds & KIND(TOP_LEFT)               ? ATTN_POSITION_TOP_LEFT
                        : kinds & KIND(VALID_END)              ? ATTN_POSITION_VALID_END
                                                               : ATTN_POSITION_BOTTOM_RIGHT;
    if (kinds & KIND(OFFSET))
        options->position_offset = random_position(random, args, kinds);
    if (kinds & KIND(WINDOW_LEFT))
        options->window_left = random_window(random, args->kv_len);
    if (kinds & KIND(WINDOW_RIGHT))
        options->window_right = random_window(random, args->kv_len);
    if (kinds & KIND(SOFT_CAP))
        options->soft_cap = random_uniform(random, 0.25f, 20.0f);
    if (kinds & KIND(GROUPS)) {
        args->kv_heads = kv_heads_of(args);
        args->heads = args->kv_heads * random_between(random, 2, 4);
    }
    if (kinds & KIND(ROTARY) && args->head_size < 2)
        args->head_size = 2;
}

/* Strides in elements of [batch, heads, q_len, kv_len]. */
static void broadcast_strides(const attn_attention_args *args, unsigned broadcast, size_t gap, size_t strides[3]) {
    size_t row = args->kv_len + gap, head = broadcast & 4 ? row : args->q_len * row;
    strides[0] = broadcast & 1 ? 0 : broadcast & 2 ? head : args->heads * head;
    strides[1] = broadcast & 2 ? 0 : head;
    strides[2] = broadcast & 4 ? 0 : row;
}

attn_tensor mask_layout(const attn_attention_args *args, unsigned broadcast, size_t *bytes) {
    size_t strides[3];
    broadcast_strides(args, broadcast, 5, strides);
    *bytes = args->batch && args->heads && args->q_len && args->kv_len
                 ? (args->batch - 1) * strides[0] + (args->heads - 1) * strides[1] + (args->q_len - 1) * strides[2] +
                       args->kv_len
                 : 0;
    return (attn_tensor){NULL, ATTN_BOOL, strides[0], strides[1], strides[2], 1};
}

struct tensor bias_new(const attn_attention_args *args, unsigned broadcast, enum flush flush) {
    size_t strides[3];
    struct tensor t = {.batch = args->batch, .heads = args->heads, .len = args->q_len, .size = args->kv_len};
    broadcast_strides(args, broadcast, 3, strides);
    t.batch_stride = strides[0];
    t.head_stride = strides[1];
    t.row_stride = strides[2];
    t.data = guarded_floats(tensor_count(&t), flush);
    return t;
}

/* Runs of visible and of hidden keys; now and then all keys are visible, or all are hidden. */
static void random_visibility(struct test_random *random, uint8_t *visible, size_t count) {
    static const size_t runs[] = {2, 2, 5, 40, 400, SIZE_MAX};
    size_t run = runs[random_below(random, sizeof runs / sizeof *runs)];
    int seen = random_below(random, 2) == 0;
    for (size_t j = 0; j < count; j++) {
        visible[j] = seen ? (uint8_t)random_between(random, 1, 255) : 0;
        if (run != SIZE_MAX && random_below(random, run) == 0)
            seen = !seen;
    }
}

static void add_mask(struct test_random *random, struct problem *p) {
    const attn_attention_args *args = &p->args;
    size_t bytes;
    attn_tensor mask = mask_layout(args, (unsigned)random_below(random, 8), &bytes);
    p->mask = guarded_alloc(bytes, 1, random_flush(random));
    for (size_t row = 0; row < args->batch * args->heads * args->q_len; row++) {
        size_t i = row % args->q_len, head = row / args->q_len % args->heads, b = row / args->q_len / args->heads;
        random_visibility(random, p->mask + b * mask.batch_stride + head * mask.head_stride + i * mask.row_stride,
                          args->kv_len);
    }
    mask.data = p->mask;
    p->args.options.mask = mask;
}

/* Not below 0: what all but hides a key would then outweigh all others, and its own rounding errors all logits. */
static void add_bias_factors(struct test_random *random, struct problem *p) {
    static const float factors[] = {0.0f, -0.0f, 1.0f, 0.5f, 0.70710677f};
    size_t heads = p->args.heads;
    p->bias_factors = guarded_floats(heads, random_flush(random));
    for (size_t h = 0; h < heads; h++)
        p->bias_factors[h] = random_below(random, 2) ? factors[random_below(random, 5)] : random_uniform(random, 0, 3);
    p->args.options.bias_factors = p->bias_factors;
}

/* Values, some that all but hide a key, and runs of -inf; of any type, and with factors or without. */
static void add_bias(struct test_random *random, enum test_values values, struct problem *p) {
    const attn_attention_args *args = &p->args;
    uint8_t *visible = guarded_alloc(args->kv_len, 1, FLUSH_END);
    p->bias = bias_new(args, (unsigned)random_below(random, 8), random_flush(random));
    for (size_t row = 0; row < args->batch * args->heads * args->q_len; row++) {
        size_t i = row % args->q_len, head = row / args->q_len % args->heads, b = row / args->q_len / args->heads;
        float *bias = tensor_row(&p->bias, b, head, i);
        random_fill(random, values, bias, args->kv_len);
        random_visibility(random, visible, args->kv_len);
        for (size_t j = 0; j < args->kv_len; j++)
            bias[j] = !visible[j] ? -INFINITY : visible[j] == 1 ? -1e9f : bias[j];
    }
    guarded_free(visible);
    attn_type type = random_type(random);
    tensor_round(&p->bias, type);
    p->args.options.bias = typed_input(&p->bias, type, random_flush(random), &p->typed_bias);
    if (random_below(random, 2))
        add_bias_factors(random, p);
}

static void add_per_head(struct test_random *random, struct problem *p, unsigned kinds) {
    size_t heads = p->args.heads;
    if (kinds & KIND(ALIBI)) {
        p->alibi = guarded_floats(heads, random_flush(random));
        for (size_t h = 0; h < heads; h++)
            p->alibi[h] = random_below(random, 2) ? ldexpf(1, -(int)h - 1) : random_uniform(random, -0.05f, 1.0f);
        p->args.options.alibi = p->alibi;
    }
    if (kinds & KIND(SINKS)) {
        p->sinks = guarded_floats(heads, random_flush(random));
        for (size_t h = 0; h < heads; h++)
            p->sinks[h] = 3 * random_normal(random);
        p->args.options.sinks = p->sinks;
    }
}

/* As integers of 64 or of 32 bits. */
static void add_position_offsets(struct test_random *random, struct problem *p, unsigned kinds) {
    const attn_attention_args *args = &p->args;
    size_t size = random_below(random, 2) ? sizeof(int64_t) : sizeof(int32_t);
    p->position_offsets = guarded_alloc(args->batch * size, size, random_flush(random));
    for (size_t b = 0; b < args->batch; b++) {
        int64_t offset = random_position(random, args, kinds);
        if (size == sizeof(int64_t))
            ((int64_t *)p->position_offsets)[b] = offset;
        else
            ((int32_t *)p->position_offsets)[b] = offset < INT32_MIN   ? INT32_MIN
                                                  : offset > INT32_MAX ? INT32_MAX
                                                                       : (int32_t)offset;
    }
    if (size == sizeof(int64_t))
        p->args.options.position_offsets.i64 = p->position_offsets;
    else
        p->args.options.position_offsets.i32 = p->position_offsets;
}

/* With offsets that leave no position below 0 or beyond the table. */
static void add_rotary(struct test_random *random, struct problem *p) {
    const attn_attention_args *args = &p->args;
    attn_rotary *rotary = NULL;
    size_t bytes = 0, pairs = args->head_size / 2;
    p->rotary = (attn_rotary_config){.positions = args->kv_len + 2 * args->q_len + 8};
    p->rotary.dims = 2 * (random_below(random, 2) ? pairs : random_between(random, 1, pairs));
    p->rotary.pairs = (attn_rotary_pairs)random_below(random, 2);
    p->rotary.base = random_below(random, 2) ? 0 : (double)random_uniform(random, 2.0f, 500.0f);
    assert_ok(attn_rotary_size(&p->rotary, &bytes, NULL));
    p->rotary_memory = poisoned_alloc(bytes, random_flush(random));
    assert_ok(attn_rotary_create(&p->rotary, p->rotary_memory, bytes, &rotary, NULL));
    p->rotary_offsets = guarded_alloc(args->batch * sizeof(int64_t), sizeof(int64_t), random_flush(random));
    for (size_t b = 0; b < args->batch; b++)
        p->rotary_offsets[b] = (int64_t)(args->q_len + random_below(random, 8));
    p->args.options.rotary = rotary;
    p->args.options.rotary_offsets.i64 = p->rotary_offsets;
}

struct problem masked_problem_new(struct test_random *random, enum test_values values, const attn_attention_args *args,
                                  unsigned kinds) {
    attn_attention_args a = *args;
    choose_scalars(random, &a, kinds);
    struct problem p = problem_new(random, values, &a);
    if (kinds & KIND(STARTS)) {
        p.starts = guarded_alloc(a.batch * sizeof(int64_t), sizeof(int64_t), random_flush(random));
        for (size_t b = 0; b < a.batch; b++)
            p.starts[b] = random_offset(random, 2, random_below(random, a.kv_len + 2));
        p.args.options.starts.i64 = p.starts;
    }
    if (kinds & KIND(MASK))
        add_mask(random, &p);
    if (kinds & KIND(BIAS))
        add_bias(random, values, &p);
    add_per_head(random, &p, kinds);
    if (kinds & KIND(OFFSETS))
        add_position_offsets(random, &p, kinds);
    if (kinds & KIND(ROTARY))
        add_rotary(random, &p);
    return p;
}

/* ---- Parts of a problem ---- */

static attn_tensor tensor_at(attn_tensor t, size_t offset) {
    if (t.data)
        t.data = (const char *)t.data + offset * attn_type_size(t.type);
    return t;
}

static attn_tensor mask_at(attn_tensor mask, size_t offset) {
    if (mask.data)
        mask.data = (const uint8_t *)mask.data + offset;
    return mask;
}

static const int64_t *numbers_at(const int64_t *numbers, size_t offset) {
    return numbers ? numbers + offset : NULL;
}

static attn_ints ints_at(attn_ints numbers, size_t offset) {
    return (attn_ints){numbers.i64 ? numbers.i64 + offset : NULL, numbers.i32 ? numbers.i32 + offset : NULL};
}

static attn_tensor sequence_at(attn_tensor t, const int64_t *cu, size_t b) {
    return tensor_at(t, cu ? (size_t)cu[b] * t.row_stride : b * t.batch_stride);
}

attn_attention_args one_sequence(const attn_attention_args *args, size_t b) {
    attn_attention_args one = *args;
    attn_options *options = &one.options;
    const int64_t *q_cu = args->q_cu.cu.i64, *kv_cu = args->kv_cu.cu.i64;
    one.batch = 1;
    one.q_cu = one.kv_cu = (attn_cu_lens){.cu.i64 = NULL, .total = 0};
    one.q = sequence_at(args->q, q_cu, b);
    one.k = sequence_at(args->k, kv_cu, b);
    one.v = sequence_at(args->v, kv_cu, b);
    if (q_cu)
        one.q_len = (size_t)(q_cu[b + 1] - q_cu[b]);
    if (kv_cu)
        one.kv_len = (size_t)(kv_cu[b + 1] - kv_cu[b]);
    if (options->valid.kind != ATTN_VALID_ALL)
        options->valid.lens.i64 += options->valid.kind == ATTN_VALID_PER_ROW ? b * args->q_len : b;
    options->starts.i64 = numbers_at(options->starts.i64, b);
    options->rotary_offsets.i64 = numbers_at(options->rotary_offsets.i64, b);
    options->position_offsets = ints_at(options->position_offsets, b);
    options->mask = mask_at(options->mask, b * options->mask.batch_stride);
    options->bias = tensor_at(options->bias, b * options->bias.batch_stride);
    one.q.batch_stride = one.k.batch_stride = one.v.batch_stride = 0;
    return one;
}

attn_attention_args one_head(const attn_attention_args *args, size_t head) {
    attn_attention_args one = *args;
    attn_options *options = &one.options;
    size_t kv_head = head / (args->heads / kv_heads_of(args));
    one.heads = 1;
    one.kv_heads = 0;
    one.q = tensor_at(args->q, head * args->q.head_stride);
    one.k = tensor_at(args->k, kv_head * args->k.head_stride);
    one.v = tensor_at(args->v, kv_head * args->v.head_stride);
    options->mask = mask_at(options->mask, head * options->mask.head_stride);
    options->bias = tensor_at(options->bias, head * options->bias.head_stride);
    options->alibi = options->alibi ? options->alibi + head : NULL;
    options->bias_factors = options->bias_factors ? options->bias_factors + head : NULL;
    options->sinks = options->sinks ? options->sinks + head : NULL;
    return one;
}

/* Of the only sequence. */
static int64_t first_position(const attn_attention_args *args) {
    const attn_options *options = &args->options;
    int64_t keys = (int64_t)args->kv_len, len = options->valid.lens.i64 ? options->valid.lens.i64[0] : keys;
    switch (options->position) {
    case ATTN_POSITION_TOP_LEFT:
        return 0;
    case ATTN_POSITION_OFFSET:
        return options->position_offsets.i64   ? options->position_offsets.i64[0]
               : options->position_offsets.i32 ? options->position_offsets.i32[0]
                                               : options->position_offset;
    case ATTN_POSITION_VALID_END:
        return (len < 0 ? 0 : len < keys ? len : keys) - (int64_t)args->q_len;
    default:
        return keys - (int64_t)args->q_len;
    }
}

attn_attention_args some_rows(const attn_attention_args *args, size_t begin, size_t end) {
    attn_attention_args rows = *args;
    attn_options *options = &rows.options;
    rows.q_len = end - begin;
    rows.q = tensor_at(args->q, begin * args->q.row_stride);
    if (options->valid.kind == ATTN_VALID_PER_ROW)
        options->valid.lens.i64 += begin;
    options->mask = mask_at(options->mask, begin * options->mask.row_stride);
    options->bias = tensor_at(options->bias, begin * options->bias.row_stride);
    options->position_offset = first_position(args) + (int64_t)begin;
    options->position_offsets = (attn_ints){NULL, NULL};
    options->position = ATTN_POSITION_OFFSET;
    return rows;
}

/* A head of a tensor, copied to memory of its own. */
static struct tensor dense_head(attn_tensor *t, size_t len, size_t size) {
    struct tensor dense = tensor_new(LAYOUT_BHSD, 1, 1, len, size, FLUSH_END);
    for (size_t i = 0; i < len && size; i++)
        memcpy(tensor_row(&dense, 0, 0, i), (const float *)t->data + i * t->row_stride, size * sizeof(float));
    *t = tensor_in(&dense);
    return dense;
}

/* Keys that a sequence does not have. */
static void hide_keys(float *weights, float *scores, size_t begin, size_t end) {
    for (size_t key = begin; key < end; key++) {
        weights[key] = 0;
        scores[key] = -INFINITY;
    }
}

struct attention_result reference_run(const struct problem *p) {
    const attn_attention_args *args = &p->args;
    struct attention_result all = attention_result_new(args, LAYOUT_BHSD, FLUSH_END);
    for (size_t head = 0; head < args->batch * args->heads; head++) {
        attn_attention_args sequence = one_sequence(args, head / args->heads);
        attn_attention_args one = one_head(&sequence, head % args->heads);
        struct tensor q = dense_head(&one.q, one.q_len, one.head_size);
        struct tensor k = dense_head(&one.k, one.kv_len, one.head_size);
        struct tensor v = dense_head(&one.v, one.kv_len, one.value_size ? one.value_size : one.head_size);
        one.isa = ATTN_ISA_SCALAR;
        struct attention_result r = attention_run(&one, LAYOUT_BHSD, FLUSH_END);
        for (size_t i = 0; i < one.q_len; i++) {
            size_t row = head * args->q_len + i, at = row * all.kv_len, from = i * r.kv_len;
            memcpy(attention_row(args, &all, head / args->heads, head % args->heads, i), tensor_row(&r.o, 0, 0, i),
                   r.o.size * sizeof(float));
            memcpy(all.weights + at, r.weights + from, r.kv_len * sizeof(float));
            memcpy(all.scores + at, r.scores + from, r.kv_len * sizeof(float));
            hide_keys(all.weights + at, all.scores + at, r.kv_len, all.kv_len);
            all.log_sum_exp[row] = r.log_sum_exp[i];
        }
        attention_free(&r);
        tensor_free(&q);
        tensor_free(&k);
        tensor_free(&v);
    }
    return all;
}

void test_same_rows(struct rows_of expected, struct rows_of actual, size_t count, size_t keys, const char *file,
                    int line) {
    const struct attention_result *e = expected.result, *a = actual.result;
    for (size_t i = 0; i < count; i++) {
        size_t e_row = (expected.b * expected.args->heads + expected.head) * expected.args->q_len + expected.begin + i;
        size_t a_row = (actual.b * actual.args->heads + actual.head) * actual.args->q_len + actual.begin + i;
        test_same_bits(attention_row(expected.args, e, expected.b, expected.head, expected.begin + i),
                       attention_row(actual.args, a, actual.b, actual.head, actual.begin + i), e->o.size, file, line);
        test_same_bits(e->log_sum_exp + e_row, a->log_sum_exp + a_row, 1, file, line);
        test_same_bits(e->weights + e_row * e->kv_len, a->weights + a_row * a->kv_len, keys, file, line);
        test_same_bits(e->scores + e_row * e->kv_len, a->scores + a_row * a->kv_len, keys, file, line);
    }
}

/* ---- The oracle ----
 *
 * Where scores are exact and keys are few, an output element is off by at most 8 units of FLT_EPSILON * sum |p * v|.
 * Two things add to that:
 *   - A score is a chain of head_size roundings, and its absolute error is the relative error of its exponential. With
 *     normal inputs 8 units hold in practice up to head size 64 (7.4 seen in 40 seeds), not at 72 (9.2) and 128 (11.8).
 *     The error grows with the score's magnitude, sum |q * k| * scale: at most 2.1 units of 1 + magnitude were seen.
 *   - Values are added in a chain over up to ATTN_SPAN keys. After a first key that outweighs the others every addition
 *     rounds at that key's last place: a random walk of sqrt(keys) steps of 0.29 units at most in the mean (14.7 units
 *     seen with 513 keys in 120000 problems, 2.2 of its standard deviations; 4 to 5 are granted).
 * Weights have the error of the row's sum, which is added up in ATTN_LANES chains. So has log-sum-exp, which the
 * logarithm rounds once more: 1 ULP of at most log(keys + 1). A sum to which the same few values are added again and
 * again may be rounded the same way each time (16 units seen with 4396 keys of size 2; 44 are granted).
 *
 * What options do to a score adds to its magnitude. An error of up to 3 units of the magnitude is granted:
 *   - soft-cap: tanh is nowhere steeper than 1, so the score's own error does not grow. Division, tanh (1 ULP) and
 *     product add at most 0.5 + 1 + 0.5 units of the capped score; so its absolute value is added to the magnitude.
 *   - ALiBi and bias: slope * distance is rounded, and so are both sums: 0.5 units of the product, and 0.5 each of sums
 *     no larger than the terms' absolute values together.
 *   - rotary: sine and cosine are within 1 ULP, or 1 unit of the larger element of a pair; two roundings more. The
 *     error of either element is proportional to both, so the magnitude of each is the sum of both absolute values.
 * A weight has the error of its own key's score, however small the weight, and by the sum that of the keys with large
 * ones.
 *
 * Among the many scores on request the largest error is larger: that of a random walk of head_size steps of up to
 * half a unit (3.2 units seen with head size 64). */

struct error_units {
    double output, weight, log_sum_exp, score;
};

/* How far adding up a row's keys in that many chains may be off. */
static double walk(size_t kv_len, size_t chains) {
    return kv_len <= 64 ? 0 : sqrt((double)kv_len / (double)chains);
}

double output_units(size_t kv_len, double score) {
    return fmax(8, 3 * (1 + score)) + walk(kv_len, 1);
}

double log_sum_exp_units(size_t kv_len, double score, double log_sum_exp) {
    if (!isfinite(log_sum_exp))
        return 0;
    return 2 * (1 + score + fabs(log_sum_exp)) + log1p((double)kv_len) + walk(kv_len, ATTN_LANES);
}

static struct error_units error_units(const attn_attention_args *args, const struct oracle *oracle, size_t row,
                                      size_t kv_len, int exact_scores) {
    double score = exact_scores ? 0 : oracle->score_magnitude[row];
    return (struct error_units){.output = output_units(kv_len, score),
                                .weight = fmax(8, 4 * (1 + score)) + walk(kv_len, ATTN_LANES),
                                .log_sum_exp = log_sum_exp_units(kv_len, score, oracle->log_sum_exp[row]),
                                .score = exact_scores ? 0 : 4 + sqrt((double)args->head_size) / 4};
}

/* The weights and the scores of a row. */
static void check_keys(const struct oracle *oracle, const struct attention_result *r, size_t row,
                       struct error_units units, int exact_scores) {
    for (size_t at = row * r->kv_len; at < row * r->kv_len + r->kv_len; at++) {
        double weight = oracle->weights[at], own = exact_scores ? 0 : 4 * oracle->logit_magnitude[at];
        assert_near(weight, (double)r->weights[at], (units.weight + own) * FLT_EPSILON * weight + FLT_MIN);
        if (oracle->scores[at] == -INFINITY)
            assert_true(isinf(r->scores[at]) && r->scores[at] < 0);
        else
            assert_near(oracle->scores[at], (double)r->scores[at],
                        units.score * FLT_EPSILON * oracle->scores_magnitude[at] + FLT_MIN);
    }
}

static size_t own_len(attn_cu_lens cu, size_t b, size_t len) {
    return cu.cu.i64 ? (size_t)(cu.cu.i64[b + 1] - cu.cu.i64[b]) : len;
}

void check_against_oracle(const struct problem *p, const struct attention_result *r, int exact_scores) {
    const attn_attention_args *args = &p->args;
    struct oracle oracle;
    oracle_attention(args, &p->rotary, &oracle);
    for (size_t row = 0; row < r->rows; row++) {
        size_t b = row / args->q_len / args->heads, h = row / args->q_len % args->heads;
        if (row % args->q_len >= own_len(args->q_cu, b, args->q_len))
            continue;
        const float *o = attention_row(args, r, b, h, row % args->q_len);
        struct error_units units = error_units(args, &oracle, row, r->kv_len, exact_scores);
        for (size_t c = 0; c < r->o.size; c++) {
            size_t at = row * r->o.size + c;
            assert_near(oracle.output[at], (double)o[c], units.output * FLT_EPSILON * oracle.magnitude[at] + FLT_MIN);
        }
        check_keys(&oracle, r, row, units, exact_scores);
        assert_near(oracle.log_sum_exp[row], (double)r->log_sum_exp[row], units.log_sum_exp * FLT_EPSILON);
    }
    oracle_free(&oracle);
}
