/* SPDX-License-Identifier: Apache-2.0 */
/* host/cli/logtail: a CRI log gives back the bytes of both streams, however it grows. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/buf.h"
#include "common/base/fd.h"
#include "common/base/text.h"
#include "host/cli/logtail.h"

#define T "2026-01-02T03:04:05.000000006Z "

struct got {
    struct buf streams[2];
    struct buf order; /* 'o' or 'e' a piece */
    int fail_after;   /* pieces; -1: never */
};

static int take(void *arg, const struct cli_log_piece *p, struct err *err)
{
    struct got *g = arg;
    if (g->fail_after == 0)
        return err_set(err, ERR_SYSTEM, "enough");
    if (g->fail_after > 0)
        g->fail_after--;
    struct buf *b = &g->streams[p->is_stderr ? 1 : 0];
    if (p->begins) {
        assert_true(p->time_len > 0);
        assert_int_equal(p->time[p->time_len], ' ');
    }
    assert_int_equal(buf_append(b, p->text, p->n, err), 0);
    if (p->ends_line)
        assert_int_equal(buf_append(b, "\n", 1, err), 0);
    return buf_append(&g->order, p->is_stderr ? "e" : "o", 1, err);
}

static void got_init(struct got *g)
{
    *g = (struct got){.fail_after = -1};
    buf_init(&g->streams[0], 64 << 20);
    buf_init(&g->streams[1], 64 << 20);
    buf_init(&g->order, 1 << 20);
}

static void got_fini(struct got *g)
{
    buf_fini(&g->streams[0]);
    buf_fini(&g->streams[1]);
    buf_fini(&g->order);
}

static void assert_got(const struct got *g, const char *out, const char *err_out)
{
    assert_int_equal(g->streams[0].len, strlen(out));
    if (*out != '\0')
        assert_memory_equal(buf_bytes(&g->streams[0]), out, strlen(out));
    assert_int_equal(g->streams[1].len, strlen(err_out));
    if (*err_out != '\0')
        assert_memory_equal(buf_bytes(&g->streams[1]), err_out, strlen(err_out));
}

static uint64_t parse_all(const char *log, struct got *g, size_t *ret_used)
{
    struct cli_log_parser p = {0};
    struct err err = {0};
    got_init(g);
    assert_int_equal(cli_log_parse(&p, (const uint8_t *)log, strlen(log), take, g, ret_used, &err),
                     0);
    return p.bad_lines;
}

static void it_separates_the_streams(void **state)
{
    (void)state;
    struct got g;
    size_t used;
    static const char log[] = T "stdout F one\n" T "stderr F oops\n" T "stdout P par\n" T
                                "stdout F tial\n" T "stdout F \n" T "stderr P no newline\n";
    assert_int_equal(parse_all(log, &g, &used), 0);
    assert_int_equal(used, strlen(log));
    assert_got(&g, "one\npartial\n\n", "oops\nno newline");
    assert_int_equal(g.order.len, 6);
    assert_memory_equal(buf_bytes(&g.order), "oeoooe", 6);
    got_fini(&g);
}

static void an_incomplete_line_is_left(void **state)
{
    (void)state;
    struct got g;
    size_t used;
    assert_int_equal(parse_all(T "stdout F one\n" T "stdout F tw", &g, &used), 0);
    assert_int_equal(used, strlen(T "stdout F one\n"));
    assert_got(&g, "one\n", "");
    got_fini(&g);
    assert_int_equal(parse_all("", &g, &used), 0);
    assert_int_equal(used, 0);
    got_fini(&g);
}

static void what_is_no_log_line_is_counted(void **state)
{
    (void)state;
    struct got g;
    size_t used;
    assert_int_equal(parse_all("\n"
                               "hello\n" T "stdxxx F no\n" T "stdout X no\n" T "stdout\n"
                               " stdout F no\n" T "stdout F yes\n" T "stdout F\n" T
                               "stderr F:new-tag too\n" T "stderr P:x part\n",
                               &g, &used),
                     7);
    assert_got(&g, "yes\n", "too\npart");
    got_fini(&g);
}

