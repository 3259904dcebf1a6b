/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A call lives between two parties. The handler, on any thread, owns it from its dispatch until it
 * ends it; the loop has it from the request's headers until the answer is handed to the stream or
 * nobody wants it any more. Each has one reference, and a posted mail has one; whoever is last
 * frees. The handler leaves what it wants to say in the fields under the lock and posts the call's
 * mail; the loop takes it from there. The handler never touches the stream or the connection, which
 * therefore may go at any time.
 *
 * Callbacks (cancel, message, drain) run on the loop without the lock, with in_callback set. A
 * handler that takes a callback back or ends the call from another thread waits until the callback
 * that runs has returned, so that it may free what the callback uses; from inside the callback it
 * does not wait for itself.
 *
 * When the server is gone the mailbox is closed: what is posted is dropped, and with it the loop's
 * part.
 */
#include "common/rpc/call.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/cleanup.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/rpc/arena.h"
#include "common/rpc/check.h"
#include "common/rpc/mem.h"

#define QUEUE_MESSAGES                                                                             \
    2 /* a handler that ignores back-pressure may queue so many largest messages */

static void lock(struct rpc_call *call)
{
    (void)pthread_mutex_lock(&call->lock);
}

static void unlock(struct rpc_call *call)
{
    (void)pthread_mutex_unlock(&call->lock);
}

int rpc_call_new(const struct rpc_service *service, const struct rpc_method *method,
                 const ProtobufCMethodDescriptor *shape, struct rpc_mailbox *mailbox,
                 const struct rpc_limits *limits, struct rpc_call **ret_call, struct err *err)
{
    struct rpc_call *call = rpc_calloc(1, sizeof(*call));
    if (call == NULL)
        return err_no_memory(err);
    if (rpc_arena_new(limits->max_arena_bytes, &call->arena, err) < 0) {
        free(call);
        return -1;
    }
    call->service = service;
    call->method = method;
    call->shape = shape;
    call->mailbox = rpc_mailbox_ref(mailbox);
    call->max_message = limits->max_message_bytes;
    call->max_arena = limits->max_arena_bytes;
    call->deadline_ms = CLOCK_NO_DEADLINE;
    call->start_ns = clock_monotonic_ns();
    call->mail.fn = rpc_server_on_mail;
    call->refs = 1;
    call->out_last = &call->out;
    (void)pthread_mutex_init(&call->lock, NULL);
    (void)pthread_cond_init(&call->idle, NULL);
    *ret_call = call;
    return 0;
}

void rpc_call_ref(struct rpc_call *call)
{
    lock(call);
    call->refs++;
    unlock(call);
}

void rpc_call_unref(struct rpc_call *call)
{
    lock(call);
    bool last = --call->refs == 0;
    unlock(call);
    if (!last)
        return;
    rpc_chunk_free(call->out);
    rpc_arena_free(call->arena);
    free(call->raw.data);
    free(call->text);
    rpc_mailbox_unref(call->mailbox);
    (void)pthread_mutex_destroy(&call->lock);
    (void)pthread_cond_destroy(&call->idle);
    free(call);
}

/* Tells the loop that there is news. With the lock held. */
static enum rpc_post post(struct rpc_call *call)
{
    enum rpc_post r = rpc_mailbox_post(call->mailbox, &call->mail);
    if (r == RPC_POST_QUEUED)
        call->refs++; /* the loop cannot have dropped it yet: it would need the lock to unref */
    return r;
}

/* ---- callbacks ---- */

/* With the lock held; it is released meanwhile. */
static void begin_callback(struct rpc_call *call)
{
    call->in_callback = true;
    call->callback_thread = pthread_self();
    unlock(call);
}

static void end_callback(struct rpc_call *call)
{
    lock(call);
    call->in_callback = false;
    (void)pthread_cond_broadcast(&call->idle);
}

/* Until no other thread runs a callback of this call. With the lock held. */
static void wait_idle(struct rpc_call *call)
{
    while (call->in_callback && !pthread_equal(call->callback_thread, pthread_self()))
        (void)pthread_cond_wait(&call->idle, &call->lock);
}

/* With the lock held. */
static void tell_cancelled(struct rpc_call *call)
{
    if (!call->cancelled || call->cancel_told || call->on_cancel == NULL || call->finished)
        return;
    call->cancel_told = true;
    void (*fn)(void *) = call->on_cancel;
    void *arg = call->on_cancel_arg;
    begin_callback(call);
    fn(arg);
    end_callback(call);
}

