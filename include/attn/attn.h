/* libattn: multi-head attention for CPUs.
 *
 * The MultiHeadAttention of "Dive into Deep Learning" (d2l.ai, chapter 11.5) in F32 and BF16, with
 * weights of INT8 and INT4 too, at three levels, each usable alone:
 *
 *   kernels    attn_gemm_*, attn_masked_softmax, attn_transpose_qkv, attn_transpose_output
 *   attention  attn_attention over strided queries, keys and values, or over an attn_cache
 *   layer      attn_layer_*: the four projections around it, weights packed once
 *
 * Rules that hold for every function:
 *
 * - Result bits do not depend on the ISA (but with BF16 on ATTN_ISA_AMX, see attn_arithmetic), on
 *   the number of threads, or on what else is in the batch.
 * - Strides count elements, not bytes.
 * - Structs are to be zero-initialised: zero in a field means that it is not used.
 * - Data needs no more than its elements' own alignment. Object memory and workspaces need
 *   ATTN_ALIGNMENT bytes.
 * - Which arithmetic computes a result, class F32, BF16, INT8, INT8_BLOCKS or INT4, follows from
 *   the types of weights, keys and values, not from those of rows: rows of other types are widened,
 *   which is exact, rounded once, or quantised. See docs/semantics.md.
 * - The caller owns all memory. A *_size or *_workspace function says how many bytes; computing
 *   allocates and locks nothing, and prints nothing (but under ATTN_VERBOSE=2). An object lives at
 *   the beginning of the memory it was given and needs no destructor: when nothing uses it any
 *   more, free the memory. attn/alloc.h does both, for those who want it.
 * - Objects are read-only after their creation, except attn_cache: any number of threads may share
 *   them. Each concurrent call needs its own workspace. Appending to a cache excludes every other
 *   use of that cache.
 * - Arguments are checked before the first write. A failure returns a status other than ATTN_OK
 *   and, where `error` is not NULL, describes itself in *error; on success *error is untouched.
 * - A pointer must not be NULL unless its description says so, and must cover the elements
 *   described; the library can check neither pointers nor extents. Outputs must not overlap inputs
 *   unless the function says so (ATTN_OVERLAP where the library sees it). Outputs and inputs may be
 *   different columns of one buffer: q, k, v and o as the four parts of [batch, len, 4, heads,
 *   head_size], say.
 * - Sizes above PTRDIFF_MAX are refused (ATTN_BAD_SIZE): they are negative numbers that were
 *   converted.
 * - Arithmetic runs in the caller's floating-point environment, which must be the default: round to
 *   nearest, denormals kept. The sign and payload of a NaN result are not specified. Control bits
 *   (rounding, flushing of denormals) are left alone. A library compiled by gcc raises no
 *   FE_INVALID, FE_DIVBYZERO or FE_OVERFLOW for ordinary numbers and masks: a program may trap
 *   them. Clang does not keep to that.
 * - A call takes at most 16 KiB of stack in the calling thread, and each task as much in the thread
 *   that runs it.
 */
#ifndef ATTN_ATTN_H
#define ATTN_ATTN_H

#include <stddef.h>
#include <stdint.h>

#define ATTN_VERSION_MAJOR 0
#define ATTN_VERSION_MINOR 2
#define ATTN_VERSION_PATCH 0
/* As one number, for comparisons: 0.2.0 is 200. */
#define ATTN_VERSION (ATTN_VERSION_MAJOR * 10000 + ATTN_VERSION_MINOR * 100 + ATTN_VERSION_PATCH)

/* On Windows define ATTN_STATIC before including this header if you link the static library. */
#if defined(_WIN32) && defined(ATTN_BUILDING)
#define ATTN_API __declspec(dllexport)
#elif defined(_WIN32) && !defined(ATTN_STATIC)
#define ATTN_API __declspec(dllimport)
#elif defined(__GNUC__) && !defined(_WIN32)
#define ATTN_API __attribute__((visibility("default")))
#else
#define ATTN_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Alignment in bytes of object memory and workspaces. */
#define ATTN_ALIGNMENT 64

/* ---- Statuses -------------------------------------------------------------------------------- */

typedef enum attn_status {
    ATTN_OK = 0,
    /* A pointer that must be given is NULL. */
    ATTN_NULL_POINTER,
    /* A size that is 0, too large, or does not divide as it must. */
    ATTN_BAD_SIZE,
    /* NaN, infinite, out of range, not one of the enumeration's values, or given without what uses
     * it. */
    ATTN_BAD_VALUE,
    /* Rows that would overlap where each must have its own place, or strides that were
     * forgotten. */
    ATTN_BAD_STRIDE,
    /* An output overlaps an input. */
    ATTN_OVERLAP,
    /* A product of sizes does not fit in size_t. */
    ATTN_OVERFLOW,
    /* Memory that is not aligned to ATTN_ALIGNMENT. */
    ATTN_MISALIGNED,
    /* Memory with fewer bytes than needed, a full cache, or a ring that has lost what is asked
     * for. */
    ATTN_TOO_SMALL,
    /* No such ISA, or one that this library was built without. */
    ATTN_UNKNOWN_ISA,
    /* This processor or its operating system lacks that ISA. */
    ATTN_UNSUPPORTED_ISA,
    /* Two objects that do not belong together: other ISA, heads or sizes. */
    ATTN_MISMATCH
} attn_status;

/* A static English sentence for `status`; never NULL, also for values that are no status. */
ATTN_API const char *attn_status_string(attn_status status);
/* Its name, "ATTN_TOO_SMALL"; "no status" for values that are none. */
ATTN_API const char *attn_status_name(attn_status status);

/* A failure. */
typedef struct attn_error {
    attn_status status;
    const char *field; /* the wrong argument, "options.valid.lens"; a static string */
    /* TOO_SMALL: bytes or keys needed, and given. BAD_SIZE, BAD_STRIDE: the limit, and what is
     * beyond it. MISMATCH: the size expected, and the one given. BAD_VALUE of a type: the set of
     * types that the field takes, bit 1 << type for each, and the type given. Both 0 where no two
     * numbers say it. */
    size_t needed, given;
} attn_error;

/* Writes an English sentence, "bytes: too small: 4096 needed, 4032 given", with a final zero, at
 * most `size` bytes, to `buffer`. Returns the length of the whole sentence without the zero, as
 * snprintf does. */
ATTN_API size_t attn_error_text(const attn_error *error, char *buffer, size_t size);

/* ---- Version and instruction sets ------------------------------------------------------------ */

/* "MAJOR.MINOR.PATCH" of the library that is loaded (the macros above are those of this header). */
ATTN_API const char *attn_version(void);
/* ATTN_VERSION of the library that is loaded. */
ATTN_API int attn_version_number(void);

