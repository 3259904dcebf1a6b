/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nothing is remembered of an incomplete line: the next read begins at its first byte again. The
 * daemon writes whole lines, but one that is killed in the middle of a write leaves half a line,
 * which its successor cuts off and writes anew, and then bytes kept from before would be wrong.
 * Only a line longer than the buffer, which our own daemon never writes, is handed on in pieces.
 */
#include "host/cli/logtail.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The parts of one line's header; the text begins at header_len. */
struct header {
    const char *time;
    size_t time_len;
    bool is_stderr;
    bool full;
    size_t header_len;
};

static bool word_is(const uint8_t *word, size_t n, const char *text)
{
    return strlen(text) == n && memcmp(word, text, n) == 0;
}

/* Whether the line begins with three words that a log line begins with. */
static bool read_header(const uint8_t *line, size_t n, struct header *ret)
{
    const uint8_t *words[3];
    size_t lens[3], at = 0;
    size_t limit = n < CLI_LOG_MAX_HEADER ? n : CLI_LOG_MAX_HEADER;
    for (size_t w = 0; w < 3; w++) {
        const uint8_t *space = memchr(line + at, ' ', limit - at);
        if (space == NULL)
            return false;
        words[w] = line + at;
        lens[w] = (size_t)(space - words[w]);
        at += lens[w] + 1;
    }
    bool is_stderr = word_is(words[1], lens[1], "stderr");
    if (lens[0] == 0 || (!is_stderr && !word_is(words[1], lens[1], "stdout")))
        return false;
    /* The first tag counts; later ones are for extensions of the format. */
    const uint8_t *colon = memchr(words[2], ':', lens[2]);
    size_t tag_len = colon == NULL ? lens[2] : (size_t)(colon - words[2]);
    bool full = word_is(words[2], tag_len, "F");
    if (!full && !word_is(words[2], tag_len, "P"))
        return false;
    *ret = (struct header){.time = (const char *)words[0],
                           .time_len = lens[0],
                           .is_stderr = is_stderr,
                           .full = full,
                           .header_len = at};
    return true;
}

/* The rest of a line that was begun earlier, up to its newline if that is there. */
static int take_rest(struct cli_log_parser *p, const uint8_t *bytes, size_t n, bool complete,
                     cli_log_fn fn, void *arg, struct err *err)
{
    struct cli_log_piece piece = {
        .is_stderr = p->is_stderr, .text = bytes, .n = n, .ends_line = complete && p->full};
    if (!p->skip && (n > 0 || piece.ends_line) && fn(arg, &piece, err) < 0)
        return -1;
    if (complete)
        p->inside = false;
    return 0;
}

/* A line from its first byte: whole, or (complete is false) the beginning of an overlong one. */
static int take_line(struct cli_log_parser *p, const uint8_t *line, size_t n, bool complete,
                     cli_log_fn fn, void *arg, struct err *err)
{
    struct header h = {0};
    if (!read_header(line, n, &h)) {
        p->bad_lines++;
        p->inside = !complete;
        p->skip = true;
        return 0;
    }
    struct cli_log_piece piece = {.is_stderr = h.is_stderr,
                                  .text = line + h.header_len,
                                  .n = n - h.header_len,
                                  .ends_line = complete && h.full,
                                  .begins = true,
                                  .time = h.time,
                                  .time_len = h.time_len};
    if (fn(arg, &piece, err) < 0)
        return -1;
    p->inside = !complete;
    p->skip = false;
    p->is_stderr = h.is_stderr;
    p->full = h.full;
    return 0;
}

int cli_log_parse(struct cli_log_parser *p, const uint8_t *bytes, size_t n, cli_log_fn fn,
                  void *arg, size_t *ret_used, struct err *err)
{
    size_t used = 0;
    int r = 0;
    while (used < n && r == 0) {
        const uint8_t *begin = bytes + used;
        const uint8_t *newline = memchr(begin, '\n', n - used);
        bool complete = newline != NULL;
        size_t len = complete ? (size_t)(newline - begin) : n - used;
        if (!complete && !p->inside && len < CLI_LOG_MAX_LINE)
            break;
        r = (p->inside ? take_rest : take_line)(p, begin, len, complete, fn, arg, err);
        if (r == 0)
            used += len + (complete ? 1 : 0);
    }
    *ret_used = used;
    return r;
}

