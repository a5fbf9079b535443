#include "model.h"
#include "weights.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

const char *model_type_name(attn_type type) {
    static const char *const names[] = {
        [ATTN_F32] = "f32",   [ATTN_BF16] = "bf16",       [ATTN_F16] = "f16",        [ATTN_INT8] = "int8",
        [ATTN_INT4] = "int4", [ATTN_F8_E4M3] = "f8_e4m3", [ATTN_F8_E5M2] = "f8_e5m2"};
    return (size_t)type < sizeof names / sizeof *names ? names[type] : NULL;
}

/* ---- Memory ---- */

bool succeeded(attn_status status, const char *what, const attn_error *fault, struct error *error) {
    char text[128];
    if (status == ATTN_OK)
        return true;
    attn_error_text(fault, text, sizeof text);
    return refuse(error, "%s: %s", what, text);
}

/* `bytes` of memory as the library wants it; aligned_alloc takes multiples of the alignment only. */
static void *allocate(size_t bytes) {
    if (bytes > SIZE_MAX - ATTN_ALIGNMENT)
        return NULL;
    return aligned_alloc(ATTN_ALIGNMENT, (bytes / ATTN_ALIGNMENT + 1) * ATTN_ALIGNMENT);
}

bool buffer_grow(struct buffer *buffer, size_t bytes, struct error *error) {
    if (bytes <= buffer->bytes)
        return true;
    free(buffer->data);
    buffer->data = allocate(bytes);
    buffer->bytes = buffer->data ? bytes : 0;
    return buffer->data || refuse(error, "no memory for %zu bytes", bytes);
}

/* Memory of a library object, released with the model. */
static void *object_memory(struct model *model, size_t bytes, struct error *error) {
    assert(model->object_count < MODEL_MAX_OBJECTS);
    void *memory = allocate(bytes);
    if (memory)
        model->objects[model->object_count++] = memory;
    else
        refuse(error, "no memory for %zu bytes", bytes);
    return memory;
}

/* ---- Weights ---- */

/* The tensor "prefix.suffix" of shape [rows, cols], or [rows] where cols is 0. */
static const float *get(const struct model *model, const char *prefix, const char *suffix, size_t rows, size_t cols,
                        struct error *error) {
    char name[96];
    snprintf(name, sizeof name, "%s.%s", prefix, suffix);
    return safetensors_get(&model->file, name, DTYPE_F32, cols ? 2 : 1, (const size_t[]){rows, cols}, error);
}

static bool get_norm(const struct model *model, const char *prefix, const char *suffix, struct norm *norm,
                     struct error *error) {
    char name[64];
    snprintf(name, sizeof name, "%s.%s", prefix, suffix);
    norm->weight = get(model, name, "weight", model->hidden, 0, error);
    norm->bias = norm->weight ? get(model, name, "bias", model->hidden, 0, error) : NULL;
    return norm->bias != NULL;
}

/* `size` rows or columns and the zeros up to `width`. */
static struct side padded(size_t size, size_t width) {
    return (struct side){1, size, width};
}

static bool pack_gemm(struct model *model, const char *name, const struct weights *weights, size_t in, size_t out,
                      attn_gemm **gemm, struct error *error) {
    const attn_gemm_config config = {
        .isa = model->config.isa, .k = in, .n = out, .w = weights->linear, .arithmetic = ATTN_ARITHMETIC_PORTABLE};
    attn_error fault = {0};
    size_t bytes = 0;
    if (!succeeded(attn_gemm_size(&config, &bytes, &fault), name, &fault, error))
        return false;
    void *memory = object_memory(model, bytes, error);
    return memory && succeeded(attn_gemm_create(&config, memory, bytes, gemm, &fault), name, &fault, error);
}

static bool create_gemm(struct model *model, const char *prefix, const char *suffix, struct side in, struct side out,
                        attn_gemm **gemm, struct error *error) {
    char name[64];
    snprintf(name, sizeof name, "%s%s", prefix, suffix);
    const float *weight = get(model, name, "weight", out.size, in.size, error);
    const float *bias = weight ? get(model, name, "bias", out.size, 0, error) : NULL;
    if (!bias)
        return false;
    struct weights weights;
    const bool ok = weights_make(&weights, model->config.weights, weight, bias, out, in, error) &&
                    pack_gemm(model, name, &weights, in.room, out.room, gemm, error);
    weights_free(&weights);
    return ok;
}

enum { PROJECTIONS = 4 };

