/* SPDX-License-Identifier: Apache-2.0 */
/* The QMP connection on a loop, with a fake QEMU at the other end: blocking calls, order, hang-ups,
 * deadlines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "common/base/clock.h"
#include "common/base/text.h"
#include "common/loop/loop.h"
#include "host/vmm/json.h"
#include "host/vmm/qmp_client.h"
#include "host/vmm/sync.h"
#include "tests/fakes/fake_qmp.h"

static struct {
    struct loop *loop;
    pthread_t thread;
    struct fake_qmp *fake;
    struct qmp_client *client;
    atomic_int n_events, n_closed, n_replies;
    char event[64];
    bool in_a_hurry;       /* an event comes before qmp_client_new returns */
    bool client_was_known; /* to the last event's handler */
} t;

static const char event_line[] = "{\"event\": \"STOP\", \"data\": {}}\r\n";

/* The linker puts this before the real one (Makefile), to hold up whoever has posted. */
int __real_loop_post(struct loop *loop, void (*fn)(void *arg), void *arg, struct err *err);
int __wrap_loop_post(struct loop *loop, void (*fn)(void *arg), void *arg, struct err *err);

static void on_event(void *arg, const char *name, const json_t *data)
{
    (void)arg;
    (void)data;
    (void)snprintf(t.event, sizeof(t.event), "%s", name);
    t.client_was_known = t.client != NULL;
    atomic_fetch_add(&t.n_events, 1);
}

static void on_closed(void *arg, const struct err *why)
{
    (void)arg;
    assert_true(why->code == ERR_UNAVAILABLE || why->code == ERR_PROTOCOL);
    atomic_fetch_add(&t.n_closed, 1);
}

static void *run_loop(void *arg)
{
    struct err err;

    if (loop_run(arg, &err) < 0)
        abort();
    return NULL;
}

static void nothing(void *arg)
{
    (void)arg;
}

/* Everything that was posted before has run when this returns. */
static void settle(void)
{
    assert_int_equal(sync_run_on_loop(t.loop, nothing, NULL, NULL), 0);
}

int __wrap_loop_post(struct loop *loop, void (*fn)(void *arg), void *arg, struct err *err)
{
    int result = __real_loop_post(loop, fn, arg, err);

    if (t.in_a_hurry && !loop_is_current(loop)) {
        t.in_a_hurry = false;
        fake_qmp_wait_for(t.fake, "qmp_capabilities", 1);
        fake_qmp_say(t.fake, event_line, sizeof(event_line) - 1);
        while (atomic_load(&t.n_events) == 0)
            settle();
    }
    return result;
}

static void tell_up(void *arg)
{
    if (write(*(const int *)arg, "", 1) != 1)
        abort();
}

static void begin_with(const struct fake_qmp_options *options, bool in_a_hurry)
{
    const struct qmp_client_handlers handlers = {.event = on_event, .closed = on_closed};
    int pair[2], up[2];
    struct err err;
    char byte;

    memset(&t, 0, sizeof(t));
    assert_int_equal(loop_new(&t.loop, &err), 0);
    assert_int_equal(pthread_create(&t.thread, NULL, run_loop, t.loop), 0);
    assert_int_equal(pipe2(up, O_CLOEXEC), 0);
    assert_int_equal(loop_post(t.loop, tell_up, &up[1], &err), 0);
    assert_int_equal(read(up[0], &byte, 1), 1);
    close(up[0]);
    close(up[1]);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    t.fake = fake_qmp_start(pair[1], false, options);
    t.in_a_hurry = in_a_hurry;
    assert_int_equal(qmp_client_new(t.loop, pair[0], &handlers, &t.client, &err), 0);
}

static void begin(const struct fake_qmp_options *options)
{
    begin_with(options, false);
}

static void end(void)
{
    qmp_client_free(t.client);
    settle();
    fake_qmp_stop(t.fake);
    loop_stop(t.loop);
    pthread_join(t.thread, NULL);
    loop_free(t.loop);
}

static void on_reply(void *arg, json_t *ret, const struct err *err)
{
    (void)ret;
    (void)err;
    (void)arg;
    atomic_fetch_add(&t.n_replies, 1);
}