typedef enum attn_isa {
    ATTN_ISA_BEST = 0,  /* the best that processor and operating system support; see ATTN_MAX_ISA */
    ATTN_ISA_SCALAR,    /* portable C: the reference, obvious and slow */
    ATTN_ISA_AVX2,      /* AVX2, FMA and F16C */
    ATTN_ISA_AVX2_VNNI, /* AVX2, and AVX-VNNI */
    ATTN_ISA_AVX512,    /* AVX-512 F, BW, DQ and VL */
    ATTN_ISA_AVX512_VNNI, /* AVX512, and AVX512_VNNI */
    ATTN_ISA_AVX512_BF16, /* AVX512_VNNI, and AVX512_BF16 */
    ATTN_ISA_AMX,         /* AVX512_BF16, and AMX TILE, BF16 and INT8; on Linux alone */
    ATTN_ISA_NEON,        /* AArch64 Advanced SIMD */
    ATTN_ISA_NEON_DOT,    /* NEON, and the dot products SDOT and UDOT */
    ATTN_ISA_NEON_MM,     /* NEON_DOT, and the extensions I8MM and BF16 */
    ATTN_ISA_SVE256,      /* AArch64 SVE where its registers are 256 bits */
    ATTN_ISA_COUNT        /* one more than the last value */
} attn_isa;

/* The environment variable ATTN_MAX_ISA, a name below in any case, lowers what ATTN_ISA_BEST
 * stands for: to the best ISA of this machine that is not after that one in the list above. It is
 * read once. A name of another architecture is ignored, an unknown one too, and reported on stderr.
 * ATTN_VERBOSE, read once too, prints to stderr: 1, a line per created object, and another one
 * where the calling thread takes denormal numbers for 0, which changes results, where ATTN_MAX_ISA
 * is ignored, where the system refuses AMX, or where VDPBF16PS is slow and not used; 2, also a line
 * per call, with its sizes, the options in use, the microseconds it took, and any size of 0 that
 * makes it do nothing. */

/* "best", "scalar", "avx2", ...; NULL for a value that is no ISA. */
ATTN_API const char *attn_isa_name(attn_isa isa);
/* The ISA of such a name. ATTN_NULL_POINTER; ATTN_UNKNOWN_ISA for any other name: *isa is then
 * untouched. */
ATTN_API attn_status attn_isa_from_name(const char *name, attn_isa *isa);
/* 1 if the library was built with kernels for `isa`, else 0. */
ATTN_API int attn_isa_built(attn_isa isa);
/* 1 if, moreover, this processor and its operating system can run them, else 0. */
ATTN_API int attn_isa_supported(attn_isa isa);
/* What ATTN_ISA_BEST stands for in this process. */
ATTN_API attn_isa attn_isa_chosen(void);

/* ---- Threads --------------------------------------------------------------------------------- */

/* The library starts no thread. `run` must call task(arg, i) once for each i < count, in any order,
 * on any threads, and return when all calls have returned. The library cuts work into at most
 * `threads` tasks (0 counts as 1); with 1 it does not call `run`. NULL in place of an attn_parallel
 * means: everything in the calling thread. attn/openmp.h and attn/pthreadpool.h fill this in for
 * the two usual pools. */
typedef struct attn_parallel {
    void (*run)(void *context, void (*task)(void *arg, size_t index), void *arg, size_t count);
    void *context;
    size_t threads;
} attn_parallel;

/* ---- Tensors --------------------------------------------------------------------------------- */

/* What an element is. A field takes ATTN_F32 where its description says nothing else; F32, BF16 and
 * F16 are the float types. */
typedef enum attn_type {
    ATTN_F32 = 0,
    ATTN_BOOL, /* a byte, true where it is not 0 */
    ATTN_BF16, /* the upper 16 bits of an f32 */
    ATTN_F16,  /* IEEE binary16: 5 bits of exponent, 10 of fraction */
    ATTN_INT8, /* -128 to 127; of weights and caches */
    ATTN_INT4, /* 0 to 15, two to a byte, the first in its lower half; of weights */
    /* A byte with 4 bits of exponent and 3 of fraction, OCP's E4M3 (e4m3fn): up to 448, no
     * infinity, NaN is 0x7f and 0xff; of caches, as the next. */
    ATTN_F8_E4M3,
    /* A byte with 5 bits of exponent and 2 of fraction, the upper half of an F16: up to 57344,
     * infinities, NaN. */
    ATTN_F8_E5M2
} attn_type;

/* Element [b, h, i, c] of a 4-D tensor is data[b * batch_stride + h * head_stride + i * row_stride
 * + c * col_stride]. [B,H,S,D], [B,S,H,D], packed QKV and slices are all just strides. An input may
 * broadcast with a stride of 0, but strides that are all 0 with more than one row are refused, in
 * all inputs but v: they were forgotten. To give one row for all, set the stride of a dimension of
 * size 1 to something else.
 *
 * Rows are contiguous: col_stride is 0 or 1, which both mean that, unless the field's description
 * says that its columns have a stride. Where it has no heads, head_stride is 0. */
typedef struct attn_tensor {
    const void *data;
    attn_type type;
    size_t batch_stride, head_stride, row_stride, col_stride;
} attn_tensor;

/* An output: its elements must lie apart. */
typedef struct attn_tensor_out {
    void *data;
    attn_type type;
    size_t batch_stride, head_stride, row_stride, col_stride;
} attn_tensor_out;

/* Which order of additions products with BF16 weights, and attention over BF16 keys and values, may
 * take; it changes nothing elsewhere. */
typedef enum attn_arithmetic {
    /* The ISA's own: tile instructions add in another order, so that ATTN_ISA_AMX has other bits
     * than the other ISAs. */
    ATTN_ARITHMETIC_FASTEST = 0,
    ATTN_ARITHMETIC_PORTABLE /* the one that every ISA has: the same bits on all of them */
} attn_arithmetic;

/* An array of integers, given by one of the two; both NULL: not given. */
typedef struct attn_ints {
    const int64_t *i64;
    const int32_t *i32;
} attn_ints;

/* ---- Kernel level: GEMM with packed weights -------------------------------------------------- */

/* y[m,n] = bias[n] + sum over k of x[m,k] * w[k,n]. Each element is one chain of fused
 * multiply-adds over ascending k that starts at the bias (or +0), F16 weights widened; with BF16
 * weights over ascending pairs of k, x rounded to BF16; with INT8 and INT4 weights from exact sums
 * of integers, to which x is rounded row by row. */
typedef struct attn_gemm attn_gemm;

/* How the elements, scales and zero points of quantised weights lie. k is `in`, n is `out`. What
 * files of other engines hold is packed straight from where it lies; that takes longer than
 * PLAIN. */
