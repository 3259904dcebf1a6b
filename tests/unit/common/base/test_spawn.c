/* SPDX-License-Identifier: Apache-2.0 */
/* common/base/spawn: exact descriptors and identity, errors of the child, limits of spawn_run. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/cleanup.h"
#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/spawn.h"

#define SH(script)                                                                                 \
    (const char *const[])                                                                          \
    {                                                                                              \
        "sh", "-c", script, NULL                                                                   \
    }

static struct spawn_output run(struct spawn_spec spec, const char *input)
{
    struct err err = {0};
    struct spawn_output o = {0};
    spec.path = "/bin/sh";
    if (spawn_run(&spec, input, 1 << 16, clock_deadline(20000), &o, &err) < 0)
        fail_msg("%s", err.msg);
    return o;
}

static void output_done(struct spawn_output *o)
{
    free(o->out);
    free(o->err_text);
}

static void it_collects_output_and_status(void **state)
{
    (void)state;
    struct spawn_output o =
        run((struct spawn_spec){.argv = SH("cat; echo oops >&2; exit 3")}, "hello");
    assert_string_equal(o.out, "hello");
    assert_string_equal(o.err_text, "oops\n");
    assert_int_equal(o.status, 3);
    output_done(&o);
    o = run((struct spawn_spec){.argv = SH("kill -9 $$")}, NULL);
    assert_int_equal(o.status, 128 + 9);
    output_done(&o);
    /* More input than a pipe holds, to a program that does not read it. */
    char *big = malloc(1 << 20);
    memset(big, 'x', (1 << 20) - 1);
    big[(1 << 20) - 1] = '\0';
    o = run((struct spawn_spec){.argv = SH("exit 0")}, big);
    assert_int_equal(o.status, 0);
    output_done(&o);
    free(big);
}

static void the_child_has_what_was_asked_and_nothing_else(void **state)
{
    (void)state;
    int a[2], b[2];
    assert_int_equal(pipe(a), 0); /* not close-on-exec, on purpose */
    assert_int_equal(pipe(b), 0);
    /* Crossed over: each target is the other's source. */
    struct spawn_fd fds[] = {{a[1], b[1]}, {b[1], a[1]}};
    const char *const env[] = {"ONLY=this", NULL};
    struct spawn_output o = run(
        (struct spawn_spec){
            .argv = SH("ls /proc/self/fd | tr '\\n' ' '; set | grep -c '^HOME='; echo $ONLY; pwd"),
            .envp = env,
            .fds = fds,
            .n_fds = 2},
        NULL);
    char want[64];
    int low = a[1] < b[1] ? a[1] : b[1], high = a[1] < b[1] ? b[1] : a[1];
    /* ls itself opens the directory as the lowest free descriptor. */
    (void)snprintf(want, sizeof(want), "0 1 2 %s%d %d 0\nthis\n/\n", low > 3 ? "3 " : "", low,
                   high);
    if (low > 3)
        assert_string_equal(o.out, want);
    output_done(&o);
    o = run(
        (struct spawn_spec){
            .argv = (const char *const[]){"sh", "-c", "echo A >&$0; echo B >&$1",
                                          low < 10 ? (char[]){(char)('0' + a[1]), 0} : "9",
                                          high < 10 ? (char[]){(char)('0' + b[1]), 0} : "9", NULL},
            .fds = fds,
            .n_fds = 2},
        NULL);
    if (high < 10) {
        char got[3] = {0};
        assert_int_equal(read(b[0], got, 2), 2);
        assert_string_equal(got, "A\n");
        assert_int_equal(read(a[0], got, 2), 2);
        assert_string_equal(got, "B\n");
    }
    output_done(&o);
    int all[] = {a[0], a[1], b[0], b[1]};
    for (size_t i = 0; i < ARRAY_SIZE(all); i++)
        (void)close(all[i]);
}

static void identity_is_dropped(void **state)
{
    (void)state;
    if (getuid() != 0) {
        print_message("SKIP: needs root\n");
        skip();
    }
    struct spawn_output o =
        run((struct spawn_spec){.argv = SH("id -u; id -g; id -G; ip link | grep -c eth0;"
                                           "grep -E 'NoNewPrivs|THP_enabled' /proc/self/status"),
                                .small_pages = true,
                                .set_ids = true,
                                .uid = 4242,
                                .gid = 4343,
                                .no_new_privs = true,
                                .unshare_flags = CLONE_NEWNET},
            NULL);
    assert_string_equal(o.out, "4242\n4343\n4343\n0\nTHP_enabled:\t0\nNoNewPrivs:\t1\n");
    output_done(&o);
}

