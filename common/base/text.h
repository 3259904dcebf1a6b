/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checks and conversions of text that comes from outside: UTF-8, numbers, hexadecimal, identifiers.
 * Pure functions over caller's memory; the only allocation is text_printf's. Thread-safe.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether n bytes are well-formed UTF-8 (RFC 3629: no surrogates, no overlong forms) without an
 * embedded NUL. */
bool text_is_utf8(const void *bytes, size_t n);

/* Parses a whole decimal number (no sign, no blanks) of at most `max`. Returns 0, or -1. */
int text_parse_u64(const char *text, uint64_t max, uint64_t *ret_value);

/* Writes 2n lowercase hexadecimal digits and a NUL: ret_hex has room for 2n+1 bytes. */
void text_hex(const void *bytes, size_t n, char *ret_hex);

/* Whether text is exactly n lowercase hexadecimal digits. */
bool text_is_hex(const char *text, size_t n);

/* Fills n_bytes from the kernel's random generator as hexadecimal: ret_hex has room for
 * 2*n_bytes+1. */
void text_random_hex(size_t n_bytes, char *ret_hex);

/* A formatted string on the heap (free it), or NULL when out of memory. */
char *text_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Whether text begins with prefix. */
bool text_has_prefix(const char *text, const char *prefix);

/* text, or "" when it is NULL. */
static inline const char *text_or_empty(const char *text)
{
    return text == NULL ? "" : text;
}