typedef enum attn_layout {
    /* INT4: weight [out][in], two elements to a byte, the first in its lower half; scales [out][in
     * / block]; zero_points [out][(in / block + 1) / 2], likewise two to a byte. ONNX's MatMulNBits
     * of 4 bits has these arrays. INT8: a weight of any strides, scales [out][in / block],
     * zero_points [out][in / block], integers from -128 to 127. */
    ATTN_LAYOUT_PLAIN = 0,
    /* ggml's Q4_0: weight [out][in / 32] of blocks of 18 bytes, an F16 scale and 32 elements.
     * in_stride is 1, out_stride a multiple of 32; scales, scale_type, block and zero_points are 0:
     * the blocks say all. */
    ATTN_LAYOUT_GGML_Q4_0,
    /* ggml's Q8_0: blocks of 34 bytes, an F16 scale and 32 elements of INT8. Likewise. Of type
     * ATTN_F32 packed as floats, element * scale, which is exact; class F32. */
    ATTN_LAYOUT_GGML_Q8_0,
    /* GPTQ: qweight, [in / 8][out] words of 32 bits, the first element in the lowest bits; scales
     * [in / block][out]; qzeros, [in / block][out / 8] words that hold zero points less 1, or NULL.
     * in_stride is the number of columns of the three arrays, a multiple of 8 and at least out;
     * out_stride is 1. INT8 has 4 elements in a word, from 0 to 255; where qzeros is NULL each is
     * 128, and 255 in it counts as 0. */
    ATTN_LAYOUT_GPTQ,
    ATTN_LAYOUT_GPTQ_V2, /* the same with zero points as they are */
    /* AWQ, version gemm: qweight, [in][out / 8] words; scales as GPTQ's; qzeros as GPTQ_V2's. The
     * words of qweight and qzeros hold columns 0, 2, 4, 6, 1, 3, 5, 7 of eight, from the lowest
     * bits on. Strides as of GPTQ. */
    ATTN_LAYOUT_AWQ,
    /* PLAIN, of INT8 with blocks: elements and zero points are bytes from 0 to 255, and where
     * zero_points is NULL each is 128. ONNX's MatMulNBits of 8 bits. */
    ATTN_LAYOUT_UNSIGNED
} attn_layout;

/* w[k,n] is weight[k * in_stride + n * out_stride]. A weight stored [in, out] has in_stride = out
 * size, out_stride = 1; PyTorch's nn.Linear stores [out, in]: in_stride = 1, out_stride = in
 * size.
 *
 * INT8 without blocks: w[k,n] is that element times scales[n]. INT4, and INT8 whose `block` is not
 * 0: it is (the element - zero point) * scale, both of which `block` elements that follow each
 * other in k share; k is a multiple of block; of INT4 in_stride is 1 and out_stride even; `layout`
 * says otherwise for other engines' arrays. Rows of x are then rounded to integers of 8 bits too,
 * each with a scale of its own (docs/semantics.md), unless `dequantised` is set. */
typedef struct attn_linear {
    const void *weight;
    size_t in_stride, out_stride; /* elements */
    const float *bias;            /* [out], or NULL for none */
    attn_type type;               /* of weight: a float type, ATTN_INT8 or ATTN_INT4 */
    const void *scales; /* INT8: [out] floats; with blocks: see attn_layout. No NaN, no infinity */
    attn_type scale_type;    /* with blocks: ATTN_F32 or ATTN_F16 */
    size_t block;            /* of INT4 and INT8: 32, 64 or 128; of INT8 also 0: none */
    const void *zero_points; /* with blocks: NULL where each is 8, of INT8 0 */
    attn_layout layout;
    /* NULL, or GPTQ's g_idx, [in]: the block of each k. BAD_VALUE unless that is k / block: blocks
     * whose elements are not neighbours (desc_act, act-order) are not supported. */
    const int32_t *g_idx;
    /* Of INT4: not 0: rows of x are not rounded to integers, but multiplied as floats by (element -
     * zero point) * scale, each rounded to a float: class F32. */
    int dequantised;
} attn_linear;

typedef struct attn_gemm_config {
    attn_isa isa;
    size_t k, n; /* at least 1 */
    attn_linear w;
    attn_arithmetic arithmetic;
} attn_gemm_config;

/* Bytes that attn_gemm_create needs for this config; the pointers in it are not looked at.
 * NULL_POINTER, BAD_SIZE, BAD_VALUE, OVERFLOW, UNKNOWN_ISA, UNSUPPORTED_ISA. */
ATTN_API attn_status attn_gemm_size(const attn_gemm_config *config, size_t *bytes,
                                    attn_error *error);
/* Packs weights and bias into `memory`; they are not needed afterwards.
 * As above, and MISALIGNED, TOO_SMALL, BAD_STRIDE (a stride of 0 where its size is above 1, or
 * one that INT4 does not allow). */
ATTN_API attn_status attn_gemm_create(const attn_gemm_config *config, void *memory, size_t bytes,
                                      attn_gemm **gemm, attn_error *error);

/* ---- Packed weights as a file ---- */

/* Packed weights can be written out as one piece of bytes, a blob, and used where a later process
 * finds it, mapped from a file, say: packing is not done again, and processes share one copy. A
 * blob has a header (class, types, sizes, format, versions, byte order, a checksum) and what the
 * object had packed. The same weights, packed for the same kernel, give the same bytes. */

/* Bytes of a blob of the object's weights, in the format that kernels of `isa` read: any ISA that
 * the library was built with, also where this machine cannot run it; ATTN_ISA_BEST: as they are.
 * NULL_POINTER, OVERFLOW, UNKNOWN_ISA. */
ATTN_API attn_status attn_gemm_export_size(const attn_gemm *gemm, attn_isa isa, size_t *bytes,
                                           attn_error *error);
/* Writes it, to memory at ATTN_ALIGNMENT. As above, and MISALIGNED, TOO_SMALL, OVERLAP (the blob
 * that the object's weights lie in). */
ATTN_API attn_status attn_gemm_export(const attn_gemm *gemm, attn_isa isa, void *blob, size_t bytes,
                                      attn_error *error);

/* Where an imported object's weights are. */
typedef enum attn_import_mode {
    /* In the blob, where a kernel of the ISA, or of one below it but scalar, reads its format; else
     * packed anew. Another kernel than the ISA's own may be slower. */
    ATTN_IMPORT_FITTING = 0,
    ATTN_IMPORT_IN_PLACE, /* in the blob, or MISMATCH */
    ATTN_IMPORT_COPY /* packed anew for the ISA's own kernel: the blob is not needed afterwards */
} attn_import_mode;

typedef struct attn_import_config {
    attn_isa isa;
    /* At ATTN_ALIGNMENT, as mapped memory is; never written to. It must stay as it is during the
     * call and, but for COPY, while the object is in use. */
    const void *blob;
    size_t blob_bytes; /* may be more than the blob has */
    attn_import_mode mode;
    /* Not 0: the packed bytes are compared with their checksum, which reads all of them. Else only
     * the header is compared with its own. Scales and zero points are looked at in any case: those
     * of blocks lie among the elements, so that nearly every page is read. */
    int verify;
} attn_import_config;

