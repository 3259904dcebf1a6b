/* SPDX-License-Identifier: Apache-2.0 */
/* Processes on the host, without namespaces: launch, gate, output, stdin, terminal, exit, failure.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/process/lodging.h"
#include "agent/process/process.h"
#include "agent/process/reaper.h"
#include "agent/process/task.h"
#include "common/base/clock.h"
#include "common/loop/loop.h"

#define DEADLINE_MS 10000

struct fixture {
    struct loop *loop;
    struct loop_source *signals;
    struct reaper *reaper;
    Casemate__Agent__V1__Process message;
    Casemate__Agent__V1__Capabilities caps;
    char *args[8];
    char *env[2];
    unsigned exits;
    bool outcome_only;
    bool may_lodge;
    int keep_fd; /* 0: none */
};

static void on_signal(void *arg, int signo)
{
    struct fixture *f = arg;
    (void)signo;
    reaper_collect(f->reaper);
}

static int setup(void **state)
{
    static const int signals[] = {SIGCHLD, 0};
    struct fixture *f = calloc(1, sizeof(*f));
    struct err err;
    (void)signal(SIGPIPE, SIG_IGN);
    *state = f;
    if (loop_new(&f->loop, &err) < 0 || reaper_new(&f->reaper, &err) < 0)
        return -1;
    casemate__agent__v1__process__init(&f->message);
    f->message.args = f->args;
    f->env[0] = strdup("PATH=/usr/bin:/bin");
    f->message.env = f->env;
    f->message.n_env = 1;
    return loop_add_signals(f->loop, signals, on_signal, f, &f->signals, &err);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    loop_source_free(f->signals);
    reaper_free(f->reaper);
    loop_free(f->loop);
    for (size_t i = 0; i < f->message.n_args; i++)
        free(f->args[i]);
    free(f->env[0]);
    free(f);
    return 0;
}

static void set_args(struct fixture *f, const char *first, ...)
{
    va_list ap;
    va_start(ap, first);
    for (const char *a = first; a != NULL; a = va_arg(ap, const char *))
        f->args[f->message.n_args++] = strdup(a);
    va_end(ap);
}

/* The test's own terminal device stands for the container's. */
static int enter(void *arg, int *ret_ptmx_fd, struct err *err)
{
    (void)err;
    if (arg != NULL)
        *ret_ptmx_fd = open("/dev/ptmx", O_PATH | O_CLOEXEC);
    return 0;
}

static int enter_failing(void *arg, int *ret_ptmx_fd, struct err *err)
{
    (void)arg;
    (void)ret_ptmx_fd;
    return err_set(err, ERR_INVALID, "the root is \"odd\"");
}

static void on_exit_(void *arg, struct process *p)
{
    struct fixture *f = arg;
    assert_int_equal(p->state, PROCESS_ENDED);
    f->exits++;
}

static struct process *launch(struct fixture *f, bool gated, size_t ring,
                              int (*how)(void *arg, int *ret_ptmx_fd, struct err *err))
{
    struct process_config config = {
        .loop = f->loop,
        .reaper = f->reaper,
        .ring_bytes = ring,
        .outcome_only = f->outcome_only,
        .on_exit = on_exit_,
        .on_exit_arg = f,
    };
    static const struct caps none;
    struct launch_spec spec = {
        .process = &f->message,
        .caps = &none,
        .enter = how,
        .enter_arg = f->message.tty ? f : NULL,
        .keep_fd = f->keep_fd == 0 ? -1 : f->keep_fd,
        .cgroup_fd = -1,
        .pidns_fd = -1,
        .master_fd = -1,
        .gated = gated,
        .may_lodge = f->may_lodge,
    };
    struct process *p;
    struct err err;
    if (process_launch(&config, &spec, &p, &err) < 0)
        fail_msg("%s", err.msg);
    return p;
}