void rpc_call_cancel(struct rpc_call *call)
{
    lock(call);
    call->cancelled = true;
    call->queued = 0; /* the stream has dropped it */
    tell_cancelled(call);
    unlock(call);
}

void rpc_call_tell(struct rpc_call *call)
{
    lock(call);
    tell_cancelled(call);
    unlock(call);
}

bool rpc_call_holds(struct rpc_call *call)
{
    if (!call->method->client_streaming)
        return false;
    lock(call);
    bool holds = call->on_message == NULL;
    unlock(call);
    return holds;
}

int rpc_call_deliver(struct rpc_call *call, struct rpc_bytes *raw, struct err *err)
{
    struct rpc_arena *arena = NULL;
    ProtobufCMessage *message = NULL;
    int r = 0;
    if (raw != NULL) {
        r = rpc_arena_new(call->max_arena, &arena, err);
        if (r == 0)
            r = rpc_decode(call->shape->input, raw->data, raw->len, arena, &message, err);
        free(steal_ptr(&raw->data));
    }
    lock(call);
    if (r == 0 && call->on_message != NULL && !call->finished) {
        void (*fn)(void *, struct rpc_call *, const ProtobufCMessage *) = call->on_message;
        void *arg = call->on_message_arg;
        begin_callback(call);
        fn(arg, call, message);
        end_callback(call);
    }
    unlock(call);
    rpc_arena_free(arena);
    return r;
}

void rpc_call_sent(struct rpc_call *call, size_t n)
{
    lock(call);
    call->queued -= n;
    if (call->drain_due && call->queued < call->drain_low && call->on_drain != NULL &&
        !call->finished) {
        call->drain_due = false;
        void (*fn)(void *) = call->on_drain;
        void *arg = call->on_drain_arg;
        begin_callback(call);
        fn(arg);
        end_callback(call);
    }
    unlock(call);
}

struct rpc_call_news rpc_call_take(struct rpc_call *call)
{
    lock(call);
    struct rpc_call_news news = {
        .chunks = call->out,
        .finished = call->finished,
        .cut = call->cut,
        .status = call->status,
        .text = call->text,
    };
    call->out = NULL;
    call->out_last = &call->out;
    unlock(call);
    return news;
}

/* ---- the handler's side ---- */

void rpc_call_run(void *arg)
{
    struct rpc_call *call = arg;
    if (rpc_call_cancelled(call)) {
        rpc_call_finish(call, RPC_CANCELLED, "cancelled before it began");
        return;
    }
    if (!call->method->client_streaming) {
        ProtobufCMessage *request;
        struct err err;
        int r = rpc_decode(call->shape->input, call->raw.data, call->raw.len, call->arena, &request,
                           &err);
        free(steal_ptr(&call->raw.data));
        if (r < 0) {
            rpc_call_fail(call, &err);
            return;
        }
        call->request = request;
    }
    call->method->handler(call, call->service->arg);
}

const ProtobufCMessage *rpc_call_request(const struct rpc_call *call)
{
    return call->request;
}

const char *rpc_call_method(const struct rpc_call *call)
{
    return call->method->name;
}

const char *rpc_call_service(const struct rpc_call *call)
{
    return call->service->name;
}

void *rpc_call_alloc(struct rpc_call *call, size_t size)
{
    lock(call);
    void *p = rpc_arena_alloc(call->arena, size);
    unlock(call);
    if (p != NULL)
        memset(p, 0, size);
    return p;
}

char *rpc_call_strdup(struct rpc_call *call, const char *text)
{
    size_t n = strlen(text) + 1;
    char *copy = rpc_call_alloc(call, n);
    if (copy != NULL)
        memcpy(copy, text, n);
    return copy;
}

int64_t rpc_call_deadline(const struct rpc_call *call)
{
    return call->deadline_ms;
}

/* The lock of a call that the contract shows as const. */
static struct rpc_call *unconst(const struct rpc_call *call)
{
    return (struct rpc_call *)(uintptr_t)call;
}

bool rpc_call_cancelled(const struct rpc_call *call)
{
    lock(unconst(call));
    bool cancelled = call->cancelled;
    unlock(unconst(call));
    return cancelled || call->deadline_ms <= clock_monotonic_ms();
}

