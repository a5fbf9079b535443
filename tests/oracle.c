#include "oracle.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Sums of positions, windows and sizes, which have 64 bits or as many as a size_t. Where that is 32 bits, a double
 * is exact as far as keys reach. */
#ifdef __SIZEOF_INT128__
__extension__ typedef __int128 wide;
#else
typedef double wide;
#endif

/* Sizes with their defaults filled in, and what is done to logits. */
struct oracle_shape {
    size_t batch, heads, kv_heads, q_len, kv_len, head_size, value_size;
    const int64_t *q_cu, *kv_cu; /* NULL: not packed */
    double scale;
    const attn_options *options;
    const attn_rotary_config *rotary; /* NULL: none */
};

/* A dense matrix and what its elements' errors are proportional to. */
struct matrix {
    double *value, *magnitude;
};

static double *doubles(size_t count) {
    double *p = calloc(count ? count : 1, sizeof *p);
    if (!p) {
        perror("oracle");
        exit(EXIT_FAILURE);
    }
    return p;
}

static struct matrix matrix(size_t count) {
    return (struct matrix){doubles(count), doubles(count)};
}

static void matrix_free(struct matrix m) {
    free(m.value);
    free(m.magnitude);
}

/* ---- Sequences ---- */

static size_t oracle_len(const int64_t *cu, size_t b, size_t len) {
    return cu ? (size_t)(cu[b + 1] - cu[b]) : len;
}

static size_t own_rows(const struct oracle_shape *s, size_t b) {
    return oracle_len(s->q_cu, b, s->q_len);
}

static size_t own_keys(const struct oracle_shape *s, size_t b) {
    return oracle_len(s->kv_cu, b, s->kv_len);
}

/* Where row `row` of sequence `b` is in a tensor's data, not counting its head. */
static size_t row_offset(const int64_t *cu, size_t b, size_t row, size_t batch_stride, size_t row_stride) {
    return cu ? ((size_t)cu[b] + row) * row_stride : b * batch_stride + row * row_stride;
}

static wide offset(const attn_options *options, size_t b) {
    if (options->position_offsets.i64)
        return (wide)options->position_offsets.i64[b];
    if (options->position_offsets.i32)
        return (wide)options->position_offsets.i32[b];
    return (wide)options->position_offset;
}

/* Keys up to which a sequence is valid. */
static wide valid_end(const struct oracle_shape *s, size_t b) {
    wide keys = (wide)own_keys(s, b);
    if (s->options->valid.kind == ATTN_VALID_ALL)
        return keys;
    wide len = (wide)s->options->valid.lens.i64[b];
    return len < 0 ? 0 : len < keys ? len : keys;
}

/* Where a query row stands among the keys. */
static wide position(const struct oracle_shape *s, size_t b, size_t row) {
    switch (s->options->position) {
    case ATTN_POSITION_TOP_LEFT:
        return (wide)row;
    case ATTN_POSITION_OFFSET:
        return (wide)row + offset(s->options, b);
    case ATTN_POSITION_VALID_END:
        return (wide)row + valid_end(s, b) - (wide)own_rows(s, b);
    default:
        return (wide)row + (wide)own_keys(s, b) - (wide)own_rows(s, b);
    }
}

/* ---- Which keys a row sees ---- */

static int within_lengths(const struct oracle_shape *s, size_t b, size_t row, size_t key) {
    const attn_options *options = s->options;
    if (options->valid.kind == ATTN_VALID_PER_SEQUENCE && (wide)key >= (wide)options->valid.lens.i64[b])
        return 0;
    if (options->valid.kind == ATTN_VALID_PER_ROW && (wide)key >= (wide)options->valid.lens.i64[b * s->q_len + row])
        return 0;
    return !options->starts.i64 || (wide)key >= (wide)options->starts.i64[b];
}

