/* SPDX-License-Identifier: Apache-2.0 */
/*
 * As in call.c, two parties: the caller has the handle, on any thread, and the loop has the call
 * while it is in the client's list. What the caller says is left under the lock and posted; what
 * the peer says comes by callbacks on the loop, called without the lock and with in_callback set,
 * so that rpc_client_cancel can wait for the one that runs.
 *
 * A handle without `keep` is given up by on_end; every other handle by rpc_client_cancel.
 * `released` says that it was.
 *
 * The blocking call is a kept call with a condition variable. Its reply is decoded on the caller's
 * thread, not on the loop's.
 */
#include "common/rpc/client_call.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/cleanup.h"
#include "common/base/clock.h"
#include "common/loop/loop.h"
#include "common/rpc/arena.h"
#include "common/rpc/check.h"
#include "common/rpc/mem.h"

#define QUEUE_MESSAGES 2 /* as in call.c */

static void lock(struct rpc_client_call *call)
{
    (void)pthread_mutex_lock(&call->lock);
}

static void unlock(struct rpc_client_call *call)
{
    (void)pthread_mutex_unlock(&call->lock);
}

static struct rpc_client_call *call_new(struct rpc_client *client,
                                        const ProtobufCMethodDescriptor *shape,
                                        const struct rpc_call_handlers *handlers)
{
    struct rpc_client_call *call = rpc_calloc(1, sizeof(*call));
    if (call == NULL)
        return NULL;
    call->mailbox = rpc_mailbox_ref(client->mailbox);
    call->shape = shape;
    call->handlers = *handlers;
    call->max_message = client->config.limits.max_message_bytes;
    call->max_arena = client->config.limits.max_arena_bytes;
    call->mail.fn = rpc_client_on_call_mail;
    call->refs = 1;
    call->out_last = &call->out;
    (void)pthread_mutex_init(&call->lock, NULL);
    (void)pthread_cond_init(&call->idle, NULL);
    return call;
}

void rpc_client_call_unref(struct rpc_client_call *call)
{
    if (call == NULL)
        return;
    lock(call);
    bool last = --call->refs == 0;
    unlock(call);
    if (!last)
        return;
    rpc_chunk_free(call->out);
    rpc_mailbox_unref(call->mailbox);
    (void)pthread_mutex_destroy(&call->lock);
    (void)pthread_cond_destroy(&call->idle);
    free(call);
}

static inline void cleanup_call_(struct rpc_client_call **call)
{
    rpc_client_call_unref(*call);
}
#define cleanup_call __attribute__((cleanup(cleanup_call_)))

/* With the lock held. */
static void post(struct rpc_client_call *call)
{
    if (rpc_mailbox_post(call->mailbox, &call->mail) == RPC_POST_QUEUED)
        call->refs++;
}

static void begin_callback(struct rpc_client_call *call)
{
    call->in_callback = true;
    call->callback_thread = pthread_self();
    unlock(call);
}

static void end_callback(struct rpc_client_call *call)
{
    lock(call);
    call->in_callback = false;
    (void)pthread_cond_broadcast(&call->idle);
}

/* ---- the loop's side ---- */

struct rpc_client_news rpc_client_call_take(struct rpc_client_call *call)
{
    lock(call);
    struct rpc_client_news news = {call->out, call->last, call->released};
    call->out = NULL;
    call->out_last = &call->out;
    unlock(call);
    return news;
}

bool rpc_client_call_holds(struct rpc_client_call *call)
{
    lock(call);
    bool holds = call->paused;
    unlock(call);
    return holds;
}

int rpc_client_call_message(struct rpc_client_call *call, struct rpc_bytes *message,
                            struct err *err)
{
    if (call->on_raw != NULL) {
        call->on_raw(call->handlers.arg, message);
        return 0;
    }
    struct rpc_arena *arena = NULL;
    ProtobufCMessage *decoded = NULL;
    int r = rpc_arena_new(call->max_arena, &arena, err);
    if (r == 0)
        r = rpc_decode(call->shape->output, message->data, message->len, arena, &decoded, err);
    free(steal_ptr(&message->data));
    if (r < 0 && err->code == ERR_INVALID)
        err->code = ERR_PROTOCOL;
    lock(call);
    if (r == 0 && !call->released && call->handlers.on_message != NULL) {
        begin_callback(call);
        call->handlers.on_message(call->handlers.arg, decoded);
        end_callback(call);
    }
    unlock(call);
    rpc_arena_free(arena);
    return r;
}

