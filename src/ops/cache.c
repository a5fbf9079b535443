#include "ops/cache.h"

#include "ops/parallel.h"

/* Below this many floats waking another thread costs more than it saves. */
#define PARALLEL_WORK (1u << 16)

bool attn_panel_shape_init(struct attn_panel_shape *shape, const struct attn_gemm_kernel *kernel, size_t head_size,
                           size_t value_size, size_t keys) {
    size_t value_cols;
    *shape = (struct attn_panel_shape){.kernel = kernel, .head_size = head_size, .value_size = value_size};
    return attn_round_up(keys, kernel->cols, &shape->capacity) &&
           attn_round_up(value_size, kernel->cols, &value_cols) &&
           attn_mul(shape->capacity, head_size, &shape->key_floats) &&
           attn_mul(shape->capacity, value_cols, &shape->value_floats);
}

struct attn_panels attn_panels_at(const struct attn_panel_shape *shape, float *keys, float *values, size_t index) {
    return (struct attn_panels){.keys = keys + index * shape->key_floats,
                                .values = values + index * shape->value_floats,
                                .key_panel_stride = shape->head_size * shape->kernel->cols,
                                .value_panel_stride = shape->capacity * shape->kernel->cols};
}

/* A key that does not begin a panel: its column is written into what is there. */
static void append_key(const struct attn_panel_shape *shape, const struct attn_panels *panels, size_t key,
                       const float *k) {
    size_t cols = shape->kernel->cols;
    float *column = panels->keys + key / cols * panels->key_panel_stride + key % cols;
    for (size_t d = 0; d < shape->head_size; d++)
        column[d * cols] = k[d];
}

void attn_panels_append(const struct attn_panel_shape *shape, const struct attn_panels *panels, size_t first,
                        size_t count, const float *k, size_t k_stride, const float *v, size_t v_stride) {
    const struct attn_gemm_kernel *kernel = shape->kernel;
    size_t done = 0;
    for (; done < count && (first + done) % kernel->cols != 0; done++)
        append_key(shape, panels, first + done, k + done * k_stride);
    kernel->pack(
        &(struct attn_pack_args){.k = shape->head_size,
                                 .n = count - done,
                                 .b = k + done * k_stride,
                                 .k_stride = 1,
                                 .n_stride = k_stride,
                                 .packed = panels->keys + (first + done) / kernel->cols * panels->key_panel_stride,
                                 .panel_stride = panels->key_panel_stride});
    kernel->pack(&(struct attn_pack_args){.k = count,
                                          .n = shape->value_size,
                                          .b = v,
                                          .k_stride = v_stride,
                                          .n_stride = 1,
                                          .packed = panels->values + first * kernel->cols,
                                          .panel_stride = panels->value_panel_stride});
}

struct work {
    struct attn_cache *cache;
    size_t len;
    const attn_tensor *k, *v;
    struct attn_queue queue;
};

static void run_task(void *arg, size_t index) {
    struct work *work = arg;
    const struct attn_cache *cache = work->cache;
    (void)index;
    for (size_t item; attn_queue_take(&work->queue, &item);) {
        size_t b = item / cache->config.kv_heads, h = item % cache->config.kv_heads;
        struct attn_panels panels = attn_panels_at(&cache->shape, cache->keys, cache->values, item);
        attn_panels_append(&cache->shape, &panels, cache->length, work->len,
                           work->k->data + b * work->k->batch_stride + h * work->k->head_stride, work->k->row_stride,
                           work->v->data + b * work->v->batch_stride + h * work->v->head_stride, work->v->row_stride);
    }
}

void attn_op_cache_append(struct attn_cache *cache, size_t len, const attn_tensor *k, const attn_tensor *v,
                          const attn_parallel *parallel) {
    struct work work = {.cache = cache, .len = len, .k = k, .v = v};
    const attn_cache_config *config = &cache->config;
    size_t items = config->batch * config->kv_heads, threads = attn_threads(parallel);
    if ((double)items * (double)len * (double)(config->head_size + config->value_size) < PARALLEL_WORK)
        threads = 1;
    attn_queue_init(&work.queue, items);
    attn_run(parallel, threads < items ? threads : items, run_task, &work);
    cache->length += len;
}
