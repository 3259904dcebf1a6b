/* SPDX-License-Identifier: Apache-2.0 */
/* Every check of foreign text that more than one room needs; strict by design: what is not clearly
 * well-formed is not. */
#include "common/base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* Length of the UTF-8 sequence at p with n bytes left, 0 if it is malformed or a NUL. */
static size_t utf8_sequence(const unsigned char *p, size_t n)
{
    unsigned char c = p[0];
    if (c == 0)
        return 0;
    if (c < 0x80)
        return 1;
    size_t len = c >= 0xc2 && c <= 0xdf   ? 2
                 : c >= 0xe0 && c <= 0xef ? 3
                 : c >= 0xf0 && c <= 0xf4 ? 4
                                          : 0;
    if (len == 0 || len > n)
        return 0;
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    if ((c == 0xe0 && p[1] < 0xa0) || (c == 0xed && p[1] > 0x9f) || (c == 0xf0 && p[1] < 0x90) ||
        (c == 0xf4 && p[1] > 0x8f))
        return 0;
    return len;
}

bool text_is_utf8(const void *bytes, size_t n)
{
    const unsigned char *p = bytes;
    while (n > 0) {
        uint64_t eight;
        /* Almost all of it is ASCII: no high bit, and none after taking one away where no byte is
         * zero. */
        if (n >= sizeof(eight)) {
            memcpy(&eight, p, sizeof(eight));
            if (((eight | (eight - 0x0101010101010101u)) & 0x8080808080808080u) == 0) {
                p += sizeof(eight);
                n -= sizeof(eight);
                continue;
            }
        }
        size_t step = utf8_sequence(p, n);
        if (step == 0)
            return false;
        p += step;
        n -= step;
    }
    return true;
}

int text_parse_u64(const char *text, uint64_t max, uint64_t *ret_value)
{
    uint64_t v = 0;
    if (*text == '\0')
        return -1;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9')
            return -1;
        uint64_t digit = (uint64_t)(*text - '0');
        if (v > (max - digit) / 10 || digit > max)
            return -1;
        v = v * 10 + digit;
    }
    *ret_value = v;
    return 0;
}

void text_hex(const void *bytes, size_t n, char *ret_hex)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *p = bytes;
    for (size_t i = 0; i < n; i++) {
        ret_hex[2 * i] = digits[p[i] >> 4];
        ret_hex[2 * i + 1] = digits[p[i] & 15];
    }
    ret_hex[2 * n] = '\0';
}

bool text_is_hex(const char *text, size_t n)
{
    return strspn(text, "0123456789abcdef") == n && text[n] == '\0';
}

void text_random_hex(size_t n_bytes, char *ret_hex)
{
    unsigned char chunk[32];
    while (n_bytes > 0) {
        size_t n = n_bytes < sizeof(chunk) ? n_bytes : sizeof(chunk);
        /* Up to 256 bytes getrandom is atomic once the generator is seeded, which it is after early
         * boot. */
        if (getrandom(chunk, n, 0) != (ssize_t)n)
            abort();
        text_hex(chunk, n, ret_hex);
        ret_hex += 2 * n;
        n_bytes -= n;
    }
}

char *text_printf(const char *fmt, ...)
{
    char *s = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&s, fmt, ap);
    va_end(ap);
    return n < 0 ? NULL : s;
}

bool text_has_prefix(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}