/* Bytes of memory for the object: a few hundred where the weights stay in the blob. Sizes, types
 * and `arithmetic` are those that were exported. NULL_POINTER, BAD_SIZE (blob.config), BAD_VALUE
 * (mode; blob.magic, .checksum, .class, .format, .config, .bytes, .data: a blob that was not
 * written so; a scale that is not finite, of INT4 a zero point above 16), MISMATCH (blob.version,
 * .byte_order, .kind: the other object's; .format: IN_PLACE is not possible), MISALIGNED, TOO_SMALL
 * (blob_bytes), OVERFLOW, UNKNOWN_ISA, UNSUPPORTED_ISA. */
ATTN_API attn_status attn_gemm_import_size(const attn_import_config *config, size_t *bytes,
                                           attn_error *error);
/* As above, of `memory` too. */
ATTN_API attn_status attn_gemm_import(const attn_import_config *config, void *memory, size_t bytes,
                                      attn_gemm **gemm, attn_error *error);

/* ---- Products ---- */

typedef struct attn_gemm_run_args {
    size_t m;          /* may be 0 */
    attn_tensor x;     /* [m, k]; row_stride at least k, batch_stride ignored; any float type */
    attn_tensor_out y; /* [m, n]; row_stride at least n, batch_stride ignored; any float type */
    /* What attn_gemm_workspace asks for; NULL and 0 where that is nothing, as it is for x, y and
     * weights of ATTN_F32. */
    void *workspace;
    size_t workspace_bytes;
    const attn_parallel *parallel; /* NULL: the calling thread */
} attn_gemm_run_args;

/* Bytes of workspace for m rows and fewer, of these types and thread count. Data is not looked at.
 * NULL_POINTER, BAD_SIZE, BAD_VALUE, OVERFLOW. */
ATTN_API attn_status attn_gemm_workspace(const attn_gemm *gemm, const attn_gemm_run_args *args,
                                         size_t *bytes, attn_error *error);

/* NULL_POINTER, BAD_SIZE, BAD_VALUE, BAD_STRIDE, OVERFLOW, OVERLAP, MISALIGNED, TOO_SMALL. */
ATTN_API attn_status attn_gemm_run(const attn_gemm *gemm, const attn_gemm_run_args *args,
                                   attn_error *error);

/* ---- Kernel level: masked softmax ------------------------------------------------------------ */

/* What a row without visible keys yields. */
typedef enum attn_empty_rows {
    ATTN_EMPTY_ZERO = 0, /* +0, log-sum-exp -inf (ONNX, PyTorch) */
    /* d2l's answer, whose mask is a finite -1e6: every key has the same weight; log-sum-exp
     * log(kv_len) */
    ATTN_EMPTY_MEAN
} attn_empty_rows;

/* Visible keys: keys below a length. A length above the number of keys counts as that number, a
 * negative one as 0. */
typedef enum attn_valid_kind {
    ATTN_VALID_ALL = 0,      /* every key is visible; nothing else is given */
    ATTN_VALID_PER_SEQUENCE, /* lens[b * batch_stride] */
    ATTN_VALID_PER_ROW       /* lens[b * batch_stride + row * row_stride] */
} attn_valid_kind;

typedef struct attn_valid_lens {
    attn_valid_kind kind;
    attn_ints lens;
    size_t batch_stride, row_stride; /* both 0: dense, [batch] or [batch][rows] */
} attn_valid_lens;

/* y = softmax(x) over the first valid_len columns of each row, +0 in the others, which are not
 * read. x and y have any float type, each its own: x is widened, y rounded once. */
typedef struct attn_softmax_args {
    attn_isa isa;
    size_t batch, rows, cols; /* each may be 0: then x and y are not looked at */
    attn_tensor x;            /* [batch, rows, cols]; row_stride at least cols */
    /* [batch, rows, cols]; may be x where strides and the size of an element are the same; no other
     * overlap */
    attn_tensor_out y;
    attn_valid_lens valid;
    attn_empty_rows empty;
    const attn_parallel *parallel; /* NULL: the calling thread */
} attn_softmax_args;

/* NULL_POINTER, BAD_SIZE, BAD_VALUE, BAD_STRIDE, OVERFLOW, OVERLAP, UNKNOWN_ISA,
 * UNSUPPORTED_ISA. */
ATTN_API attn_status attn_masked_softmax(const attn_softmax_args *args, attn_error *error);

/* ---- Kernel level: splitting and merging heads ----------------------------------------------- */

/* One side is [batch, len, heads * head_size] (merged), the other [batch, heads, len, head_size]
 * (split). Each has any float type: elements are copied where it is the same, else converted. */
typedef struct attn_transpose_args {
    attn_isa isa;
    size_t batch, len, heads, head_size; /* head_size at least 1; each other may be 0 */
    /* Not looked at where a size is 0. The merged side's row_stride is at least heads * head_size.
     * All strides of the split side 0: it is dense. */
    attn_tensor x;
    attn_tensor_out y; /* no overlap with x */
    const attn_parallel *parallel;
} attn_transpose_args;

/* Split: x merged, y split. NULL_POINTER, BAD_SIZE, BAD_VALUE, BAD_STRIDE, OVERFLOW, OVERLAP,
 * UNKNOWN_ISA, UNSUPPORTED_ISA. */
ATTN_API attn_status attn_transpose_qkv(const attn_transpose_args *args, attn_error *error);
/* Merge: x split, y merged. Same errors. */
ATTN_API attn_status attn_transpose_output(const attn_transpose_args *args, attn_error *error);

/* ---- Attention level ------------------------------------------------------------------------- */

/* Where query row i stands among the keys, of a sequence with q rows and n keys. Causality,
 * windows, ALiBi and rotary embedding count from there, and each of the last three does so without
 * causality too. q and n are the sequence's own: of its packed rows, or in the cache. */
typedef enum attn_position {
    ATTN_POSITION_BOTTOM_RIGHT = 0, /* at i + n - q: the last row at the last key */
    ATTN_POSITION_TOP_LEFT,         /* at i */
    /* At i + valid - q: the last row at the sequence's last valid key (buffers that are longer than
     * what is in them). valid is the sequence's length in `valid`, 0 at least and n at most, or n
     * where there are no lengths. A length for each row is BAD_VALUE. */
    ATTN_POSITION_VALID_END,
    ATTN_POSITION_OFFSET /* at i + position_offset, or i + position_offsets[b] for sequence b */
} attn_position;

