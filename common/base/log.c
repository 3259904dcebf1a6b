/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A line is formatted into a fixed buffer and written with one write(2): no lock, no allocation,
 * and a line of at most PIPE_BUF bytes stays whole even when several processes share a pipe. What
 * does not fit is cut.
 */
#include "common/base/log.h"

#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"

static _Atomic int log_fd = STDERR_FILENO;
static _Atomic int log_threshold = LOG_INFO;

struct line {
    char text[PIPE_BUF];
    size_t len;
};

void log_set_level(enum log_level level)
{
    atomic_store(&log_threshold, (int)level);
}

void log_set_fd(int fd)
{
    atomic_store(&log_fd, fd);
}

int log_level_parse(const char *text, enum log_level *ret_level)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(text, names[i]) == 0) {
            *ret_level = (enum log_level)i;
            return 0;
        }
    }
    return -1;
}

/* Keeps two bytes back, for the closing quote and the newline. */
static void put_char(struct line *l, char c)
{
    if (l->len < sizeof(l->text) - 2)
        l->text[l->len++] = c;
}

static void put_text(struct line *l, const char *s)
{
    for (; *s != '\0'; s++)
        put_char(l, *s);
}

static void put_quoted(struct line *l, const char *s)
{
    static const char hex[] = "0123456789abcdef";
    put_char(l, '"');
    for (; *s != '\0'; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') {
            put_char(l, '\\');
            put_char(l, (char)c);
        } else if (c < 0x20 || c == 0x7f) {
            put_text(l, "\\x");
            put_char(l, hex[c >> 4]);
            put_char(l, hex[c & 15]);
        } else {
            put_char(l, (char)c);
        }
    }
    if (l->len < sizeof(l->text) - 1)
        l->text[l->len++] = '"';
}

static void put_field(struct line *l, const char *key, const char *value)
{
    if (value == NULL)
        return;
    put_char(l, ' ');
    put_text(l, key);
    put_char(l, '=');
    put_quoted(l, value);
}

void log_event(enum log_level level, const struct log_ctx *ctx, const struct err *err,
               const char *fmt, ...)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    if ((int)level < atomic_load(&log_threshold))
        return;
    int saved_errno = errno;

    char msg[2048];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(msg, sizeof(msg), fmt, ap);
    va_end(ap);

    struct line l = {.len = 0};
    char now[CLOCK_RFC3339_SIZE];
    clock_format_rfc3339(clock_realtime_ns(), now);
    put_text(&l, "time=");
    put_text(&l, now);
    put_text(&l, " level=");
    put_text(&l, names[level]);
    if (ctx != NULL) {
        put_field(&l, "sandbox", ctx->sandbox);
        put_field(&l, "container", ctx->container);
    }
    put_field(&l, "msg", msg);
    if (err != NULL && err->code != ERR_NONE) {
        put_text(&l, " code=");
        put_text(&l, err_code_name(err->code));
        put_field(&l, "err", err->msg);
    }
    l.text[l.len++] = '\n';
    ssize_t n;
    do {
        n = write(atomic_load(&log_fd), l.text, l.len);
    } while (n < 0 && errno == EINTR);
    errno = saved_errno;
}
