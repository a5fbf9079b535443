/* Decode for AVX2: what simd/body/decode.c and decode_pairs.c take at once. */
#ifndef ATTN_AVX2_DECODE_H
#define ATTN_AVX2_DECODE_H

/* Four chains of one row, eight of two. For one row two panels are 1.015 times as fast as four (14 shapes). */
enum { KEY_PANELS_1 = 2, KEY_PANELS_2 = 2 };

/* Floats fetched ahead: 1 KiB, or 4 KiB of what no cache holds. Rows in place: as many as memory takes to answer. */
enum { FETCH_LINES = 1, NEAR = 256, FURTHER = 1024, ROWS_AHEAD = 32 };

/* Registers of keys in place. */
enum { COLUMNS_1 = 4, COLUMNS_2 = 2 };
#define EACH_COLUMNS(X)             X(1, 4, 0) X(1, 4, 1) X(2, 2, 0)
#define DECODE_COLUMNS(rows, dense) DECODE_COLUMNS_##rows(dense)
#define DECODE_COLUMNS_1(dense)     ISA_FN(decode_columns_1_4_##dense)
#define DECODE_COLUMNS_2(dense)     ISA_FN(decode_columns_2_2_##dense)

#define EACH_WIDTH_2(X, rows)       X(rows, 2) X(rows, 4)
#define EACH_WIDTH_1(X, rows)       EACH_WIDTH_2(X, rows) X(rows, 6) X(rows, 8)

/* The same of pairs, whose chains are longer: eight. With half as many keys are 0.92 times as fast where they lie in
 * L2, and so are values 0.86. */
enum { PAIR_PANELS_1 = 4, PAIR_PANELS_2 = 2 };
#define EACH_PAIR_WIDTH_1(X, rows) EACH_WIDTH_1(X, rows)
#define EACH_PAIR_WIDTH_2(X, rows) EACH_WIDTH_2(X, rows)

/* Elements of 16 bits in place, 32 keys and 8 registers of a value at a time. Over 4096 keys 16 keys take 1 / 0.88, 4
 * registers 1 / 0.87 of the time. */
#define PAIRS_IN_PLACE
#define F16_IN_PLACE
#define EACH_PAIR_WIDTH_4(X, rows) X(rows, 2)
#define EACH_F16_WIDTH_4(X, ...)   X(__VA_ARGS__, 2)
enum { UNIT_COLUMNS_1 = 4, UNIT_COLUMNS_2 = 2, PAIR_DEPTH = 4, KEYS_AHEAD = 32, VALUES_AHEAD = 32 };

/* For eight rows of BF16 packing takes 1.15 times as long. */
enum { ROWS_IN_PLACE = 8, UNITS_AT_ONCE = 1 };

#endif
