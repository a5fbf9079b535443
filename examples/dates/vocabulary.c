#include "vocabulary.h"
#include <cjson/cJSON.h>
#include <string.h>

#define REPLACEMENT 0xfffd

size_t utf8_decode(const char *text, size_t length, uint32_t *character) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000}; /* shorter spellings are not valid */
    const unsigned char *byte = (const unsigned char *)text;
    if (length == 0)
        return 0;
    const size_t bytes = byte[0] < 0x80             ? 1
                         : (byte[0] & 0xe0) == 0xc0 ? 2
                         : (byte[0] & 0xf0) == 0xe0 ? 3
                         : (byte[0] & 0xf8) == 0xf0 ? 4
                                                    : 0;
    if (bytes == 0 || bytes > length)
        return 0;
    uint32_t value = bytes == 1 ? byte[0] : byte[0] & (0x7fu >> bytes);
    for (size_t i = 1; i < bytes; i++) {
        if ((byte[i] & 0xc0) != 0x80)
            return 0;
        value = value << 6 | (byte[i] & 0x3f);
    }
    if (value < least[bytes] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff))
        return 0;
    *character = value;
    return bytes;
}

size_t utf8_encode(uint32_t character, char *text) {
    if (character < 0x80) {
        text[0] = (char)character;
        return 1;
    }
    const size_t bytes = character < 0x800 ? 2 : character < 0x10000 ? 3 : 4;
    for (size_t i = bytes; i-- > 1; character >>= 6)
        text[i] = (char)(0x80 | (character & 0x3f));
    text[0] = (char)((0xf00 >> bytes & 0xff) | character);
    return bytes;
}

static bool read_token(struct vocabulary *vocabulary, const cJSON *item, struct error *error) {
    static const char *const special[] = {"<pad>", "<bos>", "<eos>", "<none>"};
    const size_t token = vocabulary->size;
    if (token == MAX_VOCABULARY)
        return refuse(error, "vocab: more than %d entries", MAX_VOCABULARY);
    if (!cJSON_IsString(item))
        return refuse(error, "vocab: entry %zu is not a string", token);
    uint32_t character = REPLACEMENT;
    if (token < FIRST_CHARACTER) {
        if (strcmp(item->valuestring, special[token]) != 0)
            return refuse(error, "vocab: entry %zu is \"%s\", not %s", token, item->valuestring, special[token]);
    } else {
        const size_t length = strlen(item->valuestring);
        if (length == 0 || utf8_decode(item->valuestring, length, &character) != length)
            return refuse(error, "vocab: entry %zu is not a single character", token);
        for (size_t i = FIRST_CHARACTER; i < token; i++)
            if (vocabulary->characters[i] == character)
                return refuse(error, "vocab: entries %zu and %zu are the same", i, token);
    }
    vocabulary->characters[vocabulary->size++] = character;
    return true;
}

bool vocabulary_parse(struct vocabulary *vocabulary, const char *json, struct error *error) {
    bool ok = true;
    vocabulary->size = 0;
    cJSON *array = cJSON_Parse(json);
    if (!cJSON_IsArray(array))
        ok = refuse(error, "vocab: not a JSON array");
    else if (cJSON_GetArraySize(array) <= FIRST_CHARACTER)
        ok = refuse(error, "vocab: %d entries, no characters among them", cJSON_GetArraySize(array));
    else
        for (const cJSON *item = array->child; item && ok; item = item->next)
            ok = read_token(vocabulary, item, error);
    cJSON_Delete(array);
    return ok;
}

static int32_t find_token(const struct vocabulary *vocabulary, uint32_t character) {
    for (size_t i = FIRST_CHARACTER; i < vocabulary->size; i++)
        if (vocabulary->characters[i] == character)
            return (int32_t)i;
    return -1;
}

bool vocabulary_encode(const struct vocabulary *vocabulary, const char *text, size_t length, int32_t *tokens,
                       size_t capacity, size_t *count, struct error *error) {
    size_t used = 0;
    for (size_t at = 0; at < length; used++) {
        uint32_t character = 0;
        const size_t bytes = utf8_decode(text + at, length - at, &character);
        if (used == capacity)
            return refuse(error, "more than %zu characters", capacity);
        if (bytes == 0)
            return refuse(error, "character %zu is not valid UTF-8", used + 1);
        tokens[used] = find_token(vocabulary, character);
        if (tokens[used] < 0)
            return refuse(error, "character %zu, \"%.*s\" (U+%04X), is not one that the model knows", used + 1,
                          (int)bytes, text + at, (unsigned)character);
        at += bytes;
    }
    if (used == 0)
        return refuse(error, "no characters");
    *count = used;
    return true;
}

void vocabulary_decode(const struct vocabulary *vocabulary, const int32_t *tokens, size_t count, char *text) {
    for (size_t i = 0; i < count; i++)
        text += utf8_encode(vocabulary->characters[tokens[i]], text);
    *text = 0;
}
