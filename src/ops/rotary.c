#include "ops/rotary.h"

#include <math.h>
#include <string.h>

#include "ops/power.h"

double attn_rotary_frequency(const attn_rotary_config *config, size_t i) {
    return config->frequencies ? config->frequencies[i] : attn_power(config->base, 2 * i, config->dims);
}

/* The angle minus its whole turns, with 2 pi in two words. A float holds that exactly to half a unit in the last place;
 * the angle itself as a float would be off by a thousandth of a radian at position 32768. */
static float reduced(double angle) {
    double turns = rint(angle * 0x1.45f306dc9c883p-3);
    struct attn_double2 whole = attn_product(turns, 0x1.921fb54442d18p+2);
    return (float)(((angle - whole.hi) - whole.lo) - turns * 0x1.1a62633145c07p-52);
}

/* Cosines and sines of one position: first one of each per pair, then copied to both elements of the pair. */
static void fill_position(const struct attn_elementary_kernel *kernel, const struct attn_rotary *rotary,
                          size_t position, float *cosines, float *sines) {
    size_t half = rotary->dims / 2;
    float *angles = cosines + half, *sine = sines + half; /* in the upper halves, until these are filled */
    for (size_t i = 0; i < half; i++)
        angles[i] = reduced((double)position * rotary->frequencies[i]);
    kernel->sin(angles, sine, half);
    kernel->cos(angles, cosines, half);
    if (!rotary->interleaved) {
        memcpy(cosines + half, cosines, half * sizeof *cosines);
        for (size_t i = 0; i < half; i++)
            sines[i] = -sine[i];
        return;
    }
    for (size_t i = 0; i < half; i++) { /* upwards: each sine is read before its place is written */
        float s = sine[i];
        sines[2 * i] = -s;
        sines[2 * i + 1] = s;
    }
    for (size_t i = half; i-- > 0;) { /* downwards: so is each cosine */
        float c = cosines[i];
        cosines[2 * i] = cosines[2 * i + 1] = c;
    }
}

void attn_op_rotary_fill(const struct attn_elementary_kernel *kernel, struct attn_rotary *rotary) {
    for (size_t p = 0; p < rotary->positions; p++) {
        float *cosines = rotary->table + p * 2 * rotary->dims;
        fill_position(kernel, rotary, p, cosines, cosines + rotary->dims);
    }
}

void attn_rotary_rotate(const struct attn_attention_kernel *kernel, const struct attn_rotary *rotary, size_t position,
                        const float *row, size_t size, float *out) {
    size_t dims = position < rotary->positions ? rotary->dims : 0;
    const float *cosines = rotary->table + position * 2 * dims;
    if (dims)
        kernel->rotate(row, cosines, cosines + dims, dims, rotary->interleaved, out);
    if (out != row && size > dims)
        memcpy(out + dims, row + dims, (size - dims) * sizeof *row);
}