static int within_window(const struct oracle_shape *s, size_t b, size_t row, size_t key) {
    const attn_options *options = s->options;
    wide at = position(s, b, row);
    if (options->causal && (wide)key > at)
        return 0;
    if (options->window_left && (wide)key <= at - (wide)options->window_left)
        return 0;
    return !options->window_right || (wide)key < at + (wide)options->window_right;
}

/* Element `at` of an array of floats, or of halves. */
static double element_at(const attn_tensor *x, size_t at) {
    if (x->type == ATTN_F32)
        return (double)((const float *)x->data)[at];
    int bits = ((const uint16_t *)x->data)[at], fraction_bits = x->type == ATTN_BF16 ? 7 : 10;
    int ones = x->type == ATTN_BF16 ? 0xff : 0x1f; /* an exponent of infinity and NaN */
    int fraction = bits & ((1 << fraction_bits) - 1), exponent = bits >> fraction_bits & ones;
    double magnitude = exponent == ones ? (fraction ? (double)NAN : (double)INFINITY)
                       : exponent == 0  ? ldexp(fraction, 1 - ones / 2 - fraction_bits)
                                        : ldexp(fraction + (1 << fraction_bits), exponent - ones / 2 - fraction_bits);
    return bits >> 15 ? -magnitude : magnitude;
}

static double bias_at(const attn_options *options, size_t b, size_t head, size_t row, size_t key) {
    const attn_tensor *bias = &options->bias;
    if (!bias->data)
        return 0;
    if (options->bias_len && key >= options->bias_len)
        return -INFINITY;
    return element_at(bias, b * bias->batch_stride + head * bias->head_stride + row * bias->row_stride +
                                key * bias->col_stride);
}

static int within_mask(const attn_options *options, size_t b, size_t head, size_t row, size_t key) {
    const attn_tensor *mask = &options->mask;
    if (mask->data && options->mask_len && key >= options->mask_len)
        return 0;
    if (mask->data) {
        size_t at = b * mask->batch_stride + head * mask->head_stride + row * mask->row_stride + key * mask->col_stride;
        if ((((const uint8_t *)mask->data)[at] != 0) == (options->mask_hides != 0))
            return 0;
    }
    return bias_at(options, b, head, row, key) != -INFINITY;
}

static int shape_sees(const struct oracle_shape *s, size_t b, size_t head, size_t row, size_t key) {
    return within_lengths(s, b, row, key) && within_window(s, b, row, key) &&
           within_mask(s->options, b, head, row, key);
}

/* ---- Rotary embedding ---- */

static double frequency(const attn_rotary_config *rotary, size_t pair) {
    if (rotary->frequencies)
        return rotary->frequencies[pair];
    return pow(rotary->base != 0 ? rotary->base : 10000, -2.0 * (double)pair / (double)rotary->dims);
}

/* The errors of both elements of a pair are proportional to the sum of their magnitudes. */
static void rotate(const attn_rotary_config *rotary, double at, double *value, double *magnitude) {
    for (size_t pair = 0; pair < rotary->dims / 2; pair++) {
        int halves = rotary->pairs == ATTN_ROTARY_HALVES;
        size_t i = halves ? pair : 2 * pair, partner = halves ? pair + rotary->dims / 2 : 2 * pair + 1;
        double angle = at * frequency(rotary, pair), x = value[i], y = value[partner];
        value[i] = x * cos(angle) - y * sin(angle);
        value[partner] = x * sin(angle) + y * cos(angle);
        magnitude[i] = magnitude[partner] = magnitude[i] + magnitude[partner];
    }
}

