#include "model.h"
#include "calendar.h"
#include <math.h>
#include <string.h>

#define NORM_EPSILON 1e-5f
#define SUM_LANES    8

/* ---- What is not the library's: embedding, layer norm, relu, greedy choice ---- */

/* x[b, i] = embedding[tokens[b, i]] * sqrt(hidden) + positional[first + i] */
static void embed(const struct model *model, size_t batch, size_t length, size_t first, const int32_t *tokens) {
    const size_t hidden = model->hidden;
    const float factor = sqrtf((float)hidden);
    float *x = model->x.data;
    for (size_t row = 0; row < batch * length; row++, x += model->width) {
        const float *embedding = model->embedding + (size_t)tokens[row] * hidden;
        const float *positional = model->positional + (first + row % length) * hidden;
        for (size_t j = 0; j < hidden; j++)
            x[j] = embedding[j] * factor + positional[j];
        for (size_t j = hidden; j < model->width; j++)
            x[j] = 0;
    }
}

/* The sum of x[j] * (square ? x[j] : 1), in independent lanes that a compiler can keep in one register. */
static float lane_sum(const float *x, size_t n, bool square) {
    float lanes[SUM_LANES] = {0};
    size_t j = 0;
    for (; j + SUM_LANES <= n; j += SUM_LANES)
        for (size_t lane = 0; lane < SUM_LANES; lane++)
            lanes[lane] += square ? x[j + lane] * x[j + lane] : x[j + lane];
    for (; j < n; j++)
        lanes[j % SUM_LANES] += square ? x[j] * x[j] : x[j];
    float sum = 0;
    for (size_t lane = 0; lane < SUM_LANES; lane++)
        sum += lanes[lane];
    return sum;
}

/* x = norm(x + y), row by row. */
static void add_and_normalise(const struct model *model, const struct norm *norm, size_t rows) {
    const size_t hidden = model->hidden;
    float *x = model->x.data;
    const float *y = model->y.data;
    for (size_t row = 0; row < rows; row++, x += model->width, y += model->width) {
        for (size_t j = 0; j < hidden; j++)
            x[j] += y[j];
        const float mean = lane_sum(x, hidden, false) / (float)hidden;
        for (size_t j = 0; j < hidden; j++)
            x[j] -= mean;
        const float factor = 1 / sqrtf(lane_sum(x, hidden, true) / (float)hidden + NORM_EPSILON);
        for (size_t j = 0; j < hidden; j++)
            x[j] = x[j] * factor * norm->weight[j] + norm->bias[j];
    }
}

static void relu(float *x, size_t n) {
    for (size_t i = 0; i < n; i++)
        x[i] = x[i] > 0 ? x[i] : 0;
}

static int32_t likeliest(const float *logits, size_t n) {
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = i;
    return (int32_t)best;
}

/* ---- Arguments of the attention layers: queries in x, results in y ---- */

static attn_tensor rows_of(const struct model *model, const float *data, size_t length) {
    return (attn_tensor){.data = data, .batch_stride = length * model->width, .row_stride = model->width};
}

static attn_layer_args query_args(const struct model *model, size_t batch, size_t length) {
    return (attn_layer_args){.batch = batch,
                             .q_len = length,
                             .q = rows_of(model, model->x.data, length),
                             .y = {model->y.data, .batch_stride = length * model->width, .row_stride = model->width}};
}

/* Keys and values are projected from rows: those of x (self-attention) or of memory (cross-attention). */
static attn_layer_args rows_args(const struct model *model, size_t batch, size_t length, const float *keys,
                                 size_t key_length, const int64_t *key_lengths) {
    attn_layer_args args = query_args(model, batch, length);
    args.kv_len = key_length;
    args.k = args.v = rows_of(model, keys, key_length);
    if (key_lengths)
        args.options.valid = (attn_valid_lens){.kind = ATTN_VALID_PER_SEQUENCE, .lens.i64 = key_lengths};
    return args;
}

static attn_layer_args self_args(const struct model *model, size_t batch, size_t length, const int64_t *lengths) {
    return rows_args(model, batch, length, model->x.data, length, lengths);
}

/* One decoding step attends to what the cache holds. */
static attn_layer_args cache_args(const struct model *model, const attn_cache *cache) {
    attn_layer_args args = query_args(model, 1, 1);
    args.cache = cache;
    return args;
}

static attn_layer_append_args append_args(const struct model *model, size_t length, attn_cache *cache) {
    const attn_tensor x = rows_of(model, model->x.data, length);
    return (attn_layer_append_args){.len = length, .k = x, .v = x, .cache = cache};
}