void rpc_client_call_sent(struct rpc_client_call *call, size_t n)
{
    lock(call);
    call->queued -= n;
    if (call->drain_due && call->queued < call->handlers.drain_low_bytes && !call->released &&
        call->handlers.on_drain != NULL) {
        call->drain_due = false;
        begin_callback(call);
        call->handlers.on_drain(call->handlers.arg);
        end_callback(call);
    }
    unlock(call);
}

void rpc_client_call_end(struct rpc_client_call *call, const struct err *err)
{
    lock(call);
    call->ended = true;
    call->queued = 0;
    bool drop_handle = false;
    if (!call->released) {
        if (call->handlers.on_end != NULL) {
            begin_callback(call);
            call->handlers.on_end(call->handlers.arg, err);
            end_callback(call);
        }
        drop_handle = !call->handlers.keep && !call->released;
        if (drop_handle)
            call->released = true;
    }
    unlock(call);
    if (drop_handle)
        rpc_client_call_unref(call);
}

/* ---- the caller's side ---- */

static int append(struct rpc_client_call *call, struct rpc_chunk *chunk, struct err *err)
{
    if (call->ended || call->released)
        return err_set(err, ERR_CANCELLED, "the call has ended");
    if (chunk == NULL)
        return 0;
    if (call->queued > (size_t)QUEUE_MESSAGES * call->max_message)
        return err_set(err, ERR_EXHAUSTED, "the peer does not take what was sent");
    *call->out_last = chunk;
    call->out_last = &chunk->next;
    call->queued += chunk->len;
    if (call->queued >= call->handlers.drain_low_bytes)
        call->drain_due = true;
    return 0;
}

int rpc_client_send(struct rpc_client_call *call, const ProtobufCMessage *message, bool last,
                    struct err *err)
{
    struct rpc_chunk *chunk = NULL;
    if (message != NULL && rpc_encode(message, call->max_message, &chunk, err) < 0)
        return -1;
    lock(call);
    int r = append(call, chunk, err);
    if (r == 0) {
        call->last = call->last || last;
        post(call);
    }
    unlock(call);
    if (r < 0)
        rpc_chunk_free(chunk);
    return r;
}

size_t rpc_client_queued(const struct rpc_client_call *call)
{
    struct rpc_client_call *c = (struct rpc_client_call *)(uintptr_t)call;
    lock(c);
    size_t queued = c->queued;
    unlock(c);
    return queued;
}

void rpc_client_pause(struct rpc_client_call *call, bool paused)
{
    lock(call);
    if (call->paused && !paused)
        post(call);
    call->paused = paused;
    unlock(call);
}

void rpc_client_cancel(struct rpc_client_call *call)
{
    lock(call);
    bool was = call->released;
    call->released = true;
    if (!call->ended)
        post(call);
    while (call->in_callback && !pthread_equal(call->callback_thread, pthread_self()))
        (void)pthread_cond_wait(&call->idle, &call->lock);
    unlock(call);
    if (!was)
        rpc_client_call_unref(call);
}

/* Path and first message. */
static int prepare(struct rpc_client_call *call, const struct rpc_target *target,
                   const ProtobufCMessage *request, struct err *err)
{
    const char *service = target->service != NULL ? target->service : target->descriptor->name;
    int n = snprintf(call->path, sizeof(call->path), "/%s/%s", service, target->method);
    if (n < 0 || (size_t)n >= sizeof(call->path))
        return err_set(err, ERR_INVALID, "the name of a method is too long");
    if (request != NULL) {
        struct rpc_chunk *chunk;
        if (rpc_encode(request, call->max_message, &chunk, err) < 0)
            return -1;
        call->out = chunk;
        call->out_last = &chunk->next;
        call->queued = chunk->len;
        call->last = true;
    }
    return 0;
}

