/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pod names, labels and image references come from tenants, and error texts can quote them, so
 * nothing of it reaches a terminal before cli_escape has seen it. Decoding is done here and not
 * with mbrtowc, so that invalid bytes can be shown one by one.
 */
#include "host/cli/text.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "common/base/buf.h"
#include "common/base/text.h"

enum { MAX_TEXT = 1 << 20 };

/* Length of the well-formed UTF-8 sequence at s (1 to 4), its code point in *ret; 0: none. */
static size_t decode(const unsigned char *s, uint32_t *ret)
{
    size_t n = s[0] < 0x80 ? 1 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    for (size_t i = 1; i < n; i++) {
        if (s[i] == '\0')
            return 0;
    }
    if (!text_is_utf8(s, n))
        return 0;
    static const unsigned char lead_mask[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    uint32_t c = s[0] & lead_mask[n];
    for (size_t i = 1; i < n; i++)
        c = c << 6 | (s[i] & 0x3f);
    *ret = c;
    return n;
}

/* Invisible characters and those that reorder what stands around them. */
static bool misleads(uint32_t c)
{
    return (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
           (c >= 0x2060 && c <= 0x206f) || c == 0x061c || c == 0xfeff || c == 0x00ad ||
           (c >= 0xe0000 && c <= 0xe0fff);
}

static int append_char(struct buf *b, const unsigned char *s, size_t n, uint32_t c)
{
    if (n == 0)
        return buf_printf(b, NULL, "\\x%02x", s[0]);
    if (c == '\\')
        return buf_append(b, "\\\\", 2, NULL);
    if (c < 0x20 || c == 0x7f)
        return buf_printf(b, NULL, "\\x%02x", (unsigned)c);
    if (c < 0x7f)
        return buf_append(b, s, 1, NULL);
    if (misleads(c) || wcwidth((wchar_t)c) < 0)
        return buf_printf(b, NULL, "\\u{%x}", (unsigned)c);
    return buf_append(b, s, n, NULL);
}

char *cli_escape(const char *text)
{
    cleanup_buf struct buf b = BUF_INIT(8 * MAX_TEXT);
    const unsigned char *s = (const unsigned char *)text;
    for (size_t left = strnlen(text, MAX_TEXT); left > 0;) {
        uint32_t c = 0;
        size_t n = decode(s, &c);
        if (append_char(&b, s, n, c) < 0)
            return NULL;
        n = n == 0 ? 1 : n;
        s += n;
        left -= n < left ? n : left;
    }
    char *copy = NULL;
    return buf_take_string(&b, &copy, NULL) < 0 ? NULL : copy;
}

size_t cli_text_width(const char *text)
{
    size_t width = 0;
    const unsigned char *s = (const unsigned char *)text;
    while (*s != '\0') {
        uint32_t c = 0;
        size_t n = decode(s, &c);
        int w = n == 0 ? 1 : wcwidth((wchar_t)c);
        width += w < 0 ? 1 : (size_t)w;
        s += n == 0 ? 1 : n;
    }
    return width;
}

void cli_format_bytes(uint64_t bytes, char ret_text[CLI_QUANTITY_SIZE])
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    if (bytes < 1024) {
        (void)snprintf(ret_text, CLI_QUANTITY_SIZE, "%u B", (unsigned)bytes);
        return;
    }
    size_t unit = 0;
    double v = (double)bytes / 1024;
    /* 1023.95 would be printed as 1024.0 */
    while (v >= 1023.95 && unit + 1 < ARRAY_SIZE(units)) {
        v /= 1024;
        unit++;
    }
    (void)snprintf(ret_text, CLI_QUANTITY_SIZE, "%.1f %s", v, units[unit]);
}

void cli_format_age(int64_t span_ns, char ret_text[CLI_QUANTITY_SIZE])
{
    int64_t s = span_ns / 1000000000;
    if (span_ns < 0)
        (void)snprintf(ret_text, CLI_QUANTITY_SIZE, "-");
    else if (s < 60)
        (void)snprintf(ret_text, CLI_QUANTITY_SIZE, "%llds", (long long)s);
    else if (s < 3600)
        (void)snprintf(ret_text, CLI_QUANTITY_SIZE, "%lldm", (long long)(s / 60));
    else if (s < 86400)
        (void)snprintf(ret_text, CLI_QUANTITY_SIZE, "%lldh", (long long)(s / 3600));
    else
        (void)snprintf(ret_text, CLI_QUANTITY_SIZE, "%lldd", (long long)(s / 86400));
}

void cli_format_id(const char *id, char ret_text[CLI_SHORT_ID + 1])
{
    if (text_has_prefix(id, "sha256:"))
        id += strlen("sha256:");
    (void)snprintf(ret_text, CLI_SHORT_ID + 1, "%s", id);
}

/* ---- tables ---- */

struct cli_table {
    size_t n_columns;
    size_t n_cells; /* heads included */
    char **cells;
    size_t *widths;
};

int cli_table_new(const char *const *heads, size_t n_columns, struct cli_table **ret_table,
                  struct err *err)
{
    cleanup_cli_table struct cli_table *t = calloc(1, sizeof(*t));
    if (t == NULL)
        return err_no_memory(err);
    t->n_columns = n_columns;
    t->widths = calloc(n_columns, sizeof(*t->widths));
    if (t->widths == NULL)
        return err_no_memory(err);
    if (cli_table_add(t, heads, err) < 0)
        return -1;
    *ret_table = steal_ptr(&t);
    return 0;
}

void cli_table_free(struct cli_table *t)
{
    if (t == NULL)
        return;
    for (size_t i = 0; i < t->n_cells; i++)
        free(t->cells[i]);
    free(t->cells);
    free(t->widths);
    free(t);
}

int cli_table_add(struct cli_table *t, const char *const *cells, struct err *err)
{
    char **more = reallocarray(t->cells, t->n_cells + t->n_columns, sizeof(*more));
    if (more == NULL)
        return err_no_memory(err);
    t->cells = more;
    size_t before = t->n_cells;
    for (size_t i = 0; i < t->n_columns; i++) {
        bool empty = cells[i] == NULL || *cells[i] == '\0';
        char *copy = cli_escape(empty ? "-" : cells[i]);
        if (copy == NULL) {
            while (t->n_cells > before)
                free(t->cells[--t->n_cells]);
            return err_no_memory(err);
        }
        t->cells[t->n_cells++] = copy;
        size_t width = cli_text_width(copy);
        t->widths[i] = width > t->widths[i] ? width : t->widths[i];
    }
    return 0;
}

void cli_table_print(const struct cli_table *t, FILE *out)
{
    for (size_t i = 0; i < t->n_cells; i++) {
        size_t column = i % t->n_columns;
        fputs(t->cells[i], out);
        if (column + 1 == t->n_columns) {
            fputc('\n', out);
            continue;
        }
        size_t pad = t->widths[column] - cli_text_width(t->cells[i]) + 2;
        fprintf(out, "%*s", (int)pad, "");
    }
}