/* After which step logits are copied out. Each step includes those before it. */
typedef enum attn_score_stage {
    ATTN_SCORE_RAW = 0, /* q k^T * scale */
    ATTN_SCORE_CAPPED,  /* after the soft-cap */
    ATTN_SCORE_MASKED   /* after ALiBi and bias: what the softmax sees */
} attn_score_stage;

typedef struct attn_rotary attn_rotary;

/* Options that attention and layer share: which keys a query row sees, how its logits change, and
 * further outputs. All zero is plain attention. A row sees a key only if nothing that is given
 * hides the key. */
typedef struct attn_options {
    attn_valid_lens valid; /* lens per query row are [batch][q_len] */
    attn_ints starts;      /* not given, or [batch]: keys below starts[b] are hidden (padding) */
    int causal; /* not 0: a row sees keys up to its position, none where that is negative */
    attn_position position;
    int64_t position_offset;    /* any, with ATTN_POSITION_OFFSET; else 0 */
    attn_ints position_offsets; /* none, or [batch], any, in place of position_offset; likewise */
    /* Keys on each side of the row's position, its own included: position - window_left < key and
     * key < position + window_right. 0: no limit. */
    size_t window_left, window_right;
    /* data NULL, or [batch, heads, q_len, mask_len] of type ATTN_BOOL, with a stride in every
     * dimension, col_stride too: a key is visible where the element is true. Read in place; keys
     * that only `mask` hides may be read, but have no effect. */
    attn_tensor mask;
    size_t mask_len;    /* 0 stands for kv_len; keys from there on, if it is less, are hidden */
    int mask_hides;     /* not 0: true hides a key, false shows it (nn.MultiheadAttention) */
    float soft_cap;     /* logit = soft_cap * tanh(logit / soft_cap); finite, above 0; 0: none */
    const float *alibi; /* NULL, or slopes [heads], finite: logit -= slope * abs(position - key) */
    /* data NULL, or an additive mask [batch, heads, q_len, bias_len] of any float type, with a
     * stride in every dimension, added last. -inf hides the key, as `mask` does. */
    attn_tensor bias;
    size_t bias_len; /* as mask_len */
    /* NULL, or [heads], finite, only with bias: elements of bias count times their head's factor
     * (ggml's max_bias). -inf hides the key whatever the factor, 0 included. */
    const float *bias_factors;
    /* NULL, or [heads]: one more logit in each row's softmax, without a value. A row that sees no
     * key is then +0 and its log-sum-exp the sink, whatever `empty` says. */
    const float *sinks;
    attn_empty_rows empty;
    /* NULL, or rotates each query by its position, and each key of a tensor by its index. A cache's
     * keys were rotated when they were appended. A row that sees a key and whose position the table
     * lacks, a negative one say, is BAD_VALUE; one that sees none needs no position there. */
    const attn_rotary *rotary;
    attn_ints rotary_offsets; /* not given, or [batch]: added to the positions of `rotary` */
    /* Training: the probability p in [0, 1) that a weight becomes 0; the others are multiplied by
     * 1 / (1 - p). */
    float dropout;
    /* Which weights become 0 depends on it and on (batch, head, row, key) alone, see
     * docs/semantics.md. */
    uint64_t dropout_seed;
    /* Further outputs, where data is not NULL, with a stride in every dimension; all strides 0: it
     * is dense, else col_stride 0 counts as 1.
     * Softmax weights before dropout, [batch, heads, q_len, kv_len]: +0 for hidden keys and for
     * those that a shorter sequence lacks. */
    attn_tensor_out weights;
    attn_tensor_out scores; /* logits, likewise: -inf for such keys */
    attn_score_stage score_stage;
    /* Not 0: `scores` has the logits of hidden keys too, which are then all read, except those that
     * a ring has lost. Not with ATTN_SCORE_MASKED, where hidden keys are -inf. */
    int scores_hidden;
    /* The log of the sum of exp of each row's logits, [batch, heads, q_len]: one element a row. */
    attn_tensor_out log_sum_exp;
} attn_options;

/* Sequences of different lengths packed one after the other without padding: sequence b is rows
 * cu[b] .. cu[b + 1] - 1 of a tensor, whose batch stride is ignored. Before anything else is read
 * the library checks 0 <= cu[b] <= cu[b + 1] <= total. A bound such as q_len may be larger than any
 * sequence: that costs no time, and no workspace beyond what `total` rows need (a workspace query
 * reads `total`, but not cu). */
typedef struct attn_cu_lens {
    attn_ints cu; /* not given: not packed; else [batch + 1] */
    size_t total; /* rows that the tensor holds; 0 without `cu` */
} attn_cu_lens;

typedef struct attn_cache attn_cache;

/* o = softmax(q k^T * scale) v for each batch entry and head. */
typedef struct attn_attention_args {
    attn_isa isa;               /* with a cache: ATTN_ISA_BEST stands for the cache's */
    attn_arithmetic arithmetic; /* with a cache: ATTN_ARITHMETIC_FASTEST stands for the cache's */
    size_t batch, heads;
    /* 0 stands for heads, else it divides heads: each kv head serves heads / kv_heads query heads
     * in a row. */
    size_t kv_heads;
    size_t q_len;
    size_t kv_len;      /* with a cache 0, or the length of its longest sequence */
    attn_cu_lens q_cu;  /* of q and o: at most q_len rows for each sequence */
    attn_cu_lens kv_cu; /* of k and v: at most kv_len keys for each sequence; not with a cache */
    size_t head_size;   /* of query and key, at least 1 */
    size_t value_size;  /* of value and output; 0 stands for head_size */
    float scale;        /* +0 stands for 1 / sqrt(head_size); -0 is an error */
    /* q, k, v and o have any float type, k and v the same: BF16 makes the call class BF16, as a
     * cache of BF16 does. */
    attn_tensor q;           /* [batch, heads, q_len, head_size] */
    attn_tensor k;           /* [batch, kv_heads, kv_len, head_size]; not looked at with a cache */
    attn_tensor v;           /* [batch, kv_heads, kv_len, value_size]; likewise */
    const attn_cache *cache; /* NULL, or keys and values */
    attn_tensor_out o;       /* [batch, heads, q_len, value_size] */
    attn_options options;
    const attn_parallel *parallel; /* NULL: the calling thread */
} attn_attention_args;

/* Bytes of workspace for these sizes, options and thread count, with a cache for any length up to
 * its capacity. Tensor data is not read. The workspace also serves smaller batches and lengths,
 * down to 0. NULL_POINTER, BAD_SIZE, BAD_VALUE, OVERFLOW, UNKNOWN_ISA, UNSUPPORTED_ISA,
 * MISMATCH. */
ATTN_API attn_status attn_attention_workspace(const attn_attention_args *args, size_t *bytes,
                                              attn_error *error);
/* If batch, heads or q_len is 0, nothing is touched. Where packed sequences differ in length,
 * outputs beyond a sequence's own rows are not touched. As above, and BAD_STRIDE, OVERLAP,
 * MISALIGNED, TOO_SMALL. */
