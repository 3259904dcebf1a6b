/* SPDX-License-Identifier: Apache-2.0 */
/* common/loop: sources freed inside callbacks, timer order, posting from threads, signals, pidfds,
 * the worker pool. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <fcntl.h>
#include <cmocka.h>

#include "common/base/cleanup.h"
#include "common/base/clock.h"
#include "common/loop/loop.h"
#include "common/loop/workers.h"

static struct loop *loop;

static int setup(void **state)
{
    (void)state;
    struct err err = {0};
    return loop_new(&loop, &err);
}

static int teardown(void **state)
{
    (void)state;
    loop_free(loop);
    return 0;
}

static void stop(void *arg)
{
    (void)arg;
    loop_stop(loop);
}

/* Ends a test that would hang. */
static struct loop_source *watchdog(void)
{
    struct err err = {0};
    struct loop_source *t = NULL;
    assert_int_equal(loop_add_timer(loop, stop, NULL, &t, &err), 0);
    loop_arm(t, 20000);
    return t;
}

static struct {
    struct loop_source *a, *b;
    int calls;
} pair;

static void free_both(void *arg, uint32_t events)
{
    (void)arg;
    (void)events;
    pair.calls++;
    loop_source_free(pair.a);
    loop_source_free(pair.b);
    loop_stop(loop);
}

static void a_freed_source_is_not_called(void **state)
{
    (void)state;
    struct err err = {0};
    int p[2], q[2];
    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    assert_int_equal(pipe2(q, O_CLOEXEC), 0);
    assert_int_equal(write(p[1], "x", 1), 1);
    assert_int_equal(write(q[1], "x", 1), 1);
    /* Both are ready in the same round; the first callback frees both. */
    assert_int_equal(loop_add_fd(loop, p[0], EPOLLIN, free_both, NULL, &pair.a, &err), 0);
    assert_int_equal(loop_add_fd(loop, q[0], EPOLLIN, free_both, NULL, &pair.b, &err), 0);
    pair.calls = 0;
    assert_int_equal(loop_run(loop, &err), 0);
    assert_int_equal(loop_run_once(loop, 0, &err), 0);
    assert_int_equal(pair.calls, 1);
    int all[] = {p[0], p[1], q[0], q[1]};
    for (size_t i = 0; i < ARRAY_SIZE(all); i++)
        (void)close(all[i]);
}

static int fired[64];
static int n_fired;

static void note(void *arg)
{
    fired[n_fired++] = (int)(intptr_t)arg;
}

static void timers_fire_in_order_and_once(void **state)
{
    (void)state;
    struct err err = {0};
    struct loop_source *t[40];
    n_fired = 0;
    for (int i = 0; i < 40; i++) {
        assert_int_equal(loop_add_timer(loop, note, (void *)(intptr_t)i, &t[i], &err), 0);
        loop_arm(t[i], (i * 7) % 40 * 2);
    }
    loop_disarm(t[3]);
    loop_source_free(t[5]);
    loop_arm(t[7], 100);
    int64_t until = clock_deadline(20000);
    while (n_fired < 38 && clock_poll_timeout(until) > 0)
        assert_int_equal(loop_run_once(loop, 50, &err), 0);
    assert_int_equal(n_fired, 38);
    assert_int_equal(fired[37], 7);
    for (int i = 1; i < 37; i++)
        assert_true((fired[i - 1] * 7) % 40 < (fired[i] * 7) % 40);
    assert_int_equal(loop_run_once(loop, 0, &err), 0);
    assert_int_equal(n_fired, 38);
    for (int i = 0; i < 40; i++) {
        if (i != 5)
            loop_source_free(t[i]);
    }
}

enum { N_POSTS = 2000, N_THREADS = 4 };
static int next_of[N_THREADS];
static int n_posted;

static void check_order(void *arg)
{
    int v = (int)(intptr_t)arg;
    assert_int_equal(v % N_POSTS, next_of[v / N_POSTS]++);
    assert_true(loop_is_current(loop));
    if (++n_posted == N_POSTS * N_THREADS)
        loop_stop(loop);
}

static void *poster(void *arg)
{
    for (int i = 0; i < N_POSTS; i++) {
        if (loop_post(loop, check_order, (void *)((intptr_t)arg * N_POSTS + i), NULL) < 0)
            abort();
    }
    return loop_is_current(loop) ? arg : NULL;
}

static void posted_work_comes_in_order(void **state)
{
    (void)state;
    struct err err = {0};
    struct loop_source *w = watchdog();
    pthread_t t[N_THREADS];
    for (intptr_t i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_create(&t[i], NULL, poster, (void *)i), 0);
    assert_int_equal(loop_run(loop, &err), 0);
    assert_int_equal(n_posted, N_POSTS * N_THREADS);
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_join(t[i], NULL), 0);
    loop_source_free(w);
}

static int got_signal;

static void on_signal(void *arg, int signo)
{
    (void)arg;
    got_signal = signo;
    loop_stop(loop);
}

static void signals_and_child_exits_are_events(void **state)
{
    (void)state;
    struct err err = {0};
    struct loop_source *w = watchdog(), *s = NULL, *p = NULL;
    assert_int_equal(loop_add_signals(loop, (const int[]){SIGUSR1, 0}, on_signal, NULL, &s, &err),
                     0);
    assert_int_equal(kill(getpid(), SIGUSR1), 0);
    assert_int_equal(loop_run(loop, &err), 0);
    assert_int_equal(got_signal, SIGUSR1);

    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    n_fired = 0;
    assert_int_equal(loop_add_pidfd(loop, pidfd, note, (void *)9, &p, &err), 0);
    int64_t until = clock_deadline(20000);
    while (n_fired == 0 && clock_poll_timeout(until) > 0)
        assert_int_equal(loop_run_once(loop, 1000, &err), 0);
    assert_int_equal(loop_run_once(loop, 0, &err), 0);
    assert_int_equal(n_fired, 1);
    loop_source_free(p);
    loop_source_free(s);
    loop_source_free(w);
    (void)close(pidfd);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static _Atomic int n_done;
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

static void behind_gate(void *arg)
{
    (void)arg;
    pthread_mutex_lock(&gate);
    pthread_mutex_unlock(&gate);
    atomic_fetch_add(&n_done, 1);
}

static void workers_are_bounded_and_finish_everything(void **state)
{
    (void)state;
    struct err err = {0};
    struct workers *w = NULL;
    assert_int_equal(workers_new(3, 10, &w, &err), 0);
    pthread_mutex_lock(&gate);
    int accepted = 0;
    while (accepted < 100 && workers_run(w, behind_gate, NULL, &err) == 0)
        accepted++;
    assert_int_equal(err.code, ERR_EXHAUSTED);
    assert_in_range(accepted, 10, 13);
    pthread_mutex_unlock(&gate);
    workers_free(w);
    assert_int_equal(n_done, accepted);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_freed_source_is_not_called, setup, teardown),
        cmocka_unit_test_setup_teardown(timers_fire_in_order_and_once, setup, teardown),
        cmocka_unit_test_setup_teardown(posted_work_comes_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(signals_and_child_exits_are_events, setup, teardown),
        cmocka_unit_test(workers_are_bounded_and_finish_everything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
