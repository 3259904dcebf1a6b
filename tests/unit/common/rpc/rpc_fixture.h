/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of common/rpc share: a loop, a server of the RpcTest service, a client, a
 * socketpair between them, and waiting for an event with a deadline. The loop runs on the test's
 * thread (spin) or on one of its own (fixture.thread).
 */
#pragma once

#include <stdio.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/loop/loop.h"
#include "common/loop/workers.h"
#include "common/rpc/client.h"
#include "common/rpc/server.h"
#include "proto/test/rpc_test.pb-c.h"

#define PATIENCE_MS  20000
#define ECHO_REQUEST CASEMATE__TEST__V1__ECHO_REQUEST__INIT

typedef Casemate__Test__V1__EchoRequest EchoRequest;
typedef Casemate__Test__V1__EchoReply EchoReply;
typedef Casemate__Test__V1__CountRequest CountRequest;
typedef Casemate__Test__V1__CountReply CountReply;
typedef Casemate__Test__V1__SumRequest SumRequest;
typedef Casemate__Test__V1__SumReply SumReply;

#define TEST_DESCRIPTOR (&casemate__test__v1__rpc_test__descriptor)

static const struct rpc_target ECHO = {TEST_DESCRIPTOR, NULL, "Echo"};
static const struct rpc_target COUNT = {TEST_DESCRIPTOR, NULL, "Count"};
static const struct rpc_target SUM = {TEST_DESCRIPTOR, NULL, "Sum"};
static const struct rpc_target CHAT = {TEST_DESCRIPTOR, NULL, "Chat"};
static const struct rpc_target MISSING = {TEST_DESCRIPTOR, NULL, "Missing"};

#define MAX_PARKED 2048

struct counting;

struct fixture {
    struct loop *loop;
    struct rpc_server *server;
    struct rpc_client *client;
    struct workers *workers;
    struct rpc_service services[2];
    int peer_fd; /* the client's end when there is no client */
    pthread_t thread;
    bool threaded;
    /* By handlers, under lock. */
    pthread_mutex_t lock;
    struct rpc_call *parked[MAX_PARKED]; /* calls with the text "park" */
    size_t n_parked;
    atomic_uint cancels;
    atomic_uint dones;
    atomic_int last_status;
    atomic_uint server_closed;
    atomic_uint client_closed;
    atomic_uint drained;
    size_t most_queued;
    struct counting *counting; /* the last Count; gone when its call has ended */
};

static inline void settle_ok(int r, const struct err *err)
{
    if (r < 0)
        fail_msg("%s: %s", err_code_name(err->code), err->msg);
}

