/* SPDX-License-Identifier: Apache-2.0 */
/* Metrics as text: the exact form that Prometheus reads, and answers that are no histograms. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "common/base/cleanup.h"
#include "host/cli/exposition.h"

#define NAME "casemate_start_phase_duration_seconds"

static uint64_t bounds[] = {2500, 1000000, 30000000}, counts[] = {1, 2, 0, 4};
static char odd[] = "a\"b\\c\nd";

static Casemate__Control__V1__Histogram histogram(char *name)
{
    Casemate__Control__V1__Histogram h = CASEMATE__CONTROL__V1__HISTOGRAM__INIT;

    h.name = name;
    h.bounds_us = bounds;
    h.n_bounds_us = 3;
    h.counts = counts;
    h.n_counts = 4;
    h.sum_us = 12000034;
    return h;
}

/* What is printed of one histogram, heap; NULL with the error in err. */
static char *printed(Casemate__Control__V1__Histogram *h, struct err *err)
{
    Casemate__Control__V1__MetricsReply m = CASEMATE__CONTROL__V1__METRICS_REPLY__INIT;
    char *text = NULL;
    size_t n;
    FILE *out = open_memstream(&text, &n);

    assert_non_null(out);
    m.start_phases = &h;
    m.n_start_phases = h == NULL ? 0 : 1;
    int r = cli_exposition_print(&m, out, err);
    fclose(out);
    if (r < 0) {
        assert_string_equal(text, "");
        free(text);
        return NULL;
    }
    return text;
}

static void buckets_add_up(void **state)
{
    char name[] = "network";
    Casemate__Control__V1__Histogram h = histogram(name);
    struct err err;
    cleanup_free char *text = printed(&h, &err);

    (void)state;
    assert_non_null(text);
    assert_string_equal(
        text, "# HELP " NAME " How long phases of successful starts of pods and containers took.\n"
              "# TYPE " NAME " histogram\n" NAME "_bucket{phase=\"network\",le=\"0.0025\"} 1\n" NAME
              "_bucket{phase=\"network\",le=\"1\"} 3\n" NAME
              "_bucket{phase=\"network\",le=\"30\"} 3\n" NAME
              "_bucket{phase=\"network\",le=\"+Inf\"} 7\n" NAME
              "_sum{phase=\"network\"} 12.000034\n" NAME "_count{phase=\"network\"} 7\n");
}

static void templates_are_gauges(void **state)
{
    Casemate__Control__V1__Templates t = CASEMATE__CONTROL__V1__TEMPLATES__INIT;
    Casemate__Control__V1__MetricsReply m = CASEMATE__CONTROL__V1__METRICS_REPLY__INIT;
    cleanup_free char *text = NULL;
    struct err err;
    size_t n;
    FILE *out = open_memstream(&text, &n);

    (void)state;
    assert_non_null(out);
    t.count = 2;
    t.bytes = 5000000000;
    t.max_bytes = 6000000000;
    t.refused = 1;
    m.templates = &t;
    assert_int_equal(cli_exposition_print(&m, out, &err), 0);
    fclose(out);
    assert_non_null(strstr(text, "# TYPE casemate_templates gauge\ncasemate_templates 2\n"));
    assert_non_null(strstr(text, "\ncasemate_template_bytes 5000000000\n"));
    assert_non_null(strstr(text, "\ncasemate_template_max_bytes 6000000000\n"));
    assert_non_null(strstr(text, "\ncasemate_templates_refused 1\n"));
}

static void labels_are_escaped(void **state)
{
    Casemate__Control__V1__Histogram h = histogram(odd);
    struct err err;
    cleanup_free char *text = printed(&h, &err);

    (void)state;
    assert_non_null(text);
    assert_non_null(strstr(text, "_count{phase=\"a\\\"b\\\\c\\nd\"} 7\n"));
}

static void nonsense_is_refused(void **state)
{
    uint64_t falling[] = {5, 5, 6};
    Casemate__Control__V1__Histogram h = histogram(odd);
    struct err err;

    (void)state;
    h.n_counts = 3;
    assert_null(printed(&h, &err));
    assert_int_equal(err.code, ERR_PROTOCOL);
    h = histogram(odd);
    h.bounds_us = falling;
    assert_null(printed(&h, &err));
    assert_int_equal(err.code, ERR_PROTOCOL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buckets_add_up),
        cmocka_unit_test(templates_are_gauges),
        cmocka_unit_test(labels_are_escaped),
        cmocka_unit_test(nonsense_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
