/* SPDX-License-Identifier: Apache-2.0 */
/* common/base: errors, buffers, text, clock, files, descriptor passing. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/base/text.h"

static void err_keeps_code_and_adds_context(void **state)
{
    (void)state;
    struct err err = {0};
    assert_int_equal(err_set(&err, ERR_NOT_FOUND, "blob '%s'\n\x1b[31m", "x"), -1);
    assert_string_equal(err.msg, "blob 'x'??[31m");
    assert_int_equal(err_prefix(&err, "pull '%s'", "y"), -1);
    assert_string_equal(err.msg, "pull 'y': blob 'x'??[31m");
    assert_int_equal(err.code, ERR_NOT_FOUND);
    err_set_errno(&err, ENOSPC, "write");
    assert_int_equal(err.code, ERR_EXHAUSTED);
    assert_int_equal(err.sys_errno, ENOSPC);
    assert_string_equal(err.msg, "write: No space left on device");
    assert_int_equal(err_set(NULL, ERR_INVALID, "no object"), -1);
}

static void err_messages_are_cut_not_overrun(void **state)
{
    (void)state;
    char big[5000];
    memset(big, 'a', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    struct err err = {0};
    err_set(&err, ERR_INVALID, "%s", big);
    assert_int_equal(strlen(err.msg), sizeof(err.msg) - 1);
    err_prefix(&err, "%s", "context");
    assert_memory_equal(err.msg, "context: aaa", 12);
    assert_int_equal(strlen(err.msg), sizeof(err.msg) - 1);
    err_prefix(&err, "%s", big);
    assert_true(strlen(err.msg) < sizeof(err.msg));
}

/* A peer chooses where its characters begin: every place of the cut, with and without a prefix. */
static void err_messages_are_utf8(void **state)
{
    static const char *const characters[] = {"\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80"};
    (void)state;
    for (size_t i = 0; i < sizeof(characters) / sizeof(characters[0]); i++) {
        char big[2000] = "";
        size_t width = strlen(characters[i]);
        for (size_t at = 0; at + width < sizeof(big); at += width)
            memcpy(big + at, characters[i], width + 1);
        for (int shift = 0; shift < 4; shift++) {
            struct err err = {0};
            err_set(&err, ERR_PROTOCOL, "%.*s%s", shift, "abcd", big);
            assert_null(strchr(err.msg, '?'));
            assert_true(text_is_utf8(err.msg, strlen(err.msg)));
            assert_in_range(strlen(err.msg), sizeof(err.msg) - width, sizeof(err.msg) - 1);
            err_prefix(&err, "agent %.*s", shift, "abcd");
            assert_null(strchr(err.msg, '?'));
            assert_true(text_is_utf8(err.msg, strlen(err.msg)));
            err_prefix(&err, "%.*s%s", shift, "abcd", big);
            assert_null(strchr(err.msg, '?'));
            assert_true(text_is_utf8(err.msg, strlen(err.msg)));
            err_set_errno(&err, ENOSPC, "%.*s%s", shift, "abcd", big);
            assert_true(text_is_utf8(err.msg, strlen(err.msg)));
        }
    }
    struct err err = {0};
    err_set(&err, ERR_PROTOCOL, "'%.4s': \xff\xc0\x80 \xed\xa0\x80 \xc3", "\xe2\x82\xac\xe2");
    assert_string_equal(err.msg, "'\xe2\x82\xac?': ??? ??? ?");
    err_prefix(&err, "\x80");
    assert_string_equal(err.msg, "?: '\xe2\x82\xac?': ??? ??? ?");
}

static void every_code_has_a_name(void **state)
{
    (void)state;
    for (int c = ERR_NONE; c <= ERR_SYSTEM; c++)
        assert_string_not_equal(err_code_name((enum err_code)c), "UNKNOWN");
    assert_string_equal(err_code_name((enum err_code)99), "UNKNOWN");
}

