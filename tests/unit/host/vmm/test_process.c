/* SPDX-License-Identifier: Apache-2.0 */
/* Processes by pid and start, kills by argument, and a standard error that cannot grow. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/spawn.h"
#include "host/vmm/process.h"

static struct spawn_child start_sleeper(void)
{
    const char *const argv[] = {"sleep", "1000", NULL};
    const struct spawn_spec spec = {.path = "/bin/sleep", .argv = argv};
    struct spawn_child child;
    struct err err;

    if (spawn_start(&spec, &child, &err) < 0)
        fail_msg("%s", err.msg);
    return child;
}

static void a_process_is_pid_and_start(void **state)
{
    struct spawn_child child = start_sleeper();
    uint64_t ticks;
    struct err err;
    int fd = -1;

    (void)state;
    assert_int_equal(process_start_ticks(child.pid, &ticks, &err), 0);
    assert_int_equal(process_open(child.pid, ticks, &fd, &err), 0);
    assert_int_equal(process_wait(fd, clock_deadline(1), &err), -1);
    assert_int_equal(err.code, ERR_DEADLINE);
    int other = -1;
    assert_int_equal(process_open(child.pid, ticks + 1, &other, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_int_equal(other, -1);
    process_kill(fd);
    assert_int_equal(process_wait(fd, clock_deadline(10000), &err), 0);
    /* A zombie is gone, whatever /proc still shows. */
    assert_int_equal(process_open(child.pid, ticks, &other, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    spawn_kill(&child);
    assert_int_equal(process_open(child.pid, ticks, &other, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    close(fd);
}

static void kills_by_arguments(void **state)
{
    char mark[64];
    unsigned int n = 99;
    struct err err;
    int status;

    (void)state;
    (void)snprintf(mark, sizeof(mark), "mark-%d", (int)getpid());
    const char *const argv[] = {"sh", "-c", "read line", "-name", mark, NULL};
    int pair[2];
    assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
    const struct spawn_fd fds[] = {{.fd = pair[0], .as = 0}};
    const struct spawn_spec spec = {.path = "/bin/sh", .argv = argv, .fds = fds, .n_fds = 1};
    struct spawn_child child;
    assert_int_equal(spawn_start(&spec, &child, &err), 0);
    assert_int_equal(process_kill_by_args("-name", "mark-none", &n, &err), 0);
    assert_int_equal(n, 0);
    assert_int_equal(process_kill_by_args(mark, "-name", &n, &err), 0);
    assert_int_equal(n, 0);
    assert_int_equal(process_kill_by_args("-name", mark, &n, &err), 0);
    assert_int_equal(n, 1);
    assert_int_equal(spawn_wait(&child, clock_deadline(10000), &status, &err), 0);
    assert_int_equal(status, 128 + 9);
    close(child.pidfd);
    close(pair[0]);
    close(pair[1]);
}

static void standard_error_is_bounded(void **state)
{
    char text[64], big[4096];
    struct err err;
    int fd = -1;

    (void)state;
    assert_int_equal(process_stderr_new(&fd, &err), 0);
    process_stderr_text(fd, text, sizeof(text));
    assert_string_equal(text, "");
    assert_int_equal(write(fd, "first line\nsecond\x1b[2J line\n", 27), 27);
    process_stderr_text(fd, text, sizeof(text));
    assert_string_equal(text, "first line; second?[2J line");
    memset(big, 'b', sizeof(big));
    big[sizeof(big) - 1] = '\n';
    ssize_t total = 0, n;
    while ((n = write(fd, big, sizeof(big))) > 0)
        total += n;
    assert_int_equal(n, -1);
    assert_int_equal(errno, EPERM);
    assert_true(total < PROCESS_STDERR_BYTES);
    assert_int_equal(ftruncate(fd, 1 << 20), -1);
    process_stderr_text(fd, text, sizeof(text));
    assert_true(strlen(text) < sizeof(text));
    assert_true(strlen(text) > 0);
    close(fd);
}

static void the_last_lines_are_kept(void **state)
{
    char text[64];
    struct err err;
    int fd = -1;

    (void)state;
    assert_int_equal(process_stderr_new(&fd, &err), 0);
    for (int i = 0; i < 50; i++)
        assert_int_equal(dprintf(fd, "line number %02d\n", i), 15);
    process_stderr_text(fd, text, sizeof(text));
    assert_non_null(strstr(text, "line number 49"));
    assert_null(strstr(text, "line number 40"));
    assert_memory_equal(text, "line number", 11);
    close(fd);
}

static void boot_id_is_one(void **state)
{
    char a[PROCESS_BOOT_ID_SIZE], b[PROCESS_BOOT_ID_SIZE];
    struct err err;

    (void)state;
    assert_int_equal(process_boot_id(a, &err), 0);
    assert_int_equal(process_boot_id(b, &err), 0);
    assert_string_equal(a, b);
    assert_int_equal(strlen(a), 36);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_process_is_pid_and_start),
        cmocka_unit_test(kills_by_arguments),
        cmocka_unit_test(standard_error_is_bounded),
        cmocka_unit_test(the_last_lines_are_kept),
        cmocka_unit_test(boot_id_is_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