static void failures_of_the_child_are_named(void **state)
{
    (void)state;
    struct err err = {0};
    struct spawn_child c = {.pidfd = -1};
    struct spawn_spec spec = {.path = "/nonexistent/program", .argv = SH("")};
    assert_int_equal(spawn_start(&spec, &c, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_string_equal(err.msg, "start '/nonexistent/program': exec: No such file or directory");
    spec.path = "/bin/sh";
    spec.cwd = "/nonexistent";
    assert_int_equal(spawn_start(&spec, &c, &err), -1);
    assert_non_null(strstr(err.msg, "chdir"));
    assert_int_equal(c.pidfd, -1);
}

static void limits_end_the_program(void **state)
{
    (void)state;
    struct err err = {0};
    struct spawn_output o = {0};
    struct spawn_spec spec = {.path = "/bin/sh", .argv = SH("exec sleep 1000")};
    int64_t begin = clock_monotonic_ms();
    assert_int_equal(spawn_run(&spec, NULL, 100, clock_deadline(100), &o, &err), -1);
    assert_int_equal(err.code, ERR_DEADLINE);
    assert_true(clock_monotonic_ms() - begin < 20000);
    spec.argv = SH("while :; do echo yes; done");
    assert_int_equal(spawn_run(&spec, NULL, 1000, clock_deadline(20000), &o, &err), -1);
    assert_int_equal(err.code, ERR_EXHAUSTED);
    assert_null(o.out);
}

static void no_descriptor_is_left_behind(void **state)
{
    (void)state;
    cleanup_fd int before = open("/dev/null", O_RDONLY | O_CLOEXEC);
    for (int i = 0; i < 20; i++) {
        struct err err = {0};
        struct spawn_output o = run((struct spawn_spec){.argv = SH("echo x")}, "y");
        output_done(&o);
        struct spawn_spec bad = {.path = "/nonexistent", .argv = SH("")};
        assert_int_equal(spawn_run(&bad, NULL, 10, clock_deadline(1000), &o, &err), -1);
    }
    cleanup_fd int after = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_int_equal(after, before + 1);
}

/* The nice value of a process's autogroup; -100 where the kernel makes none. */
static int group_nice(pid_t pid)
{
    char path[64], line[128] = "";
    int nice = -100;
    (void)snprintf(path, sizeof(path), "/proc/%d/autogroup", (int)pid);
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return nice;
    if (fgets(line, sizeof(line), f) != NULL)
        assert_int_equal(sscanf(line, "/autogroup-%*d nice %d", &nice), 1);
    (void)fclose(f);
    return nice;
}

static void an_idle_child_stands_back_until_it_is_hurried(void **state)
{
    (void)state;
    struct err err = {0};
    struct spawn_spec spec = {.path = "/bin/sh",
                              .argv = SH("exec sleep 1000"),
                              .set_ids = getuid() == 0,
                              .uid = 4242,
                              .gid = 4242,
                              .idle = true,
                              .new_session = true};
    struct spawn_child c = {.pidfd = -1};
    int ours = group_nice(getpid());
    assert_int_equal(spawn_start(&spec, &c, &err), 0);
    assert_int_equal(sched_getscheduler(c.pid), SCHED_IDLE);
    /* Others than root may change it ten times a second at most. */
    if (ours != -100 && getuid() == 0)
        assert_int_equal(group_nice(c.pid), 10);
    spawn_hurry(c.pid);
    assert_int_equal(sched_getscheduler(c.pid), SCHED_OTHER);
    if (ours != -100 && getuid() == 0)
        assert_int_equal(group_nice(c.pid), 0);
    spawn_kill(&c);

    /* In our session the tasks are all that is lowered. */
    spec.new_session = false;
    assert_int_equal(spawn_start(&spec, &c, &err), 0);
    assert_int_equal(sched_getscheduler(c.pid), SCHED_IDLE);
    assert_int_equal(group_nice(getpid()), ours);
    spawn_hurry(c.pid);
    assert_int_equal(group_nice(getpid()), ours);
    spawn_kill(&c);
    spawn_hurry(c.pid);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_collects_output_and_status),
        cmocka_unit_test(the_child_has_what_was_asked_and_nothing_else),
        cmocka_unit_test(identity_is_dropped),
        cmocka_unit_test(failures_of_the_child_are_named),
        cmocka_unit_test(limits_end_the_program),
        cmocka_unit_test(no_descriptor_is_left_behind),
        cmocka_unit_test(an_idle_child_stands_back_until_it_is_hurried),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
