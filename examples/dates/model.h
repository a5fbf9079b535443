/* The encoder-decoder Transformer that rewrites dates, on libattn: its attention layers, caches and matrix products are
 * the library's, embedding, layer norm and greedy choice are here. All that one date needs is allocated by
 * model_load. */
#ifndef DATES_MODEL_H
#define DATES_MODEL_H

#include "safetensors.h"
#include "vocabulary.h"
#include <attn/attn.h>

#define MODEL_MAX_POSITIONS 1024
#define MODEL_MAX_HIDDEN    4096
#define MODEL_MAX_TEXT      (4 * MODEL_MAX_POSITIONS + 1) /* bytes of an answer in UTF-8 and its final zero */

enum { ENCODER_LAYERS = 2, DECODER_LAYERS = 2, MODEL_MAX_OBJECTS = 32 };

struct norm {
    const float *weight, *bias;
};

struct feed_forward {
    attn_gemm *in, *out;
    struct norm norm;
};

struct encoder_layer {
    attn_layer *self_attention;
    struct norm self_norm;
    struct feed_forward ffn;
};

struct decoder_layer {
    attn_layer *self_attention, *cross_attention;
    attn_cache *self_cache;  /* grows by one position per step */
    attn_cache *cross_cache; /* the source, projected once per date */
    struct norm self_norm, cross_norm;
    struct feed_forward ffn;
};

struct buffer {
    void *data;
    size_t bytes;
};

/* What a model computes with. Zero: the best ISA, all in F32. */
struct model_config {
    attn_isa isa;
    attn_type weights; /* of all products: F32, BF16, F16, INT8 or INT4 */
    /* Of the decoder's caches. With BF16 projected keys and values of the encoder have that type too; with the others,
     * which only caches have, F32. */
    attn_type cache;
};

struct model {
    struct safetensors file; /* holds the weights that are not packed */
    struct vocabulary vocabulary;
    struct model_config config;
    size_t heads, hidden, inner; /* inner: width of the feed-forward's middle */
    size_t width, inner_width;   /* floats from row to row: hidden and inner, and zeros up to whole blocks of INT4 */
    size_t value_size;           /* of a head, likewise */
    size_t positions;            /* longest source or answer */
    const float *embedding;      /* [vocabulary.size, hidden] */
    const float *positional;     /* [positions, hidden] */
    struct encoder_layer encoder[ENCODER_LAYERS];
    struct decoder_layer decoder[DECODER_LAYERS];
    attn_gemm *output;

    struct buffer x, y;      /* rows of `width`: activations, and what is added to them */
    struct buffer middle;    /* rows of `inner_width` */
    struct buffer memory;    /* rows of `width`: the encoder's output */
    struct buffer logits;    /* rows of vocabulary.size */
    struct buffer workspace; /* the library's */
    void *objects[MODEL_MAX_OBJECTS];
    size_t object_count;
};

/* A batch whose answers are known: the decoder sees them whole, not what it would have chosen itself. */
struct forced_batch {
    size_t batch, source_length, target_length; /* lengths at most `positions` */
    const int32_t *source;                      /* [batch, source_length] tokens, padded */
    const int64_t *source_lengths;              /* [batch] how many of them are not padding */
    const int32_t *target;                      /* [batch, target_length] <bos> and the answer's tokens */
    float *cross_weights[DECODER_LAYERS];       /* each NULL, or [batch, heads, target_length, source_length] out */
    const float *encoder_output;                /* out: [batch, source_length, width], until the next call */
    const float *logits;                        /* out: [batch, target_length, vocabulary], likewise */
};

/* "int8", "f8_e4m3"; NULL for a type that neither weights nor caches have. */
const char *model_type_name(attn_type type);

/* The library's failure as an error: `what` was being done. */
bool succeeded(attn_status status, const char *what, const attn_error *fault, struct error *error);
/* Makes the buffer at least `bytes` long; its contents are lost. */
bool buffer_grow(struct buffer *buffer, size_t bytes, struct error *error);
/* Allocates what any single date needs; part of model_create. */
bool model_plan(struct model *model, struct error *error);

/* On success *model owns the file; on failure it is released too. model_free releases both. */
bool model_create(struct model *model, struct safetensors *file, const struct model_config *config,
                  struct error *error);
bool model_load(struct model *model, const char *path, const struct model_config *config, struct error *error);
void model_free(struct model *model);

/* Rewrites one date, `length` source tokens (1 up to model->positions), by greedy decoding: at each step the
 * likeliest token, until <eos>, or <none>, which is the model's answer to what is no date. `answer` holds
 * model->positions tokens. Allocates nothing. */
bool model_rewrite(struct model *model, const int32_t *source, size_t length, int32_t *answer, size_t *answer_length,
                   struct error *error);

/* The same from text to text; `answer` holds MODEL_MAX_TEXT bytes. It is an error where the model answers <none>, or
 * with what is no day of the calendar: a date that cannot be, as 30/2/2023, is answered as it is written. */
bool model_rewrite_text(struct model *model, const char *text, size_t length, char *answer, struct error *error);

/* One pass over a whole batch, without caches. Allocates where the batch is the largest so far. */
bool model_force(struct model *model, struct forced_batch *batch, struct error *error);

/* The same one sequence and one token after the other, through the caches as model_rewrite goes. Writes logits,
 * [batch, target_length, vocabulary], and nothing of `batch`. */
bool model_force_steps(struct model *model, const struct forced_batch *batch, float *logits, struct error *error);

#endif
