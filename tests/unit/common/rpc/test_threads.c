/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The same with the loop on a thread of its own, handlers on worker threads and callers on several:
 * what a race detector should see. The ends of server, client and connection happen while calls are
 * in flight.
 */
#include <poll.h>
#include <stdio.h>

#include "tests/unit/common/rpc/rpc_fixture.h"

enum { CALLERS = 4, CALLS = 250 };

static void *run_loop(void *arg)
{
    struct fixture *f = arg;
    struct err err;
    settle_ok(loop_run(f->loop, &err), &err);
    return NULL;
}

/* Waits for what other threads do. */
#define wait_until(condition)                                                                      \
    do {                                                                                           \
        int64_t give_up_ = clock_deadline(PATIENCE_MS);                                            \
        while (!(condition)) {                                                                     \
            if (clock_monotonic_ms() > give_up_)                                                   \
                fail_msg("no event: %s", #condition);                                              \
            (void)poll(NULL, 0, 1);                                                                \
        }                                                                                          \
    } while (0)

struct posted {
    struct fixture *f;
    void (*fn)(struct fixture *f);
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool done;
};

static void run_posted(void *arg)
{
    struct posted *p = arg;
    p->fn(p->f);
    pthread_mutex_lock(&p->lock);
    p->done = true;
    pthread_cond_signal(&p->cond);
    pthread_mutex_unlock(&p->lock);
}

/* Runs fn on the loop's thread and waits for it. */
static void on_loop(struct fixture *f, void (*fn)(struct fixture *f))
{
    struct posted p = {
        .f = f, .fn = fn, .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
    struct err err;
    settle_ok(loop_post(f->loop, run_posted, &p, &err), &err);
    pthread_mutex_lock(&p.lock);
    while (!p.done)
        pthread_cond_wait(&p.cond, &p.lock);
    pthread_mutex_unlock(&p.lock);
}

static void nothing(struct fixture *f)
{
    (void)f;
}

static void start_thread(struct fixture *f)
{
    assert_int_equal(pthread_create(&f->thread, NULL, run_loop, f), 0);
    f->threaded = true;
    on_loop(f, nothing); /* until it runs, the loop counts as this thread's */
}

static void free_server(struct fixture *f)
{
    rpc_server_free(f->server);
    f->server = NULL;
}

static void stop_thread(struct fixture *f)
{
    loop_stop(f->loop);
    pthread_join(f->thread, NULL);
}

/* Server and client, their loop, and the threads that call. */
static void finish(struct fixture *f)
{
    rpc_client_free(f->client);
    f->client = NULL;
    on_loop(f, free_server);
    stop_thread(f);
    /* The loop's thread is gone; what is left is freed from here. */
    fixture_stop(f);
}

struct caller {
    struct fixture *f;
    pthread_t thread;
    unsigned ok, failed;
    bool mixed;
};

static void *call_many(void *arg)
{
    struct caller *c = arg;
    for (unsigned i = 0; i < CALLS; i++) {
        EchoRequest request = ECHO_REQUEST;
        struct rpc_reply reply = {0};
        struct err err;
        char text[32];
        bool parks = c->mixed && i % 50 == 49;
        snprintf(text, sizeof(text), parks ? "park" : "call %u", i);
        request.text = text;
        int64_t deadline = parks ? clock_deadline(5) : clock_deadline(PATIENCE_MS);
        if (rpc_client_call(c->f->client, &ECHO, &request.base, deadline, &reply, &err) < 0) {
            assert_true(err.code == ERR_UNAVAILABLE || (parks && err.code == ERR_DEADLINE));
            c->failed++;
            continue;
        }
        if (strcmp(((const EchoReply *)reply.message)->text, text) != 0)
            abort();
        rpc_reply_fini(&reply);
        c->ok++;
    }
    return NULL;
}

static void start_callers(struct fixture *f, struct caller *callers, bool mixed)
{
    for (size_t i = 0; i < CALLERS; i++) {
        callers[i] = (struct caller){.f = f, .mixed = mixed};
        assert_int_equal(pthread_create(&callers[i].thread, NULL, call_many, &callers[i]), 0);
    }
}

static void join_callers(struct caller *callers)
{
    for (size_t i = 0; i < CALLERS; i++)
        pthread_join(callers[i].thread, NULL);
}

static void test_workers(void **state)
{
    struct fixture f;
    struct caller callers[CALLERS];
    (void)state;
    fixture_start(&f, &(struct fixture_options){.threads = 4});
    start_thread(&f);
    start_callers(&f, callers, true);
    join_callers(callers);
    for (size_t i = 0; i < CALLERS; i++)
        assert_int_equal(callers[i].ok, CALLS - CALLS / 50);
    finish(&f);
}

static void test_client_made_elsewhere(void **state)
{
    struct fixture f;
    struct err err;
    int fds[2];
    (void)state;
    fixture_start(&f, &(struct fixture_options){.no_client = true, .threads = 2});
    start_thread(&f);
    struct rpc_client_config config = {
        .loop = f.loop, .on_closed = on_client_closed, .on_closed_arg = &f};
    settle_ok(rpc_client_new(&config, f.peer_fd, &f.client, &err), &err);
    f.peer_fd = -1;
    expect_echo(&f, "hello");
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    close(fds[0]);
    struct rpc_client *dead;
    settle_ok(rpc_client_new(&config, fds[1], &dead, &err), &err);
    struct rpc_reply reply;
    EchoRequest request = ECHO_REQUEST;
    assert_int_equal(rpc_client_call(dead, &ECHO, &request.base, CLOCK_NO_DEADLINE, &reply, &err),
                     -1);
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    rpc_client_free(dead);
    finish(&f);
}

/* The server goes while handlers run and callers wait: every call ends, none twice, no handler's
 * call is touched after. */
static void test_server_freed_under_load(void **state)
{
    (void)state;
    for (int round = 0; round < 5; round++) {
        struct fixture f;
        struct caller callers[CALLERS];
        fixture_start(&f, &(struct fixture_options){.threads = 4});
        start_thread(&f);
        start_callers(&f, callers, true);
        wait_until(atomic_load(&f.dones) >= 20 * (unsigned)round);
        on_loop(&f, free_server);
        join_callers(callers);
        finish(&f);
    }
}

static void begin_drain(struct fixture *f)
{
    rpc_server_shutdown(f->server, CLOCK_NO_DEADLINE, on_drained, f);
}

static void test_shutdown_under_load(void **state)
{
    struct fixture f;
    struct caller callers[CALLERS];
    (void)state;
    fixture_start(&f, &(struct fixture_options){.threads = 4});
    start_thread(&f);
    start_callers(&f, callers, false);
    wait_until(atomic_load(&f.dones) >= 50);
    on_loop(&f, begin_drain);
    join_callers(callers);
    wait_until(atomic_load(&f.drained) == 1);
    /* Graceful: what was taken was answered, the rest was never begun. */
    unsigned ok = 0;
    for (size_t i = 0; i < CALLERS; i++)
        ok += callers[i].ok;
    assert_int_equal(ok, f.dones);
    finish(&f);
}

static void test_client_closed_under_load(void **state)
{
    struct fixture f;
    struct caller callers[CALLERS];
    (void)state;
    fixture_start(&f, &(struct fixture_options){.threads = 4});
    start_thread(&f);
    start_callers(&f, callers, true);
    wait_until(atomic_load(&f.dones) >= 50);
    rpc_client_close(f.client);
    join_callers(callers);
    finish(&f);
}

/* ---- streams that are cancelled from another thread ---- */

struct reading {
    atomic_uint messages;
    atomic_uint ends;
    atomic_bool freed;
};

static void reading_message(void *arg, const ProtobufCMessage *message)
{
    struct reading *r = arg;
    (void)message;
    assert_false(atomic_load(&r->freed));
    atomic_fetch_add(&r->messages, 1);
}

static void reading_end(void *arg, const struct err *err)
{
    struct reading *r = arg;
    (void)err;
    assert_false(atomic_load(&r->freed));
    atomic_fetch_add(&r->ends, 1);
}

static void test_cancel_from_elsewhere(void **state)
{
    struct fixture f;
    (void)state;
    fixture_start(&f, &(struct fixture_options){.threads = 2});
    start_thread(&f);
    for (unsigned i = 0; i < 60; i++) {
        struct reading r = {0};
        struct rpc_client_call *call;
        struct err err;
        CountRequest request = CASEMATE__TEST__V1__COUNT_REQUEST__INIT;
        struct rpc_call_handlers handlers = {
            .on_message = reading_message, .on_end = reading_end, .arg = &r, .keep = true};
        request.messages = i % 3 == 0 ? 5 : 100000;
        request.bytes_each = 1000;
        settle_ok(rpc_client_start(f.client, &COUNT, &request.base, CLOCK_NO_DEADLINE, &handlers,
                                   &call, &err),
                  &err);
        rpc_client_pause(call, true);
        rpc_client_pause(call, false);
        wait_until(i % 2 != 0 || atomic_load(&r.messages) >= i % 5);
        rpc_client_cancel(call);
        atomic_store(&r.freed, true); /* r goes out of scope: nobody may look at it any more */
    }
    expect_echo(&f, "still alive");
    finish(&f);
}

/* ---- handlers that are cancelled while they work ---- */

struct ender {
    struct fixture *f;
    atomic_bool stop;
};

static void *end_parked(void *arg)
{
    struct ender *e = arg;
    struct fixture *f = e->f;
    for (unsigned i = 0;;) {
        bool last = atomic_load(&e->stop);
        pthread_mutex_lock(&f->lock);
        struct rpc_call *call = f->n_parked > 0 ? f->parked[--f->n_parked] : NULL;
        pthread_mutex_unlock(&f->lock);
        if (call == NULL && last)
            return NULL;
        if (call == NULL) {
            sched_yield();
            continue;
        }
        i++;
        EchoReply reply = CASEMATE__TEST__V1__ECHO_REPLY__INIT;
        struct err err;
        (void)rpc_call_cancelled(call);
        if (i % 3 == 0)
            (void)rpc_call_send(call, &reply.base, &err);
        if (i % 2 == 0)
            rpc_call_on_cancel(call, NULL, NULL);
        rpc_call_reply(call, &reply.base);
    }
}

static void test_handlers_race_with_cancel(void **state)
{
    struct fixture f;
    pthread_t ender;
    (void)state;
    fixture_start(&f, &(struct fixture_options){.threads = 4});
    start_thread(&f);
    struct ender e = {.f = &f};
    assert_int_equal(pthread_create(&ender, NULL, end_parked, &e), 0);
    static struct reading r[200];
    memset(r, 0, sizeof(r));
    for (unsigned i = 0; i < 200; i++) {
        EchoRequest request = ECHO_REQUEST;
        char text[] = "park";
        struct rpc_client_call *call;
        struct err err;
        struct rpc_call_handlers handlers = {.on_end = reading_end, .arg = &r[i], .keep = true};
        request.text = text;
        unsigned before = atomic_load(&f.dones);
        settle_ok(rpc_client_start(f.client, &ECHO, &request.base, CLOCK_NO_DEADLINE, &handlers,
                                   &call, &err),
                  &err);
        /* At various moments of its life. */
        for (unsigned k = 0; k < i && n_parked(&f) == 0 && atomic_load(&f.dones) == before; k++)
            sched_yield();
        rpc_client_cancel(call);
        assert_true(atomic_load(&r[i].ends) <= 1);
    }
    expect_echo(&f, "still alive");
    /* Handlers that come after the ender are ended by finish. */
    rpc_client_free(f.client);
    f.client = NULL;
    on_loop(&f, free_server);
    atomic_store(&e.stop, true);
    pthread_join(ender, NULL);
    finish(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_workers),
        cmocka_unit_test(test_client_made_elsewhere),
        cmocka_unit_test(test_server_freed_under_load),
        cmocka_unit_test(test_shutdown_under_load),
        cmocka_unit_test(test_client_closed_under_load),
        cmocka_unit_test(test_cancel_from_elsewhere),
        cmocka_unit_test(test_handlers_race_with_cancel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
