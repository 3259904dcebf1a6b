/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Server and client over a socketpair, on one loop and one thread: the shapes of calls, errors,
 * deadlines, cancellation, limits, back-pressure, shutdown.
 */
#include <stdio.h>

#include "common/rpc/mem.h"
#include "tests/unit/common/rpc/rpc_fixture.h"

static void test_unary(void **state)
{
    struct fixture f;
    (void)state;
    fixture_start(&f, &(struct fixture_options){0});
    expect_echo(&f, "hello");
    expect_echo(&f, "");
    assert_int_equal(f.dones, 2);
    assert_int_equal(f.last_status, RPC_OK);
    fixture_stop(&f);
}

static int call_echo(struct fixture *f, const struct rpc_target *target, const char *text,
                     int64_t deadline_ms, struct err *err)
{
    EchoRequest request = ECHO_REQUEST;
    char copy[64];
    snprintf(copy, sizeof(copy), "%s", text);
    request.text = copy;
    struct rpc_reply reply = {0};
    int r = rpc_client_call(f->client, target, &request.base, deadline_ms, &reply, err);
    assert_int_equal(reply.message != NULL, r == 0);
    rpc_reply_fini(&reply);
    return r;
}

static void test_errors(void **state)
{
    struct fixture f;
    struct err err;
    (void)state;
    fixture_start(&f, &(struct fixture_options){0});
    assert_int_equal(call_echo(&f, &ECHO, "fail", CLOCK_NO_DEADLINE, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_string_equal(err.msg, "no ‘such’ thing: 100%?of it"); /* the tab is err_set's doing */

    assert_int_equal(call_echo(&f, &MISSING, "x", CLOCK_NO_DEADLINE, &err), -1);
    assert_int_equal(err.code, ERR_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "Missing"));

    struct rpc_target other = {TEST_DESCRIPTOR, "no.such.Service", "Echo"};
    assert_int_equal(call_echo(&f, &other, "x", CLOCK_NO_DEADLINE, &err), -1);
    assert_int_equal(err.code, ERR_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "no.such.Service"));

    struct rpc_target alias = {TEST_DESCRIPTOR, "casemate.alias.RpcTest", "Echo"};
    assert_int_equal(call_echo(&f, &alias, "x", CLOCK_NO_DEADLINE, &err), 0);

    struct rpc_target none = {TEST_DESCRIPTOR, NULL, "Nothing"};
    assert_int_equal(call_echo(&f, &none, "x", CLOCK_NO_DEADLINE, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    expect_echo(&f, "still alive");
    fixture_stop(&f);
}

static void test_many_concurrent(void **state)
{
    enum { N = 1000 };
    static struct outcome o[N];
    struct fixture f;
    (void)state;
    memset(o, 0, sizeof(o));
    fixture_start(&f, &(struct fixture_options){0});
    for (size_t i = 0; i < N; i++) {
        EchoRequest request = ECHO_REQUEST;
        char text[16];
        snprintf(text, sizeof(text), "%zu", i);
        request.text = text;
        (void)begin(&f, &ECHO, &request.base, clock_deadline(PATIENCE_MS), &o[i]);
    }
    spin_until(&f, f.dones == N && o[N - 1].ends == 1);
    for (size_t i = 0; i < N; i++) {
        char text[16];
        snprintf(text, sizeof(text), "%zu", i);
        spin_until(&f, o[i].ends == 1);
        assert_true(o[i].ok);
        assert_int_equal(o[i].messages, 1);
        assert_string_equal(o[i].text, text);
    }
    fixture_stop(&f);
}

/* Parked handlers keep their streams open: with a limit of 8 no more than 8 run, and the rest
 * follow. */
static void test_stream_limit(void **state)
{
    enum { N = 40 };
    struct outcome o[N] = {{0}};
    struct fixture f;
    (void)state;
    fixture_start(&f, &(struct fixture_options){.server_limits.max_streams = 8});
    expect_echo(&f, "settings are exchanged");
    for (size_t i = 0; i < N; i++) {
        EchoRequest request = ECHO_REQUEST;
        char text[] = "park";
        request.text = text;
        (void)begin(&f, &ECHO, &request.base, CLOCK_NO_DEADLINE, &o[i]);
    }
    unsigned ended = 0;
    while (ended < N) {
        spin_until(&f, n_parked(&f) == 8);
        unpark(&f, RPC_ABORTED);
        unsigned before = ended;
        spin_until(&f, ({
            ended = 0;
            for (size_t i = 0; i < N; i++)
                ended += o[i].ends;
            ended == before + 8;
        }));
    }
    for (size_t i = 0; i < N; i++)
        assert_int_equal(o[i].err.code, ERR_BAD_STATE);
    fixture_stop(&f);
}

static void test_deadline(void **state)
{
    struct fixture f;
    struct err err;
    (void)state;
    fixture_start(&f, &(struct fixture_options){0});
    int64_t start = clock_monotonic_ms();
    assert_int_equal(call_echo(&f, &ECHO, "park", clock_deadline(50), &err), -1);
    assert_int_equal(err.code, ERR_DEADLINE);
    assert_true(clock_monotonic_ms() - start >= 49);
    /* The handler hears of it, whether by its own deadline or by the client's reset. */
    spin_until(&f, f.cancels == 1);
    assert_int_equal(n_parked(&f), 1);
    assert_true(rpc_call_cancelled(f.parked[0]));
    assert_true(rpc_call_deadline(f.parked[0]) < CLOCK_NO_DEADLINE);
    unpark(&f, RPC_OK);
    assert_int_equal(call_echo(&f, &ECHO, "x", clock_monotonic_ms() - 1, &err), -1);
    assert_int_equal(err.code, ERR_DEADLINE);
    expect_echo(&f, "still alive");
    fixture_stop(&f);
}

static void test_cancel(void **state)
{
    struct fixture f;
    struct outcome o = {0};
    EchoRequest request = ECHO_REQUEST;
    char text[] = "park";
    (void)state;
    fixture_start(&f, &(struct fixture_options){0});
    request.text = text;
    struct rpc_client_call *call = begin(&f, &ECHO, &request.base, CLOCK_NO_DEADLINE, &o);
    spin_until(&f, n_parked(&f) == 1);
    rpc_client_cancel(call);
    spin_until(&f, f.cancels == 1);
    assert_int_equal(f.last_status, RPC_CANCELLED);
    assert_int_equal(o.ends, 0);
    assert_true(rpc_call_cancelled(f.parked[0]));
    /* Asking after the fact is answered all the same. */
    rpc_call_on_cancel(f.parked[0], NULL, NULL);
    struct err err;
    EchoReply reply = CASEMATE__TEST__V1__ECHO_REPLY__INIT;
    assert_int_equal(rpc_call_send(f.parked[0], &reply.base, &err), -1);
    assert_int_equal(err.code, ERR_CANCELLED);
    unpark(&f, RPC_OK);
    /* A call that is cancelled before its request left: the server never sees it, or sees it end.
     */
    call = begin(&f, &ECHO, &request.base, CLOCK_NO_DEADLINE, &o);
    rpc_client_cancel(call);
    expect_echo(&f, "still alive");
    assert_int_equal(o.ends, 0);
    fixture_stop(&f);
}

static void late_cancel(void *arg)
{
    unsigned *n = arg;
    (*n)++;
}

static void test_cancel_asked_late(void **state)
{
    struct fixture f;
    struct outcome o = {0};
    EchoRequest request = ECHO_REQUEST;
    char text[] = "park";
    unsigned told = 0;
    (void)state;
    fixture_start(&f, &(struct fixture_options){0});
    request.text = text;
    struct rpc_client_call *call = begin(&f, &ECHO, &request.base, CLOCK_NO_DEADLINE, &o);
    spin_until(&f, n_parked(&f) == 1);
    rpc_call_on_cancel(f.parked[0], NULL, NULL);
    rpc_client_cancel(call);
    spin_until(&f, rpc_call_cancelled(f.parked[0]));
    assert_int_equal(f.cancels, 0);
    rpc_call_on_cancel(f.parked[0], late_cancel, &told);
    spin_until(&f, told == 1);
    unpark(&f, RPC_OK);
    fixture_stop(&f);
}

static void test_connection_loss(void **state)
{
    enum { N = 50 };
    struct outcome o[N] = {{0}};
    struct fixture f;
    EchoRequest request = ECHO_REQUEST;
    char text[] = "park";
    (void)state;
    fixture_start(&f, &(struct fixture_options){0});
    request.text = text;
    for (size_t i = 0; i < N; i++)
        (void)begin(&f, &ECHO, &request.base, CLOCK_NO_DEADLINE, &o[i]);
    spin_until(&f, n_parked(&f) == N);
    /* And some that have not left yet. */
    struct outcome unsent[3] = {{0}};
    for (size_t i = 0; i < 3; i++)
        (void)begin(&f, &ECHO, &request.base, CLOCK_NO_DEADLINE, &unsent[i]);
    rpc_client_close(f.client);
    spin_until(&f, f.client_closed == 1);
    spin_until(&f, f.server_closed == 1);
    for (size_t i = 0; i < N; i++) {
        assert_int_equal(o[i].ends, 1);
        assert_int_equal(o[i].err.code, ERR_UNAVAILABLE);
    }
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(unsent[i].ends, 1);
    assert_true(f.cancels >= N);
    struct err err;
    assert_int_equal(call_echo(&f, &ECHO, "x", CLOCK_NO_DEADLINE, &err), -1);
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    unpark(&f, RPC_OK);
    fixture_stop(&f);
    for (size_t i = 0; i < N; i++)
        assert_int_equal(o[i].ends, 1);
}

static void test_server_gone(void **state)
{
    struct fixture f;
    struct outcome o = {0};
    EchoRequest request = ECHO_REQUEST;
    char text[] = "park";
    (void)state;
    fixture_start(&f, &(struct fixture_options){0});
    request.text = text;
    (void)begin(&f, &ECHO, &request.base, CLOCK_NO_DEADLINE, &o);
    spin_until(&f, n_parked(&f) == 1);
    rpc_server_free(f.server);
    f.server = NULL;
    assert_int_equal(f.cancels, 1);
    assert_int_equal(f.server_closed, 1);
    spin_until(&f, o.ends == 1 && f.client_closed == 1);
    assert_int_equal(o.err.code, ERR_UNAVAILABLE);
    /* The handler ends its call into nothing; one that asks now is told at once. */
    unsigned told = 0;
    assert_true(rpc_call_cancelled(f.parked[0]));
    rpc_call_on_cancel(f.parked[0], late_cancel, &told);
    assert_int_equal(told, 0); /* it was told before, by count_cancel */
    assert_non_null(rpc_call_strdup(f.parked[0], "x"));
    unpark(&f, RPC_OK);
    fixture_stop(&f);
}

static void test_client_freed_with_calls(void **state)
{
    struct fixture f;
    struct outcome o = {0};
    EchoRequest request = ECHO_REQUEST;
    char text[] = "park";
    (void)state;
    fixture_start(&f, &(struct fixture_options){0});
    request.text = text;
    (void)begin(&f, &ECHO, &request.base, CLOCK_NO_DEADLINE, &o);
    spin_until(&f, n_parked(&f) == 1);
    rpc_client_free(f.client);
    f.client = NULL;
    assert_int_equal(o.ends, 1);
    assert_int_equal(o.err.code, ERR_UNAVAILABLE);
    assert_int_equal(f.client_closed, 0);
    spin_until(&f, f.cancels == 1);
    fixture_stop(&f);
}

static void test_kept_handle(void **state)
{
    struct fixture f;
    struct outcome o = {0};
    struct err err;
    EchoRequest request = ECHO_REQUEST;
    struct rpc_client_call *call;
    struct rpc_call_handlers handlers = {.on_end = outcome_end, .arg = &o, .keep = true};
    (void)state;
    fixture_start(&f, &(struct fixture_options){0});
    settle_ok(
        rpc_client_start(f.client, &ECHO, &request.base, CLOCK_NO_DEADLINE, &handlers, &call, &err),
        &err);
    spin_until(&f, o.ends == 1);
    assert_int_equal(rpc_client_send(call, NULL, true, &err), -1);
    rpc_client_free(f.client); /* the handle outlives even this */
    f.client = NULL;
    rpc_client_pause(call, true);
    assert_int_equal(rpc_client_queued(call), 0);
    rpc_client_cancel(call);
    assert_int_equal(o.ends, 1);
    fixture_stop(&f);
}

static void test_big_messages(void **state)
{
    struct fixture f;
    struct err err;
    (void)state;
    fixture_start(&f, &(struct fixture_options){0});
    size_t n = (16u << 20) - 64;
    EchoRequest request = ECHO_REQUEST;
    request.data.data = malloc(n + 64);
    for (size_t i = 0; i < n + 64; i++)
        request.data.data[i] = (uint8_t)(i * 31 >> 7);
    request.data.len = n;
    struct rpc_reply reply = {0};
    settle_ok(
        rpc_client_call(f.client, &ECHO, &request.base, clock_deadline(PATIENCE_MS), &reply, &err),
        &err);
    const EchoReply *echo = (const EchoReply *)reply.message;
    assert_int_equal(echo->data.len, n);
    assert_memory_equal(echo->data.data, request.data.data, n);
    rpc_reply_fini(&reply);

    request.data.len = n + 64;
    assert_int_equal(
        rpc_client_call(f.client, &ECHO, &request.base, CLOCK_NO_DEADLINE, &reply, &err), -1);
    assert_int_equal(err.code, ERR_EXHAUSTED);
    free(request.data.data);
    expect_echo(&f, "still alive");
    fixture_stop(&f);
}

/* The two ends have different limits: each refuses what is too large for it, and the connection
 * lives. */
static void test_too_large(void **state)
{
    struct fixture f;
    struct err err;
    static uint8_t data[100000];
    EchoRequest request = ECHO_REQUEST;
    struct rpc_reply reply = {0};
    (void)state;
    request.data.data = data;
    request.data.len = sizeof(data);

    fixture_start(&f, &(struct fixture_options){.server_limits.max_message_bytes = 50000});
    for (int i = 0; i < 3; i++) {
        assert_int_equal(
            rpc_client_call(f.client, &ECHO, &request.base, clock_deadline(5000), &reply, &err),
            -1);
        assert_int_equal(err.code, ERR_EXHAUSTED);
        assert_non_null(strstr(err.msg, "50000"));
        expect_echo(&f, "still alive");
    }
    assert_int_equal(f.server_closed, 0);
    fixture_stop(&f);

    fixture_start(&f, &(struct fixture_options){.client_limits.max_message_bytes = 100});
    CountRequest count = CASEMATE__TEST__V1__COUNT_REQUEST__INIT;
    struct outcome o = {0};
    count.messages = 3;
    count.bytes_each = 5000;
    (void)begin(&f, &COUNT, &count.base, CLOCK_NO_DEADLINE, &o);
    spin_until(&f, o.ends == 1);
    assert_int_equal(o.err.code, ERR_EXHAUSTED);
    expect_echo(&f, "still alive");
    fixture_stop(&f);
}

static void test_server_streaming(void **state)
{
    struct fixture f;
    struct outcome o = {0};
    CountRequest request = CASEMATE__TEST__V1__COUNT_REQUEST__INIT;
    (void)state;
    fixture_start(&f, &(struct fixture_options){0});
    request.messages = 500;
    request.bytes_each = 10000;
    (void)begin(&f, &COUNT, &request.base, CLOCK_NO_DEADLINE, &o);
    spin_until(&f, o.ends == 1);
    assert_true(o.ok);
    assert_false(o.out_of_order);
    assert_int_equal(o.messages, 500);
    assert_int_equal(o.bytes, 500 * 10000);
    assert_true(f.most_queued <= WATERMARK + 10100);

    struct outcome none = {0};
    request.messages = 0;
    (void)begin(&f, &COUNT, &request.base, CLOCK_NO_DEADLINE, &none);
    spin_until(&f, none.ends == 1);
    assert_true(none.ok);
    assert_int_equal(none.messages, 0);
    fixture_stop(&f);
}

/* A reader that pauses: the sender stops at its watermark, other calls go on, and nothing is lost.
 */
static void test_back_pressure(void **state)
{
    struct fixture f;
    struct outcome o = {0};
    CountRequest request = CASEMATE__TEST__V1__COUNT_REQUEST__INIT;
    (void)state;
    fixture_start(&f, &(struct fixture_options){0});
    request.messages = 2000;
    request.bytes_each = 10000; /* 20 MB, twenty times the window */
    struct rpc_client_call *call = begin(&f, &COUNT, &request.base, CLOCK_NO_DEADLINE, &o);
    spin_until(&f, o.messages > 0);
    rpc_client_pause(call, true);
    unsigned at_pause = o.messages;
    for (int i = 0; i < 20; i++)
        expect_echo(&f, "another call");
    assert_int_equal(o.messages, at_pause);
    assert_true(f.most_queued <= WATERMARK + 10100);
    for (int i = 0; i < 4; i++) {
        unsigned before = o.messages;
        rpc_client_pause(call, false);
        spin_until(&f, o.messages > before);
        rpc_client_pause(call, true);
    }
    rpc_client_pause(call, false);
    spin_until(&f, o.ends == 1);
    assert_true(o.ok);
    assert_int_equal(o.messages, 2000);
    assert_false(o.out_of_order);
    assert_true(f.most_queued <= WATERMARK + 10100);
    fixture_stop(&f);
}

/* The server gives a reader up that does not read: what waits for it is dropped, it hears the
 * status behind whole messages, and the connection goes on. */
static void test_cut_stream(void **state)
{
    struct fixture f;
    struct outcome o = {0};
    CountRequest request = CASEMATE__TEST__V1__COUNT_REQUEST__INIT;
    (void)state;
    fixture_start(&f, &(struct fixture_options){0});
    request.messages = 1000000;
    request.bytes_each = 10000;
    struct rpc_client_call *call = begin(&f, &COUNT, &request.base, CLOCK_NO_DEADLINE, &o);
    spin_until(&f, o.messages > 0);
    rpc_client_pause(call, true);
    for (int i = 0; i < 20; i++)
        expect_echo(&f, "another call"); /* and the windows fill */
    uint32_t sent = f.counting->next;
    assert_true(rpc_call_queued(f.counting->call) >= WATERMARK / 2);
    rpc_call_cut(f.counting->call, RPC_RESOURCE_EXHAUSTED, "too slow");
    free(f.counting);
    rpc_client_pause(call, false);
    spin_until(&f, o.ends == 1);
    assert_int_equal(o.err.code, ERR_EXHAUSTED);
    assert_string_equal(o.err.msg, "too slow");
    assert_false(o.out_of_order);
    assert_true(o.messages + 10 < sent);
    expect_echo(&f, "still alive");

    /* Nothing was sent yet: the status alone. */
    struct outcome none = {0};
    EchoRequest parked = ECHO_REQUEST;
    char text[] = "park";
    parked.text = text;
    (void)begin(&f, &ECHO, &parked.base, CLOCK_NO_DEADLINE, &none);
    spin_until(&f, n_parked(&f) == 1);
    f.n_parked = 0;
    rpc_call_cut(f.parked[0], RPC_UNAVAILABLE, "over");
    spin_until(&f, none.ends == 1);
    assert_int_equal(none.err.code, ERR_UNAVAILABLE);
    fixture_stop(&f);
}

static void test_cancel_stream(void **state)
{
    struct fixture f;
    struct outcome o = {0};
    CountRequest request = CASEMATE__TEST__V1__COUNT_REQUEST__INIT;
    (void)state;
    fixture_start(&f, &(struct fixture_options){0});
    request.messages = 1000000;
    request.bytes_each = 10000;
    struct rpc_client_call *call = begin(&f, &COUNT, &request.base, CLOCK_NO_DEADLINE, &o);
    spin_until(&f, o.messages > 10);
    rpc_client_cancel(call);
    unsigned messages = o.messages;
    spin_until(&f, f.cancels == 1);
    expect_echo(&f, "still alive");
    assert_int_equal(o.messages, messages);
    assert_int_equal(o.ends, 0);
    fixture_stop(&f);
}

/* A paused stream whose deadline passes ends on both sides although nobody reads. */
static void test_stuck_stream_deadline(void **state)
{
    struct fixture f;
    struct outcome o = {0};
    CountRequest request = CASEMATE__TEST__V1__COUNT_REQUEST__INIT;
    (void)state;
    fixture_start(&f, &(struct fixture_options){0});
    request.messages = 1000000;
    request.bytes_each = 10000;
    struct rpc_client_call *call = begin(&f, &COUNT, &request.base, clock_deadline(200), &o);
    rpc_client_pause(call, true);
    spin_until(&f, o.ends == 1 && f.cancels == 1);
    assert_int_equal(o.err.code, ERR_DEADLINE);
    fixture_stop(&f);
}

static void test_client_streaming(void **state)
{
    struct fixture f;
    struct outcome o = {0};
    struct err err;
    (void)state;
    fixture_start(&f, &(struct fixture_options){0});
    struct rpc_client_call *call = begin(&f, &SUM, NULL, CLOCK_NO_DEADLINE, &o);
    for (int64_t i = 1; i <= 100; i++) {
        SumRequest request = CASEMATE__TEST__V1__SUM_REQUEST__INIT;
        request.value = i;
        settle_ok(rpc_client_send(call, &request.base, i == 100, &err), &err);
        if (i % 10 == 0)
            expect_echo(&f, "between");
    }
    spin_until(&f, o.ends == 1);
    assert_true(o.ok);
    assert_int_equal(o.sum, 5050);

    /* No message at all: the end alone. */
    struct outcome none = {0};
    call = begin(&f, &SUM, NULL, CLOCK_NO_DEADLINE, &none);
    settle_ok(rpc_client_send(call, NULL, true, &err), &err);
    spin_until(&f, none.ends == 1);
    assert_true(none.ok);
    assert_int_equal(none.sum, 0);
    fixture_stop(&f);
}

static void test_bidirectional(void **state)
{
    struct fixture f;
    struct outcome o = {0};
    struct err err;
    (void)state;
    fixture_start(&f, &(struct fixture_options){0});
    struct rpc_client_call *call = begin(&f, &CHAT, NULL, CLOCK_NO_DEADLINE, &o);
    for (unsigned i = 1; i <= 5; i++) {
        EchoRequest request = ECHO_REQUEST;
        char text[16];
        snprintf(text, sizeof(text), "line %u", i);
        request.text = text;
        settle_ok(rpc_client_send(call, &request.base, false, &err), &err);
        spin_until(&f, o.messages == i);
        assert_string_equal(o.text, text);
    }
    settle_ok(rpc_client_send(call, NULL, true, &err), &err);
    spin_until(&f, o.ends == 1);
    assert_true(o.ok);
    fixture_stop(&f);
}

/* A client that sends without a pause: what it may queue is bounded, and it is told when there is
 * room again. */
static void test_client_back_pressure(void **state)
{
    struct fixture f;
    struct outcome o = {0};
    struct err err;
    static uint8_t data[60000];
    EchoRequest request = ECHO_REQUEST;
    (void)state;
    request.data.data = data;
    request.data.len = sizeof(data);
    fixture_start(&f, &(struct fixture_options){.client_limits.max_message_bytes = 1u << 20});
    struct rpc_client_call *call = begin(&f, &CHAT, NULL, CLOCK_NO_DEADLINE, &o);
    unsigned sent = 0;
    while (rpc_client_send(call, &request.base, false, &err) == 0)
        assert_true(++sent < 1000);
    assert_int_equal(err.code, ERR_EXHAUSTED);
    assert_true(rpc_client_queued(call) <= (2u << 20) + 61000);
    spin_until(&f, o.drains > 0);
    assert_true(rpc_client_queued(call) < 64 << 10);
    settle_ok(rpc_client_send(call, NULL, true, &err), &err);
    spin_until(&f, o.ends == 1);
    assert_true(o.ok);
    assert_int_equal(o.messages, sent);
    fixture_stop(&f);
}

static void test_shutdown_drains(void **state)
{
    struct fixture f;
    struct outcome o = {0}, late = {0};
    EchoRequest request = ECHO_REQUEST;
    char text[] = "park";
    (void)state;
    fixture_start(&f, &(struct fixture_options){0});
    request.text = text;
    (void)begin(&f, &ECHO, &request.base, CLOCK_NO_DEADLINE, &o);
    spin_until(&f, n_parked(&f) == 1);
    rpc_server_shutdown(f.server, CLOCK_NO_DEADLINE, on_drained, &f);
    /* The client learns of it and refuses by itself; the call in flight goes on. */
    struct err err;
    struct rpc_client_call *refused = NULL;
    struct rpc_call_handlers handlers = {.on_end = outcome_end, .arg = &late};
    spin_until(&f, ({
        int r = rpc_client_start(f.client, &COUNT,
                                 &(CountRequest)CASEMATE__TEST__V1__COUNT_REQUEST__INIT.base,
                                 CLOCK_NO_DEADLINE, &handlers, &refused, &err);
        r < 0;
    }));
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    assert_int_equal(o.ends, 0);
    assert_int_equal(f.drained, 0);
    unpark(&f, RPC_OUT_OF_RANGE);
    spin_until(&f, o.ends == 1 && f.drained == 1 && f.client_closed == 1);
    assert_int_equal(o.err.code, ERR_INVALID);
    assert_string_equal(o.err.msg, "unparked");
    assert_int_equal(f.server_closed, 1);
    fixture_stop(&f);
}

static void test_shutdown_deadline(void **state)
{
    struct fixture f;
    struct outcome o = {0};
    EchoRequest request = ECHO_REQUEST;
    char text[] = "park";
    (void)state;
    fixture_start(&f, &(struct fixture_options){0});
    request.text = text;
    (void)begin(&f, &ECHO, &request.base, CLOCK_NO_DEADLINE, &o);
    spin_until(&f, n_parked(&f) == 1);
    rpc_server_shutdown(f.server, clock_deadline(50), on_drained, &f);
    spin_until(&f, f.drained == 1 && o.ends == 1);
    assert_int_equal(f.cancels, 1);
    assert_int_equal(o.err.code, ERR_UNAVAILABLE);
    unpark(&f, RPC_OK);
    fixture_stop(&f);

    /* Nothing to drain: drained all the same, and on the loop. */
    fixture_start(&f, &(struct fixture_options){.no_client = true});
    close(f.peer_fd);
    f.peer_fd = -1;
    spin_until(&f, f.server_closed == 1);
    rpc_server_shutdown(f.server, CLOCK_NO_DEADLINE, on_drained, &f);
    assert_int_equal(f.drained, 0);
    spin_until(&f, f.drained == 1);
    fixture_stop(&f);
}

static void test_keepalive(void **state)
{
    struct fixture f;
    (void)state;
    /* A peer that answers is kept, over several intervals… */
    fixture_start(&f, &(struct fixture_options){
                          .client_limits = {.keepalive_ms = 10, .keepalive_timeout_ms = 5000}});
    int64_t until = clock_deadline(100);
    struct err err;
    while (clock_monotonic_ms() < until)
        settle_ok(loop_run_once(f.loop, clock_poll_timeout(until), &err), &err);
    assert_int_equal(f.client_closed, 0);
    expect_echo(&f, "still alive");
    fixture_stop(&f);
    /* …and one that is silent is not. */
    fixture_start(&f, &(struct fixture_options){
                          .no_client = true,
                          .server_limits = {.keepalive_ms = 20, .keepalive_timeout_ms = 30}});
    spin_until(&f, f.server_closed == 1);
    fixture_stop(&f);
}

static void test_connection_limit(void **state)
{
    struct fixture f;
    struct err err;
    int fds[2];
    char byte;
    (void)state;
    fixture_start(&f, &(struct fixture_options){.max_connections = 1});
    expect_echo(&f, "the one");
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(rpc_server_add_connection(f.server, fds[0], NULL, NULL, &err), -1);
    assert_int_equal(err.code, ERR_EXHAUSTED);
    assert_int_equal(read(fds[1], &byte, 1), 0); /* taken and closed */
    close(fds[1]);
    expect_echo(&f, "still the one");
    fixture_stop(&f);
}

/* Every allocation in turn fails, and all after it, until the call has ended: it ends, and once. */
static void test_no_memory(void **state)
{
    unsigned good = 0;
    (void)state;
    for (long n = 1; good < 3; n++) {
        struct fixture f;
        struct outcome o = {0};
        struct err err;
        struct rpc_client_call *call;
        EchoRequest request = ECHO_REQUEST;
        struct rpc_call_handlers handlers = {
            .on_message = outcome_message, .on_end = outcome_end, .arg = &o};
        assert_true(n < 5000);
        fixture_start(&f, &(struct fixture_options){0});
        rpc_mem_fail_from(n);
        int r = rpc_client_start(f.client, &ECHO, &request.base, clock_deadline(PATIENCE_MS),
                                 &handlers, &call, &err);
        if (r < 0)
            assert_int_equal(err.code, ERR_EXHAUSTED);
        else
            spin_until(&f, o.ends == 1);
        rpc_mem_fail_from(0);
        if (r == 0 && !o.ok)
            assert_true(o.err.code == ERR_EXHAUSTED || o.err.code == ERR_UNAVAILABLE ||
                        o.err.code == ERR_PROTOCOL);
        good = r == 0 && o.ok ? good + 1 : 0;
        fixture_stop(&f);
        assert_true(o.ends <= 1);
    }
}

static void free_server(void *arg)
{
    struct fixture *f = arg;
    rpc_server_free(f->server);
    f->server = NULL;
    f->drained++;
}

static void free_client(void *arg, const struct err *err)
{
    struct fixture *f = arg;
    assert_int_equal(err->code, ERR_UNAVAILABLE);
    rpc_client_free(f->client);
    f->client = NULL;
    f->client_closed++;
}

/* Both ends may be freed by the callback that says that they are done. */
static void test_freed_by_last_callback(void **state)
{
    struct fixture f;
    struct err err;
    int fds[2];
    (void)state;
    fixture_start(&f, &(struct fixture_options){.no_client = true});
    close(f.peer_fd);
    f.peer_fd = -1;
    spin_until(&f, f.server_closed == 1);
    for (int i = 0; i < 2; i++) {
        struct outcome o = {0};
        EchoRequest request = ECHO_REQUEST;
        char text[] = "park";
        request.text = text;
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        settle_ok(rpc_server_add_connection(f.server, fds[0], NULL, NULL, &err), &err);
        struct rpc_client_config config = {
            .loop = f.loop, .on_closed = free_client, .on_closed_arg = &f};
        settle_ok(rpc_client_new(&config, fds[1], &f.client, &err), &err);
        (void)begin(&f, &ECHO, &request.base, CLOCK_NO_DEADLINE, &o);
        spin_until(&f, n_parked(&f) == 1);
        if (i == 0) {
            rpc_client_close(f.client);
        } else {
            rpc_server_shutdown(f.server, CLOCK_NO_DEADLINE, free_server, &f);
            unpark(&f, RPC_OK);
        }
        spin_until(&f, f.client == NULL);
        assert_int_equal(o.ends, 1);
        unpark(&f, RPC_OK);
    }
    spin_until(&f, f.server == NULL);
    assert_int_equal(f.client_closed, 2);
    fixture_stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unary),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_many_concurrent),
        cmocka_unit_test(test_stream_limit),
        cmocka_unit_test(test_deadline),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_cancel_asked_late),
        cmocka_unit_test(test_connection_loss),
        cmocka_unit_test(test_server_gone),
        cmocka_unit_test(test_client_freed_with_calls),
        cmocka_unit_test(test_kept_handle),
        cmocka_unit_test(test_big_messages),
        cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_server_streaming),
        cmocka_unit_test(test_back_pressure),
        cmocka_unit_test(test_cut_stream),
        cmocka_unit_test(test_cancel_stream),
        cmocka_unit_test(test_stuck_stream_deadline),
        cmocka_unit_test(test_client_streaming),
        cmocka_unit_test(test_bidirectional),
        cmocka_unit_test(test_client_back_pressure),
        cmocka_unit_test(test_shutdown_drains),
        cmocka_unit_test(test_shutdown_deadline),
        cmocka_unit_test(test_keepalive),
        cmocka_unit_test(test_connection_limit),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_freed_by_last_callback),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
