/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text for a terminal: escaping of what others named, columns, and quantities as people read them.
 * Widths are in terminal cells, sizes in bytes. Nothing here keeps state. LC_CTYPE must be a UTF-8
 * locale (main sets C.UTF-8), because wcwidth(3) follows it.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/base/cleanup.h"
#include "common/base/err.h"

#define CLI_QUANTITY_SIZE 32 /* bytes of a formatted quantity, NUL included */
#define CLI_SHORT_ID      13 /* digits of a shortened id */

/*
 * A copy on the heap in which everything that could steer a terminal or mislead its reader is spelt
 * out: control characters, bytes that are not UTF-8, bidirectional and invisible format characters
 * as \xNN or \u{N}, a backslash as two. NULL when out of memory.
 */
char *cli_escape(const char *text);

/* Cells that escaped text takes. */
size_t cli_text_width(const char *text);

/* "0 B", "1.5 KiB", "12.0 GiB". */
void cli_format_bytes(uint64_t bytes, char ret_text[CLI_QUANTITY_SIZE]);
/* A span in its largest whole unit: "0s", "59m", "3h", "12d"; "-" for a negative one. */
void cli_format_age(int64_t span_ns, char ret_text[CLI_QUANTITY_SIZE]);
/* The first CLI_SHORT_ID digits of an id, its "sha256:" left out. */
void cli_format_id(const char *id, char ret_text[CLI_SHORT_ID + 1]);

/* ---- tables ---- */

struct cli_table;

/* A table whose columns have these heads (copied). */
int cli_table_new(const char *const *heads, size_t n_columns, struct cli_table **ret_table,
                  struct err *err);
/* With its copies of the cells. NULL is fine. */
void cli_table_free(struct cli_table *table);
DEFINE_CLEANUP(cli_table, struct cli_table, cli_table_free)
#define cleanup_cli_table CLEANUP(cli_table_cleanup_)

/* One more row: n_columns texts, which are escaped and copied; NULL and "" show as "-". */
int cli_table_add(struct cli_table *table, const char *const *cells, struct err *err);
/* Heads and rows, each column as wide as its widest cell, nothing after the last. */
void cli_table_print(const struct cli_table *table, FILE *out);