static void an_error_stops_before_its_line(void **state)
{
    (void)state;
    struct got g;
    size_t used = 99;
    struct cli_log_parser p = {0};
    struct err err = {0};
    got_init(&g);
    g.fail_after = 1;
    static const char log[] = T "stdout F one\n" T "stdout F two\n";
    assert_int_equal(cli_log_parse(&p, (const uint8_t *)log, strlen(log), take, &g, &used, &err),
                     -1);
    assert_int_equal(used, strlen(T "stdout F one\n"));
    got_fini(&g);
}

/* ---- files ---- */

struct log {
    char dir[32];
    char path[64];
    int fd;
    struct cli_log_file *file;
    struct got got;
    struct err err;
};

static int setup(void **state)
{
    struct log *l = calloc(1, sizeof(*l));
    assert_non_null(l);
    (void)snprintf(l->dir, sizeof(l->dir), "/tmp/test-logtail-XXXXXX");
    assert_non_null(mkdtemp(l->dir));
    (void)snprintf(l->path, sizeof(l->path), "%s/0.log", l->dir);
    got_init(&l->got);
    l->fd = -1;
    assert_int_equal(cli_log_file_new(l->path, &l->file, &l->err), 0);
    *state = l;
    return 0;
}

static int teardown(void **state)
{
    struct log *l = *state;
    cli_log_file_free(l->file);
    if (l->fd >= 0)
        (void)close(l->fd);
    got_fini(&l->got);
    int r = fd_remove_tree(AT_FDCWD, l->dir, &l->err);
    free(l);
    return r;
}

