/* SPDX-License-Identifier: Apache-2.0 */
/* host/cli/text and progress: what a tenant names cannot steer a terminal; widths; quantities. */
#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/base/cleanup.h"
#include "common/base/text.h"
#include "host/cli/progress.h"
#include "host/cli/text.h"

static void assert_escapes(const char *raw, const char *shown)
{
    cleanup_free char *text = cli_escape(raw);
    assert_non_null(text);
    assert_string_equal(text, shown);
}

static void it_escapes_what_steers_or_misleads(void **state)
{
    (void)state;
    assert_escapes("plain-name_1.2:x", "plain-name_1.2:x");
    assert_escapes("\x1b[2Jx", "\\x1b[2Jx");
    assert_escapes("a\nb\tc\x7f", "a\\x0ab\\x09c\\x7f");
    assert_escapes("back\\slash", "back\\\\slash");
    assert_escapes("caf\xc3\xa9 \xe6\x97\xa5", "caf\xc3\xa9 \xe6\x97\xa5");
    assert_escapes("\xc2\x9b"
                   "2J",
                   "\\u{9b}2J"); /* C1 CSI */
    assert_escapes("a\xe2\x80\xae"
                   "b",
                   "a\\u{202e}b"); /* right-to-left override */
    assert_escapes("a\xe2\x80\x8b"
                   "b",
                   "a\\u{200b}b"); /* zero width space */
    assert_escapes("\xff\xfe", "\\xff\\xfe");
    assert_escapes("\xc3", "\\xc3"); /* cut short at the end */
    assert_escapes("\xe6\x97", "\\xe6\\x97");
    assert_escapes("\xc0\xaf", "\\xc0\\xaf");          /* overlong */
    assert_escapes("\xed\xa0\x80", "\\xed\\xa0\\x80"); /* surrogate */
    assert_escapes("\x80"
                   "x",
                   "\\x80x");
    assert_escapes("", "");
}

/* Whatever the bytes, the result is printable, well-formed and of a width that is known. */
static void escaped_text_is_always_printable(void **state)
{
    (void)state;
    unsigned seed = 1;
    for (int round = 0; round < 20000; round++) {
        char raw[24];
        size_t n = 1 + (size_t)rand_r(&seed) % (sizeof(raw) - 1);
        for (size_t i = 0; i < n; i++) {
            int byte = 1 + rand_r(&seed) % 255;
            raw[i] = (char)byte;
        }
        raw[n < sizeof(raw) ? n : sizeof(raw) - 1] = '\0';
        cleanup_free char *text = cli_escape(raw);
        assert_non_null(text);
        assert_true(text_is_utf8(text, strlen(text)));
        for (const char *p = text; *p != '\0'; p++)
            assert_true((unsigned char)*p >= 0x20 && *p != 0x7f);
        assert_true(cli_text_width(text) <= strlen(text));
    }
}

static void widths_are_cells(void **state)
{
    (void)state;
    assert_int_equal(cli_text_width("abc"), 3);
    assert_int_equal(cli_text_width("caf\xc3\xa9"), 4);
    assert_int_equal(cli_text_width("\xe6\x97\xa5\xe6\x9c\xac"), 4);
    assert_int_equal(cli_text_width("e\xcc\x81"), 1);
}

static void assert_bytes(uint64_t bytes, const char *text)
{
    char got[CLI_QUANTITY_SIZE];
    cli_format_bytes(bytes, got);
    assert_string_equal(got, text);
}

static void assert_age(int64_t seconds, const char *text)
{
    char got[CLI_QUANTITY_SIZE];
    cli_format_age(seconds * 1000000000, got);
    assert_string_equal(got, text);
}

static void quantities_read_well(void **state)
{
    (void)state;
    assert_bytes(0, "0 B");
    assert_bytes(1023, "1023 B");
    assert_bytes(1024, "1.0 KiB");
    assert_bytes(1536, "1.5 KiB");
    assert_bytes((1 << 20) - 1, "1.0 MiB");
    assert_bytes(1 << 20, "1.0 MiB");
    assert_bytes(UINT64_MAX, "16.0 EiB");
    assert_age(0, "0s");
    assert_age(59, "59s");
    assert_age(60, "1m");
    assert_age(3599, "59m");
    assert_age(3600, "1h");
    assert_age(86400 * 3 + 5, "3d");
    assert_age(-1, "-");
    char id[CLI_SHORT_ID + 1];
    cli_format_id("sha256:0123456789abcdef0123", id);
    assert_string_equal(id, "0123456789abc");
    cli_format_id("abc", id);
    assert_string_equal(id, "abc");
}

static char *print(const struct cli_table *table)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    assert_non_null(f);
    cli_table_print(table, f);
    assert_int_equal(fclose(f), 0);
    return text;
}