/* Queries at their positions, keys at their indices. */
static void rotate_all(const struct oracle_shape *s, const struct matrix *q, const struct matrix *k) {
    if (!s->rotary)
        return;
    for (size_t b = 0; b < s->batch; b++) {
        double offset = s->options->rotary_offsets.i64 ? (double)s->options->rotary_offsets.i64[b] : 0;
        for (size_t h = 0; h < s->heads; h++)
            for (size_t i = 0; i < own_rows(s, b); i++) {
                size_t start = ((b * s->heads + h) * s->q_len + i) * s->head_size;
                rotate(s->rotary, (double)position(s, b, i) + offset, q->value + start, q->magnitude + start);
            }
        for (size_t h = 0; h < s->kv_heads; h++)
            for (size_t j = 0; j < own_keys(s, b); j++) {
                size_t start = ((b * s->kv_heads + h) * s->kv_len + j) * s->head_size;
                rotate(s->rotary, (double)j + offset, k->value + start, k->magnitude + start);
            }
    }
}

/* ---- One row ---- */

/* A row, and what is computed for each key. */
struct row {
    size_t b, head, i, keys;
    unsigned char *seen;
    int empty;
    struct matrix logits[ATTN_SCORE_MASKED + 1];
};

static void row_logits(const struct oracle_shape *s, const struct matrix *q, size_t q_start, const struct matrix *k,
                       size_t k_start, struct row *row) {
    const attn_options *options = s->options;
    struct matrix *raw = &row->logits[ATTN_SCORE_RAW], *capped = &row->logits[ATTN_SCORE_CAPPED];
    struct matrix *masked = &row->logits[ATTN_SCORE_MASKED];
    double cap = (double)options->soft_cap, slope = options->alibi ? (double)options->alibi[row->head] : 0;
    row->empty = 1;
    for (size_t j = 0; j < row->keys; j++) {
        double sum = 0, magnitude = 0;
        raw->value[j] = capped->value[j] = masked->value[j] = -INFINITY;
        raw->magnitude[j] = capped->magnitude[j] = masked->magnitude[j] = 0;
        row->seen[j] = (unsigned char)shape_sees(s, row->b, row->head, row->i, j);
        if (!row->seen[j] && !options->scores_hidden)
            continue;
        for (size_t d = 0; d < s->head_size; d++) {
            size_t at = k_start + j * s->head_size + d;
            sum += q->value[q_start + d] * k->value[at];
            magnitude += q->magnitude[q_start + d] * k->magnitude[at];
        }
        raw->value[j] = sum * s->scale;
        raw->magnitude[j] = magnitude * fabs(s->scale);
        capped->value[j] = cap > 0 ? cap * tanh(raw->value[j] / cap) : raw->value[j];
        /* tanh is nowhere steeper than 1: errors of the raw logit do not grow, and it adds a few of its own. */
        capped->magnitude[j] = raw->magnitude[j] + (cap > 0 ? fabs(capped->value[j]) : 0);
        if (!row->seen[j])
            continue;
        row->empty = 0;
        double distance = fabs((double)(position(s, row->b, row->i) - (wide)j));
        double bias = bias_at(options, row->b, row->head, row->i, j);
        if (options->bias_factors)
            bias *= (double)options->bias_factors[row->head];
        masked->value[j] = capped->value[j] - slope * distance + bias;
        masked->magnitude[j] = capped->magnitude[j] + fabs(slope * distance) + fabs(bias);
    }
}

/* Softmax over the visible keys and the sink; returns log-sum-exp. */
static double row_weights(const struct oracle_shape *s, const struct row *row, double *weights) {
    const double *logits = row->logits[ATTN_SCORE_MASKED].value;
    double sink = s->options->sinks ? (double)s->options->sinks[row->head] : -INFINITY, max = sink;
    if (row->empty && s->options->sinks)
        return sink;
    if (row->empty) {
        int mean = s->options->empty == ATTN_EMPTY_MEAN && row->keys > 0;
        for (size_t j = 0; mean && j < row->keys; j++)
            weights[j] = 1 / (double)row->keys;
        return mean ? log((double)row->keys) : -INFINITY;
    }
    for (size_t j = 0; j < row->keys; j++)
        if (row->seen[j])
            max = fmax(max, logits[j]);
    double sum = exp(sink - max);
    for (size_t j = 0; j < row->keys; j++)
        if (row->seen[j])
            sum += exp(logits[j] - max);
    for (size_t j = 0; j < row->keys; j++)
        if (row->seen[j])
            weights[j] = exp(logits[j] - max) / sum;
    return max + log(sum);
}

