/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Consuming moves only an index; the bytes are moved down when an append needs the space in front,
 * so that a buffer used as a FIFO copies each byte at most a bounded number of times. Growth
 * doubles, never beyond max.
 */
#include "common/base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void buf_init(struct buf *b, size_t max_bytes)
{
    *b = BUF_INIT(max_bytes);
}

void buf_fini(struct buf *b)
{
    free(b->data);
    *b = BUF_INIT(b->max);
}

int buf_reserve(struct buf *b, size_t n, void **ret_space, struct err *err)
{
    if (n > b->max || b->len > b->max - n)
        return err_set(err, ERR_EXHAUSTED, "buffer limit of %zu bytes met", b->max);
    if (b->start + b->len + n > b->capacity && b->start > 0) {
        if (b->len > 0)
            memmove(b->data, b->data + b->start, b->len);
        b->start = 0;
    }
    if (b->len + n > b->capacity || b->data == NULL) {
        size_t want = b->capacity < 128 ? 128 : b->capacity * 2;
        if (want < b->len + n)
            want = b->len + n;
        uint8_t *p = realloc(b->data, want);
        if (p == NULL)
            return err_no_memory(err);
        b->data = p;
        b->capacity = want;
    }
    *ret_space = b->data + b->start + b->len;
    return 0;
}

void buf_commit(struct buf *b, size_t n)
{
    b->len += n;
}

int buf_append(struct buf *b, const void *bytes, size_t n, struct err *err)
{
    if (n == 0)
        return 0;
    void *space;
    if (buf_reserve(b, n, &space, err) < 0)
        return -1;
    memcpy(space, bytes, n);
    buf_commit(b, n);
    return 0;
}

void buf_consume(struct buf *b, size_t n)
{
    if (n >= b->len) {
        b->start = 0;
        b->len = 0;
        return;
    }
    b->start += n;
    b->len -= n;
}

int buf_printf(struct buf *b, struct err *err, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    void *space;
    int r = -1;
    if (n < 0)
        (void)err_set(err, ERR_INVALID, "unprintable format");
    else if (buf_reserve(b, (size_t)n + 1, &space, err) == 0) {
        (void)vsnprintf(space, (size_t)n + 1, fmt, again);
        buf_commit(b, (size_t)n);
        r = 0;
    }
    va_end(again);
    return r;
}

int buf_take_string(struct buf *b, char **ret_text, struct err *err)
{
    char *s = malloc(b->len + 1);
    if (s == NULL)
        return err_no_memory(err);
    if (b->len > 0)
        memcpy(s, buf_bytes(b), b->len);
    s[b->len] = '\0';
    buf_fini(b);
    *ret_text = s;
    return 0;
}
