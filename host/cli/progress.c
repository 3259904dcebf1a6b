/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The line is rebuilt from the parts that fit, so that a narrow terminal never wraps (a wrapped bar
 * cannot be redrawn in place). The rate is that of the last second or so, smoothed, because a
 * pull's mean says little about when it will be done.
 */
#include "host/cli/progress.h"

#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "host/cli/text.h"

enum {
    DEFAULT_WIDTH = 80,
    MIN_BAR = 10,
    MAX_BAR = 40,
    SAMPLE_MS = 500,
    LINE_SIZE = 1024,
};

static unsigned percent_of(const struct cli_progress_state *s)
{
    if (s->bytes_total == 0)
        return 0;
    if (s->bytes_done >= s->bytes_total)
        return 100;
    return (unsigned)((double)s->bytes_done * 100 / (double)s->bytes_total);
}

/* "1.0 MiB / 2.0 MiB  512.0 KiB/s  1/3 layers" */
static void format_numbers(const struct cli_progress_state *s, char *ret_text, size_t size)
{
    char done[CLI_QUANTITY_SIZE], total[CLI_QUANTITY_SIZE], rate[CLI_QUANTITY_SIZE];
    char rate_part[CLI_QUANTITY_SIZE + 8] = "";
    char layer_part[48] = "";
    cli_format_bytes(s->bytes_done, done);
    cli_format_bytes(s->bytes_total, total);
    cli_format_bytes(s->bytes_per_s, rate);
    if (s->bytes_per_s > 0)
        (void)snprintf(rate_part, sizeof(rate_part), "  %s/s", rate);
    if (s->layers_total > 0)
        (void)snprintf(layer_part, sizeof(layer_part), "  %u/%u layers", s->layers_done,
                       s->layers_total);
    if (s->bytes_total == 0)
        (void)snprintf(ret_text, size, "%s%s%s", done, rate_part, layer_part);
    else
        (void)snprintf(ret_text, size, "%s / %s%s%s", done, total, rate_part, layer_part);
}

static void format_bar(const struct cli_progress_state *s, unsigned cells, char *ret_text,
                       size_t size)
{
    char bar[MAX_BAR + 1];
    unsigned percent = percent_of(s);
    unsigned full = cells * percent / 100;
    for (unsigned i = 0; i < cells; i++)
        bar[i] = i < full ? '=' : i == full ? '>' : ' ';
    bar[cells] = '\0';
    (void)snprintf(ret_text, size, "[%s] %3u%%  ", bar, percent);
}

/* The longest end of text (the tag is there) that takes at most `cells`. */
static const char *fit_end(const char *text, size_t cells)
{
    while (cli_text_width(text) > cells) {
        text++;
        while (((unsigned char)*text & 0xc0) == 0x80)
            text++;
    }
    return text;
}

void cli_progress_format(const struct cli_progress_state *s, unsigned width, char *ret_line,
                         size_t size)
{
    char numbers[160], bar[MAX_BAR + 16] = "";
    format_numbers(s, numbers, sizeof(numbers));
    size_t numbers_width = strlen(numbers);
    size_t name_width = cli_text_width(s->name);
    const size_t frame = strlen("  [] 100%  ");
    size_t used = numbers_width + name_width + frame;
    if (s->bytes_total > 0 && used + MIN_BAR <= width) {
        size_t cells = width - used;
        format_bar(s, cells > MAX_BAR ? MAX_BAR : (unsigned)cells, bar, sizeof(bar));
    }
    const char *name = s->name, *cut = "";
    if (bar[0] == '\0' && name_width + 2 + numbers_width > width) {
        size_t room = width > numbers_width + 5 ? width - numbers_width - 5 : 0;
        name = fit_end(s->name, room);
        cut = room > 0 ? "..." : "";
    }
    const char *gap = *name == '\0' ? "" : "  ";
    if (*name == '\0' && numbers_width > width)
        numbers[width] = '\0';
    (void)snprintf(ret_line, size, "%s%s%s%s%s", cut, name, gap, bar, numbers);
}

static unsigned terminal_width(FILE *out)
{
    struct winsize w = {0};
    if (ioctl(fileno(out), TIOCGWINSZ, &w) < 0 || w.ws_col == 0)
        return DEFAULT_WIDTH;
    /* The last cell stays free: some terminals wrap when it is written. */
    return w.ws_col > 1 ? w.ws_col - 1u : 1;
}

void cli_progress_begin(struct cli_progress *p, FILE *out, const char *verb, const char *name)
{
    *p = (struct cli_progress){.out = out,
                               .terminal = isatty(fileno(out)) == 1,
                               .begin_ms = clock_monotonic_ms(),
                               .sample_ms = clock_monotonic_ms()};
    if (!p->terminal)
        fprintf(out, "%s %s\n", verb, name);
}

static void measure_rate(struct cli_progress *p, uint64_t bytes_done)
{
    int64_t now = clock_monotonic_ms();
    int64_t span = now - p->sample_ms;
    if (span < SAMPLE_MS || bytes_done < p->sample_bytes)
        return;
    uint64_t rate = (bytes_done - p->sample_bytes) * 1000 / (uint64_t)span;
    p->bytes_per_s = p->bytes_per_s == 0 ? rate : (p->bytes_per_s + rate) / 2;
    p->sample_ms = now;
    p->sample_bytes = bytes_done;
}

void cli_progress_update(struct cli_progress *p, struct cli_progress_state state)
{
    measure_rate(p, state.bytes_done);
    p->bytes_done = state.bytes_done;
    p->layers_done = state.layers_done;
    if (!p->terminal)
        return;
    state.bytes_per_s = p->bytes_per_s;
    char line[LINE_SIZE];
    cli_progress_format(&state, terminal_width(p->out), line, sizeof(line));
    fprintf(p->out, "\r%s\x1b[K", line);
    fflush(p->out);
    p->drawn = true;
}

void cli_progress_end(struct cli_progress *p, bool ok, const char *done_text)
{
    if (p->drawn)
        fputs("\r\x1b[K", p->out);
    p->drawn = false;
    if (!ok)
        return;
    char bytes[CLI_QUANTITY_SIZE];
    cli_format_bytes(p->bytes_done, bytes);
    double seconds = (double)(clock_monotonic_ms() - p->begin_ms) / 1000;
    if (p->bytes_done > 0)
        fprintf(p->out, "%s: %s in %.1f s\n", done_text, bytes, seconds);
    else
        fprintf(p->out, "%s in %.1f s\n", done_text, seconds);
}