/* The weights of W_q, W_k, W_v and W_o. The values of each head are padded as rows are. */
static bool make_projections(const struct model *model, const char *name, struct weights *weights,
                             struct error *error) {
    static const char *const names[PROJECTIONS] = {"W_q.weight", "W_k.weight", "W_v.weight", "W_o.weight"};
    const size_t hidden = model->hidden;
    const struct side rows = padded(hidden, model->width), heads = padded(hidden, hidden);
    const struct side values = {model->heads, hidden / model->heads, model->value_size};
    const struct side in[PROJECTIONS] = {rows, rows, rows, values}, out[PROJECTIONS] = {heads, heads, values, rows};
    for (size_t i = 0; i < PROJECTIONS; i++) {
        const float *weight = get(model, name, names[i], hidden, hidden, error);
        if (!weight || !weights_make(&weights[i], model->config.weights, weight, NULL, out[i], in[i], error))
            return false;
    }
    return true;
}

static bool pack_attention(struct model *model, const char *name, const struct weights *weights, attn_layer **layer,
                           struct error *error) {
    const attn_layer_config config = {.isa = model->config.isa,
                                      .arithmetic = ATTN_ARITHMETIC_PORTABLE,
                                      .query_width = model->width,
                                      .key_width = model->width,
                                      .value_width = model->width,
                                      .hidden = model->hidden,
                                      .heads = model->heads,
                                      .value_size = model->value_size,
                                      .out_size = model->width,
                                      .kv_type = model->config.cache == ATTN_BF16 ? ATTN_BF16 : ATTN_F32,
                                      .w_q = weights[0].linear,
                                      .w_k = weights[1].linear,
                                      .w_v = weights[2].linear,
                                      .w_o = weights[3].linear};
    attn_error fault = {0};
    size_t bytes = 0;
    if (!succeeded(attn_layer_size(&config, &bytes, &fault), name, &fault, error))
        return false;
    void *memory = object_memory(model, bytes, error);
    return memory && succeeded(attn_layer_create(&config, memory, bytes, layer, &fault), name, &fault, error);
}

static bool create_attention(struct model *model, const char *prefix, const char *suffix, attn_layer **layer,
                             struct error *error) {
    struct weights weights[PROJECTIONS] = {{.floats = NULL}};
    char name[64];
    snprintf(name, sizeof name, "%s%s", prefix, suffix);
    const bool ok = make_projections(model, name, weights, error) && pack_attention(model, name, weights, layer, error);
    for (size_t i = 0; i < PROJECTIONS; i++)
        weights_free(&weights[i]);
    return ok;
}

/* A cache for one date. */
static bool create_cache(struct model *model, const attn_layer *layer, attn_cache **cache, struct error *error) {
    attn_cache_config config;
    attn_error fault = {0};
    size_t bytes = 0;
    if (!succeeded(attn_layer_cache_config(layer, 1, model->positions, &config, &fault), "cache", &fault, error))
        return false;
    config.type = model->config.cache;
    if (!succeeded(attn_cache_size(&config, &bytes, &fault), "cache", &fault, error))
        return false;
    void *memory = object_memory(model, bytes, error);
    return memory && succeeded(attn_cache_create(&config, memory, bytes, cache, &fault), "cache", &fault, error);
}

/* ---- Layers ---- */

static bool create_feed_forward(struct model *model, const char *prefix, struct feed_forward *ffn,
                                struct error *error) {
    const struct side rows = padded(model->hidden, model->width), middle = padded(model->inner, model->inner_width);
    return create_gemm(model, prefix, ".ffn_in", rows, middle, &ffn->in, error) &&
           create_gemm(model, prefix, ".ffn_out", middle, rows, &ffn->out, error) &&
           get_norm(model, prefix, "norm3", &ffn->norm, error);
}

static bool create_encoder_layer(struct model *model, size_t index, struct error *error) {
    struct encoder_layer *layer = &model->encoder[index];
    char prefix[32];
    snprintf(prefix, sizeof prefix, "encoder.%zu", index);
    return create_attention(model, prefix, ".self_attention", &layer->self_attention, error) &&
           get_norm(model, prefix, "norm1", &layer->self_norm, error) &&
           create_feed_forward(model, prefix, &layer->ffn, error);
}

static bool create_decoder_layer(struct model *model, size_t index, struct error *error) {
    struct decoder_layer *layer = &model->decoder[index];
    char prefix[32];
    snprintf(prefix, sizeof prefix, "decoder.%zu", index);
    return create_attention(model, prefix, ".self_attention", &layer->self_attention, error) &&
           create_attention(model, prefix, ".cross_attention", &layer->cross_attention, error) &&
           get_norm(model, prefix, "norm1", &layer->self_norm, error) &&
           get_norm(model, prefix, "norm2", &layer->cross_norm, error) &&
           create_feed_forward(model, prefix, &layer->ffn, error) &&
           create_cache(model, layer->self_attention, &layer->self_cache, error) &&
           create_cache(model, layer->cross_attention, &layer->cross_cache, error);
}

/* ---- Sizes ---- */

