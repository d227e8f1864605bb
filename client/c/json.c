#include "json.h"

#include <stdio.h>
#include <string.h>

#define INTEGER_MAX 9007199254740991LL
#define DEPTH_MAX 64

static const char *skip_space(const char *at, const char *end)
{
    while (at < end && strchr(" \t\r\n", *at) != NULL && *at != '\0')
        at++;
    return at;
}

/* The place after a string, NULL if it does not end. */
static const char *skip_string(const char *at, const char *end)
{
    for (at++; at < end; at++) {
        if (*at == '\\')
            at++;
        else if (*at == '"')
            return at + 1;
    }
    return NULL;
}

/* The place after a value, NULL if it does not end. */
static const char *skip_value(const char *at, const char *end)
{
    int depth = 0;
    do {
        at = skip_space(at, end);
        if (at >= end)
            return NULL;
        if (*at == '"') {
            at = skip_string(at, end);
            if (at == NULL)
                return NULL;
        } else if (*at == '{' || *at == '[') {
            if (++depth > DEPTH_MAX)
                return NULL;
            at++;
        } else if (*at == '}' || *at == ']') {
            if (--depth < 0)
                return NULL;
            at++;
        } else if (*at == ',' || *at == ':') {
            if (depth == 0)
                return NULL;
            at++;
        } else {
            while (at < end && *at != '\0' && strchr(",:{}[]\" \t\r\n", *at) == NULL)
                at++;
            if (at < end && *at == '\0')
                return NULL;
        }
    } while (depth > 0);
    return at;
}

json_slice json_member(json_slice object, const char *key)
{
    const json_slice none = {NULL, 0};
    json_slice found = none;
    if (object.start == NULL)
        return none;
    const char *end = object.start + object.length;
    const char *at = skip_space(object.start, end);
    if (at >= end || *at != '{')
        return none;
    at = skip_space(at + 1, end);
    while (at < end && *at == '"') {
        const char *name = at + 1;
        at = skip_string(at, end);
        if (at == NULL)
            return none;
        size_t length = (size_t)(at - 1 - name);
        at = skip_space(at, end);
        if (at >= end || *at != ':')
            return none;
        const char *start = skip_space(at + 1, end);
        at = skip_value(start, end);
        if (at == NULL)
            return none;
        if (length == strlen(key) && memcmp(name, key, length) == 0)
            found = (json_slice){start, (size_t)(at - start)};
        at = skip_space(at, end);
        if (at < end && *at == ',')
            at = skip_space(at + 1, end);
        else
            break;
    }
    return at < end && *at == '}' ? found : none;
}

int json_is(json_slice value, const char *word)
{
    return value.start != NULL && value.length == strlen(word) && memcmp(value.start, word, value.length) == 0;
}

long long json_integer(json_slice value, long long otherwise)
{
    long long number = 0;
    if (value.start == NULL || value.length == 0)
        return otherwise;
    for (size_t i = 0; i < value.length; i++) {
        char digit = value.start[i];
        if (digit < '0' || digit > '9' || number > INTEGER_MAX / 10)
            return otherwise;
        number = number * 10 + (digit - '0');
    }
    return number <= INTEGER_MAX ? number : otherwise;
}

/* Four hexadecimal digits, -1 if they are none. */
static long hexadecimal(const char *at, const char *end)
{
    long number = 0;
    if (end - at < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        const char *digits = "0123456789abcdef0123456789ABCDEF";
        const char *digit = at[i] == '\0' ? NULL : strchr(digits, at[i]);
        if (digit == NULL)
            return -1;
        number = number * 16 + (digit - digits) % 16;
    }
    return number;
}

/* UTF-8 of a character; how many bytes. */
static size_t encode(long character, char *into)
{
    if (character < 0x80) {
        into[0] = (char)character;
        return 1;
    }
    if (character < 0x800) {
        into[0] = (char)(0xC0 | character >> 6);
        into[1] = (char)(0x80 | (character & 0x3F));
        return 2;
    }
    if (character < 0x10000) {
        into[0] = (char)(0xE0 | character >> 12);
        into[1] = (char)(0x80 | (character >> 6 & 0x3F));
        into[2] = (char)(0x80 | (character & 0x3F));
        return 3;
    }
    into[0] = (char)(0xF0 | character >> 18);
    into[1] = (char)(0x80 | (character >> 12 & 0x3F));
    into[2] = (char)(0x80 | (character >> 6 & 0x3F));
    into[3] = (char)(0x80 | (character & 0x3F));
    return 4;
}

/* Reads the escape behind the backslash at `at`; moves on to its last byte. */
static long unescape(const char **at, const char *end)
{
    const char *known = "\"\\/bfnrt", *means = "\"\\/\b\f\n\r\t";
    const char *found = **at == '\0' ? NULL : strchr(known, **at);
    if (found != NULL)
        return means[found - known];
    long character = **at == 'u' ? hexadecimal(*at + 1, end) : -1;
    if (character < 0)
        return '?';
    *at += 4;
    if (character >= 0xD800 && character < 0xDC00 && end - *at > 6 && (*at)[1] == '\\' && (*at)[2] == 'u') {
        long low = hexadecimal(*at + 3, end);
        if (low >= 0xDC00 && low < 0xE000) {
            *at += 6;
            return 0x10000 + ((character - 0xD800) << 10) + (low - 0xDC00);
        }
    }
    return character >= 0xD800 && character < 0xE000 ? '?' : character;
}

void json_string(json_slice value, char *into, size_t room)
{
    size_t used = 0;
    if (value.start != NULL && value.length >= 2 && value.start[0] == '"') {
        const char *end = value.start + value.length - 1;
        for (const char *at = value.start + 1; at < end && used + 5 <= room; at++) {
            if (*at == '\\' && at + 1 < end) {
                at++;
                used += encode(unescape(&at, end), into + used);
            } else {
                into[used++] = *at;
            }
        }
        /* A character that was cut in the middle goes. */
        size_t last = used;
        while (last > 0 && (into[last - 1] & 0xC0) == 0x80)
            last--;
        if (last > 0 && (into[last - 1] & 0xC0) == 0xC0) {
            unsigned char lead = (unsigned char)into[last - 1];
            size_t needed = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
            if (used - (last - 1) < needed)
                used = last - 1;
        }
    }
    into[used] = '\0';
}

char *json_quote(char *into, const char *text)
{
    *into++ = '"';
    for (; *text != '\0'; text++) {
        unsigned char byte = (unsigned char)*text;
        if (byte == '"' || byte == '\\') {
            *into++ = '\\';
            *into++ = *text;
        } else if (byte < 0x20) {
            into += sprintf(into, "\\u%04x", byte);
        } else {
            *into++ = *text;
        }
    }
    *into++ = '"';
    *into = '\0';
    return into;
}