ATTN_API attn_status attn_attention(const attn_attention_args *args, void *workspace, size_t bytes,
                                    attn_error *error);

/* Attention over a set of keys, from attention over its parts: o = sum of o_p exp(lse_p) / sum of
 * exp(lse_p), in ascending order of parts. For caches that are split over machines or memories. */
typedef struct attn_merge_args {
    attn_isa isa;
    size_t parts; /* at least 1 */
    size_t batch, heads, q_len, value_size;
    /* [parts] outputs, each [batch, heads, q_len, value_size] of any float type: widened. */
    const attn_tensor *o;
    /* [parts], each [batch, heads, q_len], one element a row; all strides 0: it is dense. Where an
     * element is -inf the part's output is not read. */
    const attn_tensor *log_sum_exp;
    attn_tensor_out merged;             /* apart from all inputs; of any float type, rounded once */
    attn_tensor_out merged_log_sum_exp; /* data NULL, or as log_sum_exp */
    const attn_parallel *parallel;
} attn_merge_args;

/* NULL_POINTER, BAD_SIZE, BAD_VALUE, BAD_STRIDE, OVERFLOW, OVERLAP, UNKNOWN_ISA,
 * UNSUPPORTED_ISA. */
ATTN_API attn_status attn_merge(const attn_merge_args *args, attn_error *error);

/* ---- Rotary embedding ------------------------------------------------------------------------ */

/* Pairs of elements of a head rotated by position * frequency (Su et al., "RoFormer", 2021). The
 * angle is reduced in double precision; sine and cosine are SLEEF's, tabulated once. */
typedef enum attn_rotary_pairs {
    ATTN_ROTARY_HALVES = 0, /* elements i and i + dims / 2 (GPT-NeoX, Llama in PyTorch) */
    ATTN_ROTARY_INTERLEAVED /* elements 2 i and 2 i + 1 (GPT-J, the paper) */
} attn_rotary_pairs;

typedef struct attn_rotary_config {
    size_t positions; /* 0 .. positions - 1; at least 1 */
    size_t dims;      /* the first `dims` elements of a head are rotated: even, at least 2 */
    attn_rotary_pairs pairs;
    /* Pair i has frequency base^(-2 i / dims). Finite, above 0; 0 stands for 10000. */
    double base;
    const double *frequencies; /* NULL, or [dims / 2] finite frequencies; `base` is then 0 */
} attn_rotary_config;

/* NULL_POINTER, BAD_SIZE, BAD_VALUE, OVERFLOW. */
ATTN_API attn_status attn_rotary_size(const attn_rotary_config *config, size_t *bytes,
                                      attn_error *error);
/* As above, and MISALIGNED, TOO_SMALL. One table serves every ISA. */
ATTN_API attn_status attn_rotary_create(const attn_rotary_config *config, void *memory,
                                        size_t bytes, attn_rotary **rotary, attn_error *error);

/* ---- Key/value cache ------------------------------------------------------------------------- */

/* How a cache keeps its keys. */
typedef enum attn_cache_kind {
    ATTN_CACHE_PLAIN = 0, /* room for `capacity` keys of each sequence */
    /* Each sequence keeps its last `capacity` keys, exactly so many. Older ones count as hidden,
     * also for ATTN_EMPTY_MEAN. The ring must still hold every key that a row with a window to the
     * left sees, and one key at least that any other row sees; otherwise attention fails with
     * ATTN_TOO_SMALL. Chunks of n rows with a window of w keys need a capacity of n + w - 1. */
    ATTN_CACHE_RING,
    ATTN_CACHE_PAGED /* pages that sequences take as they grow, see attn_cache_set_pages */
} attn_cache_kind;

/* Keys and values of `batch` sequences, packed for the kernels when they are appended, read once
 * per step. */
typedef struct attn_cache_config {
    attn_isa isa;
    attn_arithmetic arithmetic;        /* of attention over it */
    size_t batch, kv_heads, head_size; /* each at least 1 */
    size_t value_size;                 /* 0 stands for head_size */
    size_t capacity; /* keys per sequence, at least 1; with pages a multiple of page_size */
    /* What keys and values are stored as. BF16 makes attention over the cache class BF16, any other
     * type class F32, over elements that are widened exactly.
     *   F32, F16, BF16   rounded to nearest
     *   INT8             integers of -127 to 127; each key and each value of each kv head has a
     *                    scale, its largest magnitude / 127
     *   F8_E4M3, F8_E5M2 x / scale, rounded, beyond the largest number to that: see k_scales */
    attn_type type;
    attn_cache_kind kind;
    size_t page_size; /* of PAGED: keys per page, a multiple of 16, at least 16; else 0 */
    size_t pages;     /* of PAGED: of all sequences together, 1 .. INT32_MAX; else 0 */
    /* Of the F8 types: [kv_heads], finite and above 0, copied by attn_cache_create; NULL: each is
     * 1. Keys and values are what is stored times the scale of their head. */
    const float *k_scales, *v_scales;
} attn_cache_config;

/* In place of a sequence's index. */
#define ATTN_ALL_SEQUENCES ((size_t)-1)

/* Scales are not read. NULL_POINTER, BAD_SIZE, BAD_VALUE, OVERFLOW, UNKNOWN_ISA,
 * UNSUPPORTED_ISA. */
ATTN_API attn_status attn_cache_size(const attn_cache_config *config, size_t *bytes,
                                     attn_error *error);
/* As above, and MISALIGNED, TOO_SMALL. The cache starts empty. */
ATTN_API attn_status attn_cache_create(const attn_cache_config *config, void *memory, size_t bytes,
                                       attn_cache **cache, attn_error *error);

typedef struct attn_cache_append_args {
    size_t len;      /* keys for each sequence; may be 0 */
    attn_ints lens;  /* not given, or [batch]: keys for each sequence, 0 .. len; not with cu */
    attn_cu_lens cu; /* of k and v: at most len keys for each sequence */
    attn_tensor k;   /* [batch, kv_heads, len, head_size], of any float type */
    attn_tensor v;   /* [batch, kv_heads, len, value_size], likewise */
    const attn_rotary *rotary; /* NULL, or rotates the keys at their index in the sequence */
    attn_ints rotary_offsets;  /* not given, or [batch]: added to the index, with `rotary` only */
    const attn_parallel *parallel;
} attn_cache_append_args;

/* Appends to every sequence. NULL_POINTER, BAD_SIZE, BAD_VALUE (lens, cu, a position that the
 * rotary table lacks, a page that is not set), BAD_STRIDE, OVERFLOW, MISMATCH (rotary dims),
 * TOO_SMALL (more than the capacity left, or than a ring holds). On failure nothing is appended. */
