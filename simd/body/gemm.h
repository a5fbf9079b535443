/* What the tiles of every ISA share. A tile.h gives its sizes, as constants, and includes this. */
#ifndef ATTN_BODY_GEMM_H
#define ATTN_BODY_GEMM_H

#include <stdbool.h>

#include "body/fetch.h"
#include "body/objects.h"

enum { VECS = COLS / VEC_LANES }; /* registers of a panel */

/* attn_gemm_args of f32, strides and addresses in floats. */
struct product {
    size_t m, n, k;
    const float *a;
    size_t a_stride;
    const float *b; /* packed, where the product begins; or in place */
    size_t panel_stride;
    int narrow;        /* panels have ATTN_LANES columns, where the kernel's have more */
    size_t b_stride;   /* in place, instead of panel_stride */
    const float *bias; /* NULL for none */
    int accumulate;    /* chains start from c, multiplied by scale[i] unless that is NULL */
    const float *scale;
    float *c;
    size_t c_stride;
};

/* The part of attn_pack_args that begins with a panel. */
struct packing {
    size_t k, n;
    const float *b;
    size_t k_stride, n_stride;
    float *packed;
    size_t panel_stride;
    int narrow;
};

/* How the columns of B lie, a register each: floats from one step of k to the next, from a register to the next one
 * of the same panel, and from a panel to the next. */
struct layout {
    size_t step, next, panel;
};

/* Only a panel wider than a narrow one has a narrow layout: two narrow panels side by side then count as one. */
INLINE struct layout layout_of(size_t panel_stride, int narrow) {
    return COLS > ATTN_LANES && narrow ? (struct layout){ATTN_LANES, panel_stride, VECS * panel_stride}
                                       : (struct layout){COLS, VEC_LANES, panel_stride};
}

INLINE struct layout layout_in_place(size_t row_stride) {
    return (struct layout){row_stride, VEC_LANES, COLS};
}

/* Where register v begins. */
INLINE size_t place(struct layout layout, size_t v) {
    return v / VECS * layout.panel + v % VECS * layout.next;
}

/* A tile's place: rows from a and c, columns from b; the last register of each row ends at `tail`. */
struct tile {
    size_t k;
    const float *a;
    size_t a_stride;
    const float *b;
    struct layout layout; /* of panels, or of rows in place */
    size_t b_stride;      /* of columns in place */
    const float *bias;
    const float *scale; /* NULL, or what c, from which the chains then start, is multiplied by in each row */
    float *c;
    size_t c_stride;
    vec_tail tail;   /* of c and bias */
    vec_tail b_tail; /* of rows in place; panels are full */
    /* What is fetched meanwhile: the first floats, and how many floats further on each step of k. b and the layout's
     * step where nothing is to be fetched: what is read anyway. */
    const float *ahead;
    size_t ahead_step;
};

typedef void tile_function(const struct tile *t);

/* Where the chains start: compile-time rows and registers, all of them `full` or the last with a tail. */
INLINE void tile_begin(const struct tile *t, vec *acc, const int rows, const int width, const int full) {
    UNROLL for (int j = 0; j < width; j++) {
        vec_tail lanes = j == width - 1 && !full ? t->tail : VEC_WHOLE;
        vec start = t->bias ? vec_load_tail(lanes, t->bias + j * VEC_LANES) : vec_zero();
        UNROLL for (int i = 0; i < rows; i++) acc[i * width + j] = start;
    }
    if (t->scale) {
        UNROLL for (int i = 0; i < rows; i++) {
            const float *c = t->c + (size_t)i * t->c_stride;
            vec scale = vec_set(t->scale[i]);
            UNROLL for (int j = 0; j < width - 1; j++) acc[i * width + j] = vec_mul(vec_load(c + j * VEC_LANES), scale);
            acc[i * width + width - 1] =
                vec_mul(vec_load_tail(full ? VEC_WHOLE : t->tail, c + (width - 1) * VEC_LANES), scale);
        }
    }
}

INLINE void tile_end(const struct tile *t, const vec *acc, const int rows, const int width, const int full) {
    float *c = t->c;
    size_t c_stride = t->c_stride;
    vec_tail tail = full ? VEC_WHOLE : t->tail;
    UNROLL for (int i = 0; i < rows; i++, c += c_stride) {
        UNROLL for (int j = 0; j < width - 1; j++) vec_store(c + j * VEC_LANES, acc[i * width + j]);
        vec_store_tail(tail, c + (width - 1) * VEC_LANES, acc[i * width + width - 1]);
    }
}

/* One pointer for every four rows, or panels: what x86's addressing modes reach with the stride and its multiples. */
INLINE void pointers(const float **p, const int count, const float *first, size_t stride, const int rows) {
    UNROLL for (int q = 0; q < count; q++) {
        p[q] = first + (size_t)(q * 4 < rows ? q * 4 : 0) * stride;
        __asm__("" : "+r"(p[q])); /* or the compiler derives each from the first again, through the stack */
    }
}

/* What DEPTH elements of columns in place fetch for later ones: a line of some columns further on, so that in 16
 * elements it is the turn of each; where columns follow each other (`dense`), the lines that the next tile reads, in
 * the order in which they lie. */
INLINE void fetch_columns(const float *b, size_t b_stride, const float *next, size_t p, const int width,
                          const int dense) {
    const size_t turns = (size_t)width * VEC_LANES * DEPTH / LINE;
    size_t turn = PREFETCH + p % LINE / DEPTH * turns;
    UNROLL for (size_t i = 0; i < turns; i++) {
        if (dense)
            vec_prefetch(next, i * LINE);
        else
            vec_prefetch(b, (turn + i) * b_stride);
    }
}

#endif