/* A value that the row does not see is not multiplied by 0 but left out: it may be NaN. */
static void row_output(const struct oracle_shape *s, const struct row *row, const double *weights,
                       const struct matrix *v, size_t v_start, struct matrix *o, size_t o_start) {
    for (size_t j = 0; j < row->keys; j++) {
        int averaged = row->empty && weights[j] > 0;
        for (size_t c = 0; c < s->value_size && (row->seen[j] || averaged); c++) {
            o->value[o_start + c] += weights[j] * v->value[v_start + j * s->value_size + c];
            o->magnitude[o_start + c] += weights[j] * v->magnitude[v_start + j * s->value_size + c];
        }
    }
}

/* Errors of keys that weigh so little that all of them together vanish are not looked at. */
static double heaviest_magnitude(const struct row *row, const double *weights) {
    double largest = 0, heaviest = 0;
    for (size_t j = 0; j < row->keys; j++)
        heaviest = fmax(heaviest, weights[j]);
    for (size_t j = 0; j < row->keys; j++)
        if (row->seen[j] && weights[j] >= 0x1p-40 * heaviest)
            largest = fmax(largest, row->logits[ATTN_SCORE_MASKED].magnitude[j]);
    return largest;
}

/* ---- Attention ---- */

static void attend_row(const struct oracle_shape *s, const struct matrix *q, const struct matrix *k,
                       const struct matrix *v, struct row *row, struct matrix *o, struct oracle *result) {
    size_t at = (row->b * s->heads + row->head) * s->q_len + row->i;
    size_t kv_start = (row->b * s->kv_heads + row->head / (s->heads / s->kv_heads)) * s->kv_len;
    size_t bytes = row->keys * sizeof(double);
    double *weights = result->weights + at * s->kv_len;
    const struct matrix *asked = &row->logits[s->options->score_stage];
    row_logits(s, q, at * s->head_size, k, kv_start * s->head_size, row);
    memcpy(result->scores + at * s->kv_len, asked->value, bytes);
    for (size_t j = row->keys; j < s->kv_len; j++)
        result->scores[at * s->kv_len + j] = -INFINITY;
    memcpy(result->scores_magnitude + at * s->kv_len, asked->magnitude, bytes);
    memcpy(result->logit_magnitude + at * s->kv_len, row->logits[ATTN_SCORE_MASKED].magnitude, bytes);
    result->log_sum_exp[at] = row_weights(s, row, weights);
    result->score_magnitude[at] = heaviest_magnitude(row, weights);
    row_output(s, row, weights, v, kv_start * s->value_size, o, at * s->value_size);
}

/* Attention over dense matrices; fills everything of `result` but output and magnitude, which go to `o`. */
static void attend(const struct oracle_shape *s, const struct matrix *q, const struct matrix *k, const struct matrix *v,
                   struct matrix *o, struct oracle *result) {
    size_t rows = s->batch * s->heads * s->q_len;
    struct row row = {.seen = calloc(s->kv_len + 1, 1)};
    if (!row.seen) {
        perror("oracle");
        exit(EXIT_FAILURE);
    }
    for (size_t stage = 0; stage <= ATTN_SCORE_MASKED; stage++)
        row.logits[stage] = matrix(s->kv_len);
    result->weights = doubles(rows * s->kv_len);
    result->scores = doubles(rows * s->kv_len);
    result->scores_magnitude = doubles(rows * s->kv_len);
    result->logit_magnitude = doubles(rows * s->kv_len);
    result->log_sum_exp = doubles(rows);
    result->score_magnitude = doubles(rows);
    rotate_all(s, q, k);
    for (row.b = 0; row.b < s->batch; row.b++) {
        row.keys = own_keys(s, row.b);
        for (row.head = 0; row.head < s->heads; row.head++)
            for (row.i = 0; row.i < own_rows(s, row.b); row.i++)
                attend_row(s, q, k, v, &row, o, result);
    }
    for (size_t stage = 0; stage <= ATTN_SCORE_MASKED; stage++)
        matrix_free(row.logits[stage]);
    free(row.seen);
}

