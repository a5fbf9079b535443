/* Attention weights as a picture. A row of the picture is a character of a text, and shows how its attention spreads
 * over the characters before it: each looks for the places where the character before was its own, whose next it would
 * repeat. The picture is a PPM file, and small ones are printed too.
 *
 *     heatmap [TEXT [FILE.ppm]] */
#include "support.h"
#include <math.h>
#include <string.h>

enum { SIZE = 64, CELL = 12, MOST = 200 };
#define SCALE 0.3f /* equal characters: exp(0.3 * 64), all others near 1 */

/* Sixty-four signs for a character; those of two characters agree in about half of the places. */
static void write_code(unsigned char character, float *code) {
    uint32_t state = character * 2654435761u;
    for (size_t i = 0; i < SIZE; i++) {
        state = state * 1664525u + 1013904223u;
        code[i] = state >> 31 ? 1.0f : -1.0f;
    }
}

/* weights [len][len]: queries are characters, keys the characters one place earlier; the first has none. */
static void compute(const char *text, size_t len, float *weights) {
    float *codes = allocate((len + 1) * SIZE * sizeof *codes), *o = allocate(len * SIZE * sizeof *o);
    memset(codes, 0, SIZE * sizeof *codes);
    for (size_t i = 0; i < len; i++)
        write_code((unsigned char)text[i], codes + (i + 1) * SIZE);
    attn_attention_args args = {.batch = 1, .heads = 1, .q_len = len, .kv_len = len, .head_size = SIZE, .scale = SCALE};
    args.q = (attn_tensor){codes + SIZE, .row_stride = SIZE};
    args.k = args.v = (attn_tensor){codes, .row_stride = SIZE};
    args.o = (attn_tensor_out){o, .row_stride = SIZE};
    args.options.causal = 1;
    args.options.weights.data = weights;
    attention(&args);
    free(codes);
    free(o);
}

/* White to dark blue, a square of CELL pixels for a weight. */
static int save(const char *path, const float *weights, size_t len) {
    FILE *file = fopen(path, "wb");
    if (!file)
        return 0;
    fprintf(file, "P6\n%zu %zu\n255\n", len * CELL, len * CELL);
    for (size_t y = 0; y < len * CELL; y++) {
        for (size_t x = 0; x < len * CELL; x++) {
            const float weight = sqrtf(weights[y / CELL * len + x / CELL]);
            const unsigned char rgb[] = {(unsigned char)(255 - 246 * weight), (unsigned char)(255 - 221 * weight),
                                         (unsigned char)(255 - 175 * weight)};
            fwrite(rgb, 1, sizeof rgb, file);
        }
    }
    const int failed = ferror(file);
    return fclose(file) == 0 && !failed;
}

static void print(const char *text, const float *weights, size_t len) {
    static const char shades[] = " .:-=+*#%@";
    printf("  %s\n", text);
    for (size_t i = 0; i < len; i++) {
        printf("%c ", text[i]);
        for (size_t j = 0; j <= i; j++)
            putchar(shades[(size_t)(weights[i * len + j] * 9.0f + 0.5f)]);
        printf("\n");
    }
}

/* Rows sum to 1, nothing looks ahead, and a character that has been followed before looks there with all its weight. */
static int is_right(const char *text, const float *weights, size_t len) {
    for (size_t i = 0; i < len; i++) {
        float sum = 0, on_repeats = 0;
        int repeats = 0;
        for (size_t j = 0; j < len; j++) {
            const float weight = weights[i * len + j];
            const int repeat = j > 0 && j <= i && text[j - 1] == text[i];
            if (j > i && weight != 0)
                return 0;
            sum += weight;
            on_repeats += repeat ? weight : 0;
            repeats += repeat;
        }
        if (fabsf(sum - 1) > 1e-5f || (repeats && on_repeats < 0.9f))
            return 0;
    }
    return 1;
}

int main(int argc, char **argv) {
    const char *text = argc > 1 ? argv[1] : "she sells sea shells by the sea shore", *path = argc > 2 ? argv[2] : NULL;
    const size_t len = strlen(text);
    if (len == 0 || len > MOST) {
        fprintf(stderr, "heatmap: a text of 1 to %d characters\n", MOST);
        return EXIT_FAILURE;
    }
    float *weights = allocate(len * len * sizeof *weights);
    compute(text, len, weights);
    print(text, weights, len);
    const int saved = !path || save(path, weights, len), right = is_right(text, weights, len);
    if (!saved)
        fprintf(stderr, "heatmap: %s cannot be written\n", path);
    if (!right)
        fprintf(stderr, "heatmap: the weights are wrong\n");
    free(weights);
    return !saved || !right;
}
