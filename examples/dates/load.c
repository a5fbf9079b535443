#include "model.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

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

/* PyTorch stores a weight [out, in]: neighbours along `in` are 1 apart, along `out` as many as there are inputs. */
static bool create_gemm(struct model *model, const char *prefix, const char *suffix, size_t in, size_t out,
                        attn_gemm **gemm, struct error *error) {
    char name[64];
    attn_error fault = {0};
    size_t bytes = 0;
    snprintf(name, sizeof name, "%s%s", prefix, suffix);
    attn_gemm_config config = {.isa = model->isa, .k = in, .n = out, .w = {.in_stride = 1, .out_stride = in}};
    config.w.weight = get(model, name, "weight", out, in, error);
    config.w.bias = config.w.weight ? get(model, name, "bias", out, 0, error) : NULL;
    if (!config.w.bias || !succeeded(attn_gemm_size(&config, &bytes, &fault), name, &fault, error))
        return false;
    void *memory = object_memory(model, bytes, error);
    return memory && succeeded(attn_gemm_create(&config, memory, bytes, gemm, &fault), name, &fault, error);
}

static bool create_attention(struct model *model, const char *prefix, const char *suffix, attn_layer **layer,
                             struct error *error) {
    const size_t hidden = model->hidden;
    const char *const weights[] = {"W_q.weight", "W_k.weight", "W_v.weight", "W_o.weight"};
    attn_layer_config config = {.isa = model->isa,
                                .query_width = hidden,
                                .key_width = hidden,
                                .value_width = hidden,
                                .hidden = hidden,
                                .heads = model->heads};
    attn_linear *const linears[] = {&config.w_q, &config.w_k, &config.w_v, &config.w_o};
    char name[64];
    attn_error fault = {0};
    size_t bytes = 0;
    snprintf(name, sizeof name, "%s%s", prefix, suffix);
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++) {
        const float *weight = get(model, name, weights[i], hidden, hidden, error);
        if (!weight)
            return false;
        *linears[i] = attn_linear_transposed(weight, ATTN_F32, hidden, NULL);
    }
    if (!succeeded(attn_layer_size(&config, &bytes, &fault), name, &fault, error))
        return false;
    void *memory = object_memory(model, bytes, error);
    return memory && succeeded(attn_layer_create(&config, memory, bytes, layer, &fault), name, &fault, error);
}

/* A cache for one date. */
static bool create_cache(struct model *model, const attn_layer *layer, attn_cache **cache, struct error *error) {
    attn_cache_config config;
    attn_error fault = {0};
    size_t bytes = 0;
    if (!succeeded(attn_layer_cache_config(layer, 1, model->positions, &config, &fault), "cache", &fault, error) ||
        !succeeded(attn_cache_size(&config, &bytes, &fault), "cache", &fault, error))
        return false;
    void *memory = object_memory(model, bytes, error);
    return memory && succeeded(attn_cache_create(&config, memory, bytes, cache, &fault), "cache", &fault, error);
}

/* ---- Layers ---- */

static bool create_feed_forward(struct model *model, const char *prefix, struct feed_forward *ffn,
                                struct error *error) {
    return create_gemm(model, prefix, ".ffn_in", model->hidden, model->inner, &ffn->in, error) &&
           create_gemm(model, prefix, ".ffn_out", model->inner, model->hidden, &ffn->out, error) &&
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
    for (size_t i = 0; i < ENCODER_LAYERS; i++)
        if (!create_encoder_layer(model, i, error))
            return false;
    for (size_t i = 0; i < DECODER_LAYERS; i++)
        if (!create_decoder_layer(model, i, error))
            return false;
    return create_gemm(model, "output", "", model->hidden, model->vocabulary.size, &model->output, error) &&
           model_plan(model, error);
}

bool model_create(struct model *model, struct safetensors *file, attn_isa isa, struct error *error) {
    *model = (struct model){.file = *file, .isa = isa == ATTN_ISA_BEST ? attn_isa_chosen() : isa};
    *file = (struct safetensors){0};
    if (create_parts(model, error))
        return true;
    model_free(model);
    return false;
}

bool model_load(struct model *model, const char *path, attn_isa isa, struct error *error) {
    struct safetensors file;
    struct error cause;
    *model = (struct model){0};
    if (!safetensors_read(&file, path, error))
        return false;
    return model_create(model, &file, isa, &cause) || refuse(error, "%s: %s", path, cause.text);
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