/* ---- Sublayers: x = norm(x + sublayer(x)) ---- */

static bool attend(struct model *model, const attn_layer *layer, const struct norm *norm, const attn_layer_args *args,
                   struct error *error) {
    attn_error fault = {0};
    const attn_status status = attn_layer_forward(layer, args, model->workspace.data, model->workspace.bytes, &fault);
    if (!succeeded(status, "attention", &fault, error))
        return false;
    add_and_normalise(model, norm, args->batch * args->q_len);
    return true;
}

static bool append(struct model *model, const attn_layer *layer, size_t length, attn_cache *cache,
                   struct error *error) {
    const attn_layer_append_args args = append_args(model, length, cache);
    attn_error fault = {0};
    const attn_status status = attn_layer_append(layer, &args, model->workspace.data, model->workspace.bytes, &fault);
    return succeeded(status, "append", &fault, error);
}

/* Rows of `in` floats, `out` from row to row of y. */
static attn_gemm_run_args product_args(size_t rows, const float *x, size_t in, float *y, size_t out) {
    return (attn_gemm_run_args){.m = rows, .x = {.data = x, .row_stride = in}, .y = {.data = y, .row_stride = out}};
}

static bool multiply(struct model *model, const attn_gemm *gemm, attn_gemm_run_args args, struct error *error) {
    attn_error fault = {0};
    args.workspace = model->workspace.data;
    args.workspace_bytes = model->workspace.bytes;
    return succeeded(attn_gemm_run(gemm, &args, &fault), "gemm", &fault, error);
}

static attn_gemm_run_args in_args(const struct model *model, size_t rows) {
    return product_args(rows, model->x.data, model->width, model->middle.data, model->inner_width);
}

static attn_gemm_run_args out_args(const struct model *model, size_t rows) {
    return product_args(rows, model->middle.data, model->inner_width, model->y.data, model->width);
}

static attn_gemm_run_args logits_args(const struct model *model, size_t rows) {
    return product_args(rows, model->x.data, model->width, model->logits.data, model->vocabulary.size);
}

static bool feed_forward(struct model *model, const struct feed_forward *ffn, size_t rows, struct error *error) {
    if (!multiply(model, ffn->in, in_args(model, rows), error))
        return false;
    relu(model->middle.data, rows * model->inner_width);
    if (!multiply(model, ffn->out, out_args(model, rows), error))
        return false;
    add_and_normalise(model, &ffn->norm, rows);
    return true;
}

static bool project_logits(struct model *model, size_t rows, struct error *error) {
    return multiply(model, model->output, logits_args(model, rows), error);
}

/* ---- Encoder and decoder ---- */

/* Leaves the encoder's output in x. */
static bool encode(struct model *model, size_t batch, size_t length, const int32_t *source, const int64_t *lengths,
                   struct error *error) {
    embed(model, batch, length, 0, source);
    for (size_t i = 0; i < ENCODER_LAYERS; i++) {
        const struct encoder_layer *layer = &model->encoder[i];
        const attn_layer_args args = self_args(model, batch, length, lengths);
        if (!attend(model, layer->self_attention, &layer->self_norm, &args, error) ||
            !feed_forward(model, &layer->ffn, batch * length, error))
            return false;
    }
    return true;
}

/* Empties the caches and projects the encoder's output, `length` rows of x, into those of the cross-attention. */
static bool begin_decoding(struct model *model, size_t length, struct error *error) {
    for (size_t i = 0; i < DECODER_LAYERS; i++) {
        const struct decoder_layer *layer = &model->decoder[i];
        attn_error fault = {0};
        if (!succeeded(attn_cache_truncate(layer->self_cache, ATTN_ALL_SEQUENCES, 0, &fault), "cache", &fault, error) ||
            !succeeded(attn_cache_truncate(layer->cross_cache, ATTN_ALL_SEQUENCES, 0, &fault), "cache", &fault,
                       error) ||
            !append(model, layer->cross_attention, length, layer->cross_cache, error))
            return false;
    }
    return true;
}

/* One token through the decoder; its logits predict the token at position + 1. */
static bool decode_step(struct model *model, int32_t token, size_t position, struct error *error) {
    embed(model, 1, 1, position, &token);
    for (size_t i = 0; i < DECODER_LAYERS; i++) {
        const struct decoder_layer *layer = &model->decoder[i];
        if (!append(model, layer->self_attention, 1, layer->self_cache, error))
            return false;
        attn_layer_args self = cache_args(model, layer->self_cache);
        self.options.causal = 1;
        const attn_layer_args cross = cache_args(model, layer->cross_cache);
        if (!attend(model, layer->self_attention, &layer->self_norm, &self, error) ||
            !attend(model, layer->cross_attention, &layer->cross_norm, &cross, error) ||
            !feed_forward(model, &layer->ffn, 1, error))
            return false;
    }
    return project_logits(model, 1, error);
}

