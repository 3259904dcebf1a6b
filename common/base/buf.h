/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A growable byte buffer with a ceiling: a FIFO that is appended at the end and consumed at the
 * front, and a string builder. Embedded by value: buf_init/buf_fini, or BUF_INIT(max) +
 * cleanup_buf. Sizes in bytes. Not thread-safe.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/cleanup.h"
#include "common/base/err.h"

struct buf {
    uint8_t *data; /* allocation; unread bytes are data[start .. start+len) */
    size_t start;
    size_t len;
    size_t capacity;
    size_t max; /* appending beyond this many unread bytes fails with EXHAUSTED */
};

#define BUF_INIT(max_bytes)                                                                        \
    (struct buf)                                                                                   \
    {                                                                                              \
        .max = (max_bytes)                                                                         \
    }

/* An empty buffer that never holds more than max_bytes. Allocates nothing. */
void buf_init(struct buf *b, size_t max_bytes);
/* Releases the memory; the buffer is empty and may be used again. */
void buf_fini(struct buf *b);

static inline void cleanup_buf_(struct buf *b)
{
    buf_fini(b);
}
#define cleanup_buf CLEANUP(cleanup_buf_)

/* The unread bytes; valid until the next call that changes the buffer. */
static inline const uint8_t *buf_bytes(const struct buf *b)
{
    return b->data == NULL ? NULL : b->data + b->start;
}

/* Appends a copy of n bytes. EXHAUSTED when over max or out of memory; then nothing was appended.
 */
int buf_append(struct buf *b, const void *bytes, size_t n, struct err *err);

/* Room for n bytes at the end: fill at *ret_space, then buf_commit what was used. */
int buf_reserve(struct buf *b, size_t n, void **ret_space, struct err *err);
/* Makes n bytes that were written into reserved space part of the buffer. */
void buf_commit(struct buf *b, size_t n);

/* Drops n bytes (at most all) from the front. */
void buf_consume(struct buf *b, size_t n);

/* Appends formatted text, without its NUL. */
int buf_printf(struct buf *b, struct err *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The content as a NUL-terminated string, owned by the caller (free); the buffer is empty
 * afterwards. */
int buf_take_string(struct buf *b, char **ret_text, struct err *err);
