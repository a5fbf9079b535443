/* Memory for libattn's objects and workspaces from malloc, for programs that have no allocator of
 * their own to use. The library allocates nothing, with this header either: what stands here is
 * compiled into the program.
 *
 *     attn_layer *layer = NULL;
 *     attn_buffer workspace = {NULL, 0};
 *     attn_error error;
 *     if (attn_layer_new(&config, &layer, &error) ||
 *         attn_layer_forward_in(layer, &args, &workspace, &error))
 *         ...
 *     attn_buffer_free(&workspace);
 *     attn_free(layer);
 *
 * Where malloc has no memory, a function fails as it does without memory: ATTN_NULL_POINTER, field
 * "memory" or "workspace". C99 or C++11. */
#ifndef ATTN_ALLOC_H
#define ATTN_ALLOC_H

#include <attn/attn.h>
#include <stddef.h>
#include <stdlib.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Memory ---------------------------------------------------------------------------------- */

/* `bytes` at ATTN_ALIGNMENT, or NULL. attn_free alone frees them.
 *
 * Aligned by hand: strict C99 and Windows lack C11's and POSIX's functions. What malloc returned is
 * kept in front of the memory. */
static inline void *attn_alloc(size_t bytes) {
    const size_t more = ATTN_ALIGNMENT + sizeof(void *);
    char *block = (char *)(bytes <= (size_t)-1 / 2 - more ? malloc(bytes + more) : NULL);
    void **memory;
    if (!block)
        return NULL;
    memory = (void **)(void *)(block + more - (size_t)(block + more) % ATTN_ALIGNMENT);
    memory[-1] = block;
    return memory;
}

/* Also of an object that a function below has made. NULL is allowed. */
static inline void attn_free(void *memory) {
    if (memory)
        free(((void **)memory)[-1]);
}

/* Memory that grows: a workspace for any number of calls, one at a time. It begins as {NULL, 0}. */
typedef struct attn_buffer {
    void *memory;
    size_t bytes;
} attn_buffer;

/* At least `bytes`; what was in it is lost where it grows. NULL, and the buffer is as it was, where
 * there is no memory. */
static inline void *attn_buffer_reserve(attn_buffer *buffer, size_t bytes) {
    void *memory;
    if (buffer->memory && bytes <= buffer->bytes)
        return buffer->memory;
    memory = attn_alloc(bytes);
    if (!memory)
        return NULL;
    attn_free(buffer->memory);
    buffer->memory = memory;
    buffer->bytes = bytes;
    return memory;
}

static inline void attn_buffer_free(attn_buffer *buffer) {
    attn_free(buffer->memory);
    buffer->memory = NULL;
    buffer->bytes = 0;
}

/* ---- Objects: size, memory and creation in one call ------------------------------------------ */

/* Each fails as the two functions that it calls do, and *object is then as it was. attn_free frees
 * the object. */
#define ATTN_DEFINE_NEW(name, config_type, object_type, size, create)                              \
    static inline attn_status name(const config_type *config, object_type **object,                \
                                   attn_error *error) {                                            \
        size_t bytes = 0;                                                                          \
        object_type *made = NULL;                                                                  \
        void *memory;                                                                              \
        attn_status status = size(config, &bytes, error);                                          \
        if (status != ATTN_OK)                                                                     \
            return status;                                                                         \
        memory = attn_alloc(bytes);                                                                \
        status = create(config, memory, bytes, object ? &made : NULL, error);                      \
        if (status != ATTN_OK)                                                                     \
            attn_free(memory);                                                                     \
        else                                                                                       \
            *object = made;                                                                        \
        return status;                                                                             \
    }

/* attn_gemm_new(const attn_gemm_config *config, attn_gemm **object, attn_error *error), and so on
 * for the others. */
ATTN_DEFINE_NEW(attn_gemm_new, attn_gemm_config, attn_gemm, attn_gemm_size, attn_gemm_create)
ATTN_DEFINE_NEW(attn_rotary_new, attn_rotary_config, attn_rotary, attn_rotary_size,
                attn_rotary_create)
ATTN_DEFINE_NEW(attn_cache_new, attn_cache_config, attn_cache, attn_cache_size, attn_cache_create)
ATTN_DEFINE_NEW(attn_cache_fork_new, attn_cache_fork_config, attn_cache, attn_cache_fork_size,
                attn_cache_fork)
ATTN_DEFINE_NEW(attn_layer_new, attn_layer_config, attn_layer, attn_layer_size, attn_layer_create)
/* Of packed weights in a blob. */
ATTN_DEFINE_NEW(attn_gemm_import_new, attn_import_config, attn_gemm, attn_gemm_import_size,
                attn_gemm_import)
ATTN_DEFINE_NEW(attn_layer_import_new, attn_import_config, attn_layer, attn_layer_import_size,
                attn_layer_import)
#undef ATTN_DEFINE_NEW

/* ---- Calls whose workspace grows with them --------------------------------------------------- */

/* As attn_attention. Asks for the size on every call: that reads no tensor's data. */
static inline attn_status attn_attention_in(const attn_attention_args *args, attn_buffer *workspace,
                                            attn_error *error) {
    size_t bytes = 0;
    attn_status status = attn_attention_workspace(args, &bytes, error);
    void *memory = status == ATTN_OK ? attn_buffer_reserve(workspace, bytes) : NULL;
    return status == ATTN_OK ? attn_attention(args, memory, bytes, error) : status;
}

/* As attn_gemm_run; the workspace in *args is not looked at. */
static inline attn_status attn_gemm_run_in(const attn_gemm *gemm, const attn_gemm_run_args *args,
                                           attn_buffer *workspace, attn_error *error) {
    size_t bytes = 0;
    attn_status status = attn_gemm_workspace(gemm, args, &bytes, error);
    attn_gemm_run_args with;
    if (status != ATTN_OK)
        return status;
    with = *args;
    with.workspace = attn_buffer_reserve(workspace, bytes);
    with.workspace_bytes = bytes;
    return attn_gemm_run(gemm, &with, error);
}

/* As attn_layer_forward. */
static inline attn_status attn_layer_forward_in(const attn_layer *layer,
                                                const attn_layer_args *args, attn_buffer *workspace,
                                                attn_error *error) {
    size_t bytes = 0;
    attn_status status = attn_layer_workspace(layer, args, &bytes, error);
    void *memory = status == ATTN_OK ? attn_buffer_reserve(workspace, bytes) : NULL;
    return status == ATTN_OK ? attn_layer_forward(layer, args, memory, bytes, error) : status;
}

/* As attn_layer_append. */
static inline attn_status attn_layer_append_in(const attn_layer *layer,
                                               const attn_layer_append_args *args,
                                               attn_buffer *workspace, attn_error *error) {
    size_t bytes = 0;
    attn_status status = attn_layer_append_workspace(layer, args, &bytes, error);
    void *memory = status == ATTN_OK ? attn_buffer_reserve(workspace, bytes) : NULL;
    return status == ATTN_OK ? attn_layer_append(layer, args, memory, bytes, error) : status;
}

#ifdef __cplusplus
}
#endif

#endif
