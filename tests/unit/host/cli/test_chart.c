/* SPDX-License-Identifier: Apache-2.0 */
/* Timelines as pictures: where bars begin and end, waits cut out, names that would steer a terminal
 * or break XML, and answers that are no timeline. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/cleanup.h"
#include "host/cli/chart.h"

static void read_chart(const char *text, struct cli_chart *chart)
{
    json_t *json = json_loads(text, 0, NULL);
    struct err err;

    assert_non_null(json);
    if (cli_chart_read(json, chart, &err) < 0)
        fail_msg("%s", err.msg);
    json_decref(json);
}

/* What a function prints; heap. */
static char *printed(const struct cli_chart *chart, const char *title)
{
    char *text = NULL;
    size_t n;
    FILE *out = open_memstream(&text, &n);

    assert_non_null(out);
    if (title == NULL)
        cli_chart_print(chart, 20, out);
    else
        cli_chart_svg(chart, title, out);
    fclose(out);
    return text;
}

static void bars_are_where_they_belong(void **state)
{
    static struct cli_chart chart;

    (void)state;
    read_chart("[{\"step\": \"all\", \"from\": 0, \"to\": 20000, \"machineCpu\": -1},"
               "{\"step\": \"half\", \"from\": 10000, \"to\": 20000, \"machineCpu\": 1500},"
               "{\"step\": \"point\", \"from\": 20000, \"to\": 20000, \"machineCpu\": 0},"
               "{\"step\": \"open\", \"from\": 15000, \"to\": -1, \"machineCpu\": -1}]",
               &chart);
    assert_int_equal(chart.n, 4);
    assert_int_equal(chart.end_us, 20000);
    cleanup_free char *text = printed(&chart, NULL);
    assert_non_null(strstr(text, "all                       ████████████████████      20.0 ms\n"));
    assert_non_null(strstr(text, "half                                ██████████      10.0 ms      "
                                 "1.5 ms\n"));
    assert_non_null(strstr(text, "point                                        █       0.0 ms"));
    assert_non_null(strstr(text, "open                                     ░"));
    assert_non_null(strstr(text, "not ended"));
    cli_chart_fini(&chart);
}

static void long_waits_are_cut_out(void **state)
{
    static struct cli_chart chart;

    (void)state;
    read_chart("[{\"step\": \"a\", \"from\": 0, \"to\": 10000, \"machineCpu\": -1},"
               "{\"step\": \"b\", \"from\": 60010000, \"to\": 60020000, \"machineCpu\": -1}]",
               &chart);
    cleanup_free char *text = printed(&chart, NULL);
    assert_non_null(strstr(text, "a                         ██████████          "));
    assert_non_null(strstr(text, "… 60.0 s later\n"));
    assert_non_null(strstr(text, "b                                   ██████████"));
    cli_chart_fini(&chart);
}

static void names_are_harmless(void **state)
{
    static struct cli_chart chart;

    (void)state;
    read_chart("[{\"step\": \"<&>\\u001b[2J\", \"from\": 0, \"to\": 1, \"machineCpu\": -1}]",
               &chart);
    cleanup_free char *text = printed(&chart, NULL), *svg = printed(&chart, "a<b & c");
    assert_null(strchr(text, '\033'));
    assert_null(strchr(svg, '\033'));
    assert_non_null(strstr(svg, "&lt;&amp;&gt;"));
    assert_non_null(strstr(svg, "a&lt;b &amp; c"));
    assert_int_equal(strncmp(svg, "<svg ", 5), 0);
    assert_non_null(strstr(svg, "</svg>\n"));
    cli_chart_fini(&chart);
}

static void other_answers_are_refused(void **state)
{
    static const char *const bad[] = {
        "{}",
        "[1]",
        "[{}]",
        "[{\"step\": 1, \"from\": 0, \"to\": 1}]",
        "[{\"step\": \"a\", \"from\": -1, \"to\": 1}]",
        "[{\"step\": \"a\", \"from\": 5, \"to\": 1}]",
        "[{\"step\": \"a\", \"from\": 5}]",
    };
    static struct cli_chart chart;
    struct err err;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        json_t *json = json_loads(bad[i], 0, NULL);
        assert_non_null(json);
        assert_int_equal(cli_chart_read(json, &chart, &err), -1);
        assert_int_equal(err.code, ERR_PROTOCOL);
        json_decref(json);
    }
    /* Nothing was recorded: no division by a length of nothing. */
    read_chart("[]", &chart);
    cleanup_free char *text = printed(&chart, NULL), *svg = printed(&chart, "empty");
    assert_non_null(strstr(text, "STEP"));
    assert_non_null(strstr(svg, "empty"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bars_are_where_they_belong),
        cmocka_unit_test(long_waits_are_cut_out),
        cmocka_unit_test(names_are_harmless),
        cmocka_unit_test(other_answers_are_refused),
    };

    (void)setlocale(LC_CTYPE, "C.UTF-8");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
