/* What the examples have in common: memory, errors, numbers in place of a model's. */
#ifndef EXAMPLES_SUPPORT_H
#define EXAMPLES_SUPPORT_H

#include <attn/attn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* The library allocates nothing: it says how many bytes, aligned so. */
static inline void *allocate(size_t bytes) {
    void *memory = aligned_alloc(ATTN_ALIGNMENT, (bytes / ATTN_ALIGNMENT + 1) * ATTN_ALIGNMENT);
    if (!memory) {
        fprintf(stderr, "no memory for %zu bytes\n", bytes);
        exit(EXIT_FAILURE);
    }
    return memory;
}

/* Ends the program where a call has failed, with the library's sentence. */
static inline void check(attn_status status, const attn_error *error) {
    if (status == ATTN_OK)
        return;
    char text[128];
    attn_error_text(error, text, sizeof text);
    fprintf(stderr, "%s\n", text);
    exit(EXIT_FAILURE);
}

/* The same `count` numbers from -1 to 1 for a seed, on every machine. The caller frees them. */
static inline float *numbers(uint32_t seed, size_t count) {
    float *x = allocate(count * sizeof *x);
    for (size_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(seed >> 8) / (float)(1 << 23) - 1.0f;
    }
    return x;
}

/* A call with a workspace of its own. A program that computes more than once asks for its largest call, and keeps it. */
static inline void attention(const attn_attention_args *args) {
    attn_error error;
    size_t bytes = 0;
    check(attn_attention_workspace(args, &bytes, &error), &error);
    void *workspace = allocate(bytes);
    check(attn_attention(args, workspace, bytes, &error), &error);
    free(workspace);
}

static inline void forward(const attn_layer *layer, const attn_layer_args *args) {
    attn_error error;
    size_t bytes = 0;
    check(attn_layer_workspace(layer, args, &bytes, &error), &error);
    void *workspace = allocate(bytes);
    check(attn_layer_forward(layer, args, workspace, bytes, &error), &error);
    free(workspace);
}

static inline void append(const attn_layer *layer, const attn_layer_append_args *args) {
    attn_error error;
    size_t bytes = 0;
    check(attn_layer_append_workspace(layer, args, &bytes, &error), &error);
    void *workspace = allocate(bytes);
    check(attn_layer_append(layer, args, workspace, bytes, &error), &error);
    free(workspace);
}

#endif