/* ---- a log file ---- */

struct cli_log_file {
    char *path;
    int fd; /* -1: there was none yet */
    uint64_t offset;
    struct cli_log_parser parser;
    uint8_t buffer[CLI_LOG_MAX_LINE + CLI_LOG_MAX_HEADER];
};

int cli_log_file_new(const char *path, struct cli_log_file **ret_file, struct err *err)
{
    cleanup_cli_log_file struct cli_log_file *f = calloc(1, sizeof(*f));
    if (f == NULL)
        return err_no_memory(err);
    f->fd = -1;
    f->path = strdup(path);
    if (f->path == NULL)
        return err_no_memory(err);
    *ret_file = steal_ptr(&f);
    return 0;
}

void cli_log_file_free(struct cli_log_file *f)
{
    if (f == NULL)
        return;
    close_fd(&f->fd);
    free(f->path);
    free(f);
}

/* Opens the file if it is there; a regular file is expected, and nothing else is opened. */
static int open_file(struct cli_log_file *f, struct err *err)
{
    cleanup_fd int fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return errno == ENOENT ? 0 : err_set_errno(err, errno, "open log '%s'", f->path);
    struct stat st;
    if (fstat(fd, &st) < 0)
        return err_set_errno(err, errno, "open log '%s'", f->path);
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_INVALID, "log '%s' is no regular file", f->path);
    f->fd = steal_fd(&fd);
    f->offset = 0;
    f->parser.inside = false;
    return 0;
}

/* Whether another file has the name now. */
static bool replaced(const struct cli_log_file *f)
{
    struct stat mine, named;
    return fstat(f->fd, &mine) == 0 && stat(f->path, &named) == 0 &&
           (mine.st_ino != named.st_ino || mine.st_dev != named.st_dev);
}

/* At the end of the file as it is now: goes over to its successor if it is an old one. */
static int next_file(struct cli_log_file *f, bool old, bool *ret_more, struct err *err)
{
    struct stat st;
    if (fstat(f->fd, &st) == 0 && (uint64_t)st.st_size < f->offset) {
        /* Somebody truncated it; what is there now is new. */
        f->offset = 0;
        f->parser.inside = false;
        *ret_more = st.st_size > 0;
        return 0;
    }
    *ret_more = false;
    if (!old)
        return 0;
    close_fd(&f->fd);
    if (open_file(f, err) < 0)
        return -1;
    *ret_more = f->fd >= 0;
    return 0;
}

int cli_log_file_read(struct cli_log_file *f, size_t max_bytes, cli_log_fn fn, void *arg,
                      bool *ret_more, struct err *err)
{
    *ret_more = false;
    if (f->fd < 0 && open_file(f, err) < 0)
        return -1;
    if (f->fd < 0)
        return 0;
    for (size_t taken = 0; taken < max_bytes;) {
        /* Looked at before the read: what was written to the old file after it is not missed. */
        bool old = replaced(f);
        ssize_t n = pread(f->fd, f->buffer, sizeof(f->buffer), (off_t)f->offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set_errno(err, errno, "read log '%s'", f->path);
        size_t used = 0;
        int r = cli_log_parse(&f->parser, f->buffer, (size_t)n, fn, arg, &used, err);
        f->offset += used;
        taken += used;
        if (r < 0)
            return -1;
        if (used > 0)
            continue;
        if (n > 0 && !old)
            return 0; /* the beginning of a line */
        return next_file(f, old, ret_more, err);
    }
    *ret_more = true;
    return 0;
}

uint64_t cli_log_file_bad_lines(const struct cli_log_file *f)
{
    return f->parser.bad_lines;
}

uint64_t cli_log_file_taken(const struct cli_log_file *f)
{
    return f->offset;
}