static void calls_are_answered(void **state)
{
    struct err err = {0};
    json_t *value = NULL;

    (void)state;
    begin(NULL);
    assert_int_equal(
        qmp_client_call(t.client, "query-status", NULL, -1, clock_deadline(20000), &value, &err),
        0);
    assert_string_equal(json_string_value(json_object_get(value, "status")), "running");
    json_decref(value);
    assert_int_equal(qmp_client_call(t.client, "no-such-thing", json_object(), -1,
                                     clock_deadline(20000), NULL, &err),
                     -1);
    assert_int_equal(err.code, ERR_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "no-such-thing"));
    /* Without and with a descriptor. */
    assert_int_equal(qmp_client_call(t.client, "add-fd", json_pack("{s:i}", "fdset-id", 5), -1,
                                     clock_deadline(20000), NULL, &err),
                     -1);
    assert_int_equal(qmp_client_call(t.client, "add-fd", json_pack("{s:i}", "fdset-id", 5), 0,
                                     clock_deadline(20000), NULL, &err),
                     0);
    assert_int_equal(fake_qmp_fdsets(t.fake), 1);
    end();
    assert_int_equal(t.n_closed, 0);
}

static int call_row(const char *second, json_t *last, int fd, int64_t deadline_ms, struct err *err)
{
    struct qmp_step steps[] = {
        {.command = "add-fd", .args = json_pack("{s:i}", "fdset-id", 7), .fd = fd},
        {.command = second, .args = json_object(), .fd = -1},
        {.command = "query-fdsets", .args = last, .fd = -1},
    };

    return qmp_client_call_all(t.client, steps, 3, deadline_ms, err);
}

/* All are sent; the first failure is told; what was never complete is not sent from there on. */
static void rows_of_calls(void **state)
{
    const struct fake_qmp_options silent = {.silent = "query-fdsets"};
    struct err err;

    (void)state;
    begin(NULL);
    assert_int_equal(call_row("query-status", json_object(), 0, clock_deadline(20000), &err), 0);
    assert_int_equal(fake_qmp_fdsets(t.fake), 1);
    assert_int_equal(call_row("first", json_object(), -1, clock_deadline(20000), &err), -1);
    assert_non_null(strstr(err.msg, "QMP add-fd"));
    assert_int_equal(call_row("second", json_object(), 0, clock_deadline(20000), &err), -1);
    assert_non_null(strstr(err.msg, "QMP second"));
    assert_int_equal(fake_qmp_count(t.fake, "query-fdsets"), 3);
    assert_int_equal(call_row("query-status", NULL, 0, clock_deadline(20000), &err), -1);
    assert_int_equal(err.code, ERR_EXHAUSTED);
    assert_int_equal(fake_qmp_count(t.fake, "query-status"), 2);
    assert_int_equal(fake_qmp_count(t.fake, "query-fdsets"), 3);
    fake_qmp_set(t.fake, &silent);
    assert_int_equal(call_row("query-status", json_object(), 0, clock_deadline(50), &err), -1);
    assert_int_equal(err.code, ERR_DEADLINE);
    end();
}

#define CALLS 200

static void *call_many(void *arg)
{
    (void)arg;
    for (int i = 0; i < CALLS; i++) {
        struct err err;
        json_t *value = NULL;
        if (qmp_client_call(t.client, "query-status", NULL, -1, clock_deadline(30000), &value,
                            &err) < 0)
            abort();
        json_decref(value);
    }
    return NULL;
}

static void threads_share_it(void **state)
{
    pthread_t threads[8];

    (void)state;
    begin(NULL);
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, call_many, NULL), 0);
    for (size_t i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(fake_qmp_count(t.fake, "query-status"), 8 * CALLS);
    end();
}

static void a_deadline_leaves_the_rest_in_order(void **state)
{
    const struct fake_qmp_options silent = {.silent = "query-fdsets"};
    struct err err;

    (void)state;
    begin(&silent);
    int64_t before = clock_monotonic_ms();
    assert_int_equal(
        qmp_client_call(t.client, "query-fdsets", NULL, -1, clock_deadline(50), NULL, &err), -1);
    assert_int_equal(err.code, ERR_DEADLINE);
    assert_true(clock_monotonic_ms() - before < 10000);
    /* QEMU still owes the answer, so this waits behind it, and is failed by the hang-up, like the
     * first. */
    assert_int_equal(qmp_client_send(t.client, "query-status", NULL, on_reply, NULL, &err), 0);
    assert_int_equal(qmp_client_call(t.client, "quit", NULL, -1, clock_deadline(50), NULL, &err),
                     -1);
    assert_int_equal(err.code, ERR_DEADLINE);
    assert_int_equal(t.n_replies, 0);
    fake_qmp_hang_up(t.fake);
    assert_int_equal(qmp_client_call(t.client, "quit", NULL, -1, clock_deadline(20000), NULL, &err),
                     -1);
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    settle();
    assert_int_equal(t.n_replies, 1);
    assert_int_equal(t.n_closed, 1);
    end();
    assert_int_equal(t.n_replies, 1);
    assert_int_equal(t.n_closed, 1);
}

