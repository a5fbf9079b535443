#include "attention_problem.h"

#include <float.h>

#include "oracle.h"

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

/* Sizes go round with different periods, so that a sweep meets each of them early; the rest is drawn. */
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
    args.options.causal = (attn_causal)(index % 3);
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

struct problem problem_new(struct test_random *random, enum test_values values, const attn_attention_args *args) {
    struct problem p = {.args = *args};
    size_t kv_heads = args->kv_heads ? args->kv_heads : args->heads;
    size_t value_size = args->value_size ? args->value_size : args->head_size;
    p.q = random_input(random, values, args->batch, args->heads, args->q_len, args->head_size);
    p.k = random_input(random, values, args->batch, kv_heads, args->kv_len, args->head_size);
    p.v = random_input(random, values, args->batch, kv_heads, args->kv_len, value_size);
    p.lens =
        random_lens(random, lens_count(args->options.valid.kind, args->batch, args->q_len), args->kv_len, FLUSH_END);
    p.args.q = tensor_in(&p.q);
    p.args.k = tensor_in(&p.k);
    p.args.v = tensor_in(&p.v);
    p.args.options.valid.lens = p.lens;
    return p;
}

void problem_free(struct problem *p) {
    tensor_free(&p->q);
    tensor_free(&p->k);
    tensor_free(&p->v);
    guarded_free(p->lens);
}

void describe(const attn_attention_args *a) {
    test_case("batch=%zu heads=%zu kv_heads=%zu q_len=%zu kv_len=%zu head_size=%zu value_size=%zu scale=%g valid=%d "
              "causal=%d "
              "empty=%d",
              a->batch, a->heads, a->kv_heads, a->q_len, a->kv_len, a->head_size, a->value_size, (double)a->scale,
              (int)a->options.valid.kind, (int)a->options.causal, (int)a->options.empty);
}

/* ---- The oracle ----
 *
 * Where scores are exact and keys are few, an output element is off by at most 8 units of FLT_EPSILON * sum |p * v|.
 * Two things add to that:
 *   - A score is a chain of head_size roundings, and its absolute error is the relative error of its exponential. With
 *     normal inputs 8 units hold in practice up to head size 64 (7.4 seen in 40 seeds), not at 72 (9.2) and 128 (11.8).
 *     The score's magnitude, sum |q * k| * scale, scales it: 2.1 units of 1 + that are the most that was seen.
 *   - Values are added in a chain over up to ATTN_SPAN keys. After a first key that outweighs the others every addition
 *     rounds at that key's last place: a random walk of sqrt(keys) steps (9.2 units seen with 512 keys).
 * Weights bear the error of the row's sum in the same way. */

struct error_units {
    double output, weight, log_sum_exp;
};

static struct error_units error_units(const struct oracle *oracle, size_t row, size_t kv_len, int exact_scores) {
    double score = exact_scores ? 0 : oracle->score_magnitude[row];
    double walk = kv_len <= 64 ? 0 : sqrt((double)kv_len) / 4;
    return (struct error_units){.output = fmax(8, 3 * (1 + score)) + walk,
                                .weight = fmax(8, 4 * (1 + score)) + walk,
                                .log_sum_exp = 2 * (1 + score + fabs(oracle->log_sum_exp[row]))};
}

void check_against_oracle(const attn_attention_args *args, const struct attention_result *r, int exact_scores) {
    struct oracle oracle;
    oracle_attention(args, &oracle);
    for (size_t row = 0; row < r->rows; row++) {
        size_t b = row / args->q_len / args->heads, h = row / args->q_len % args->heads;
        const float *o = tensor_row(&r->o, b, h, row % args->q_len);
        struct error_units units = error_units(&oracle, row, r->kv_len, exact_scores);
        double lse = oracle.log_sum_exp[row];
        for (size_t c = 0; c < r->o.size; c++) {
            size_t at = row * r->o.size + c;
            assert_near(oracle.output[at], (double)o[c], units.output * FLT_EPSILON * oracle.magnitude[at] + FLT_MIN);
        }
        for (size_t j = 0; j < r->kv_len; j++) {
            double weight = oracle.weights[row * r->kv_len + j];
            assert_near(weight, (double)r->weights[row * r->kv_len + j], units.weight * FLT_EPSILON * weight + FLT_MIN);
        }
        if (isfinite(lse) || args->options.empty == ATTN_EMPTY_ZERO)
            assert_near(lse, (double)r->log_sum_exp[row], isfinite(lse) ? units.log_sum_exp * FLT_EPSILON : 0);
    }
    oracle_free(&oracle);
}