static void buf_is_a_fifo_with_a_ceiling(void **state)
{
    (void)state;
    struct err err = {0};
    cleanup_buf struct buf b = BUF_INIT(1000);
    unsigned char next_in = 0, next_out = 0;
    for (int round = 0; round < 2000; round++) {
        unsigned char chunk[100];
        for (size_t i = 0; i < sizeof(chunk); i++)
            chunk[i] = next_in++;
        assert_int_equal(buf_append(&b, chunk, sizeof(chunk), &err), 0);
        while (b.len > 37) {
            assert_int_equal(buf_bytes(&b)[0], next_out++);
            buf_consume(&b, 1);
        }
    }
    assert_true(b.capacity <= 4096);
    char big[1000] = {0};
    size_t before = b.len;
    assert_int_equal(buf_append(&b, big, sizeof(big), &err), -1);
    assert_int_equal(err.code, ERR_EXHAUSTED);
    assert_int_equal(b.len, before);
    assert_int_equal(buf_append(&b, big, SIZE_MAX, &err), -1);
}

static void buf_builds_strings(void **state)
{
    (void)state;
    struct err err = {0};
    cleanup_buf struct buf b = BUF_INIT(64);
    assert_int_equal(buf_printf(&b, &err, "%s=%d", "n", 7), 0);
    assert_int_equal(buf_printf(&b, &err, ";"), 0);
    cleanup_free char *s = NULL;
    assert_int_equal(buf_take_string(&b, &s, &err), 0);
    assert_string_equal(s, "n=7;");
    assert_int_equal(b.len, 0);
    assert_int_equal(buf_printf(&b, &err, "%200s", "x"), -1);
    assert_int_equal(err.code, ERR_EXHAUSTED);
}

static void utf8_is_checked_strictly(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        bool good;
    } cases[] = {
        {"", 0, true},
        {"plain", 5, true},
        {"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", 9, true},
        {"a\0b", 3, false},
        {"\xc0\xaf", 2, false},         /* overlong '/' */
        {"\xe0\x80\xaf", 3, false},     /* overlong */
        {"\xf0\x80\x80\xaf", 4, false}, /* overlong */
        {"\xed\xa0\x80", 3, false},     /* surrogate */
        {"\xf4\x90\x80\x80", 4, false}, /* above U+10FFFF */
        {"\xf4\x8f\xbf\xbf", 4, true},  /* U+10FFFF */
        {"\xff", 1, false},
        {"\x80", 1, false},
        {"\xe2\x82", 2, false}, /* cut */
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        assert_int_equal(text_is_utf8(cases[i].bytes, cases[i].n), cases[i].good);

    /* One byte that is not allowed, at each place of a longer text. */
    static const char bad[] = {'\0', '\x80', '\xff', '\xc3'};
    for (size_t i = 0; i < 20; i++) {
        for (size_t k = 0; k < sizeof(bad); k++) {
            char text[20];
            memset(text, k % 2 == 0 ? '\x01' : '\x7f', sizeof(text));
            assert_true(text_is_utf8(text, sizeof(text)));
            text[i] = bad[k];
            assert_false(text_is_utf8(text, sizeof(text)));
        }
    }
}

