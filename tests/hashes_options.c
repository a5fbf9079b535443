/* Options of attention that hashes computes with. */
#include "hashes.h"

static size_t rows_of(const struct problem *p) {
    return p->batch * p->heads * p->q_len;
}

void plain(struct problem *p) {
    (void)p;
}
void valid_per_sequence(struct problem *p) {
    p->options->valid =
        (attn_valid_lens){.kind = ATTN_VALID_PER_SEQUENCE, .lens.i64 = lengths(p->batch, p->kv_len + 2)};
}
static void valid_per_row(struct problem *p) {
    p->options->valid =
        (attn_valid_lens){.kind = ATTN_VALID_PER_ROW, .lens.i64 = lengths(p->batch * p->q_len, p->kv_len)};
}
static void left_padding(struct problem *p) {
    p->options->starts.i64 = lengths(p->batch, p->kv_len / 2);
}
void causal(struct problem *p) {
    p->options->causal = 1;
}
static void causal_top_left(struct problem *p) {
    p->options->causal = 1;
    p->options->position = ATTN_POSITION_TOP_LEFT;
}
static void causal_offset(struct problem *p) {
    p->options->causal = 1;
    p->options->position = ATTN_POSITION_OFFSET;
    p->options->position_offset = (int64_t)p->kv_len / 3;
}
static void window(struct problem *p) {
    p->options->window_left = 1 + p->kv_len / 4;
    p->options->window_right = 3;
}
static void causal_window(struct problem *p) {
    causal(p);
    p->options->window_left = 1 + p->kv_len / 3;
}
static void mask(struct problem *p) {
    size_t n = p->heads * p->q_len * p->kv_len;
    uint8_t *data = take(n);
    for (size_t i = 0; i < n; i++)
        data[i] = below(4) ? (uint8_t)(1 + below(255)) : 0;
    p->options->mask = (attn_tensor){data, ATTN_BOOL, 0, p->q_len * p->kv_len, p->kv_len, 1};
}
static void bias(struct problem *p) {
    float *data = numbers(p->heads * p->kv_len);
    for (size_t i = 0; i < p->heads * p->kv_len; i += 7)
        data[i] = float_of(0xff800000);
    p->options->bias = (attn_tensor){data, ATTN_F32, 0, p->kv_len, 0, 1};
}
void bias_factors(struct problem *p) {
    float *factors = numbers(p->heads);
    factors[0] = 0.0f;
    bias(p);
    p->options->bias_factors = factors;
}
void bias_bf16(struct problem *p) {
    bias_factors(p);
    give_type(&p->options->bias, ATTN_BF16, p->heads * p->kv_len);
}
/* Keys outermost. */
void bias_f16_columns(struct problem *p) {
    size_t rows = rows_of(p), n = rows * p->kv_len;
    float *data = numbers(n);
    for (size_t i = 0; i < n; i += 5)
        data[i] = float_of(0xff800000);
    p->options->bias = (attn_tensor){data, ATTN_F32, p->heads * p->q_len, p->q_len, 1, rows};
    give_type(&p->options->bias, ATTN_F16, n);
}
static void soft_cap(struct problem *p) {
    p->options->soft_cap = 1.5f;
}
static void alibi(struct problem *p) {
    float *slopes = take(p->heads * sizeof *slopes);
    for (size_t h = 0; h < p->heads; h++)
        slopes[h] = h == 1 ? 0.0f : 0.5f / (float)(1 << h);
    p->options->alibi = slopes;
}
static void sinks(struct problem *p) {
    p->options->sinks = numbers(p->heads);
}
static void empty_mean(struct problem *p) {
    valid_per_row(p);
    p->options->empty = ATTN_EMPTY_MEAN;
    p->options->log_sum_exp.data = outputs(rows_of(p));
}
static void rotary_offsets(struct problem *p) {
    int64_t *offsets = lengths(p->batch, 5);
    for (size_t b = 0; b < p->batch; b++)
        offsets[b] += (int64_t)p->q_len;
    p->options->rotary_offsets.i64 = offsets;
}
void rotary(struct problem *p) {
    p->options->rotary = new_rotary(p->kv_len + p->q_len + 6, p->head_size, ATTN_ROTARY_HALVES, 0);
    if (p->packed) /* rows of a sequence with fewer keys would stand before position 0 */
        rotary_offsets(p);
}
static void rotary_interleaved(struct problem *p) {
    p->options->rotary = new_rotary(p->kv_len + p->q_len + 6, p->head_size - 2, ATTN_ROTARY_INTERLEAVED, 5e5);
    rotary_offsets(p);
}
void dropout(struct problem *p) {
    p->options->dropout = 0.25f;
    p->options->dropout_seed = UINT64_C(0x123456789abcdef);
}
static void log_sum_exp(struct problem *p) {
    p->options->log_sum_exp.data = outputs(rows_of(p));
}
static void weights(struct problem *p) {
    p->options->weights.data = outputs(rows_of(p) * p->kv_len);
}
static void raw_scores(struct problem *p) {
    p->options->scores.data = outputs(rows_of(p) * p->kv_len);
}
static void masked_scores(struct problem *p) {
    soft_cap(p);
    alibi(p);
    bias(p);
    causal(p);
    raw_scores(p);
    p->options->score_stage = ATTN_SCORE_MASKED;
}
static void large_logits(struct problem *p) {
    p->scale = 20.0f;
}
static void tiny_logits(struct problem *p) {
    p->scale = 0x1p-130f;
}
static void special_values(struct problem *p) {
    for (size_t i = 0; i < 3; i++)
        if (p->data[i])
            strew(p->data[i], p->length[i]);
}
/* Rows of a tile that see different keys, some of them with values that are not finite. */
static void special_values_causal(struct problem *p) {
    special_values(p);
    causal(p);
}
static void special_values_mask(struct problem *p) {
    special_values(p);
    mask(p);
}
/* Rows whose sum is NaN, with keys that an interval hides and others that a mask hides. */
static void special_values_weights(struct problem *p) {
    special_values_mask(p);
    causal_window(p);
    weights(p);
}
static void masked_weights(struct problem *p) {
    mask(p);
    weights(p);
}
/* Distances that are no longer exact in a float. */
static void far_alibi(struct problem *p) {
    alibi(p);
    p->options->causal = 1;
    p->options->position = ATTN_POSITION_OFFSET;
    p->options->position_offset = INT64_C(1) << 40;
}
void everything(struct problem *p) {
    valid_per_sequence(p);
    p->options->starts.i64 = lengths(p->batch, 3);
    causal_window(p);
    mask(p);
    bias(p);
    soft_cap(p);
    alibi(p);
    sinks(p);
    dropout(p);
    log_sum_exp(p);
    weights(p);
    raw_scores(p);
    p->options->score_stage = ATTN_SCORE_CAPPED;
    rotary(p);
}

