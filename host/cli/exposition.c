/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. The daemon counts each bucket for itself and in microseconds; the format
 * wants buckets that contain the smaller ones, and seconds. A value of a label may be any text,
 * with backslash, quote and newline escaped.
 */
#include "host/cli/exposition.h"

#include <inttypes.h>

#define NAME  "casemate_start_phase_duration_seconds"
#define PER_S 1e6

static int check(const Casemate__Control__V1__Histogram *h, struct err *err)
{
    if (h->n_counts != h->n_bounds_us + 1)
        return err_set(err, ERR_PROTOCOL, "a histogram has %zu bounds and %zu counts",
                       h->n_bounds_us, h->n_counts);
    for (size_t i = 1; i < h->n_bounds_us; i++)
        if (h->bounds_us[i] <= h->bounds_us[i - 1])
            return err_set(err, ERR_PROTOCOL, "a histogram's bounds do not ascend");
    return 0;
}

static void print_label(const char *value, FILE *out)
{
    fputs("{phase=\"", out);
    for (; *value != '\0'; value++) {
        if (*value == '\n') {
            fputs("\\n", out);
            continue;
        }
        if (*value == '\\' || *value == '"')
            fputc('\\', out);
        fputc(*value, out);
    }
    fputc('"', out);
}

static void print_histogram(const Casemate__Control__V1__Histogram *h, FILE *out)
{
    uint64_t count = 0;

    for (size_t i = 0; i < h->n_counts; i++) {
        count += h->counts[i];
        fputs(NAME "_bucket", out);
        print_label(h->name, out);
        if (i < h->n_bounds_us)
            fprintf(out, ",le=\"%g\"} %" PRIu64 "\n", (double)h->bounds_us[i] / PER_S, count);
        else
            fprintf(out, ",le=\"+Inf\"} %" PRIu64 "\n", count);
    }
    fputs(NAME "_sum", out);
    print_label(h->name, out);
    fprintf(out, "} %" PRIu64 ".%06" PRIu64 "\n", h->sum_us / 1000000, h->sum_us % 1000000);
    fputs(NAME "_count", out);
    print_label(h->name, out);
    fprintf(out, "} %" PRIu64 "\n", count);
}

static void print_gauge(const char *name, const char *help, uint64_t value, FILE *out)
{
    fprintf(out, "# HELP %s %s\n# TYPE %s gauge\n%s %" PRIu64 "\n", name, help, name, name, value);
}

static void print_templates(const Casemate__Control__V1__Templates *t, FILE *out)
{
    print_gauge("casemate_templates", "Templates that machines are clones of.", t->count, out);
    print_gauge("casemate_template_bytes", "Memory that all templates together occupy.", t->bytes,
                out);
    print_gauge("casemate_template_max_bytes", "What it may be; 0: no bound.", t->max_bytes, out);
    print_gauge("casemate_templates_refused",
                "Kinds of machine that boot because their template would exceed the bound.",
                t->refused, out);
}

int cli_exposition_print(const Casemate__Control__V1__MetricsReply *reply, FILE *out,
                         struct err *err)
{
    for (size_t i = 0; i < reply->n_start_phases; i++)
        if (check(reply->start_phases[i], err) < 0)
            return -1;
    fputs("# HELP " NAME " How long phases of successful starts of pods and containers took.\n"
          "# TYPE " NAME " histogram\n",
          out);
    for (size_t i = 0; i < reply->n_start_phases; i++)
        print_histogram(reply->start_phases[i], out);
    if (reply->templates != NULL) /* else of an older daemon */
        print_templates(reply->templates, out);
    return 0;
}
