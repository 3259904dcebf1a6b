/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Structured logging: one event, one line, one write(2), to one descriptor (standard error unless
 * told otherwise), so that lines of several threads never mix. Format: RFC3339Nano time, level,
 * key=value fields, msg="…", err="…"; strings are quoted and control bytes escaped. Never log a
 * credential or an environment value. Thread-safe.
 */
#pragma once

#include "common/base/err.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

/* Which object a line is about; NULL members are left out. */
struct log_ctx {
    const char *sandbox;   /* pod sandbox id */
    const char *container; /* container id */
};

/* Lines below `level` are dropped. Default LOG_INFO. */
void log_set_level(enum log_level level);

/* Where lines go; the caller keeps the descriptor open for as long as the process logs. Default 2.
 */
void log_set_fd(int fd);

/* Parses "debug", "info", "warn" or "error". Returns 0, or -1 for any other text. */
int log_level_parse(const char *text, enum log_level *ret_level);

/* One event. ctx and err may be NULL; err adds err="<message>" code=<code>. Keeps errno. */
void log_event(enum log_level level, const struct log_ctx *ctx, const struct err *err,
               const char *fmt, ...) __attribute__((format(printf, 4, 5)));

#define log_debug(...) log_event(LOG_DEBUG, NULL, NULL, __VA_ARGS__)
#define log_info(...)  log_event(LOG_INFO, NULL, NULL, __VA_ARGS__)
#define log_warn(...)  log_event(LOG_WARN, NULL, NULL, __VA_ARGS__)
#define log_error(...) log_event(LOG_ERROR, NULL, NULL, __VA_ARGS__)
