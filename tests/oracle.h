/* What attention and the layer should give, in double precision and the slow way: every matrix of the formula is an
 * array. Shares nothing with the library but the argument structs. */
#ifndef TESTS_ORACLE_H
#define TESTS_ORACLE_H

#include <attn/attn.h>

/* Dense arrays, also of packed sequences: what is beyond a sequence's own rows and keys is 0, but scores of its rows
 * beyond its keys are -inf. Free with oracle_free. Rounding errors are proportional to the magnitudes. */
struct oracle {
    double *output;           /* attention: [batch, heads, q_len, value_size]; layer: [batch, q_len, hidden] */
    double *magnitude;        /* shaped as output: the same sums with every product replaced by its absolute value */
    double *weights;          /* [batch, heads, q_len, kv_len] */
    double *scores;           /* shaped as weights: logits after options.score_stage, -inf where a key is hidden */
    double *scores_magnitude; /* shaped as weights: the sum of the absolute values of all that a logit is made of */
    double *logit_magnitude;  /* the same after the last stage */
    double *log_sum_exp;      /* [batch, heads, q_len] */
    double *score_magnitude;  /* [batch, heads, q_len]: the largest logit_magnitude of keys that count in the output */
};

/* Neither caches nor dropout: give keys and values as tensors. `rotary` is what options.rotary was made of, or NULL. A
 * key and a value have no effect on rows that do not see them. */
void oracle_attention(const attn_attention_args *args, const attn_rotary_config *rotary, struct oracle *result);

/* The config must still have its weights. */
void oracle_layer(const attn_layer_config *config, const attn_layer_args *args, const attn_rotary_config *rotary,
                  struct oracle *result);

void oracle_free(struct oracle *result);

/* 1 where query row `row` of a head of sequence `b` sees key `key`. */
int oracle_sees(const attn_attention_args *args, size_t b, size_t head, size_t row, size_t key);

#endif