void rpc_call_on_cancel(struct rpc_call *call, void (*fn)(void *arg), void *arg)
{
    lock(call);
    wait_idle(call);
    call->on_cancel = fn;
    call->on_cancel_arg = arg;
    bool late = call->cancelled && !call->cancel_told && fn != NULL;
    if (late && post(call) == RPC_POST_CLOSED)
        tell_cancelled(call); /* there is no loop any more to call it from */
    unlock(call);
}

void rpc_call_on_message(struct rpc_call *call,
                         void (*fn)(void *arg, struct rpc_call *call, const ProtobufCMessage *msg),
                         void *arg)
{
    lock(call);
    wait_idle(call);
    call->on_message = fn;
    call->on_message_arg = arg;
    (void)post(call);
    unlock(call);
}

void rpc_call_on_drain(struct rpc_call *call, size_t low_bytes, void (*fn)(void *arg), void *arg)
{
    lock(call);
    wait_idle(call);
    call->on_drain = fn;
    call->on_drain_arg = arg;
    call->drain_low = low_bytes;
    call->drain_due = call->queued >= low_bytes;
    unlock(call);
}

/* With the lock held; takes the chunk. */
static void append(struct rpc_call *call, struct rpc_chunk *chunk)
{
    *call->out_last = chunk;
    call->out_last = &chunk->next;
    call->queued += chunk->len;
    if (call->queued >= call->drain_low)
        call->drain_due = true;
}

int rpc_call_send(struct rpc_call *call, const ProtobufCMessage *message, struct err *err)
{
    struct rpc_chunk *chunk;
    if (rpc_encode(message, call->max_message, &chunk, err) < 0)
        return -1;
    lock(call);
    int r = 0;
    if (call->cancelled || call->finished)
        r = err_set(err, ERR_CANCELLED, "the client has gone");
    else if (call->queued + chunk->len > (size_t)QUEUE_MESSAGES * call->max_message + chunk->len)
        r = err_set(err, ERR_EXHAUSTED, "the client does not take what was sent");
    if (r == 0) {
        append(call, chunk);
        if (post(call) == RPC_POST_CLOSED)
            r = err_set(err, ERR_CANCELLED, "the server has gone");
    } else {
        rpc_chunk_free(chunk);
    }
    unlock(call);
    return r;
}

size_t rpc_call_queued(const struct rpc_call *call)
{
    lock(unconst(call));
    size_t queued = call->queued;
    unlock(unconst(call));
    return queued;
}

/* Ends the call for the handler, with a last message or without (chunk may be NULL; it is taken).
 */
static void end(struct rpc_call *call, struct rpc_chunk *chunk, enum rpc_status status,
                const char *text)
{
    lock(call);
    wait_idle(call);
    call->finished = true;
    call->status = status;
    if (text != NULL)
        call->text = rpc_strndup(text, strnlen(text, RPC_MAX_STATUS_TEXT - 1));
    call->on_cancel = NULL;
    call->on_message = NULL;
    call->on_drain = NULL;
    if (chunk != NULL)
        append(call, chunk);
    (void)post(call);
    unlock(call);
    rpc_call_unref(call);
}

void rpc_call_reply(struct rpc_call *call, const ProtobufCMessage *message)
{
    struct rpc_chunk *chunk;
    struct err err;
    if (rpc_encode(message, call->max_message, &chunk, &err) < 0) {
        (void)err_prefix(&err, "reply");
        log_event(LOG_WARN, NULL, &err, "%s: the reply cannot be sent", call->method->name);
        rpc_call_fail(call, &err);
        return;
    }
    end(call, chunk, RPC_OK, NULL);
}

void rpc_call_finish(struct rpc_call *call, enum rpc_status status, const char *message)
{
    end(call, NULL, status, message);
}

void rpc_call_cut(struct rpc_call *call, enum rpc_status status, const char *message)
{
    lock(call);
    rpc_chunk_free(call->out);
    call->out = NULL;
    call->out_last = &call->out;
    call->cut = true;
    unlock(call);
    end(call, NULL, status, message);
}

void rpc_call_fail(struct rpc_call *call, const struct err *err)
{
    end(call, NULL, rpc_status_from_err(err->code), err->msg);
}
