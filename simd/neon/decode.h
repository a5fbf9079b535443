/* Decode for NEON: what simd/body/decode.c takes at once. */
#ifndef ATTN_NEON_DECODE_H
#define ATTN_NEON_DECODE_H

/* Sixteen chains. */
enum { KEY_PANELS_1 = 4, KEY_PANELS_2 = 2 };

/* The processor's own prefetching follows panels; rows in place as many ahead as memory takes to answer. */
enum { FETCH_LINES = 0, NEAR = 0, FURTHER = 0, ROWS_AHEAD = 16 };

/* Registers of keys in place. */
enum { COLUMNS_1 = 4, COLUMNS_2 = 4 };
#define EACH_COLUMNS(X)             X(1, 4, 0) X(1, 4, 1) X(2, 4, 0)
#define DECODE_COLUMNS(rows, dense) ISA_FN(decode_columns_##rows##_4_##dense)

#define EACH_WIDTH_2(X, rows)       X(rows, 4) X(rows, 8)
#define EACH_WIDTH_1(X, rows)       EACH_WIDTH_2(X, rows) X(rows, 12) X(rows, 16)

#endif