static struct matrix dense(const attn_tensor *t, const int64_t *cu, size_t batch, size_t heads, size_t len,
                           size_t size) {
    struct matrix m = matrix(batch * heads * len * size);
    for (size_t b = 0; b < batch; b++)
        for (size_t h = 0; h < heads; h++)
            for (size_t i = 0; i < oracle_len(cu, b, len); i++) {
                const float *row =
                    (const float *)t->data + row_offset(cu, b, i, t->batch_stride, t->row_stride) + h * t->head_stride;
                for (size_t c = 0; c < size; c++) {
                    size_t at = ((b * heads + h) * len + i) * size + c;
                    m.value[at] = (double)row[c];
                    m.magnitude[at] = fabs(m.value[at]);
                }
            }
    return m;
}

static struct oracle_shape attention_shape(const attn_attention_args *args, const attn_rotary_config *rotary) {
    return (struct oracle_shape){.batch = args->batch,
                                 .heads = args->heads,
                                 .kv_heads = args->kv_heads ? args->kv_heads : args->heads,
                                 .q_len = args->q_len,
                                 .kv_len = args->kv_len,
                                 .head_size = args->head_size,
                                 .value_size = args->value_size ? args->value_size : args->head_size,
                                 .q_cu = args->q_cu.cu.i64,
                                 .kv_cu = args->kv_cu.cu.i64,
                                 .scale = args->scale != 0 ? (double)args->scale : 1 / sqrt((double)args->head_size),
                                 .options = &args->options,
                                 .rotary = args->options.rotary ? rotary : NULL};
}

void oracle_attention(const attn_attention_args *args, const attn_rotary_config *rotary, struct oracle *result) {
    struct oracle_shape s = attention_shape(args, rotary);
    struct matrix q = dense(&args->q, s.q_cu, s.batch, s.heads, s.q_len, s.head_size);
    struct matrix k = dense(&args->k, s.kv_cu, s.batch, s.kv_heads, s.kv_len, s.head_size);
    struct matrix v = dense(&args->v, s.kv_cu, s.batch, s.kv_heads, s.kv_len, s.value_size);
    struct matrix o = matrix(s.batch * s.heads * s.q_len * s.value_size);
    attend(&s, &q, &k, &v, &o, result);
    result->output = o.value;
    result->magnitude = o.magnitude;
    matrix_free(q);
    matrix_free(k);
    matrix_free(v);
}

int oracle_sees(const attn_attention_args *args, size_t b, size_t head, size_t row, size_t key) {
    struct oracle_shape s = attention_shape(args, NULL);
    return shape_sees(&s, b, head, row, key);
}

/* ---- The layer ---- */

/* x W + b with the columns split: element [b][h][i][c] is column h * head_size + c of row i of sequence b. */
static struct matrix project(const attn_tensor *x, const int64_t *cu, size_t batch, size_t len, size_t in,
                             const attn_linear *w, size_t heads, size_t head_size) {
    struct matrix m = matrix(batch * len * heads * head_size);
    for (size_t b = 0; b < batch; b++)
        for (size_t i = 0; i < oracle_len(cu, b, len); i++)
            for (size_t n = 0; n < heads * head_size; n++) {
                const float *row = (const float *)x->data + row_offset(cu, b, i, x->batch_stride, x->row_stride);
                size_t at = ((b * heads + n / head_size) * len + i) * head_size + n % head_size;
                m.value[at] = w->bias ? (double)w->bias[n] : 0;
                m.magnitude[at] = fabs(m.value[at]);
                for (size_t p = 0; p < in; p++) {
                    double product =
                        (double)row[p] * (double)((const float *)w->weight)[p * w->in_stride + n * w->out_stride];
                    m.value[at] += product;
                    m.magnitude[at] += fabs(product);
                }
            }
    return m;
}