bool model_rewrite(struct model *model, const int32_t *source, size_t length, int32_t *answer, size_t *answer_length,
                   struct error *error) {
    const int64_t source_length = (int64_t)length;
    if (length == 0 || length > model->positions)
        return refuse(error, "%zu tokens, not 1 to %zu", length, model->positions);
    *answer_length = 0;
    if (!encode(model, 1, length, source, &source_length, error) || !begin_decoding(model, length, error))
        return false;
    int32_t token = TOKEN_BOS;
    for (size_t position = 0; position < model->positions; position++) {
        if (!decode_step(model, token, position, error))
            return false;
        token = likeliest(model->logits.data, model->vocabulary.size);
        if (token == TOKEN_EOS)
            break;
        answer[(*answer_length)++] = token;
        if (token == TOKEN_NONE)
            break;
    }
    return true;
}

bool model_rewrite_text(struct model *model, const char *text, size_t length, char *answer, struct error *error) {
    int32_t source[MODEL_MAX_POSITIONS], tokens[MODEL_MAX_POSITIONS];
    size_t source_length, token_count;
    if (!vocabulary_encode(&model->vocabulary, text, length, source, model->positions, &source_length, error) ||
        !model_rewrite(model, source, source_length, tokens, &token_count, error))
        return false;
    if (token_count > 0 && tokens[token_count - 1] == TOKEN_NONE)
        return refuse(error, "the model sees no date in it");
    vocabulary_decode(&model->vocabulary, tokens, token_count, answer);
    return calendar_has(answer) || refuse(error, "the model reads \"%s\", which is no day of the calendar", answer);
}

/* ---- Memory for one date ---- */

/* Room for `rows` rows of activations. */
static bool reserve_rows(struct model *model, size_t rows, struct error *error) {
    return buffer_grow(&model->x, rows * model->width * sizeof(float), error) &&
           buffer_grow(&model->y, rows * model->width * sizeof(float), error) &&
           buffer_grow(&model->middle, rows * model->inner_width * sizeof(float), error) &&
           buffer_grow(&model->logits, rows * model->vocabulary.size * sizeof(float), error);
}

static bool reserve_product(struct model *model, const attn_gemm *gemm, attn_gemm_run_args args, struct error *error) {
    attn_error fault = {0};
    size_t bytes = 0;
    return succeeded(attn_gemm_workspace(gemm, &args, &bytes, &fault), "workspace", &fault, error) &&
           buffer_grow(&model->workspace, bytes, error);
}

/* Workspace of the products of `rows` rows, for which there is room. */
static bool reserve_products(struct model *model, size_t rows, struct error *error) {
    const struct feed_forward *ffn = &model->encoder[0].ffn;
    return reserve_product(model, ffn->in, in_args(model, rows), error) &&
           reserve_product(model, ffn->out, out_args(model, rows), error) &&
           reserve_product(model, model->output, logits_args(model, rows), error);
}

static bool reserve_attend(struct model *model, const attn_layer *layer, const attn_layer_args *args,
                           struct error *error) {
    attn_error fault = {0};
    size_t bytes = 0;
    return succeeded(attn_layer_workspace(layer, args, &bytes, &fault), "workspace", &fault, error) &&
           buffer_grow(&model->workspace, bytes, error);
}

static bool reserve_append(struct model *model, const attn_layer *layer, size_t length, attn_cache *cache,
                           struct error *error) {
    const attn_layer_append_args args = append_args(model, length, cache);
    attn_error fault = {0};
    size_t bytes = 0;
    return succeeded(attn_layer_append_workspace(layer, &args, &bytes, &fault), "workspace", &fault, error) &&
           buffer_grow(&model->workspace, bytes, error);
}

/* Workspace of everything that a date of the most characters calls: what serves that serves shorter ones. Layers of a
 * kind are of one size. */
