/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The seam between server.c, which routes and owns connections, and call.c, which is one call of
 * the serving end and everything that crosses threads about it. Not for use outside this room.
 * Functions here belong to the loop's thread.
 */
#pragma once

#include <pthread.h>
#include <sys/queue.h>

#include "common/rpc/mailbox.h"
#include "common/rpc/server.h"
#include "common/rpc/session.h"

struct rpc_arena;
struct server_conn;

struct rpc_call {
    /* Constant after rpc_call_new. */
    const struct rpc_service *service;
    const struct rpc_method *method;
    const ProtobufCMethodDescriptor *shape;
    struct rpc_mailbox *mailbox;
    size_t max_message;
    size_t max_arena;
    int64_t deadline_ms;
    int64_t start_ns;

    /* Loop only. */
    LIST_ENTRY(rpc_call) link; /* of the connection's calls, while conn is set */
    struct server_conn *conn;  /* NULL when the call is over for the loop */
    struct rpc_stream *stream; /* NULL when nobody listens any more */
    bool dispatched;           /* the handler has been given the call */
    bool reported;             /* on_done was called */
    bool got_request;
    bool peer_ended;

    /* Written before the handler has the call, its afterwards. */
    struct rpc_bytes raw; /* the request, not decoded yet */
    const ProtobufCMessage *request;

    struct rpc_mail mail;
    pthread_mutex_t lock; /* all below; may be held while posting */
    pthread_cond_t idle;
    unsigned refs;
    struct rpc_arena *arena;
    struct rpc_chunk *out;
    struct rpc_chunk **out_last;
    size_t queued; /* bytes in `out` and in the stream's queue */
    bool finished;
    bool cut; /* with finished: ahead of what the stream has queued */
    enum rpc_status status;
    char *text;
    bool cancelled;
    bool cancel_told;
    void (*on_cancel)(void *arg);
    void *on_cancel_arg;
    void (*on_message)(void *arg, struct rpc_call *call, const ProtobufCMessage *message);
    void *on_message_arg;
    void (*on_drain)(void *arg);
    void *on_drain_arg;
    size_t drain_low;
    bool drain_due; /* the queue has been above drain_low since the last on_drain */
    bool in_callback;
    pthread_t callback_thread;
};

/* A call with one reference, the loop's. */
int rpc_call_new(const struct rpc_service *service, const struct rpc_method *method,
                 const ProtobufCMethodDescriptor *shape, struct rpc_mailbox *mailbox,
                 const struct rpc_limits *limits, struct rpc_call **ret_call, struct err *err);
/* One reference more; any thread. */
void rpc_call_ref(struct rpc_call *call);
/* One less, and with the last the call is gone; any thread. */
void rpc_call_unref(struct rpc_call *call);

/* Decodes the request and calls the handler, which has a reference of its own from the caller; any
 * thread. */
void rpc_call_run(void *call);

/* Nobody waits for the answer any more: tells the handler. */
void rpc_call_cancel(struct rpc_call *call);

/* One more request of a client-streaming call (raw is taken); with raw NULL, their end. -1: cannot
 * be decoded. */
int rpc_call_deliver(struct rpc_call *call, struct rpc_bytes *raw, struct err *err);
/* Whether the handler is not ready to be given messages yet. */
bool rpc_call_holds(struct rpc_call *call);

/* n queued bytes have left. */
void rpc_call_sent(struct rpc_call *call, size_t n);

/* What the handler has done since the last time. */
struct rpc_call_news {
    struct rpc_chunk *chunks; /* the caller's */
    bool finished;
    bool cut; /* with finished: ahead of what the stream has queued */
    enum rpc_status status;
    const char *text; /* the call's; may be NULL */
};
/* Takes it. */
struct rpc_call_news rpc_call_take(struct rpc_call *call);
/* Runs the callbacks that are due: a cancellation that the handler asked about after the fact. */
void rpc_call_tell(struct rpc_call *call);

/* Called, on the loop, when the handler has done something. In server.c. */
void rpc_server_on_mail(struct rpc_mail *mail);
