#include "dates_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *dates_directory(void) {
    const char *given = getenv("ATTN_DATES_DIR");
    return given ? given : "examples/dates";
}

struct bytes read_whole(const char *name) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", dates_directory(), name);
    FILE *file = fopen(path, "rb");
    if (!file)
        test_fail("%s cannot be opened; is ATTN_DATES_DIR set?", path);
    struct bytes bytes = {NULL, 0};
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    bytes.size = (size_t)ftell(file);
    rewind(file);
    bytes.data = guarded_alloc(bytes.size, 4, FLUSH_END);
    assert_int_equal(fread(bytes.data, 1, bytes.size, file), bytes.size);
    fclose(file);
    return bytes;
}

bool create(struct model *model, const struct bytes *bytes, const struct model_config *config, struct error *error) {
    struct safetensors file;
    return safetensors_parse(&file, bytes->data, bytes->size, error) && model_create(model, &file, config, error);
}

void assert_names(const struct error *error, const char *culprit) {
    if (!strstr(error->text, culprit))
        test_fail("the error is \"%s\" and does not name \"%s\"", error->text, culprit);
}