bool model_plan(struct model *model, struct error *error) {
    const struct decoder_layer *decoder = &model->decoder[0];
    const int64_t source_length = (int64_t)model->positions;
    const attn_layer_args encoder_self = self_args(model, 1, model->positions, &source_length);
    const attn_layer_args cross = cache_args(model, decoder->cross_cache);
    attn_layer_args self = cache_args(model, decoder->self_cache);
    self.options.causal = 1;
    return reserve_rows(model, model->positions, error) && reserve_products(model, model->positions, error) &&
           reserve_attend(model, model->encoder[0].self_attention, &encoder_self, error) &&
           reserve_append(model, decoder->cross_attention, model->positions, decoder->cross_cache, error) &&
           reserve_append(model, decoder->self_attention, 1, decoder->self_cache, error) &&
           reserve_attend(model, decoder->self_attention, &self, error) &&
           reserve_attend(model, decoder->cross_attention, &cross, error);
}

/* ---- Whole batches ---- */

static attn_layer_args forced_self_args(const struct model *model, const struct forced_batch *batch) {
    attn_layer_args args = self_args(model, batch->batch, batch->target_length, NULL);
    args.options.causal = 1;
    return args;
}

static attn_layer_args forced_cross_args(const struct model *model, const struct forced_batch *batch, size_t layer) {
    attn_layer_args args = rows_args(model, batch->batch, batch->target_length, model->memory.data,
                                     batch->source_length, batch->source_lengths);
    args.options.weights.data = batch->cross_weights[layer];
    return args;
}

static bool reserve_batch(struct model *model, const struct forced_batch *batch, struct error *error) {
    const size_t length = batch->source_length > batch->target_length ? batch->source_length : batch->target_length;
    const size_t memory = batch->batch * batch->source_length * model->width * sizeof(float);
    if (!reserve_rows(model, batch->batch * length, error) || !reserve_products(model, batch->batch * length, error) ||
        !buffer_grow(&model->memory, memory, error))
        return false;
    const attn_layer_args encoder = self_args(model, batch->batch, batch->source_length, batch->source_lengths);
    const attn_layer_args self = forced_self_args(model, batch);
    if (!reserve_attend(model, model->encoder[0].self_attention, &encoder, error) ||
        !reserve_attend(model, model->decoder[0].self_attention, &self, error))
        return false;
    for (size_t i = 0; i < DECODER_LAYERS; i++) {
        const attn_layer_args cross = forced_cross_args(model, batch, i);
        if (!reserve_attend(model, model->decoder[i].cross_attention, &cross, error))
            return false;
    }
    return true;
}

static bool decode_batch(struct model *model, const struct forced_batch *batch, struct error *error) {
    const size_t rows = batch->batch * batch->target_length;
    embed(model, batch->batch, batch->target_length, 0, batch->target);
    for (size_t i = 0; i < DECODER_LAYERS; i++) {
        const struct decoder_layer *layer = &model->decoder[i];
        const attn_layer_args self = forced_self_args(model, batch);
        const attn_layer_args cross = forced_cross_args(model, batch, i);
        if (!attend(model, layer->self_attention, &layer->self_norm, &self, error) ||
            !attend(model, layer->cross_attention, &layer->cross_norm, &cross, error) ||
            !feed_forward(model, &layer->ffn, rows, error))
            return false;
    }
    return project_logits(model, rows, error);
}

static bool lengths_fit(const struct model *model, const struct forced_batch *batch, struct error *error) {
    return (batch->source_length <= model->positions && batch->target_length <= model->positions) ||
           refuse(error, "lengths %zu and %zu, not at most %zu", batch->source_length, batch->target_length,
                  model->positions);
}

bool model_force(struct model *model, struct forced_batch *batch, struct error *error) {
    if (!lengths_fit(model, batch, error) || !reserve_batch(model, batch, error) ||
        !encode(model, batch->batch, batch->source_length, batch->source, batch->source_lengths, error))
        return false;
    memcpy(model->memory.data, model->x.data, batch->batch * batch->source_length * model->width * sizeof(float));
    batch->encoder_output = model->memory.data;
    batch->logits = model->logits.data;
    return decode_batch(model, batch, error);
}

bool model_force_steps(struct model *model, const struct forced_batch *batch, float *logits, struct error *error) {
    const size_t size = model->vocabulary.size;
    if (!lengths_fit(model, batch, error))
        return false;
    for (size_t b = 0; b < batch->batch; b++) {
        const size_t length = (size_t)batch->source_lengths[b];
        if (!encode(model, 1, length, batch->source + b * batch->source_length, &batch->source_lengths[b], error) ||
            !begin_decoding(model, length, error))
            return false;
        for (size_t i = 0; i < batch->target_length; i++, logits += size) {
            if (!decode_step(model, batch->target[b * batch->target_length + i], i, error))
                return false;
            memcpy(logits, model->logits.data, size * sizeof(float));
        }
    }
    return true;
}