static void columns_line_up(void **state)
{
    (void)state;
    struct err err = {0};
    struct cli_table *t = NULL;
    const char *const heads[] = {"ID", "NAME", "STATE"};
    assert_int_equal(cli_table_new(heads, 3, &t, &err), 0);
    assert_int_equal(
        cli_table_add(t, (const char *[]){"1", "\xe6\x97\xa5\xe6\x9c\xac", "ok"}, &err), 0);
    assert_int_equal(cli_table_add(t, (const char *[]){"22", "a\x1b[1m", NULL}, &err), 0);
    assert_int_equal(cli_table_add(t, (const char *[]){"", "b", "x"}, &err), 0);
    cleanup_free char *text = print(t);
    assert_string_equal(text, "ID  NAME      STATE\n"
                              "1   \xe6\x97\xa5\xe6\x9c\xac      ok\n"
                              "22  a\\x1b[1m  -\n"
                              "-   b         x\n");
    cli_table_free(t);
}

/* ---- progress ---- */

static void assert_progress(struct cli_progress_state s, unsigned width, const char *line)
{
    char got[512];
    cli_progress_format(&s, width, got, sizeof(got));
    assert_string_equal(got, line);
}

static void a_line_has_what_fits(void **state)
{
    (void)state;
    struct cli_progress_state s = {.name = "busybox:1",
                                   .bytes_done = 1 << 20,
                                   .bytes_total = 2 << 20,
                                   .layers_done = 1,
                                   .layers_total = 3,
                                   .bytes_per_s = 512 << 10};
    assert_progress(s, 76,
                    "busybox:1  [=======>      ]  50%  1.0 MiB / 2.0 MiB  512.0 KiB/s  1/3 layers");
    /* No room for a bar, then none for the whole name, then none for all numbers. */
    assert_progress(s, 60, "busybox:1  1.0 MiB / 2.0 MiB  512.0 KiB/s  1/3 layers");
    assert_progress(s, 50, "...x:1  1.0 MiB / 2.0 MiB  512.0 KiB/s  1/3 layers");
    assert_progress(s, 10, "1.0 MiB / ");
    s.bytes_done = 3 << 20; /* more than was announced */
    assert_progress(s, 76,
                    "busybox:1  [==============] 100%  3.0 MiB / 2.0 MiB  512.0 KiB/s  1/3 layers");
    assert_progress((struct cli_progress_state){.name = "x"}, 76, "x  0 B");
    assert_progress((struct cli_progress_state){.name = "x", .bytes_done = 5, .bytes_per_s = 3}, 76,
                    "x  5 B  3 B/s");
}

static void no_line_is_wider_than_the_terminal(void **state)
{
    (void)state;
    struct cli_progress_state s = {.name = "registry/\xe6\x97\xa5\xe6\x9c\xac/image:tag",
                                   .bytes_total = UINT64_MAX,
                                   .bytes_done = UINT64_MAX / 3,
                                   .layers_done = 100,
                                   .layers_total = 127,
                                   .bytes_per_s = 999999999999ull};
    for (unsigned width = 1; width < 200; width++) {
        char got[512];
        cli_progress_format(&s, width, got, sizeof(got));
        if (cli_text_width(got) > width)
            fail_msg("width %u: '%s' takes %zu", width, got, cli_text_width(got));
        assert_true(text_is_utf8(got, strlen(got)));
    }
}

static void elsewhere_than_on_a_terminal_it_is_two_lines(void **state)
{
    (void)state;
    FILE *f = tmpfile();
    assert_non_null(f);
    struct cli_progress p;
    cli_progress_begin(&p, f, "Pulling", "x");
    for (unsigned i = 0; i < 10; i++)
        cli_progress_update(&p, (struct cli_progress_state){.name = "x", .bytes_done = 1024});
    cli_progress_end(&p, true, "Pulled x");
    rewind(f);
    char text[256] = "";
    text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
    assert_int_equal(fclose(f), 0);
    assert_true(text_has_prefix(text, "Pulling x\nPulled x: 1.0 KiB in "));
    assert_null(strchr(text, '\x1b'));
    assert_null(strchr(text, '\r'));
}

int main(void)
{
    (void)setlocale(LC_CTYPE, "C.UTF-8");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_escapes_what_steers_or_misleads),
        cmocka_unit_test(escaped_text_is_always_printable),
        cmocka_unit_test(widths_are_cells),
        cmocka_unit_test(quantities_read_well),
        cmocka_unit_test(columns_line_up),
        cmocka_unit_test(a_line_has_what_fits),
        cmocka_unit_test(no_line_is_wider_than_the_terminal),
        cmocka_unit_test(elsewhere_than_on_a_terminal_it_is_two_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