/* Runs the loop until the condition holds; fails the test when that takes too long. */
#define spin_until(f, condition)                                                                   \
    do {                                                                                           \
        int64_t give_up_ = clock_deadline(PATIENCE_MS);                                            \
        while (!(condition)) {                                                                     \
            struct err err_;                                                                       \
            if (clock_monotonic_ms() > give_up_)                                                   \
                fail_msg("no event: %s", #condition);                                              \
            settle_ok(loop_run_once((f)->loop, clock_poll_timeout(give_up_), &err_), &err_);       \
        }                                                                                          \
    } while (0)

/* ---- handlers ---- */

static inline void count_cancel(void *arg)
{
    struct fixture *f = arg;
    atomic_fetch_add(&f->cancels, 1);
}

static inline void park(struct fixture *f, struct rpc_call *call)
{
    rpc_call_on_cancel(call, count_cancel, f);
    pthread_mutex_lock(&f->lock);
    assert_true(f->n_parked < MAX_PARKED);
    f->parked[f->n_parked++] = call;
    pthread_mutex_unlock(&f->lock);
}

static inline size_t n_parked(struct fixture *f)
{
    pthread_mutex_lock(&f->lock);
    size_t n = f->n_parked;
    pthread_mutex_unlock(&f->lock);
    return n;
}

/* Ends all parked calls with a status. */
static inline void unpark(struct fixture *f, enum rpc_status status)
{
    pthread_mutex_lock(&f->lock);
    size_t n = f->n_parked;
    f->n_parked = 0;
    pthread_mutex_unlock(&f->lock);
    for (size_t i = 0; i < n; i++)
        rpc_call_finish(f->parked[i], status, "unparked");
}

static inline void handle_echo(struct rpc_call *call, void *arg)
{
    const EchoRequest *request = (const EchoRequest *)rpc_call_request(call);
    EchoReply reply = CASEMATE__TEST__V1__ECHO_REPLY__INIT;
    if (strcmp(request->text, "park") == 0) {
        park(arg, call);
        return;
    }
    if (strcmp(request->text, "fail") == 0) {
        rpc_call_finish(call, RPC_NOT_FOUND, "no ‘such’ thing: 100%\tof it");
        return;
    }
    reply.text = rpc_call_strdup(call, request->text);
    reply.data = request->data;
    reply.n_words = request->n_words;
    reply.words = request->words;
    rpc_call_reply(call, &reply.base);
}

/* Server streaming with back-pressure: sends until `WATERMARK` is queued, goes on when it has
 * drained. */
#define WATERMARK (256u << 10)

struct counting {
    struct fixture *f;
    struct rpc_call *call;
    uint32_t next, messages, bytes_each;
    bool cancelled;
};

static inline void count_on(void *arg)
{
    struct counting *c = arg;
    uint8_t *data = calloc(1, c->bytes_each + 1);
    struct err err;
    while (c->next < c->messages && rpc_call_queued(c->call) < WATERMARK) {
        CountReply reply = CASEMATE__TEST__V1__COUNT_REPLY__INIT;
        reply.number = c->next;
        reply.data.data = data;
        reply.data.len = c->bytes_each;
        if (rpc_call_send(c->call, &reply.base, &err) < 0)
            break;
        c->next++;
        size_t queued = rpc_call_queued(c->call);
        if (queued > c->f->most_queued)
            c->f->most_queued = queued;
    }
    free(data);
    if (c->next == c->messages) {
        rpc_call_finish(c->call, RPC_OK, NULL);
        free(c);
    }
}

static inline void count_cancelled(void *arg)
{
    struct counting *c = arg;
    atomic_fetch_add(&c->f->cancels, 1);
    rpc_call_finish(c->call, RPC_CANCELLED, NULL);
    free(c);
}

static inline void handle_count(struct rpc_call *call, void *arg)
{
    const CountRequest *request = (const CountRequest *)rpc_call_request(call);
    struct counting *c = calloc(1, sizeof(*c));
    *c = (struct counting){arg, call, 0, request->messages, request->bytes_each, false};
    ((struct fixture *)arg)->counting = c;
    rpc_call_on_cancel(call, count_cancelled, c);
    rpc_call_on_drain(call, WATERMARK / 2, count_on, c);
    count_on(c);
}

static inline void sum_message(void *arg, struct rpc_call *call, const ProtobufCMessage *message)
{
    SumReply *reply = arg;
    if (message == NULL) {
        rpc_call_reply(call, &reply->base);
        return;
    }
    reply->sum += ((const SumRequest *)message)->value;
    reply->terms++;
}

static inline void handle_sum(struct rpc_call *call, void *arg)
{
    (void)arg;
    SumReply *reply = rpc_call_alloc(call, sizeof(*reply));
    casemate__test__v1__sum_reply__init(reply);
    rpc_call_on_message(call, sum_message, reply);
}

static inline void chat_message(void *arg, struct rpc_call *call, const ProtobufCMessage *message)
{
    (void)arg;
    struct err err;
    EchoReply reply = CASEMATE__TEST__V1__ECHO_REPLY__INIT;
    if (message == NULL) {
        rpc_call_finish(call, RPC_OK, NULL);
        return;
    }
    reply.text = ((const EchoRequest *)message)->text;
    (void)rpc_call_send(call, &reply.base, &err);
}

static inline void handle_chat(struct rpc_call *call, void *arg)
{
    (void)arg;
    rpc_call_on_message(call, chat_message, NULL);
}

static const struct rpc_method TEST_METHODS[] = {
    {.name = "Echo", .handler = handle_echo},
    {.name = "Count", .handler = handle_count, .on_loop = true},
    {.name = "Sum", .handler = handle_sum, .client_streaming = true},
    {.name = "Chat", .handler = handle_chat, .client_streaming = true},
};

/* ---- the fixture ---- */

static inline void on_done(void *arg, const char *method, enum rpc_status status, int64_t ns)
{
    struct fixture *f = arg;
    assert_non_null(method);
    assert_true(ns >= 0);
    atomic_store(&f->last_status, (int)status);
    atomic_fetch_add(&f->dones, 1);
}

static inline void on_server_closed(void *arg)
{
    struct fixture *f = arg;
    atomic_fetch_add(&f->server_closed, 1);
}

static inline void on_client_closed(void *arg, const struct err *err)
{
    struct fixture *f = arg;
    assert_non_null(err);
    atomic_fetch_add(&f->client_closed, 1);
}

static inline void on_drained(void *arg)
{
    struct fixture *f = arg;
    atomic_fetch_add(&f->drained, 1);
}

static inline int execute(void *executor, void (*fn)(void *arg), void *arg, struct err *err)
{
    return workers_run(executor, fn, arg, err);
}

struct fixture_options {
    struct rpc_limits server_limits;
    struct rpc_limits client_limits;
    bool no_client; /* only peer_fd */
    size_t threads; /* of workers; 0: handlers run on the loop */
    size_t max_connections;
};

static inline void fixture_start(struct fixture *f, const struct fixture_options *o)
{
    struct err err;
    int fds[2];
    memset(f, 0, sizeof(*f));
    f->peer_fd = -1;
    pthread_mutex_init(&f->lock, NULL);
    log_set_level(LOG_ERROR);
    settle_ok(loop_new(&f->loop, &err), &err);
    f->services[0] =
        (struct rpc_service){"casemate.test.v1.RpcTest", TEST_DESCRIPTOR, TEST_METHODS, 4, f};
    f->services[1] =
        (struct rpc_service){"casemate.alias.RpcTest", TEST_DESCRIPTOR, TEST_METHODS, 4, f};
    if (o->threads > 0)
        settle_ok(workers_new(o->threads, 4096, &f->workers, &err), &err);
    struct rpc_server_config config = {
        .loop = f->loop,
        .services = f->services,
        .n_services = 2,
        .limits = o->server_limits,
        .max_connections = o->max_connections,
        .execute = o->threads > 0 ? execute : NULL,
        .executor = f->workers,
        .on_done = on_done,
        .on_done_arg = f,
    };
    settle_ok(rpc_server_new(&config, &f->server, &err), &err);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    settle_ok(rpc_server_add_connection(f->server, fds[0], on_server_closed, f, &err), &err);
    if (o->no_client) {
        f->peer_fd = fds[1];
        return;
    }
    struct rpc_client_config client = {
        .loop = f->loop,
        .limits = o->client_limits,
        .on_closed = on_client_closed,
        .on_closed_arg = f,
    };
    settle_ok(rpc_client_new(&client, fds[1], &f->client, &err), &err);
}

static inline void fixture_stop(struct fixture *f)
{
    if (f->peer_fd >= 0)
        close(f->peer_fd);
    rpc_client_free(f->client);
    rpc_server_free(f->server);
    workers_free(f->workers);
    unpark(f, RPC_OK);
    loop_free(f->loop);
    pthread_mutex_destroy(&f->lock);
}

/* ---- outcomes of asynchronous calls ---- */

struct outcome {
    unsigned ends;
    bool ok;
    struct err err;
    unsigned messages;
    int64_t bytes;
    int64_t sum;
    uint32_t expect; /* next CountReply.number */
    bool out_of_order;
    unsigned drains;
    char text[64];
};

static inline void outcome_end(void *arg, const struct err *err)
{
    struct outcome *o = arg;
    o->ends++;
    o->ok = err == NULL;
    if (err != NULL)
        o->err = *err;
}

static inline void outcome_message(void *arg, const ProtobufCMessage *message)
{
    struct outcome *o = arg;
    o->messages++;
    if (message->descriptor == &casemate__test__v1__count_reply__descriptor) {
        const CountReply *reply = (const CountReply *)message;
        o->bytes += (int64_t)reply->data.len;
        if (reply->number != o->expect++)
            o->out_of_order = true;
    } else if (message->descriptor == &casemate__test__v1__sum_reply__descriptor) {
        o->sum = ((const SumReply *)message)->sum;
    } else {
        snprintf(o->text, sizeof(o->text), "%s", ((const EchoReply *)message)->text);
    }
}

static inline void outcome_drain(void *arg)
{
    struct outcome *o = arg;
    o->drains++;
}

static inline struct rpc_client_call *begin(struct fixture *f, const struct rpc_target *target,
                                            const ProtobufCMessage *request, int64_t deadline_ms,
                                            struct outcome *o)
{
    struct rpc_client_call *call = NULL;
    struct err err;
    struct rpc_call_handlers handlers = {
        .on_message = outcome_message,
        .on_end = outcome_end,
        .on_drain = outcome_drain,
        .drain_low_bytes = 64 << 10,
        .arg = o,
    };
    settle_ok(rpc_client_start(f->client, target, request, deadline_ms, &handlers, &call, &err),
              &err);
    return call;
}

/* An Echo that blocks and must succeed with the same text. */
static inline void expect_echo(struct fixture *f, const char *text)
{
    EchoRequest request = ECHO_REQUEST;
    char copy[64];
    snprintf(copy, sizeof(copy), "%s", text);
    request.text = copy;
    struct rpc_reply reply = {0};
    struct err err;
    settle_ok(
        rpc_client_call(f->client, &ECHO, &request.base, clock_deadline(PATIENCE_MS), &reply, &err),
        &err);
    assert_string_equal(((const EchoReply *)reply.message)->text, text);
    rpc_reply_fini(&reply);
}