struct blocked {
    int result;
    struct err err;
};

static void *call_silent(void *arg)
{
    struct blocked *b = arg;

    b->result =
        qmp_client_call(t.client, "query-fdsets", NULL, -1, CLOCK_NO_DEADLINE, NULL, &b->err);
    return NULL;
}

static void close_wakes_the_blocked(void **state)
{
    const struct fake_qmp_options silent = {.silent = "query-fdsets"};
    struct blocked b[4];
    pthread_t threads[4];
    struct err why, err;

    (void)state;
    begin(&silent);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, call_silent, &b[i]), 0);
    fake_qmp_wait_for(t.fake, "query-fdsets", 1);
    (void)err_set(&why, ERR_CANCELLED, "the machine was killed");
    qmp_client_close(t.client, &why);
    for (size_t i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(b[i].result, -1);
        assert_int_equal(b[i].err.code, ERR_CANCELLED);
    }
    assert_int_equal(qmp_client_call(t.client, "quit", NULL, -1, clock_deadline(20000), NULL, &err),
                     -1);
    assert_int_equal(err.code, ERR_CANCELLED);
    qmp_client_close(t.client, &why);
    end();
    assert_int_equal(t.n_closed, 0); /* our own */
}

static void a_peer_that_is_not_qemu_is_left(void **state)
{
    const struct fake_qmp_options stranger = {.no_greeting = true};
    struct err err;

    (void)state;
    begin(&stranger);
    assert_int_equal(qmp_client_call(t.client, "quit", NULL, -1, clock_deadline(20000), NULL, &err),
                     -1);
    assert_int_equal(err.code, ERR_PROTOCOL);
    settle();
    assert_int_equal(t.n_closed, 1);
    end();
}

static void events_arrive_and_garbage_ends_it(void **state)
{
    static const char event[] = "{\"event\": \"RTC_CHANGE\", \"data\": {\"offset\": 0}}\r\n";
    struct err err;

    (void)state;
    begin(NULL);
    assert_int_equal(
        qmp_client_call(t.client, "query-status", NULL, -1, clock_deadline(20000), NULL, &err), 0);
    fake_qmp_say(t.fake, event, sizeof(event) - 1);
    assert_int_equal(
        qmp_client_call(t.client, "query-status", NULL, -1, clock_deadline(20000), NULL, &err), 0);
    assert_int_equal(t.n_events, 1);
    assert_string_equal(t.event, "RTC_CHANGE");
    fake_qmp_say(t.fake, "}}}\n", 4);
    assert_int_equal(
        qmp_client_call(t.client, "query-status", NULL, -1, clock_deadline(20000), NULL, &err), -1);
    assert_true(err.code == ERR_PROTOCOL);
    settle();
    assert_int_equal(t.n_closed, 1);
    end();
}

static void an_early_event_finds_the_client(void **state)
{
    (void)state;
    begin_with(NULL, true);
    assert_int_equal(t.n_events, 1);
    assert_true(t.client_was_known);
    end();
}

static void call_on_loop(void *arg)
{
    struct err *err = arg;

    assert_int_equal(
        qmp_client_call(t.client, "quit", json_object(), -1, clock_deadline(1000), NULL, err), -1);
}

static void the_loop_must_not_block(void **state)
{
    struct err err = {0};

    (void)state;
    begin(NULL);
    assert_int_equal(sync_run_on_loop(t.loop, call_on_loop, &err, NULL), 0);
    assert_int_equal(err.code, ERR_BAD_STATE);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_are_answered),
        cmocka_unit_test(rows_of_calls),
        cmocka_unit_test(threads_share_it),
        cmocka_unit_test(a_deadline_leaves_the_rest_in_order),
        cmocka_unit_test(close_wakes_the_blocked),
        cmocka_unit_test(a_peer_that_is_not_qemu_is_left),
        cmocka_unit_test(events_arrive_and_garbage_ends_it),
        cmocka_unit_test(an_early_event_finds_the_client),
        cmocka_unit_test(the_loop_must_not_block),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
