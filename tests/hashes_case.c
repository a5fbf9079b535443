/* A case of hashes: its numbers, which come from integers by exact operations alone, its memory and its hash. */
#include "hashes.h"

const struct types all_f32 = {"", ATTN_F32, ATTN_F32, ATTN_F32, NULL};

struct now now;

void stop(const char *format, ...) {
    va_list list;
    va_start(list, format);
    fprintf(stderr, "hashes: ");
    vfprintf(stderr, format, list);
    fprintf(stderr, "\n");
    va_end(list);
    exit(1);
}

/* FNV-1a, 64 bits. */
static uint64_t mix(uint64_t hash, unsigned byte) {
    return (hash ^ byte) * UINT64_C(0x100000001b3);
}

static const uint64_t fnv_start = UINT64_C(0xcbf29ce484222325);

void case_begin(const char *format, ...) {
    va_list list;
    int length = snprintf(now.name, sizeof now.name, "%s", now.types->name);
    va_start(list, format);
    vsnprintf(now.name + length, sizeof now.name - (size_t)length, format, list);
    va_end(list);
    now.random = now.hash = fnv_start;
    for (const char *c = now.name; *c; c++)
        now.random = mix(now.random, (unsigned char)*c);
}

void hash_floats(const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        if ((bits & 0x7fffffff) > 0x7f800000)
            bits = 0x7fc00000;
        for (int shift = 0; shift < 32; shift += 8)
            now.hash = mix(now.hash, bits >> shift & 255);
    }
}

void hash_elements(attn_type type, const void *x, size_t n) {
    const uint16_t *halves = x;
    unsigned infinity = type == ATTN_BF16 ? 0x7f80 : 0x7c00;
    if (type == ATTN_F32)
        hash_floats(x, n);
    for (size_t i = 0; i < n && type != ATTN_F32; i++) {
        unsigned bits = (halves[i] & 0x7fffu) > infinity ? 0x7fff : halves[i];
        now.hash = mix(mix(now.hash, bits & 255), bits >> 8);
    }
}

static void release(void);

void compare(const char *line) {
    char expected[256] = "end of file\n";
    if (fgets(expected, sizeof expected, now.expected))
        expected[strcspn(expected, "\r\n")] = '\0';
    if (strcmp(line, expected) != 0)
        stop("%s on %s:\n  expected %s\n  is       %s", now.path, attn_isa_name(now.isa), expected, line);
}

void case_end(void) {
    char line[160];
    snprintf(line, sizeof line, "%s %08lx%08lx", now.name, (unsigned long)(now.hash >> 32),
             (unsigned long)(now.hash & 0xffffffff));
    if (now.expected)
        compare(line);
    else
        puts(line);
    now.cases++;
    release();
}

/* ---- Memory, until the case ends ---- */

static void *blocks[256];
static size_t block_count;

void *take(size_t bytes) {
    char *block = malloc(bytes + ATTN_ALIGNMENT);
    if (!block || block_count == COUNT(blocks))
        stop("no memory");
    blocks[block_count++] = block;
    return block + (ATTN_ALIGNMENT - (uintptr_t)block % ATTN_ALIGNMENT) % ATTN_ALIGNMENT;
}

static void release(void) {
    while (block_count > 0)
        free(blocks[--block_count]);
}

float *outputs(size_t n) {
    float *x = take(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = -77.0f;
    return x;
}

void *typed_outputs(attn_type type, size_t n) {
    if (type == ATTN_F32)
        return outputs(n);
    uint16_t *x = take(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = 0xc29a;
    return x;
}

/* ---- Numbers ---- */

static uint64_t bits64(void) { /* splitmix64 */
    uint64_t z = now.random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

size_t below(size_t bound) {
    return (size_t)((bits64() >> 32) * bound >> 32);
}

/* The sum of four 21-bit integers, 0 in the mean: exact in a float. Deviation about 1. */
static float number(void) {
    uint64_t bits = bits64(), more = bits64();
    int32_t sum = (int32_t)(bits & 0x1fffff) + (int32_t)(bits >> 32 & 0x1fffff);
    sum += (int32_t)(more & 0x1fffff) + (int32_t)(more >> 32 & 0x1fffff);
    return (float)(sum - 0x400000 + 2) * 0x1p-20f;
}

float *numbers(size_t n) {
    float *x = take(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = number();
    return x;
}

float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

const void *cut(attn_type type, const float *x, size_t n) {
    if (type == ATTN_F32)
        return x;
    uint16_t *y = take(n * sizeof *y);
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff, least = UINT32_C(113) << 23;
        if (type == ATTN_BF16)
            y[i] = (uint16_t)(bits >> 16);
        else
            y[i] = (uint16_t)(magnitude < least                  ? sign
                              : magnitude >= UINT32_C(143) << 23 ? sign | 0x7c00 | (magnitude > 0x7f800000 ? 0x200 : 0)
                                                                 : sign | (magnitude - (UINT32_C(112) << 23)) >> 13);
    }
    return y;
}

void give_type(attn_tensor *x, attn_type type, size_t n) {
    x->data = cut(type, x->data, n);
    x->type = type;
}

void strew(const float *x, size_t n) {
    static const uint32_t special[] = {0x7f800000, 0xff800000, 0x7fc00000, 0x80000000,
                                       0x7f7fffff, 0x00000001, 0x807fffff};
    float *writable = (float *)(uintptr_t)x;
    for (size_t i = 0; i < 1 + n / 200; i++)
        writable[below(n)] = float_of(special[below(COUNT(special))]);
}

int64_t *lengths(size_t n, size_t most) {
    int64_t *lens = take(n * sizeof *lens);
    for (size_t i = 0; i < n; i++)
        lens[i] = (int64_t)below(most + 1);
    return lens;
}

const int64_t *starts_of(size_t batch, size_t len, size_t *total) {
    int64_t *cu = take((batch + 1) * sizeof *cu);
    cu[0] = 0;
    for (size_t b = 0; b < batch; b++)
        cu[b + 1] = cu[b] + (int64_t)(b == 0 ? len : below(len + 1));
    *total = (size_t)cu[batch];
    return cu;
}

/* ---- Calls ---- */

void ok(attn_status status, const attn_error *error) {
    if (status != ATTN_OK)
        stop("%s: %s: %s", now.name, error->field, attn_status_string(status));
}

static void run_backwards(void *context, void (*task)(void *arg, size_t index), void *arg, size_t count) {
    (void)context;
    while (count > 0)
        task(arg, --count);
}

const attn_parallel three_tasks = {run_backwards, NULL, 3};

attn_rotary *new_rotary(size_t positions, size_t dims, attn_rotary_pairs pairs, double base) {
    attn_rotary_config config = {.positions = positions, .dims = dims / 2 * 2, .pairs = pairs, .base = base};
    attn_rotary *rotary = NULL;
    attn_error error = {0};
    size_t bytes = 0;
    ok(attn_rotary_size(&config, &bytes, &error), &error);
    ok(attn_rotary_create(&config, take(bytes), bytes, &rotary, &error), &error);
    return rotary;
}

void run_attention(const attn_attention_args *args) {
    attn_error error = {0};
    size_t bytes = 0;
    ok(attn_attention_workspace(args, &bytes, &error), &error);
    ok(attn_attention(args, take(bytes), bytes, &error), &error);
}
