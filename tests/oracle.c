#include "oracle.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Sizes with their defaults filled in. */
struct shape {
    size_t batch, heads, kv_heads, q_len, kv_len, head_size, value_size;
    double scale;
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

/* visible[b][i][j] is 1 where row i of sequence b sees key j. */
static unsigned char *visible_keys(const struct shape *s, const attn_options *options) {
    size_t count = s->batch * s->q_len * s->kv_len;
    unsigned char *visible = calloc(count ? count : 1, 1);
    if (!visible) {
        perror("oracle");
        exit(EXIT_FAILURE);
    }
    for (size_t b = 0; b < s->batch; b++)
        for (size_t i = 0; i < s->q_len; i++)
            for (size_t j = 0; j < s->kv_len; j++) {
                int64_t row = (int64_t)i, key = (int64_t)j;
                int seen = 1;
                if (options->valid.kind == ATTN_VALID_PER_SEQUENCE)
                    seen = key < options->valid.lens[b];
                if (options->valid.kind == ATTN_VALID_PER_ROW)
                    seen = key < options->valid.lens[b * s->q_len + i];
                if (options->causal == ATTN_CAUSAL_TOP_LEFT && key > row)
                    seen = 0;
                if (options->causal == ATTN_CAUSAL_BOTTOM_RIGHT && key > row + (int64_t)s->kv_len - (int64_t)s->q_len)
                    seen = 0;
                visible[(b * s->q_len + i) * s->kv_len + j] = (unsigned char)seen;
            }
    return visible;
}

static int row_is_empty(const unsigned char *visible, size_t kv_len) {
    for (size_t j = 0; j < kv_len; j++)
        if (visible[j])
            return 0;
    return 1;
}

/* used[b][j] is 1 where any row of sequence b sees key j or averages over it. */
static unsigned char *used_keys(const struct shape *s, const unsigned char *visible, attn_empty_rows empty) {
    unsigned char *used = calloc(s->batch * s->kv_len + 1, 1);
    if (!used) {
        perror("oracle");
        exit(EXIT_FAILURE);
    }
    for (size_t row = 0; row < s->batch * s->q_len; row++) {
        const unsigned char *seen = visible + row * s->kv_len;
        int mean = empty == ATTN_EMPTY_MEAN && row_is_empty(seen, s->kv_len);
        for (size_t j = 0; j < s->kv_len; j++)
            if (seen[j] || mean)
                used[row / s->q_len * s->kv_len + j] = 1;
    }
    return used;
}

/* Logits of one row; the magnitude is the largest of the visible ones. */
static double row_logits(const struct shape *s, const double *q, const double *k, const unsigned char *seen,
                         double *logits) {
    double largest = 0;
    for (size_t j = 0; j < s->kv_len; j++) {
        double sum = 0, magnitude = 0;
        logits[j] = -INFINITY;
        if (!seen[j])
            continue;
        for (size_t d = 0; d < s->head_size; d++) {
            sum += q[d] * k[j * s->head_size + d];
            magnitude += fabs(q[d] * k[j * s->head_size + d]);
        }
        logits[j] = sum * s->scale;
        largest = fmax(largest, magnitude * fabs(s->scale));
    }
    return largest;
}

/* Softmax over the visible keys; returns log-sum-exp. */
static double row_weights(const double *logits, const unsigned char *seen, size_t kv_len, attn_empty_rows empty,
                          double *weights) {
    double max = -INFINITY, sum = 0;
    if (row_is_empty(seen, kv_len)) {
        for (size_t j = 0; j < kv_len; j++)
            weights[j] = empty == ATTN_EMPTY_MEAN ? 1.0 / (double)kv_len : 0;
        return -INFINITY;
    }
    for (size_t j = 0; j < kv_len; j++)
        if (seen[j])
            max = fmax(max, logits[j]);
    for (size_t j = 0; j < kv_len; j++)
        if (seen[j])
            sum += exp(logits[j] - max);
    for (size_t j = 0; j < kv_len; j++)
        weights[j] = seen[j] ? exp(logits[j] - max) / sum : 0;
    return max + log(sum);
}

/* A value that the row does not see is not multiplied by 0 but left out: it may be NaN. */
static void row_output(const struct shape *s, const double *weights, const unsigned char *seen, const struct matrix *v,
                       size_t v_start, struct matrix *o, size_t o_start) {
    int mean = row_is_empty(seen, s->kv_len) && s->kv_len && weights[0] > 0;
    for (size_t j = 0; j < s->kv_len; j++)
        for (size_t c = 0; c < s->value_size && (seen[j] || mean); c++) {
            o->value[o_start + c] += weights[j] * v->value[v_start + j * s->value_size + c];
            o->magnitude[o_start + c] += weights[j] * v->magnitude[v_start + j * s->value_size + c];
        }
}

/* Attention over dense matrices; fills everything of `result` but output and magnitude, which go to `o`. */
static void attend(const struct shape *s, const double *q, const double *k, const struct matrix *v,
                   const unsigned char *visible, attn_empty_rows empty, struct matrix *o, struct oracle *result) {
    size_t rows = s->batch * s->heads * s->q_len;
    double *logits = doubles(s->kv_len);
    result->weights = doubles(rows * s->kv_len);
    result->log_sum_exp = doubles(rows);
    result->score_magnitude = doubles(rows);
    for (size_t b = 0; b < s->batch; b++)
        for (size_t h = 0; h < s->heads; h++)
            for (size_t i = 0; i < s->q_len; i++) {
                size_t row = (b * s->heads + h) * s->q_len + i;
                size_t kv_start = (b * s->kv_heads + h / (s->heads / s->kv_heads)) * s->kv_len;
                const unsigned char *seen = visible + (b * s->q_len + i) * s->kv_len;
                double *weights = result->weights + row * s->kv_len;
                result->score_magnitude[row] =
                    row_logits(s, q + row * s->head_size, k + kv_start * s->head_size, seen, logits);
                result->log_sum_exp[row] = row_weights(logits, seen, s->kv_len, empty, weights);
                row_output(s, weights, seen, v, kv_start * s->value_size, o, row * s->value_size);
            }
    free(logits);
}

/* used is NULL, or per [batch, len] whether the element may be read. */
static struct matrix dense(const attn_tensor *t, size_t batch, size_t heads, size_t len, size_t size,
                           const unsigned char *used) {
    struct matrix m = matrix(batch * heads * len * size);
    for (size_t b = 0; b < batch; b++)
        for (size_t h = 0; h < heads; h++)
            for (size_t i = 0; i < len; i++)
                for (size_t c = 0; c < size && (!used || used[b * len + i]); c++) {
                    size_t at = ((b * heads + h) * len + i) * size + c;
                    m.value[at] = (double)t->data[b * t->batch_stride + h * t->head_stride + i * t->row_stride + c];
                    m.magnitude[at] = fabs(m.value[at]);
                }
    return m;
}

void oracle_attention(const attn_attention_args *args, struct oracle *result) {
    struct shape s = {args->batch,
                      args->heads,
                      args->kv_heads ? args->kv_heads : args->heads,
                      args->q_len,
                      args->kv_len,
                      args->head_size,
                      args->value_size ? args->value_size : args->head_size,
                      args->scale != 0 ? (double)args->scale : 1 / sqrt((double)args->head_size)};
    unsigned char *visible = visible_keys(&s, &args->options);
    unsigned char *used = used_keys(&s, visible, args->options.empty);
    struct matrix q = dense(&args->q, s.batch, s.heads, s.q_len, s.head_size, NULL);
    struct matrix k = dense(&args->k, s.batch, s.kv_heads, s.kv_len, s.head_size, used);
    struct matrix v = dense(&args->v, s.batch, s.kv_heads, s.kv_len, s.value_size, used);
    struct matrix o = matrix(s.batch * s.heads * s.q_len * s.value_size);
    attend(&s, q.value, k.value, &v, visible, args->options.empty, &o, result);
    result->output = o.value;
    result->magnitude = o.magnitude;
    matrix_free(q);
    matrix_free(k);
    matrix_free(v);
    free(visible);
    free(used);
}

/* x W + b with the columns split: element [b][h][i][c] is column h * head_size + c of row i of sequence b. */
static struct matrix project(const attn_rows *x, size_t batch, size_t len, size_t in, const attn_linear *w,
                             size_t heads, size_t head_size, const unsigned char *used) {
    struct matrix m = matrix(batch * len * heads * head_size);
    for (size_t b = 0; b < batch; b++)
        for (size_t i = 0; i < len; i++)
            for (size_t n = 0; n < heads * head_size && (!used || used[b * len + i]); n++) {
                const float *row = x->data + b * x->batch_stride + i * x->row_stride;
                size_t at = ((b * heads + n / head_size) * len + i) * head_size + n % head_size;
                m.value[at] = w->bias ? (double)w->bias[n] : 0;
                m.magnitude[at] = fabs(m.value[at]);
                for (size_t p = 0; p < in; p++) {
                    double product = (double)row[p] * (double)w->weight[p * w->in_stride + n * w->out_stride];
                    m.value[at] += product;
                    m.magnitude[at] += fabs(product);
                }
            }
    return m;
}

/* Merges the heads of o and multiplies by W_o. */
static struct matrix project_output(const struct shape *s, const struct matrix *o, const attn_linear *w) {
    size_t hidden = s->heads * s->head_size;
    struct matrix y = matrix(s->batch * s->q_len * hidden);
    for (size_t b = 0; b < s->batch; b++)
        for (size_t i = 0; i < s->q_len; i++)
            for (size_t n = 0; n < hidden; n++) {
                size_t at = (b * s->q_len + i) * hidden + n;
                y.value[at] = w->bias ? (double)w->bias[n] : 0;
                y.magnitude[at] = fabs(y.value[at]);
                for (size_t p = 0; p < hidden; p++) {
                    size_t from = ((b * s->heads + p / s->head_size) * s->q_len + i) * s->head_size + p % s->head_size;
                    double weight = (double)w->weight[p * w->in_stride + n * w->out_stride];
                    y.value[at] += o->value[from] * weight;
                    y.magnitude[at] += o->magnitude[from] * fabs(weight);
                }
            }
    return y;
}

void oracle_layer(const attn_layer_config *config, const attn_layer_args *args, struct oracle *result) {
    size_t head_size = config->hidden / config->heads;
    struct shape s = {args->batch,
                      config->heads,
                      config->kv_heads ? config->kv_heads : config->heads,
                      args->q_len,
                      args->kv_len,
                      head_size,
                      head_size,
                      config->scale != 0 ? (double)config->scale : 1 / sqrt((double)head_size)};
    unsigned char *visible = visible_keys(&s, &args->options);
    unsigned char *used = used_keys(&s, visible, args->options.empty);
    struct matrix q = project(&args->q, s.batch, s.q_len, config->query_size, &config->w_q, s.heads, head_size, NULL);
    struct matrix k = project(&args->k, s.batch, s.kv_len, config->key_size, &config->w_k, s.kv_heads, head_size, used);
    struct matrix v =
        project(&args->v, s.batch, s.kv_len, config->value_size, &config->w_v, s.kv_heads, head_size, used);
    struct matrix o = matrix(s.batch * s.heads * s.q_len * head_size);
    attend(&s, q.value, k.value, &v, visible, args->options.empty, &o, result);
    struct matrix y = project_output(&s, &o, &config->w_o);
    result->output = y.value;
    result->magnitude = y.magnitude;
    matrix_free(q);
    matrix_free(k);
    matrix_free(v);
    matrix_free(o);
    free(visible);
    free(used);
}

void oracle_free(struct oracle *result) {
    free(result->output);
    free(result->magnitude);
    free(result->weights);
    free(result->log_sum_exp);
    free(result->score_magnitude);
    *result = (struct oracle){0};
}
