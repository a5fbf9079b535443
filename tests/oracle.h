/* What attention and the layer should give, in double precision and the slow way: every matrix of the formula is an
 * array. Shares nothing with the library but the argument structs. */
#ifndef TESTS_ORACLE_H
#define TESTS_ORACLE_H

#include <attn/attn.h>

/* Dense arrays; free with oracle_free. The magnitudes are what rounding errors are proportional to. */
struct oracle {
    double *output;          /* attention: [batch, heads, q_len, value_size]; layer: [batch, q_len, hidden] */
    double *magnitude;       /* shaped as output: the same sums with every product replaced by its absolute value */
    double *weights;         /* [batch, heads, q_len, kv_len] */
    double *log_sum_exp;     /* [batch, heads, q_len]; of an empty row -inf, whatever the policy */
    double *score_magnitude; /* [batch, heads, q_len]: the largest sum of |q * k| * scale of a visible key */
};

/* Neither caches nor dropout: give keys and values as tensors. Keys and values that no row sees are not read. */
void oracle_attention(const attn_attention_args *args, struct oracle *result);

/* The config must still have its weights. */
void oracle_layer(const attn_layer_config *config, const attn_layer_args *args, struct oracle *result);

void oracle_free(struct oracle *result);

#endif
