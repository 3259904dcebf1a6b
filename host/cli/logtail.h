/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a container's log back into the bytes that it wrote: only this file knows how a line of a
 * CRI log is taken apart ("TIME stdout|stderr TAGS text", tag F for a whole line, P for a piece of
 * one that goes on; Kubernetes design "CRI logging"). A line that is no such line is counted and
 * left out. Memory is bounded whatever the file holds.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/cleanup.h"
#include "common/base/err.h"

/* A longer line is handed on in pieces before its end has been seen. */
#define CLI_LOG_MAX_LINE (64u << 10)
/* Longest header of a line, up to its text. */
#define CLI_LOG_MAX_HEADER 256u

/* A line, or a piece of one, of the container's output. */
struct cli_log_piece {
    bool is_stderr;
    const uint8_t *text;
    size_t n;
    bool ends_line;   /* a newline followed in the container's output */
    bool begins;      /* first piece of its line of the log: time is valid */
    const char *time; /* as in the log, not NUL-terminated */
    size_t time_len;
};

typedef int (*cli_log_fn)(void *arg, const struct cli_log_piece *piece, struct err *err);

/* What is known of a line that was longer than the buffer. Zeroed: at the start of a line. */
struct cli_log_parser {
    bool inside; /* in the middle of a line */
    bool skip;   /* which is no log line */
    bool is_stderr;
    bool full; /* tag F */
    uint64_t bad_lines;
};

/*
 * Takes apart the complete lines in bytes and hands each to fn; *ret_used says how many bytes that
 * was. The rest is an incomplete line: call again with it and what follows, n up to
 * CLI_LOG_MAX_LINE at least. Fails only when fn does; then *ret_used is what was taken before.
 */
int cli_log_parse(struct cli_log_parser *parser, const uint8_t *bytes, size_t n, cli_log_fn fn,
                  void *arg, size_t *ret_used, struct err *err);

/* ---- a log file ---- */

struct cli_log_file;

/* A log that may not exist yet. */
int cli_log_file_new(const char *path, struct cli_log_file **ret_file, struct err *err);
/* Closes it. NULL is fine. */
void cli_log_file_free(struct cli_log_file *file);
DEFINE_CLEANUP(cli_log_file, struct cli_log_file, cli_log_file_free)
#define cleanup_cli_log_file CLEANUP(cli_log_file_cleanup_)

/*
 * Hands on what has been added since the last call, at most about max_bytes of it; *ret_more: there
 * is more already. Follows a file that was replaced (rotation) once the old one is read to its end.
 */
int cli_log_file_read(struct cli_log_file *file, size_t max_bytes, cli_log_fn fn, void *arg,
                      bool *ret_more, struct err *err);

/* Lines so far that were no log lines. */
uint64_t cli_log_file_bad_lines(const struct cli_log_file *file);
/* Bytes of the present file that were taken. */
uint64_t cli_log_file_taken(const struct cli_log_file *file);
