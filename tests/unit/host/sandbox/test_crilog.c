/* SPDX-License-Identifier: Apache-2.0 */
/* host/sandbox/crilog: tags, times and pieces of lines, at every way of cutting the same bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/base/cleanup.h"
#include "host/sandbox/crilog.h"

#define T0 "1970-01-01T00:00:00.000000000Z"
#define T7 "1970-01-01T00:00:00.000000007Z"

static struct crilog stream;

static void expect(struct buf *out, const char *text)
{
    struct err err = {0};
    cleanup_free char *got = NULL;
    assert_int_equal(buf_take_string(out, &got, &err), 0);
    assert_string_equal(got, text);
}

static void feed(struct buf *out, int64_t time_ns, const char *text)
{
    struct err err = {0};
    assert_int_equal(crilog_feed(&stream, time_ns, (const uint8_t *)text, strlen(text), out, &err),
                     0);
}

static void lines_have_the_time_of_their_first_byte(void **state)
{
    (void)state;
    struct err err = {0};
    cleanup_buf struct buf out = BUF_INIT(1 << 20);
    crilog_init(&stream, "stdout", 100);
    feed(&out, 0, "a\nbe");
    expect(&out, T0 " stdout F a\n");
    assert_int_equal(stream.offset, 102); /* "be" is in no line yet */
    feed(&out, 7, "gun\n\nlast");
    expect(&out, T0 " stdout F begun\n" T7 " stdout F \n");
    assert_int_equal(crilog_flush(&stream, &out, &err), 0);
    expect(&out, T7 " stdout P last\n");
    assert_int_equal(stream.offset, 113);
    assert_int_equal(crilog_flush(&stream, &out, &err), 0);
    assert_int_equal(out.len, 0);
}

static void long_lines_come_in_pieces(void **state)
{
    (void)state;
    cleanup_buf struct buf out = BUF_INIT(1 << 20);
    char *line = malloc(CRILOG_MAX_LINE + 3);
    memset(line, 'x', CRILOG_MAX_LINE + 1);
    memcpy(line + CRILOG_MAX_LINE + 1, "\n", 2);
    crilog_init(&stream, "stderr", 0);
    feed(&out, 0, line);
    const char *text = (const char *)buf_bytes(&out);
    assert_memory_equal(text, T0 " stderr P xxx", 40 + 3);
    assert_memory_equal(text + 40 + CRILOG_MAX_LINE, "\n" T0 " stderr F x\n", 1 + 40 + 2);
    assert_int_equal(out.len, 40 + CRILOG_MAX_LINE + 1 + 40 + 2);
    free(line);
}

static void the_way_of_cutting_does_not_matter(void **state)
{
    (void)state;
    static const char text[] = "one\ntwo\n\n\nthree and a half\nrest";
    struct err err = {0};
    cleanup_free char *whole = NULL;
    for (size_t step = sizeof(text); step > 0; step--) {
        cleanup_buf struct buf out = BUF_INIT(1 << 20);
        crilog_init(&stream, "stdout", 0);
        for (size_t i = 0; i < sizeof(text) - 1; i += step) {
            size_t n = sizeof(text) - 1 - i < step ? sizeof(text) - 1 - i : step;
            assert_int_equal(crilog_feed(&stream, 0, (const uint8_t *)text + i, n, &out, &err), 0);
        }
        assert_int_equal(crilog_flush(&stream, &out, &err), 0);
        cleanup_free char *got = NULL;
        assert_int_equal(buf_take_string(&out, &got, &err), 0);
        if (whole == NULL)
            whole = steal_ptr(&got);
        else
            assert_string_equal(got, whole);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_have_the_time_of_their_first_byte),
        cmocka_unit_test(long_lines_come_in_pieces),
        cmocka_unit_test(the_way_of_cutting_does_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
