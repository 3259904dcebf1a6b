/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything here reads a peer's bytes, so each function is total: any input gives an answer and
 * nothing is allocated.
 */
#include "common/rpc/meta.h"

#include <stdio.h>
#include <string.h>

#include "common/base/text.h"

int rpc_timeout_parse(const void *text, size_t n, int64_t *ret_timeout_ms)
{
    const char *s = text;
    if (n < 2 || n > 9)
        return -1;
    int64_t value = 0;
    for (size_t i = 0; i < n - 1; i++) {
        if (s[i] < '0' || s[i] > '9')
            return -1;
        value = value * 10 + (s[i] - '0');
    }
    switch (s[n - 1]) {
    case 'H':
        *ret_timeout_ms = value * 3600 * 1000;
        return 0;
    case 'M':
        *ret_timeout_ms = value * 60 * 1000;
        return 0;
    case 'S':
        *ret_timeout_ms = value * 1000;
        return 0;
    case 'm':
        *ret_timeout_ms = value;
        return 0;
    case 'u':
        *ret_timeout_ms = (value + 999) / 1000;
        return 0;
    case 'n':
        *ret_timeout_ms = (value + 999999) / 1000000;
        return 0;
    default:
        return -1;
    }
}

void rpc_timeout_format(int64_t timeout_ms, char ret_text[RPC_TIMEOUT_SIZE])
{
    static const struct {
        int64_t ms;
        char unit;
    } units[] = {{1, 'm'}, {1000, 'S'}, {60000, 'M'}, {3600000, 'H'}};
    const int64_t most = 99999999;

    if (timeout_ms < 0)
        timeout_ms = 0;
    int64_t value = most;
    char unit = 'H';
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        int64_t v = timeout_ms / units[i].ms + (timeout_ms % units[i].ms != 0);
        if (v <= most) {
            value = v;
            unit = units[i].unit;
            break;
        }
    }
    (void)snprintf(ret_text, RPC_TIMEOUT_SIZE, "%d%c", (int)value, unit);
}

void rpc_percent_encode(const char *text, char *ret, size_t size)
{
    static const char hex[] = "0123456789ABCDEF";
    size_t out = 0;
    size_t whole = 0; /* where the last complete character ended in ret */

    for (const char *p = text; *p != '\0'; p++) {
        unsigned char c = (unsigned char)*p;
        if ((c & 0xc0) != 0x80)
            whole = out;
        bool plain = c >= 0x20 && c <= 0x7e && c != '%';
        if (out + (plain ? 1 : 3) >= size) {
            out = whole;
            break;
        }
        if (plain) {
            ret[out++] = (char)c;
        } else {
            ret[out++] = '%';
            ret[out++] = hex[c >> 4];
            ret[out++] = hex[c & 15];
        }
    }
    ret[out] = '\0';
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

/* Replaces each byte of s that does not belong to well-formed UTF-8. */
static void replace_malformed(char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t len = 1;
        while (len <= 4 && len <= n - i && !text_is_utf8(s + i, len))
            len++;
        if (len > 4 || len > n - i) {
            s[i++] = '?';
            continue;
        }
        i += len;
    }
}

void rpc_percent_decode(const void *text, size_t n, char *ret, size_t size)
{
    const char *s = text;
    size_t out = 0;
    for (size_t i = 0; i < n && out + 1 < size; out++) {
        int hi = -1, lo = -1;
        if (s[i] == '%' && n - i > 2) {
            hi = hex_digit(s[i + 1]);
            lo = hex_digit(s[i + 2]);
        }
        if (hi >= 0 && lo >= 0) {
            ret[out] = (char)(hi << 4 | lo);
            i += 3;
        } else {
            ret[out] = s[i++];
        }
    }
    replace_malformed(ret, out);
    ret[out] = '\0';
}

bool rpc_is_grpc_content(const void *text, size_t n)
{
    static const char base[] = "application/grpc";
    static const char proto[] = "+proto";
    const char *s = text;
    const size_t len = sizeof(base) - 1;

    if (n < len || memcmp(s, base, len) != 0)
        return false;
    s += len;
    n -= len;
    if (n >= sizeof(proto) - 1 && memcmp(s, proto, sizeof(proto) - 1) == 0) {
        s += sizeof(proto) - 1;
        n -= sizeof(proto) - 1;
    }
    return n == 0 || *s == ';' || *s == ' ';
}

int rpc_number_parse(const void *text, size_t n, uint32_t *ret_number)
{
    const char *s = text;
    if (n == 0 || n > 9)
        return -1;
    uint32_t value = 0;
    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9')
            return -1;
        value = value * 10 + (uint32_t)(s[i] - '0');
    }
    *ret_number = value;
    return 0;
}