static void open_log(struct log *l)
{
    if (l->fd >= 0)
        (void)close(l->fd);
    l->fd = open(l->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    assert_true(l->fd >= 0);
}

static void add(struct log *l, const char *bytes, size_t n)
{
    assert_int_equal(fd_write_all(l->fd, bytes, n, &l->err), 0);
}

static void read_log(struct log *l)
{
    bool more = true;
    while (more) {
        if (cli_log_file_read(l->file, 1 << 20, take, &l->got, &more, &l->err) < 0)
            fail_msg("%s", l->err.msg);
    }
}

/* A log of random lines, what its streams were, and random points at which it is looked at. */
static void it_gives_back_the_bytes_however_the_file_grows(void **state)
{
    struct log *l = *state;
    unsigned seed = 7;
    struct buf log, want[2];
    buf_init(&log, 64 << 20);
    buf_init(&want[0], 64 << 20);
    buf_init(&want[1], 64 << 20);
    for (int i = 0; i < 2000; i++) {
        char text[600];
        size_t n = (size_t)rand_r(&seed) % sizeof(text);
        for (size_t j = 0; j < n; j++) {
            int byte = rand_r(&seed) % 256;
            text[j] = (char)(byte == '\n' ? ' ' : byte);
        }
        bool e = rand_r(&seed) % 3 == 0, full = rand_r(&seed) % 2 == 0;
        assert_int_equal(
            buf_printf(&log, &l->err, T "%s %s ", e ? "stderr" : "stdout", full ? "F" : "P"), 0);
        assert_int_equal(buf_append(&log, text, n, &l->err), 0);
        assert_int_equal(buf_append(&log, "\n", 1, &l->err), 0);
        assert_int_equal(buf_append(&want[e], text, n, &l->err), 0);
        if (full)
            assert_int_equal(buf_append(&want[e], "\n", 1, &l->err), 0);
    }
    read_log(l); /* no file yet */
    open_log(l);
    while (log.len > 0) {
        size_t n = 1 + (size_t)rand_r(&seed) % 3000;
        n = n < log.len ? n : log.len;
        add(l, (const char *)buf_bytes(&log), n);
        buf_consume(&log, n);
        if (rand_r(&seed) % 2 == 0)
            read_log(l);
    }
    read_log(l);
    for (int e = 0; e < 2; e++) {
        assert_int_equal(l->got.streams[e].len, want[e].len);
        assert_memory_equal(buf_bytes(&l->got.streams[e]), buf_bytes(&want[e]), want[e].len);
        buf_fini(&want[e]);
    }
    assert_int_equal(cli_log_file_bad_lines(l->file), 0);
    buf_fini(&log);
}

/* A daemon that is killed in a write leaves half a line; its successor cuts it off and goes on. */
static void half_a_line_may_be_written_anew(void **state)
{
    struct log *l = *state;
    open_log(l);
    add(l, T "stdout F one\n" T "stdout F tw", strlen(T "stdout F one\n" T "stdout F tw"));
    read_log(l);
    assert_int_equal(ftruncate(l->fd, (off_t)strlen(T "stdout F one\n")), 0);
    read_log(l);
    static const char rest[] = "2026-01-02T03:04:06Z stdout F two and more\n";
    add(l, rest, strlen(rest));
    read_log(l);
    assert_got(&l->got, "one\ntwo and more\n", "");
}

static void a_rotated_log_is_followed_without_loss(void **state)
{
    struct log *l = *state;
    char old[80];
    (void)snprintf(old, sizeof(old), "%s.1", l->path);
    open_log(l);
    add(l, T "stdout F one\n", strlen(T "stdout F one\n"));
    read_log(l);
    assert_int_equal(rename(l->path, old), 0);
    add(l, T "stdout F two\n", strlen(T "stdout F two\n")); /* into the old one, still */
    read_log(l);
    assert_got(&l->got, "one\ntwo\n", "");
    add(l, T "stdout F three\n", strlen(T "stdout F three\n"));
    open_log(l);
    add(l, T "stdout F four\n", strlen(T "stdout F four\n"));
    read_log(l);
    assert_got(&l->got, "one\ntwo\nthree\nfour\n", "");
}

static void a_truncated_log_begins_anew(void **state)
{
    struct log *l = *state;
    open_log(l);
    add(l, T "stdout F one\n", strlen(T "stdout F one\n"));
    read_log(l);
    assert_int_equal(ftruncate(l->fd, 0), 0);
    read_log(l);
    add(l, T "stdout F two\n", strlen(T "stdout F two\n"));
    read_log(l);
    assert_got(&l->got, "one\ntwo\n", "");
}

static void a_line_longer_than_the_buffer_is_not_lost(void **state)
{
    struct log *l = *state;
    enum { LONG = 5 * (64 << 10) + 17 };
    static char text[LONG + 1];
    memset(text, 'x', LONG);
    open_log(l);
    add(l, T "stderr F ", strlen(T "stderr F "));
    for (size_t at = 0; at < LONG; at += 10000) {
        add(l, text + at, LONG - at < 10000 ? LONG - at : 10000);
        read_log(l);
    }
    add(l, "\n", 1);
    /* The same of a line that is none. */
    add(l, "garbage", 7);
    add(l, text, LONG);
    read_log(l);
    add(l, "\n" T "stdout F end\n", strlen("\n" T "stdout F end\n"));
    read_log(l);
    assert_int_equal(l->got.streams[1].len, LONG + 1);
    assert_memory_equal(buf_bytes(&l->got.streams[1]), text, LONG);
    assert_int_equal(buf_bytes(&l->got.streams[1])[LONG], '\n');
    assert_int_equal(cli_log_file_bad_lines(l->file), 1);
    assert_int_equal(l->got.streams[0].len, 4);
}

static void only_a_regular_file_is_read(void **state)
{
    struct log *l = *state;
    bool more;
    assert_int_equal(symlink("/dev/zero", l->path), 0);
    assert_int_equal(cli_log_file_read(l->file, 1 << 20, take, &l->got, &more, &l->err), -1);
    assert_int_equal(l->err.code, ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_separates_the_streams),
        cmocka_unit_test(an_incomplete_line_is_left),
        cmocka_unit_test(what_is_no_log_line_is_counted),
        cmocka_unit_test(an_error_stops_before_its_line),
        cmocka_unit_test_setup_teardown(it_gives_back_the_bytes_however_the_file_grows, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(half_a_line_may_be_written_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(a_rotated_log_is_followed_without_loss, setup, teardown),
        cmocka_unit_test_setup_teardown(a_truncated_log_begins_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(a_line_longer_than_the_buffer_is_not_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(only_a_regular_file_is_read, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
