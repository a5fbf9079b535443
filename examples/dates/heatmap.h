/* Attention weights as a picture: a self-contained SVG with the source's characters along x, the answer's along y. */
#ifndef DATES_HEATMAP_H
#define DATES_HEATMAP_H

#include "vocabulary.h"

struct heatmap {
    const struct vocabulary *vocabulary;
    const int32_t *source, *answer; /* tokens */
    size_t source_length, answer_length, layers, heads;
    const float *const *weights; /* of each layer: [heads, answer_length, source_length], each from 0 to 1 */
};

/* One large panel per layer, the mean of its heads, and below a small one per layer and head. */
void heatmap_write(FILE *file, const struct heatmap *map);
/* The same into a file at `path`. */
bool heatmap_save(const char *path, const struct heatmap *map, struct error *error);

#endif