const struct option all_options[] = {
    {"plain", plain},
    {"causal", causal},
    {"causal-window", causal_window},
    {"mask", mask},
    {"rotary", rotary},
    {"weights", weights},
    {"everything", everything},
    {"valid-per-sequence", valid_per_sequence},
    {"valid-per-row", valid_per_row},
    {"left-padding", left_padding},
    {"causal-top-left", causal_top_left},
    {"causal-offset", causal_offset},
    {"window", window},
    {"bias", bias},
    {"soft-cap", soft_cap},
    {"alibi", alibi},
    {"sinks", sinks},
    {"empty-mean", empty_mean},
    {"rotary-interleaved", rotary_interleaved},
    {"dropout", dropout},
    {"log-sum-exp", log_sum_exp},
    {"raw-scores", raw_scores},
    {"masked-scores", masked_scores},
    {"large-logits", large_logits},
    {"tiny-logits", tiny_logits},
    {"special-values", special_values},
    {"special-values-causal", special_values_causal},
    {"special-values-mask", special_values_mask},
    {"masked-weights", masked_weights},
    {"far-alibi", far_alibi},
    {"special-values-weights", special_values_weights},
};
const size_t option_count = COUNT(all_options);

void hash_outputs(const struct problem *p) {
    if (p->options->weights.data)
        hash_floats(p->options->weights.data, rows_of(p) * p->kv_len);
    if (p->options->scores.data)
        hash_floats(p->options->scores.data, rows_of(p) * p->kv_len);
    if (p->options->log_sum_exp.data)
        hash_floats(p->options->log_sum_exp.data, rows_of(p));
}
