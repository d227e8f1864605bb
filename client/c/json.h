/* As much JSON as the header of an answer needs: members of objects, found without building anything. */
#ifndef PERSTACK_JSON_H
#define PERSTACK_JSON_H

#include <stddef.h>

/* A piece of a text; `start` is NULL where there is none. */
typedef struct {
    const char *start;
    size_t length;
} json_slice;

/* The value of a member of an object, as it stands there. */
json_slice json_member(json_slice object, const char *key);

/* 1 for the word, e.g. "true". */
int json_is(json_slice value, const char *word);

/* The integer; `otherwise` if it is none, or beyond 2^53-1. */
long long json_integer(json_slice value, long long otherwise);

/* Copies a string without its escapes, cut to the room there is, always with a closing NUL; "" if it is none. */
void json_string(json_slice value, char *into, size_t room);

/* Appends a string with its escapes and quotation marks at `into`, which has room for 6 bytes a byte, 2 and a NUL.
 * Returns the place after it. */
char *json_quote(char *into, const char *text);

#endif