static bool read_size(const struct safetensors *file, const char *key, size_t *value, struct error *error) {
    const char *text = safetensors_metadata(file, key, error);
    if (!text)
        return false;
    const size_t digits = strspn(text, "0123456789");
    *value = digits > 0 && digits < 6 && !text[digits] ? strtoul(text, NULL, 10) : 0;
    if (*value == 0 || *value > MODEL_MAX_HIDDEN)
        return refuse(error, "__metadata__ \"%s\" is \"%s\", not an integer from 1 to %d", key, text, MODEL_MAX_HIDDEN);
    return true;
}

/* The first size of a tensor; every other one is checked when it is used. */
static bool first_size(const struct safetensors *file, const char *name, size_t rank, size_t *size,
                       struct error *error) {
    const struct tensor *tensor = safetensors_find(file, name);
    if (!tensor)
        return refuse(error, "tensor \"%s\" is missing", name);
    if (tensor->rank != rank)
        return refuse(error, "tensor \"%s\" has %zu dimensions, not %zu", name, tensor->rank, rank);
    *size = tensor->shape[0];
    return *size > 0 || refuse(error, "tensor \"%s\" is empty", name);
}

/* What a product of the model's weights takes of k: blocks of INT4 are whole. */
static size_t width_of(const struct model *model, size_t size) {
    const size_t block = model->config.weights == ATTN_INT4 ? WEIGHTS_BLOCK : 1;
    return (size + block - 1) / block * block;
}

static void set_widths(struct model *model) {
    model->width = width_of(model, model->hidden);
    model->inner_width = width_of(model, model->inner);
    model->value_size = width_of(model, model->hidden / model->heads);
}

static bool read_sizes(struct model *model, struct error *error) {
    const struct safetensors *file = &model->file;
    const char *vocab = safetensors_metadata(file, "vocab", error);
    size_t tokens = 0;
    if (!vocab || !vocabulary_parse(&model->vocabulary, vocab, error) ||
        !read_size(file, "heads", &model->heads, error) || !read_size(file, "hidden", &model->hidden, error) ||
        !first_size(file, "embedding.weight", 2, &tokens, error) ||
        !first_size(file, "encoder.0.ffn_in.bias", 1, &model->inner, error) ||
        !first_size(file, "positional_encoding", 2, &model->positions, error))
        return false;
    if (model->hidden % model->heads != 0)
        return refuse(error, "heads: %zu do not divide hidden %zu", model->heads, model->hidden);
    if (tokens != model->vocabulary.size)
        return refuse(error, "vocab: %zu entries, but embedding.weight has %zu rows", model->vocabulary.size, tokens);
    if (model->positions > MODEL_MAX_POSITIONS)
        return refuse(error, "positional_encoding: %zu rows, more than %d", model->positions, MODEL_MAX_POSITIONS);
    return true;
}

/* ---- Model ---- */

static bool create_parts(struct model *model, struct error *error) {
    if (!read_sizes(model, error))
        return false;
    model->embedding = get(model, "embedding", "weight", model->vocabulary.size, model->hidden, error);
    if (!model->embedding)
        return false;
    model->positional = safetensors_get(&model->file, "positional_encoding", DTYPE_F32, 2,
                                        (const size_t[]){model->positions, model->hidden}, error);
    if (!model->positional)
        return false;
    set_widths(model);
    for (size_t i = 0; i < ENCODER_LAYERS; i++)
        if (!create_encoder_layer(model, i, error))
            return false;
    for (size_t i = 0; i < DECODER_LAYERS; i++)
        if (!create_decoder_layer(model, i, error))
            return false;
    const size_t tokens = model->vocabulary.size;
    return create_gemm(model, "output", "", padded(model->hidden, model->width), padded(tokens, tokens), &model->output,
                       error) &&
           model_plan(model, error);
}

bool model_create(struct model *model, struct safetensors *file, const struct model_config *config,
                  struct error *error) {
    *model = (struct model){.file = *file, .config = *config};
    if (config->isa == ATTN_ISA_BEST)
        model->config.isa = attn_isa_chosen();
    *file = (struct safetensors){0};
    if (create_parts(model, error))
        return true;
    model_free(model);
    return false;
}

bool model_load(struct model *model, const char *path, const struct model_config *config, struct error *error) {
    struct safetensors file;
    struct error cause;
    *model = (struct model){0};
    if (!safetensors_read(&file, path, error))
        return false;
    return model_create(model, &file, config, &cause) || refuse(error, "%s: %s", path, cause.text);
}

void model_free(struct model *model) {
    struct buffer *const buffers[] = {&model->x,      &model->y,      &model->middle,
                                      &model->memory, &model->logits, &model->workspace};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        free(buffers[i]->data);
    for (size_t i = 0; i < model->object_count; i++)
        free(model->objects[i]);
    safetensors_free(&model->file);
    *model = (struct model){0};
}
