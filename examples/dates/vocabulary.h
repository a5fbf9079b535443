/* The characters that the model knows, as token numbers. */
#ifndef DATES_VOCABULARY_H
#define DATES_VOCABULARY_H

#include "error.h"
#include <stddef.h>
#include <stdint.h>

enum { TOKEN_PAD, TOKEN_BOS, TOKEN_EOS, TOKEN_NONE, FIRST_CHARACTER, MAX_VOCABULARY = 1024 };

struct vocabulary {
    size_t size;
    uint32_t characters[MAX_VOCABULARY]; /* Unicode; the four tokens that are no characters stand as U+FFFD */
};

/* Bytes of the UTF-8 character at the start of `text`; 0 where there is none that is valid. */
size_t utf8_decode(const char *text, size_t length, uint32_t *character);
/* Writes at most 4 bytes and returns their number. */
size_t utf8_encode(uint32_t character, char *text);

/* From a JSON array: "<pad>", "<bos>", "<eos>", "<none>", then single characters. */
bool vocabulary_parse(struct vocabulary *vocabulary, const char *json, struct error *error);
/* Text to at most `capacity` tokens. The error counts characters from 1. */
bool vocabulary_encode(const struct vocabulary *vocabulary, const char *text, size_t length, int32_t *tokens,
                       size_t capacity, size_t *count, struct error *error);
/* Tokens to text with a final zero; `text` holds 4 * count + 1 bytes. */
void vocabulary_decode(const struct vocabulary *vocabulary, const int32_t *tokens, size_t count, char *text);

#endif
