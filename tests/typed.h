/* Tensors of BF16 and F16 beside those of floats in problem.h. Link with typed.c. */
#ifndef ATTN_TESTS_TYPED_H
#define ATTN_TESTS_TYPED_H

#include "problem.h"

/* F32, BF16 or F16. */
attn_type random_type(struct test_random *random);
/* F32 or BF16: what weights, keys and values are stored as. */
attn_type random_stored_type(struct test_random *random);
/* Any type of a cache. */
enum { CACHE_TYPES = 6 };
extern const attn_type cache_types[CACHE_TYPES];
attn_type random_cache_type(struct test_random *random);
/* Whether attention over a cache of that type is class F32 over floats with the same numbers, and no tensor has the
 * type. */
bool is_widened_type(attn_type type);

/* Rounds floats to numbers of the type, in place. */
void round_floats(attn_type type, float *x, size_t n);
void tensor_round(const struct tensor *t, attn_type type);

/* The elements as an input of that type, in guarded memory with the same strides and poison between the elements,
 * which must be numbers of the type. F32: the tensor itself, and NULL. Free *memory. */
attn_tensor typed_input(const struct tensor *t, attn_type type, enum flush flush, void **memory);

/* Memory for an output of that type with the same strides; likewise. */
attn_tensor_out typed_output(const struct tensor *t, attn_type type, enum flush flush, void **memory);
/* Widens the elements of such memory into the tensor, fails the test where anything else in it was written, and
 * frees it. */
void typed_read(const struct tensor *t, attn_type type, void *memory);

#endif
