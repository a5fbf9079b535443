/* Decode for SVE with registers of 256 bits: what simd/body/decode.c takes at once. As AVX2, with twice the
 * registers; nobody has measured others. */
#ifndef ATTN_SVE256_DECODE_H
#define ATTN_SVE256_DECODE_H

/* Eight chains of one row, sixteen of two. */
enum { KEY_PANELS_1 = 4, KEY_PANELS_2 = 4 };

/* The processor's own prefetching follows panels; rows in place as many ahead as memory takes to answer. */
enum { FETCH_LINES = 0, NEAR = 0, FURTHER = 0, ROWS_AHEAD = 16 };

enum { COLUMNS_1 = 4, COLUMNS_2 = 4 };
#define EACH_COLUMNS(X)             X(1, 4, 0) X(1, 4, 1) X(2, 4, 0)
#define DECODE_COLUMNS(rows, dense) ISA_FN(decode_columns_##rows##_4_##dense)

#define EACH_WIDTH_2(X, rows)       X(rows, 2) X(rows, 4) X(rows, 6) X(rows, 8)
#define EACH_WIDTH_1(X, rows)       EACH_WIDTH_2(X, rows)

#endif