/* As rpc_client_start, with the internal handler as well. */
static int start_call(struct rpc_client *client, const struct rpc_target *target,
                      const ProtobufCMessage *request, struct rpc_client_call *model,
                      struct rpc_client_call **ret_call, struct err *err)
{
    const ProtobufCMethodDescriptor *shape =
        protobuf_c_service_descriptor_get_method_by_name(target->descriptor, target->method);
    if (shape == NULL)
        return err_set(err, ERR_INVALID, "%s has no method %s", target->descriptor->name,
                       target->method);
    cleanup_call struct rpc_client_call *call = call_new(client, shape, &model->handlers);
    if (call == NULL)
        return err_no_memory(err);
    call->on_raw = model->on_raw;
    call->deadline_ms = model->deadline_ms;
    if (prepare(call, target, request, err) < 0 ||
        rpc_client_call_add(client, call, ret_call, err) < 0)
        return -1;
    (void)steal_ptr(&call);
    return 0;
}

int rpc_client_start(struct rpc_client *client, const struct rpc_target *target,
                     const ProtobufCMessage *request, int64_t deadline_ms,
                     const struct rpc_call_handlers *handlers, struct rpc_client_call **ret_call,
                     struct err *err)
{
    struct rpc_client_call model = {.handlers = *handlers, .deadline_ms = deadline_ms};
    return start_call(client, target, request, &model, ret_call, err);
}

/* ---- blocking calls ---- */

struct waiting {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool done;
    bool failed;
    struct err err;
    struct rpc_bytes reply;
    unsigned n_replies;
};

static void waiting_raw(void *arg, struct rpc_bytes *message)
{
    struct waiting *w = arg;
    (void)pthread_mutex_lock(&w->lock);
    if (w->n_replies++ == 0)
        w->reply = *message;
    else
        free(message->data);
    (void)pthread_mutex_unlock(&w->lock);
}

static void waiting_end(void *arg, const struct err *err)
{
    struct waiting *w = arg;
    (void)pthread_mutex_lock(&w->lock);
    w->done = true;
    w->failed = err != NULL;
    if (err != NULL)
        w->err = *err;
    (void)pthread_cond_signal(&w->cond);
    (void)pthread_mutex_unlock(&w->lock);
}

static int wait_for(struct waiting *w, struct loop *loop, struct err *err)
{
    if (loop_is_current(loop)) {
        while (!w->done) {
            if (loop_run_once(loop, -1, err) < 0)
                return -1;
        }
        return 0;
    }
    (void)pthread_mutex_lock(&w->lock);
    while (!w->done)
        (void)pthread_cond_wait(&w->cond, &w->lock);
    (void)pthread_mutex_unlock(&w->lock);
    return 0;
}

static int take_reply(struct waiting *w, const ProtobufCMessageDescriptor *descriptor,
                      size_t max_arena, struct rpc_reply *ret_reply, struct err *err)
{
    if (w->failed) {
        *err = w->err;
        return -1;
    }
    if (w->n_replies != 1)
        return err_set(err, ERR_PROTOCOL, "%u reply messages instead of one", w->n_replies);
    struct rpc_arena *arena;
    ProtobufCMessage *message;
    if (rpc_arena_new(max_arena, &arena, err) < 0)
        return -1;
    if (rpc_decode(descriptor, w->reply.data, w->reply.len, arena, &message, err) < 0) {
        rpc_arena_free(arena);
        if (err->code == ERR_INVALID)
            err->code = ERR_PROTOCOL;
        return err_prefix(err, "reply");
    }
    *ret_reply = (struct rpc_reply){.message = message, .arena = arena};
    return 0;
}

int rpc_client_call(struct rpc_client *client, const struct rpc_target *target,
                    const ProtobufCMessage *request, int64_t deadline_ms,
                    struct rpc_reply *ret_reply, struct err *err)
{
    struct waiting w = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
    struct rpc_client_call model = {
        .handlers = {.on_end = waiting_end, .arg = &w, .keep = true},
        .on_raw = waiting_raw,
        .deadline_ms = deadline_ms,
    };
    struct rpc_client_call *call = NULL;
    struct err none;
    if (err == NULL)
        err = &none;
    if (start_call(client, target, request, &model, &call, err) < 0)
        return -1;
    int r = wait_for(&w, client->config.loop, err);
    if (r == 0)
        r = take_reply(&w, call->shape->output, call->max_arena, ret_reply, err);
    rpc_client_cancel(call); /* nobody touches w after this */
    free(w.reply.data);
    return r;
}

void rpc_reply_fini(struct rpc_reply *reply)
{
    rpc_arena_free(reply->arena);
    *reply = (struct rpc_reply){0};
}