static void numbers_are_whole_and_bounded(void **state)
{
    (void)state;
    uint64_t v = 42;
    assert_int_equal(text_parse_u64("0", 10, &v), 0);
    assert_int_equal(v, 0);
    assert_int_equal(text_parse_u64("18446744073709551615", UINT64_MAX, &v), 0);
    assert_true(v == UINT64_MAX);
    static const char *const bad[] = {
        "", "-1", "+1", " 1", "1 ", "0x1", "18446744073709551616", "99999999999999999999999"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(text_parse_u64(bad[i], UINT64_MAX, &v), -1);
    assert_int_equal(text_parse_u64("11", 10, &v), -1);
    assert_int_equal(text_parse_u64("9", 5, &v), -1);
    assert_true(v == UINT64_MAX);
}

static void random_hex_is_hex_and_differs(void **state)
{
    (void)state;
    char a[129], b[129];
    text_random_hex(64, a);
    text_random_hex(64, b);
    assert_true(text_is_hex(a, 128));
    assert_false(text_is_hex(a, 127));
    assert_string_not_equal(a, b);
    assert_false(text_is_hex("ABCD", 4));
}

static void rfc3339_has_nine_digits_in_utc(void **state)
{
    (void)state;
    char t[CLOCK_RFC3339_SIZE];
    clock_format_rfc3339(0, t);
    assert_string_equal(t, "1970-01-01T00:00:00.000000000Z");
    clock_format_rfc3339(1767323045LL * NSEC_PER_SEC + 6, t);
    assert_string_equal(t, "2026-01-02T03:04:05.000000006Z");
    clock_format_rfc3339(-1, t);
    assert_string_equal(t, "1969-12-31T23:59:59.999999999Z");
    clock_format_rfc3339(INT64_MAX, t);
    clock_format_rfc3339(INT64_MIN, t);
}

static void deadlines_do_not_wrap(void **state)
{
    (void)state;
    assert_true(clock_deadline(-1) == CLOCK_NO_DEADLINE);
    assert_true(clock_deadline(INT64_MAX) == CLOCK_NO_DEADLINE);
    assert_int_equal(clock_poll_timeout(CLOCK_NO_DEADLINE), -1);
    assert_int_equal(clock_poll_timeout(0), 0);
    assert_int_equal(clock_poll_timeout(clock_monotonic_ms() + (1LL << 40)), INT_MAX);
}

/* A private directory for one test. */
static int temp_dir(void **state)
{
    char *path = strdup("/tmp/casemate-test.XXXXXX");
    *state = path;
    return path != NULL && mkdtemp(path) != NULL ? 0 : -1;
}

static int temp_dir_end(void **state)
{
    struct err err = {0};
    int r = fd_remove_tree(AT_FDCWD, *state, &err);
    free(*state);
    return r;
}

static void files_are_read_whole_or_not_at_all(void **state)
{
    struct err err = {0};
    cleanup_fd int dir = open(*state, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char data[10000];
    memset(data, 'x', sizeof(data));
    assert_int_equal(fd_write_file_atomic(dir, "f", data, sizeof(data), 0640, &err), 0);
    struct stat st;
    assert_int_equal(fstatat(dir, "f", &st, 0), 0);
    assert_int_equal(st.st_mode & 0777, 0640);

    static const size_t limits[] = {10000, 10001, 1 << 20};
    for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
        cleanup_free char *text = NULL;
        size_t n = 0;
        assert_int_equal(fd_read_file(dir, "f", limits[i], &text, &n, &err), 0);
        assert_int_equal(n, sizeof(data));
        assert_memory_equal(text, data, n);
        assert_int_equal(text[n], '\0');
    }
    char *untouched = NULL;
    assert_int_equal(fd_read_file(dir, "f", 9999, &untouched, NULL, &err), -1);
    assert_int_equal(err.code, ERR_EXHAUSTED);
    assert_int_equal(fd_read_file(dir, "nope", 10, &untouched, NULL, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_null(untouched);
    assert_int_equal(fd_read_file(AT_FDCWD, "/proc/self/status", 1 << 16, &untouched, NULL, &err),
                     0);
    assert_non_null(strstr(untouched, "Name:"));
    free(untouched);
}

static void trees_go_without_following_links(void **state)
{
    struct err err = {0};
    cleanup_free char *deep = text_printf("%s/t/a/b/c", (char *)*state);
    cleanup_free char *kept = text_printf("%s/kept", (char *)*state);
    cleanup_free char *link = text_printf("%s/t/a/link", (char *)*state);
    cleanup_free char *tree = text_printf("%s/t", (char *)*state);
    assert_int_equal(fd_make_dirs(deep, 0700, &err), 0);
    assert_int_equal(fd_make_dirs(deep, 0700, &err), 0);
    assert_int_equal(fd_make_dirs(kept, 0700, &err), 0);
    assert_int_equal(symlink(kept, link), 0);
    assert_int_equal(fd_remove_tree(AT_FDCWD, tree, &err), 0);
    assert_int_equal(access(tree, F_OK), -1);
    assert_int_equal(access(kept, F_OK), 0);
    assert_int_equal(fd_remove_tree(AT_FDCWD, tree, &err), 0);
}

/* A tree of so many levels, from name in dir down, with a file, a link, an empty
 * directory and a second way down here and there. */
static void make_deep(int dir, const char *name, unsigned levels)
{
    cleanup_fd int at = dup(dir);
    for (unsigned i = 0; i < levels; i++) {
        const char *sub = i == 0 ? name : "sub";
        assert_int_equal(mkdirat(at, sub, 0700), 0);
        int next = openat(at, sub, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(next >= 0);
        (void)close(at);
        at = next;
        if (i % 100 != 99)
            continue;
        assert_int_equal(mkdirat(at, "empty", 0700), 0);
        assert_int_equal(symlinkat("..", at, "link"), 0);
        cleanup_fd int file = openat(at, "file", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        assert_true(file >= 0);
        make_deep(at, "other", 3);
    }
}

static void trees_go_however_deep_they_are(void **state)
{
    struct err err = {0};
    struct rlimit before, few = {.rlim_cur = 100};
    /* In memory, if there is such a place: this is about the depth, not about the disk. */
    const char *place = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : *state;
    char path[64];
    (void)snprintf(path, sizeof(path), "%s/casemate-test.XXXXXX", place);
    assert_non_null(mkdtemp(path));
    cleanup_fd int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    make_deep(dir, "deep", 5000);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    few.rlim_max = before.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    int next = dup(dir);
    (void)close(next);
    int r = fd_remove_tree(dir, "deep", &err);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    if (r < 0)
        fail_msg("%s", err.msg);
    assert_int_equal(faccessat(dir, "deep", F_OK, AT_SYMLINK_NOFOLLOW), -1);
    int again = dup(dir);
    (void)close(again);
    assert_int_equal(again, next); /* none is left open */
    assert_int_equal(rmdir(path), 0);
}

/* In a child with mounts of its own. */
static int remove_around_a_mount(const char *folder, unsigned levels)
{
    char path[PATH_MAX], kept[PATH_MAX], inside[PATH_MAX];
    struct err err = {0};
    size_t n = (size_t)snprintf(path, sizeof(path), "%s/t", folder);
    for (unsigned i = 0; i < levels; i++)
        n += (size_t)snprintf(path + n, sizeof(path) - n, "/d");
    (void)snprintf(kept, sizeof(kept), "%s/kept/in", folder);
    (void)snprintf(inside, sizeof(inside), "%s/t", folder);
    if (fd_make_dirs(path, 0700, &err) < 0 || fd_make_dirs(kept, 0700, &err) < 0)
        return 1;
    kept[strlen(kept) - 3] = '\0';
    if (mount(kept, path, NULL, MS_BIND, NULL) < 0)
        return 2;
    if (fd_remove_tree(AT_FDCWD, inside, &err) == 0 || err.code != ERR_BAD_STATE)
        return 3;
    kept[strlen(kept)] = '/';
    if (access(kept, F_OK) < 0)
        return 4;
    return umount(path) < 0 || fd_remove_tree(AT_FDCWD, inside, &err) < 0 ? 5 : 0;
}

static void trees_stay_where_something_is_mounted(void **state)
{
    if (geteuid() != 0) {
        (void)printf("SKIP: needs root\n");
        skip();
    }
    for (unsigned levels = 1; levels < 200; levels += 99) {
        int status;
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
            _exit(unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0
                      ? 9
                      : remove_around_a_mount(*state, levels));
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
    }
}

static void unix_sockets_work_below_deep_paths(void **state)
{
    struct err err = {0};
    char name[120];
    memset(name, 'd', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    cleanup_free char *dir = text_printf("%s/%s", (char *)*state, name);
    cleanup_free char *path = text_printf("%s/sock", dir);
    assert_int_equal(fd_make_dirs(dir, 0700, &err), 0);
    cleanup_fd int l = -1, c = -1;
    assert_int_equal(fd_connect_unix(path, &c, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_int_equal(fd_listen_unix(path, 0600, &l, &err), 0);
    close_fd(&l);
    assert_int_equal(fd_listen_unix(path, 0600, &l, &err), 0); /* a stale socket is replaced */
    assert_int_equal(fd_connect_unix(path, &c, &err), 0);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void descriptors_travel(void **state)
{
    (void)state;
    struct err err = {0};
    int pair[2], p[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    assert_int_equal(fd_send(pair[0], p[1], &err), 0);
    int got = -1;
    assert_int_equal(fd_receive(pair[1], &got, &err), 0);
    assert_int_equal(fcntl(got, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    assert_int_equal(write(got, "x", 1), 1);
    char c = 0;
    assert_int_equal(read(p[0], &c, 1), 1);
    assert_int_equal(c, 'x');
    (void)close(got);
    assert_int_equal(write(pair[0], "y", 1), 1);
    assert_int_equal(fd_receive(pair[1], &got, &err), -1);
    assert_int_equal(err.code, ERR_PROTOCOL);
    int all[] = {pair[0], pair[1], p[0], p[1]};
    for (size_t i = 0; i < ARRAY_SIZE(all); i++)
        (void)close(all[i]);
}

static void log_lines_are_one_line_and_escaped(void **state)
{
    (void)state;
    int p[2];
    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    log_set_fd(p[1]);
    struct err err = {0};
    err_set(&err, ERR_PROTOCOL, "peer said \"x\"");
    log_event(LOG_WARN, &(struct log_ctx){.sandbox = "s1"}, &err, "bad\nthing %s", "\x01");
    log_debug("not shown");
    char big[6000];
    memset(big, 'z', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    log_info("%s", big);
    log_set_fd(STDERR_FILENO);
    (void)close(p[1]);
    char text[16384];
    size_t n = 0;
    assert_int_equal(fd_read_full(p[0], text, sizeof(text) - 1, &n, &err), 0);
    text[n] = '\0';
    (void)close(p[0]);
    assert_memory_equal(text, "time=20", 7);
    assert_non_null(strstr(text, " level=warn sandbox=\"s1\" msg=\"bad\\x0athing \\x01\" "
                                 "code=PROTOCOL err=\"peer said \\\"x\\\"\"\n"));
    assert_null(strstr(text, "not shown"));
    size_t lines = 0;
    for (size_t i = 0; i < n; i++)
        lines += text[i] == '\n';
    assert_int_equal(lines, 2);
    assert_int_equal(text[n - 1], '\n');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(err_keeps_code_and_adds_context),
        cmocka_unit_test(err_messages_are_cut_not_overrun),
        cmocka_unit_test(err_messages_are_utf8),
        cmocka_unit_test(every_code_has_a_name),
        cmocka_unit_test(buf_is_a_fifo_with_a_ceiling),
        cmocka_unit_test(buf_builds_strings),
        cmocka_unit_test(utf8_is_checked_strictly),
        cmocka_unit_test(numbers_are_whole_and_bounded),
        cmocka_unit_test(random_hex_is_hex_and_differs),
        cmocka_unit_test(rfc3339_has_nine_digits_in_utc),
        cmocka_unit_test(deadlines_do_not_wrap),
        cmocka_unit_test_setup_teardown(files_are_read_whole_or_not_at_all, temp_dir, temp_dir_end),
        cmocka_unit_test_setup_teardown(trees_go_without_following_links, temp_dir, temp_dir_end),
        cmocka_unit_test_setup_teardown(trees_go_however_deep_they_are, temp_dir, temp_dir_end),
        cmocka_unit_test_setup_teardown(trees_stay_where_something_is_mounted, temp_dir,
                                        temp_dir_end),
        cmocka_unit_test_setup_teardown(unix_sockets_work_below_deep_paths, temp_dir, temp_dir_end),
        cmocka_unit_test(descriptors_travel),
        cmocka_unit_test(log_lines_are_one_line_and_escaped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