#define RUN_UNTIL(f, condition)                                                                    \
    do {                                                                                           \
        int64_t deadline_ = clock_deadline(DEADLINE_MS);                                           \
        while (!(condition)) {                                                                     \
            struct err err_;                                                                       \
            assert_int_not_equal(clock_poll_timeout(deadline_), 0);                                \
            assert_int_equal(loop_run_once((f)->loop, 100, &err_), 0);                             \
        }                                                                                          \
    } while (0)

static void assert_output(struct process *p, unsigned stream, const char *expected)
{
    char got[4096];
    size_t len = 0;
    struct ring_span span;
    const struct ring *r = &p->out[stream].ring;
    while (ring_read(r, r->start + len, sizeof(got) - 1 - len, &span)) {
        memcpy(got + len, span.data, span.len);
        len += span.len;
    }
    got[len] = '\0';
    assert_string_equal(got, expected);
}

static void test_run(void **state)
{
    struct fixture *f = *state;
    set_args(f, "sh", "-c", "echo out; echo err >&2; exit 3", NULL);
    struct process *p = launch(f, false, 0, enter);
    assert_int_equal(p->state, PROCESS_STARTING);
    RUN_UNTIL(f, p->settled);
    assert_int_equal(p->status.exit_code, 3);
    assert_int_equal(p->status.signal, 0);
    assert_true(p->status.started_ns > 0 && p->status.finished_ns >= p->status.started_ns);
    assert_output(p, 0, "out\n");
    assert_output(p, 1, "err\n");
    assert_int_equal(f->exits, 1);
    process_unref(p);
}

/* Of one that ends soon nothing is listened to, and nothing is missed. */
static void test_outcome_only(void **state)
{
    struct fixture *f = *state;
    int64_t before_ns = clock_realtime_ns();
    f->outcome_only = true;
    set_args(f, "sh", "-c", "echo out; echo err >&2; exit 3", NULL);
    struct process *p = launch(f, false, 0, enter);
    assert_null(p->channel_source);
    assert_null(p->out[0].source);
    assert_null(p->out[1].source);
    RUN_UNTIL(f, p->settled);
    assert_int_equal(p->status.exit_code, 3);
    assert_true(p->status.started_ns >= before_ns);
    assert_true(p->status.finished_ns >= p->status.started_ns);
    assert_output(p, 0, "out\n");
    assert_output(p, 1, "err\n");
    process_unref(p);
}

/* One that lasts is listened to: its pipe would not hold what it writes. */
static void test_outcome_lasting(void **state)
{
    struct fixture *f = *state;
    struct err err;
    f->outcome_only = true;
    set_args(f, "sh", "-c", "head -c 200000 /dev/zero; exec sleep 1000", NULL);
    struct process *p = launch(f, false, 0, enter);
    RUN_UNTIL(f, p->out[0].ring.end == 200000);
    RUN_UNTIL(f, p->state == PROCESS_RUNNING);
    assert_int_equal(process_signal(p, SIGKILL, &err), 0);
    RUN_UNTIL(f, p->settled);
    assert_int_equal(p->status.exit_code, 128 + SIGKILL);
    process_unref(p);
}