ATTN_API attn_status attn_cache_append(attn_cache *cache, const attn_cache_append_args *args,
                                       attn_error *error);
/* How many keys the sequence has been given, with ATTN_ALL_SEQUENCES the longest one; 0 for NULL or
 * if there is no such sequence. */
ATTN_API size_t attn_cache_length(const attn_cache *cache, size_t sequence);
/* Forgets the keys from `len` on, of one sequence or all (shorter ones stay as they are).
 * NULL_POINTER; BAD_SIZE: no such sequence, len above its length, or below the oldest key that a
 * ring still has. */
ATTN_API attn_status attn_cache_truncate(attn_cache *cache, size_t sequence, size_t len,
                                         attn_error *error);

/* Pages first .. first + count - 1 of a sequence are pages[0 .. count - 1]. Sequences may share
 * full pages as long as none appends to them. A sequence has no pages until they are set.
 * NULL_POINTER, BAD_SIZE (sequence, first, count, or a cache without pages), BAD_VALUE (a page that
 * does not exist). */
ATTN_API attn_status attn_cache_set_pages(attn_cache *cache, size_t sequence, size_t first,
                                          size_t count, const int32_t *pages, attn_error *error);
/* The first `len` keys of the sequence are in its pages already: another sequence has written them.
 * NULL_POINTER, BAD_SIZE (sequence, len, or a cache without pages), BAD_VALUE (a page among them is
 * not set). */
ATTN_API attn_status attn_cache_adopt(attn_cache *cache, size_t sequence, size_t len,
                                      attn_error *error);

/* A cache that continues from the first `len` keys of a parent's sequences. It copies at most 31
 * keys of each and shares the others. A fork never writes to memory that is not its own. The parent
 * must outlive it and keep those keys; while a parent is truncated, no fork of it may be in use.
 * Memory: a fork has room of its own for capacity - len keys of each sequence, and up to 62 more. A
 * sequence that is truncated below `len` shares fewer keys from then on (up to 31 are copied). It
 * then has room for at least capacity - len new keys, but not always up to `capacity` (TOO_SMALL):
 * to replace n shared keys, add n to the capacity. */
typedef struct attn_cache_fork_config {
    const attn_cache *parent; /* neither a ring nor of pages; may itself be a fork */
    size_t batch;             /* at least 1 */
    const size_t *sources; /* [batch] sequences of the parent; NULL: b continues the parent's b */
    size_t len;            /* keys that are shared, at most the length of each source */
    size_t capacity;       /* keys per sequence with the shared ones; at least 1 and at least len */
} attn_cache_fork_config;

/* NULL_POINTER, BAD_SIZE, OVERFLOW, MISMATCH (a parent that cannot be forked). */
ATTN_API attn_status attn_cache_fork_size(const attn_cache_fork_config *config, size_t *bytes,
                                          attn_error *error);
/* As above, and MISALIGNED, TOO_SMALL. */
ATTN_API attn_status attn_cache_fork(const attn_cache_fork_config *config, void *memory,
                                     size_t bytes, attn_cache **cache, attn_error *error);

/* ---- Layer level ----------------------------------------------------------------------------- */

/* y = attention(q W_q, k W_k, v W_v) W_o, heads split and merged in between. */
typedef struct attn_layer attn_layer;

/* Weights are read where they lie; packing is the only copy. With nn.Linear's [out, in] weights:
 *
 *   d2l's MultiHeadAttention:
 *     w_q = { W_q.weight, 1, query_width, NULL }, w_k with key_width, w_v with value_width,
 *     w_o = { W_o.weight, 1, hidden, NULL }
 *   nn.MultiheadAttention(E, heads), with all widths and hidden = E:
 *     w_q = { in_proj_weight,             1, E, in_proj_bias }
 *     w_k = { in_proj_weight +     E * E, 1, E, in_proj_bias + E }
 *     w_v = { in_proj_weight + 2 * E * E, 1, E, in_proj_bias + 2 * E }
 *     w_o = { out_proj.weight,            1, E, out_proj.bias } */
typedef struct attn_layer_config {
    attn_isa isa;
    attn_arithmetic arithmetic;
    size_t query_width, key_width, value_width; /* of the rows of q, k and v; each at least 1 */
    size_t heads;
    size_t kv_heads; /* 0 stands for heads; else divides heads */
    /* Width of all heads together. 0 where head_size is given, else a multiple of heads; given both
     * it is heads * head_size. */
    size_t hidden;
    size_t head_size;  /* of query and key; 0 stands for hidden / heads */
    size_t value_size; /* of a head's value; 0 stands for head_size */
    size_t out_size;   /* width of y; 0 stands for heads * head_size */
    float scale;       /* +0 stands for 1 / sqrt(head_size); -0 is an error */
    attn_type kv_type; /* what projected keys and values are rounded to: ATTN_F32 or ATTN_BF16 */
    attn_linear w_q;   /* [query_width, heads * head_size] */
    attn_linear w_k;   /* [key_width, kv_heads * head_size] */
    attn_linear w_v;   /* [value_width, kv_heads * value_size] */
    attn_linear w_o;   /* [heads * value_size, out_size] */
} attn_layer_config;

/* Pointers to weights are not looked at. NULL_POINTER, BAD_SIZE, BAD_VALUE, OVERFLOW, UNKNOWN_ISA,
 * UNSUPPORTED_ISA. */
ATTN_API attn_status attn_layer_size(const attn_layer_config *config, size_t *bytes,
                                     attn_error *error);
/* Packs the weights into `memory`; they are not needed afterwards. As above, and BAD_STRIDE,
 * MISALIGNED, TOO_SMALL. */
ATTN_API attn_status attn_layer_create(const attn_layer_config *config, void *memory, size_t bytes,
                                       attn_layer **layer, attn_error *error);

/* A layer as a blob. As attn_gemm_export_size. */
ATTN_API attn_status attn_layer_export_size(const attn_layer *layer, attn_isa isa, size_t *bytes,
                                            attn_error *error);
/* As attn_gemm_export. */
ATTN_API attn_status attn_layer_export(const attn_layer *layer, attn_isa isa, void *blob,
                                       size_t bytes, attn_error *error);
/* As attn_gemm_import_size. */
ATTN_API attn_status attn_layer_import_size(const attn_import_config *config, size_t *bytes,
                                            attn_error *error);
/* As attn_gemm_import. */
ATTN_API attn_status attn_layer_import(const attn_import_config *config, void *memory, size_t bytes,
                                       attn_layer **layer, attn_error *error);

