/* Decode for AVX-512: what simd/body/decode.c takes at once. */
#ifndef ATTN_AVX512_DECODE_H
#define ATTN_AVX512_DECODE_H

/* Two chains of a panel of 32 keys take 64 bytes in two cycles: more than comes from L2. A single stream comes
 * soonest. */
enum { KEY_PANELS_1 = 1, KEY_PANELS_2 = 1 };

/* Floats fetched ahead: 1 KiB, or 4 KiB of what no cache holds. Rows in place: as many as memory takes to answer. */
enum { FETCH_LINES = 1, NEAR = 256, FURTHER = 1024, ROWS_AHEAD = 32 };

/* Registers of keys in place; the transposition of two takes twice as many chains. */
enum { COLUMNS_1 = 2, COLUMNS_2 = 2 };
#define EACH_COLUMNS(X)             X(1, 2, 0) X(1, 2, 1) X(2, 2, 0)
#define DECODE_COLUMNS(rows, dense) ISA_FN(decode_columns_##rows##_2_##dense)

#define EACH_WIDTH_1(X, rows)       X(rows, 1) X(rows, 2) X(rows, 3) X(rows, 4) X(rows, 5) X(rows, 6) X(rows, 7) X(rows, 8)
#define EACH_WIDTH_2(X, rows)       EACH_WIDTH_1(X, rows)

/* Elements of 16 bits in place: 32 keys at a time, which take as long as 64 (0.93 - 1.03) and half the code. From memory
 * rows fetched 32 ahead take 1.2 times as long. */
#define F16_IN_PLACE
#define EACH_F16_WIDTH_4(X, ...) EACH_WHOLE_WIDTH(X, __VA_ARGS__)
enum { UNIT_COLUMNS_1 = 2, UNIT_COLUMNS_2 = 2, PAIR_DEPTH = 8, KEYS_AHEAD = 64, VALUES_AHEAD = 64 };

/* Three times four rows: for 12 rows of BF16 packing takes 1.2 times as long, for 14 rows 1.06 times. Four rows load
 * their operands once for the units of both registers: without that they take 1.12 times as long. */
enum { ROWS_IN_PLACE = 12, UNITS_AT_ONCE = 2 };

#endif
