/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages are built in place and truncated rather than grown, so that reporting "out of memory"
 * needs none. They may quote bytes of a peer, therefore control bytes and what is no UTF-8 are
 * neutralised once, here, instead of at each of the many places that print a message (log, gRPC
 * trailer, terminal). It is done after formatting: a precision such as %.300s, too, can have cut a
 * character in two. What is too long ends with a whole character.
 */
#include "common/base/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/base/text.h"

#define MAX_CHARACTER 4 /* bytes in UTF-8 */

/* Bytes of the character at s, which has n; 0: it is none. */
static size_t character(const char *s, size_t n)
{
    for (size_t len = 1; len <= n && len <= MAX_CHARACTER; len++) {
        if (text_is_utf8(s, len))
            return len;
    }
    return 0;
}

static void sanitise(char *s)
{
    size_t n = strlen(s);
    while (n > 0) {
        size_t step = character(s, n);
        if (step == 0 || (unsigned char)*s < 0x20 || *s == 0x7f) {
            *s = '?';
            step = 1;
        }
        s += step;
        n -= step;
    }
}

/* How many of n bytes, the beginning of a longer text, are whole characters. */
static size_t cut(const char *s, size_t n)
{
    for (size_t back = 1; back < MAX_CHARACTER && back <= n; back++) {
        unsigned char c = (unsigned char)s[n - back];
        if ((c & 0xc0) == 0x80)
            continue; /* inside a character */
        return c >= 0x80 && character(s + n - back, back) == 0 ? n - back : n;
    }
    return n;
}

/* Formats a text without what is left out at the end of a buffer; returns its length. */
static size_t format(char *ret_text, size_t size, const char *fmt, va_list ap)
{
    int n = vsnprintf(ret_text, size, fmt, ap);
    size_t len = n < 0 ? 0 : (size_t)n;
    if (len >= size)
        len = cut(ret_text, size - 1);
    ret_text[len] = '\0';
    return len;
}

static void set_va(struct err *err, enum err_code code, const char *fmt, va_list ap)
{
    err->code = code;
    err->sys_errno = 0;
    (void)format(err->msg, sizeof(err->msg), fmt, ap);
    sanitise(err->msg);
}

int err_set(struct err *err, enum err_code code, const char *fmt, ...)
{
    if (err == NULL)
        return -1;
    va_list ap;
    va_start(ap, fmt);
    set_va(err, code, fmt, ap);
    va_end(ap);
    return -1;
}

static enum err_code code_of_errno(int e)
{
    switch (e) {
    case ENOMEM:
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
    case EAGAIN:
    case EFBIG:
        return ERR_EXHAUSTED;
    case ENOENT:
        return ERR_NOT_FOUND;
    case EEXIST:
        return ERR_EXISTS;
    case ETIMEDOUT:
        return ERR_DEADLINE;
    case EACCES:
    case EPERM:
        return ERR_DENIED;
    case ECONNREFUSED:
    case ECONNRESET:
    case EPIPE:
        return ERR_UNAVAILABLE;
    default:
        return ERR_SYSTEM;
    }
}

int err_set_errno(struct err *err, int sys_errno, const char *fmt, ...)
{
    if (err == NULL)
        return -1;
    va_list ap;
    va_start(ap, fmt);
    set_va(err, code_of_errno(sys_errno), fmt, ap);
    va_end(ap);
    err->sys_errno = sys_errno;

    size_t len = strlen(err->msg);
    /* Unlike strerror_r it takes no lock, and may be called between fork and exec. */
    const char *s = strerrordesc_np(sys_errno);
    if (s != NULL)
        (void)snprintf(err->msg + len, sizeof(err->msg) - len, ": %s", s);
    else
        (void)snprintf(err->msg + len, sizeof(err->msg) - len, ": Unknown error %d", sys_errno);
    return -1;
}

int err_no_memory(struct err *err)
{
    (void)err_set(err, ERR_EXHAUSTED, "out of memory");
    if (err != NULL)
        err->sys_errno = ENOMEM;
    return -1;
}

int err_prefix(struct err *err, const char *fmt, ...)
{
    if (err == NULL)
        return -1;
    char old[sizeof(err->msg)];
    memcpy(old, err->msg, sizeof(old));

    va_list ap;
    va_start(ap, fmt);
    size_t used = format(err->msg, sizeof(err->msg) - 2, fmt, ap);
    va_end(ap);
    size_t room = sizeof(err->msg) - used - 3; /* without ": " and the end */
    size_t old_len = strnlen(old, sizeof(old) - 1);
    if (old_len > room)
        old_len = cut(old, room);
    err->msg[used] = ':';
    err->msg[used + 1] = ' ';
    memcpy(err->msg + used + 2, old, old_len);
    err->msg[used + 2 + old_len] = '\0';
    sanitise(err->msg);
    return -1;
}

const char *err_code_name(enum err_code code)
{
    static const char *const names[] = {
        [ERR_NONE] = "NONE",
        [ERR_INVALID] = "INVALID",
        [ERR_NOT_FOUND] = "NOT_FOUND",
        [ERR_EXISTS] = "EXISTS",
        [ERR_BAD_STATE] = "BAD_STATE",
        [ERR_UNAVAILABLE] = "UNAVAILABLE",
        [ERR_DEADLINE] = "DEADLINE",
        [ERR_EXHAUSTED] = "EXHAUSTED",
        [ERR_DENIED] = "DENIED",
        [ERR_PROTOCOL] = "PROTOCOL",
        [ERR_UNSUPPORTED] = "UNSUPPORTED",
        [ERR_CANCELLED] = "CANCELLED",
        [ERR_SYSTEM] = "SYSTEM",
    };
    if ((unsigned)code >= sizeof(names) / sizeof(names[0]) || names[code] == NULL)
        return "UNKNOWN";
    return names[code];
}