typedef struct attn_layer_args {
    size_t batch, q_len, kv_len;
    attn_cu_lens q_cu;  /* of q and y: at most q_len rows for each sequence */
    attn_cu_lens kv_cu; /* of k and v: at most kv_len rows for each; not with a cache */
    /* Rows of any float type. row_stride is at least the width in a sequence of more than one
     * row. */
    attn_tensor q; /* [batch, q_len, query_width] */
    attn_tensor k; /* [batch, kv_len, key_width]; not looked at with a cache */
    attn_tensor v; /* [batch, kv_len, value_width]; likewise */
    /* NULL, or keys and values projected by attn_layer_append; kv_len is then 0 or the length of
     * the longest sequence. */
    const attn_cache *cache;
    attn_tensor_out y; /* [batch, q_len, out_size] */
    attn_options options;
    const attn_parallel *parallel; /* NULL: the calling thread */
} attn_layer_args;

/* Bytes of workspace for these sizes, options and thread count, with a cache for any length up to
 * its capacity. Tensor data is not read. The workspace also serves smaller batches and lengths,
 * down to 0. NULL_POINTER, BAD_SIZE, BAD_VALUE, OVERFLOW, MISMATCH. */
ATTN_API attn_status attn_layer_workspace(const attn_layer *layer, const attn_layer_args *args,
                                          size_t *bytes, attn_error *error);
/* As above, and BAD_STRIDE, OVERLAP, MISALIGNED, TOO_SMALL. */
ATTN_API attn_status attn_layer_forward(const attn_layer *layer, const attn_layer_args *args,
                                        void *workspace, size_t bytes, attn_error *error);

/* A cache config that fits the layer, of its kv_type. The layer takes a cache of any other type as
 * well, whose type then stands in for kv_type. NULL_POINTER. */
ATTN_API attn_status attn_layer_cache_config(const attn_layer *layer, size_t batch, size_t capacity,
                                             attn_cache_config *config, attn_error *error);

/* Keys and values to be projected and appended to a cache. */
typedef struct attn_layer_append_args {
    size_t len;       /* rows per sequence; may be 0 */
    attn_ints lens;   /* not given, or [batch]: rows of each sequence, 0 .. len; not with cu */
    attn_cu_lens cu;  /* of k and v: at most len rows for each sequence */
    attn_tensor k, v; /* [cache's batch, len, key_width or value_width] */
    attn_cache *cache;
    const attn_rotary *rotary; /* as in attn_cache_append_args */
    attn_ints rotary_offsets;  /* likewise */
    const attn_parallel *parallel;
} attn_layer_append_args;

/* Bytes of workspace for these sizes and any smaller ones.
 * NULL_POINTER, BAD_SIZE, BAD_VALUE, OVERFLOW, MISMATCH. */
ATTN_API attn_status attn_layer_append_workspace(const attn_layer *layer,
                                                 const attn_layer_append_args *args, size_t *bytes,
                                                 attn_error *error);
/* As above, and BAD_STRIDE, MISALIGNED, TOO_SMALL. On failure the cache is as it was. */
ATTN_API attn_status attn_layer_append(const attn_layer *layer, const attn_layer_append_args *args,
                                       void *workspace, size_t bytes, attn_error *error);

/* Writes the names of the kernels that the layer runs, with a final zero, at most `size` bytes, to
 * `text`: "gemm=avx512_14x32 attention=avx512_14x32 softmax=avx512 copy=avx512". gemm is w_q's
 * product, attention both products with keys and values of kv_type, softmax what comes between
 * them. Returns the length of the whole text without the zero, as snprintf does; 0 for a NULL
 * layer. */
ATTN_API size_t attn_layer_kernels(const attn_layer *layer, char *text, size_t size);

/* ---- Dense tensors and weights --------------------------------------------------------------- */

/* [batch, heads, rows, size]: each head's rows one after the other. */
static inline attn_tensor attn_tensor_dense(const void *data, attn_type type, size_t heads,
                                            size_t rows, size_t size) {
    attn_tensor tensor;
    tensor.data = data;
    tensor.type = type;
    tensor.batch_stride = heads * rows * size;
    tensor.head_stride = rows * size;
    tensor.row_stride = size;
    tensor.col_stride = 1;
    return tensor;
}

/* [batch, rows, heads, size]: the heads side by side in each row, as a projection leaves them. */
static inline attn_tensor attn_tensor_merged(const void *data, attn_type type, size_t heads,
                                             size_t rows, size_t size) {
    attn_tensor tensor = attn_tensor_dense(data, type, heads, rows, size);
    tensor.head_stride = size;
    tensor.row_stride = heads * size;
    return tensor;
}

/* [batch, rows, width], a layer's rows, say. */
static inline attn_tensor attn_rows_dense(const void *data, attn_type type, size_t rows,
                                          size_t width) {
    attn_tensor tensor = attn_tensor_dense(data, type, 1, rows, width);
    tensor.head_stride = 0;
    return tensor;
}

/* The same for outputs. */
static inline attn_tensor_out attn_tensor_out_of(void *data, attn_tensor like) {
    attn_tensor_out tensor;
    tensor.data = data;
    tensor.type = like.type;
    tensor.batch_stride = like.batch_stride;
    tensor.head_stride = like.head_stride;
    tensor.row_stride = like.row_stride;
    tensor.col_stride = like.col_stride;
    return tensor;
}
static inline attn_tensor_out attn_tensor_out_dense(void *data, attn_type type, size_t heads,
                                                    size_t rows, size_t size) {
    return attn_tensor_out_of(data, attn_tensor_dense(data, type, heads, rows, size));
}
static inline attn_tensor_out attn_tensor_out_merged(void *data, attn_type type, size_t heads,
                                                     size_t rows, size_t size) {
    return attn_tensor_out_of(data, attn_tensor_merged(data, type, heads, rows, size));
}
static inline attn_tensor_out attn_rows_out_dense(void *data, attn_type type, size_t rows,
                                                  size_t width) {
    return attn_tensor_out_of(data, attn_rows_dense(data, type, rows, width));
}

/* A weight stored [in, out], without scales, of any type but INT4, which is stored [out, in]: see
 * attn_linear_transposed. `bias` as in attn_linear. */
static inline attn_linear attn_linear_dense(const void *weight, attn_type type, size_t out,
                                            const float *bias) {
    attn_linear linear;
    linear.weight = weight;
    linear.in_stride = out;
    linear.out_stride = 1;
    linear.bias = bias;
    linear.type = type;
    linear.scales = NULL;
    linear.scale_type = ATTN_F32;
    linear.block = 0;
    linear.zero_points = NULL;
    linear.layout = ATTN_LAYOUT_PLAIN;
    linear.g_idx = NULL;
    linear.dequantised = 0;
    return linear;
}

/* A weight stored [out, in], as nn.Linear does and as INT4 must be. */
static inline attn_linear attn_linear_transposed(const void *weight, attn_type type, size_t in,
                                                 const float *bias) {
    attn_linear linear = attn_linear_dense(weight, type, 1, bias); /* in_stride 1 */
    linear.out_stride = in;
    return linear;
}

#ifdef __cplusplus
}
#endif

#endif