static void test_gate(void **state)
{
    struct fixture *f = *state;
    struct err err;
    set_args(f, "sleep", "1000", NULL);
    struct process *p = launch(f, true, 0, enter);
    RUN_UNTIL(f, p->state != PROCESS_PREPARING);
    assert_int_equal(p->state, PROCESS_HELD);
    /* It says who it will be: here nobody in particular, so root, and in its own group. */
    assert_non_null(p->user);
    assert_int_equal(p->user->uid, 0);
    assert_int_equal(p->user->gid, 0);
    assert_int_equal(p->user->n_groups, 1);
    assert_int_equal(p->user->groups[0], 0);
    assert_int_equal(process_start(p, &err), 0);
    assert_int_equal(process_start(p, &err), -1);
    assert_int_equal(err.code, ERR_BAD_STATE);
    RUN_UNTIL(f, p->state == PROCESS_RUNNING);
    assert_int_equal(process_signal(p, SIGTERM, &err), 0);
    RUN_UNTIL(f, p->settled);
    assert_int_equal(p->status.exit_code, 128 + SIGTERM);
    assert_int_equal(p->status.signal, SIGTERM);
    assert_int_equal(process_signal(p, SIGTERM, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    process_unref(p);
}

static void test_killed_before_exec(void **state)
{
    struct fixture *f = *state;
    struct err err;
    set_args(f, "true", NULL);
    struct process *p = launch(f, true, 0, enter);
    RUN_UNTIL(f, p->state == PROCESS_HELD);
    assert_int_equal(process_signal(p, SIGKILL, &err), 0);
    RUN_UNTIL(f, p->settled);
    assert_true(p->failed);
    assert_int_equal(p->status.started_ns, 0);
    assert_string_equal(p->failure->msg, "killed by signal 9 before its exec");
    process_unref(p);
}

static void check_failure(struct fixture *f,
                          int (*how)(void *arg, int *ret_ptmx_fd, struct err *err),
                          enum err_code code, const char *message)
{
    struct process *p = launch(f, false, 0, how);
    RUN_UNTIL(f, p->settled);
    assert_true(p->failed);
    assert_int_equal(p->failure->code, code);
    assert_string_equal(p->failure->msg, message);
    assert_int_equal(p->status.exit_code, 128);
    process_unref(p);
}

static void test_no_such_file(void **state)
{
    struct fixture *f = *state;
    set_args(f, "/bin/nope", NULL);
    check_failure(f, enter, ERR_NOT_FOUND, "exec /bin/nope: no such file or directory");
}

static void test_outcome_is_failure(void **state)
{
    struct fixture *f = *state;
    f->outcome_only = true;
    set_args(f, "/bin/nope", NULL);
    check_failure(f, enter, ERR_NOT_FOUND, "exec /bin/nope: no such file or directory");
}

static void test_not_in_path(void **state)
{
    struct fixture *f = *state;
    set_args(f, "nope", NULL);
    check_failure(f, enter, ERR_NOT_FOUND,
                  "exec \"nope\": executable file not found in $PATH: no such file or directory");
}

static void test_not_executable(void **state)
{
    struct fixture *f = *state;
    set_args(f, "/etc/passwd", NULL);
    check_failure(f, enter, ERR_DENIED, "exec /etc/passwd: permission denied");
}

static void test_enter_fails(void **state)
{
    struct fixture *f = *state;
    set_args(f, "true", NULL);
    check_failure(f, enter_failing, ERR_INVALID, "the root is \"odd\"");
}

/* ---- in this program's memory ---- */

/* False under sanitizers: every child is a copy then. */
static bool can_lodge(void)
{
    struct err err;
    if (lodging_prepare(&err) == 0)
        return true;
    assert_int_equal(err.code, ERR_UNSUPPORTED);
    return false;
}

/* What a copy does, a child in this memory does, and leaves nothing in it. */
static void test_lodger(void **state)
{
    struct fixture *f = *state;
    bool can = can_lodge();
    f->outcome_only = f->may_lodge = true;
    set_args(f, "sh", "-c", "echo out; echo $HOME $0 >&2; exit 3", "name", NULL);
    for (size_t i = 0; i < 50; i++) {
        struct process *p = launch(f, false, 0, enter);
        assert_int_equal(p->lodges, can);
        assert_int_equal(lodging_is_free(), false);
        RUN_UNTIL(f, p->settled);
        assert_int_equal(lodging_is_free(), can);
        assert_false(p->failed);
        assert_int_equal(p->status.exit_code, 3);
        assert_output(p, 0, "out\n");
        assert_output(p, 1, "/root name\n");
        process_unref(p);
    }
    assert_int_equal(f->exits, 50);
}

static void test_lodger_fails(void **state)
{
    struct fixture *f = *state;
    bool can = can_lodge();
    f->outcome_only = f->may_lodge = true;
    set_args(f, "nope", NULL);
    check_failure(f, enter, ERR_NOT_FOUND,
                  "exec \"nope\": executable file not found in $PATH: no such file or directory");
    check_failure(f, enter_failing, ERR_INVALID, "the root is \"odd\"");
    assert_int_equal(lodging_is_free(), can);
}

/* In the child: until the writer of the pipe kept has gone, or for ever. */
static int enter_waiting(void *arg, int *ret_ptmx_fd, struct err *err)
{
    char byte;
    (void)arg;
    (void)ret_ptmx_fd;
    ssize_t n = read(LAUNCH_KEEP_FD, &byte, 1);
    return n < 0 ? err_set_errno(err, errno, "wait") : 0;
}

/* Nobody waits for one that does not come to its exec; others are copies meanwhile. It can be
 * killed where it stands. */
static void test_lodger_hangs(void **state)
{
    struct fixture *f = *state;
    struct err err;
    int ends[2];
    bool can = can_lodge();
    f->outcome_only = f->may_lodge = true;
    set_args(f, "true", NULL);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
        f->keep_fd = ends[0];
        struct process *hangs = launch(f, false, 0, enter_waiting);
        f->keep_fd = 0;
        (void)close(ends[0]);
        assert_int_equal(hangs->lodges, can);
        struct process *other = launch(f, false, 0, enter);
        assert_false(other->lodges);
        RUN_UNTIL(f, other->settled);
        assert_int_equal(other->status.exit_code, 0);
        process_unref(other);
        /* Longer than it takes to be listened to. */
        RUN_UNTIL(f, hangs->out[0].source != NULL);
        assert_int_equal(hangs->state, PROCESS_STARTING);
        assert_false(lodging_is_free());
        if (i == 0)
            (void)close(ends[1]);
        else
            assert_int_equal(process_signal(hangs, SIGKILL, &err), 0);
        RUN_UNTIL(f, hangs->settled);
        assert_int_equal(hangs->status.exit_code, i == 0 ? 0 : 128 + SIGKILL);
        assert_int_equal(lodging_is_free(), can);
        if (i == 1)
            (void)close(ends[1]);
        process_unref(hangs);
    }
    struct process *p = launch(f, false, 0, enter);
    assert_int_equal(p->lodges, can);
    RUN_UNTIL(f, p->settled);
    process_unref(p);
}

/* It is free as soon as the program runs, not when that ends. */
static void test_lodger_moves_out(void **state)
{
    struct fixture *f = *state;
    struct err err;
    bool can = can_lodge();
    f->outcome_only = f->may_lodge = true;
    set_args(f, "sleep", "1000", NULL);
    struct process *p = launch(f, false, 0, enter);
    RUN_UNTIL(f, p->state == PROCESS_RUNNING);
    assert_false(p->lodges);
    assert_int_equal(lodging_is_free(), can);
    assert_int_equal(process_signal(p, SIGKILL, &err), 0);
    RUN_UNTIL(f, p->settled);
    process_unref(p);
}

/* A full ring stops the process, acknowledging lets it go on, and its end needs no acknowledgement.
 */
static void test_full_ring(void **state)
{
    struct fixture *f = *state;
    set_args(f, "head", "-c", "300000", "/dev/zero", NULL);
    struct process *p = launch(f, false, 4096, enter);
    RUN_UNTIL(f, p->out[0].ring.end == 4096);
    assert_null(p->out[0].source);
    uint64_t seen = 0;
    while (p->state != PROCESS_ENDED) {
        if (p->out[0].ring.end > seen) {
            seen = p->out[0].ring.end;
            assert_true(p->out[0].ring.end - p->out[0].ring.start <= 4096);
            process_ack(p, 0, seen);
        }
        RUN_UNTIL(f, p->out[0].ring.end > seen || p->state == PROCESS_ENDED);
    }
    RUN_UNTIL(f, p->settled);
    assert_int_equal(p->out[0].ring.end, 300000);
    assert_int_equal(p->status.exit_code, 0);
    process_unref(p);
}

/* A child that keeps the output open keeps the process from settling, but not from having ended. */
static void test_inherited_output(void **state)
{
    struct fixture *f = *state;
    /* The child of the shell waits for a byte on stdin, which outlives the shell: its end is ours.
     */
    set_args(f, "sh", "-c", "exec 3<&0; (read x <&3; echo late) & exit 5", NULL);
    f->message.stdin = true;
    struct process *p = launch(f, false, 0, enter);
    RUN_UNTIL(f, p->state == PROCESS_ENDED);
    assert_int_equal(p->status.exit_code, 5);
    RUN_UNTIL(f, p->settled);
    assert_output(p, 0, "late\n");
    process_unref(p);
}

static void test_outcome_inherited(void **state)
{
    struct fixture *f = *state;
    f->outcome_only = true;
    test_inherited_output(state);
}

static int give(struct process *p, uint64_t offset, const char *text, bool eof, struct err *err)
{
    return process_write_stdin(p, offset, (const uint8_t *)text, strlen(text), eof, err);
}

static void test_stdin(void **state)
{
    struct fixture *f = *state;
    struct err err;
    set_args(f, "cat", NULL);
    f->message.stdin = true;
    struct process *p = launch(f, false, 0, enter);
    RUN_UNTIL(f, p->state == PROCESS_RUNNING);
    assert_int_equal(give(p, 0, "abc", false, &err), 0);
    assert_int_equal(p->stdin_offset, 3);
    assert_int_equal(give(p, 1, "bcd\n", false, &err), 0);
    assert_int_equal(p->stdin_offset, 5);
    assert_int_equal(give(p, 6, "x", false, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    assert_int_equal(give(p, 5, "", true, &err), 0);
    assert_int_equal(give(p, 5, "", true, &err), 0);
    assert_int_equal(give(p, 5, "more", false, &err), -1);
    assert_int_equal(err.code, ERR_BAD_STATE);
    RUN_UNTIL(f, p->settled);
    assert_output(p, 0, "abcd\n");
    process_unref(p);
}

static void on_change(void *arg)
{
    (*(unsigned *)arg)++;
}

/* Nobody reads: what does not fit is not taken, and whoever waits for room is called when there is
 * some. */
static void test_stdin_full(void **state)
{
    static char megabyte[1 << 20];
    struct fixture *f = *state;
    struct err err;
    unsigned changes = 0;
    struct process_watch watch = {.fn = on_change, .arg = &changes};
    memset(megabyte, 'x', sizeof(megabyte) - 1);
    set_args(f, "sh", "-c", "kill -STOP $$; cat > /dev/null", NULL);
    f->message.stdin = true;
    struct process *p = launch(f, false, 0, enter);
    RUN_UNTIL(f, p->state == PROCESS_RUNNING);
    assert_int_equal(give(p, 0, megabyte, false, &err), 0);
    uint64_t taken = p->stdin_offset;
    assert_true(taken > 0 && taken < sizeof(megabyte) - 1);
    assert_int_equal(give(p, taken, "y", false, &err), 0);
    assert_int_equal(p->stdin_offset, taken);
    process_watch(p, &watch);
    /* It may not have stopped itself yet: go on sending SIGCONT until it has read. */
    int64_t deadline = clock_deadline(DEADLINE_MS);
    while (changes == 0) {
        assert_int_not_equal(clock_poll_timeout(deadline), 0);
        assert_int_equal(process_signal(p, SIGCONT, &err), 0);
        assert_int_equal(loop_run_once(f->loop, 10, &err), 0);
    }
    process_unwatch(p, &watch);
    assert_int_equal(give(p, taken, "y", true, &err), 0);
    assert_int_equal(p->stdin_offset, taken + 1);
    (void)process_signal(p, SIGKILL, &err);
    RUN_UNTIL(f, p->settled);
    process_unref(p);
}

static void test_terminal(void **state)
{
    struct fixture *f = *state;
    struct err err;
    set_args(f, "sh", "-c", "test -t 0 && test -t 2 && stty size; read x; echo got $x", NULL);
    f->message.tty = true;
    f->message.tty_width = 101;
    f->message.tty_height = 33;
    struct process *p = launch(f, true, 0, enter);
    RUN_UNTIL(f, p->state != PROCESS_PREPARING);
    if (p->failed)
        fail_msg("%s", p->failure->msg);
    assert_true(p->master_fd >= 0);
    assert_int_equal(process_start(p, &err), 0);
    RUN_UNTIL(f, p->out[0].ring.end >= 8);
    assert_int_equal(process_resize(p, 80, 25, &err), 0);
    assert_int_equal(give(p, 0, "it\n", false, &err), 0);
    RUN_UNTIL(f, p->settled);
    assert_output(p, 0, "33 101\r\nit\r\ngot it\r\n");
    process_unref(p);
}

static void test_gone(void **state)
{
    struct fixture *f = *state;
    struct err err;
    unsigned changes = 0;
    struct process_watch watch = {.fn = on_change, .arg = &changes};
    set_args(f, "sleep", "1000", NULL);
    struct process *p = launch(f, false, 0, enter);
    RUN_UNTIL(f, p->state == PROCESS_RUNNING);
    assert_int_equal(process_signal(p, SIGKILL, &err), 0);
    RUN_UNTIL(f, p->settled);
    process_watch(p, &watch);
    process_mark_gone(p);
    assert_int_equal(changes, 1);
    assert_true(p->gone);
    process_unwatch(p, &watch);
    process_unref(p);
}

/* ---- tasks
 * ------------------------------------------------------------------------------------------------------------
 */

struct outcome {
    bool done;
    struct err err;
};

static int work(void *arg, struct err *err)
{
    const char *how = arg;
    if (strcmp(how, "die") == 0)
        (void)raise(SIGKILL);
    return strcmp(how, "fail") == 0 ? err_set(err, ERR_DENIED, "no way") : 0;
}

static void on_done(void *arg, const struct err *err)
{
    struct outcome *o = arg;
    o->done = true;
    if (err != NULL)
        o->err = *err;
}

static void test_tasks(void **state)
{
    static char hows[][8] = {"work", "fail", "die"};
    static const enum err_code codes[] = {ERR_NONE, ERR_DENIED, ERR_SYSTEM};
    struct fixture *f = *state;
    for (size_t i = 0; i < 3; i++) {
        struct outcome o = {0};
        struct err err;
        assert_int_equal(task_run(f->reaper, work, hows[i], on_done, &o, &err), 0);
        assert_false(o.done);
        RUN_UNTIL(f, o.done);
        assert_int_equal(o.err.code, codes[i]);
    }
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_run),
        TEST(test_gate),
        TEST(test_killed_before_exec),
        TEST(test_no_such_file),
        TEST(test_not_in_path),
        TEST(test_not_executable),
        TEST(test_enter_fails),
        TEST(test_full_ring),
        TEST(test_inherited_output),
        TEST(test_stdin),
        TEST(test_stdin_full),
        TEST(test_terminal),
        TEST(test_gone),
        TEST(test_tasks),
        TEST(test_outcome_only),
        TEST(test_outcome_lasting),
        TEST(test_outcome_is_failure),
        TEST(test_outcome_inherited),
        TEST(test_lodger),
        TEST(test_lodger_fails),
        TEST(test_lodger_hangs),
        TEST(test_lodger_moves_out),
    };
    if (geteuid() != 0) {
        (void)printf("SKIP: needs root\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