/* As if projected queries and keys were given: the magnitudes of logits begin with theirs. */
static void forget_magnitude(const struct matrix *m, size_t count) {
    for (size_t at = 0; at < count; at++)
        m->magnitude[at] = fabs(m->value[at]);
}

/* Merges the heads of o and multiplies by W_o. */
static struct matrix project_output(const struct oracle_shape *s, const struct matrix *o, const attn_linear *w,
                                    size_t out_size) {
    size_t size = s->value_size, merged = s->heads * size;
    struct matrix y = matrix(s->batch * s->q_len * out_size);
    for (size_t b = 0; b < s->batch; b++)
        for (size_t i = 0; i < own_rows(s, b); i++)
            for (size_t n = 0; n < out_size; n++) {
                size_t at = (b * s->q_len + i) * out_size + n;
                y.value[at] = w->bias ? (double)w->bias[n] : 0;
                y.magnitude[at] = fabs(y.value[at]);
                for (size_t p = 0; p < merged; p++) {
                    size_t from = ((b * s->heads + p / size) * s->q_len + i) * size + p % size;
                    double weight = (double)((const float *)w->weight)[p * w->in_stride + n * w->out_stride];
                    y.value[at] += o->value[from] * weight;
                    y.magnitude[at] += o->magnitude[from] * fabs(weight);
                }
            }
    return y;
}

void oracle_layer(const attn_layer_config *config, const attn_layer_args *args, const attn_rotary_config *rotary,
                  struct oracle *result) {
    size_t head_size = config->head_size ? config->head_size : config->hidden / config->heads;
    size_t value_size = config->value_size ? config->value_size : head_size;
    struct oracle_shape s = {.batch = args->batch,
                             .heads = config->heads,
                             .kv_heads = config->kv_heads ? config->kv_heads : config->heads,
                             .q_len = args->q_len,
                             .kv_len = args->kv_len,
                             .head_size = head_size,
                             .value_size = value_size,
                             .q_cu = args->q_cu.cu.i64,
                             .kv_cu = args->kv_cu.cu.i64,
                             .scale = config->scale != 0 ? (double)config->scale : 1 / sqrt((double)head_size),
                             .options = &args->options,
                             .rotary = args->options.rotary ? rotary : NULL};
    struct matrix q =
        project(&args->q, s.q_cu, s.batch, s.q_len, config->query_width, &config->w_q, s.heads, head_size);
    struct matrix k =
        project(&args->k, s.kv_cu, s.batch, s.kv_len, config->key_width, &config->w_k, s.kv_heads, head_size);
    struct matrix v =
        project(&args->v, s.kv_cu, s.batch, s.kv_len, config->value_width, &config->w_v, s.kv_heads, value_size);
    struct matrix o = matrix(s.batch * s.heads * s.q_len * value_size);
    forget_magnitude(&q, s.batch * s.heads * s.q_len * head_size);
    forget_magnitude(&k, s.batch * s.kv_heads * s.kv_len * head_size);
    attend(&s, &q, &k, &v, &o, result);
    struct matrix y = project_output(&s, &o, &config->w_o, config->out_size ? config->out_size : s.heads * head_size);
    result->output = y.value;
    result->magnitude = y.magnitude;
    matrix_free(q);
    matrix_free(k);
    matrix_free(v);
    matrix_free(o);
}

void oracle_free(struct oracle *result) {
    free(result->output);
    free(result->magnitude);
    free(result->weights);
    free(result->scores);
    free(result->scores_magnitude);
    free(result->logit_magnitude);
    free(result->log_sum_exp);
    free(result->score_magnitude);
    *result = (struct oracle){0};
}
