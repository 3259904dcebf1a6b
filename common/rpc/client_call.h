/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The seam between client.c, which has the connection, and client_call.c, which is one call of the
 * calling end and everything that crosses threads about it. Not for use outside this room.
 */
#pragma once

#include <pthread.h>
#include <sys/queue.h>

#include "common/rpc/client.h"
#include "common/rpc/mailbox.h"
#include "common/rpc/session.h"

struct rpc_client_call {
    /* Constant after rpc_client_call_new. */
    struct rpc_mailbox *mailbox;
    const ProtobufCMethodDescriptor *shape;
    struct rpc_call_handlers handlers;
    void (*on_raw)(void *arg,
                   struct rpc_bytes *message); /* instead of on_message: takes the data */
    int64_t deadline_ms;
    size_t max_message;
    size_t max_arena;
    char path[RPC_MAX_PATH];

    LIST_ENTRY(rpc_client_call) link; /* the client's lock; while client is set */

    /* Loop only, once the call is in the client's list. */
    struct rpc_client *client; /* NULL: over for the loop */
    struct rpc_stream *stream;

    struct rpc_mail mail;
    pthread_mutex_t lock; /* all below; may be held while posting */
    pthread_cond_t idle;
    unsigned refs;
    struct rpc_chunk *out;
    struct rpc_chunk **out_last;
    size_t queued;
    bool drain_due;
    bool last; /* no message follows `out` */
    bool paused;
    bool released; /* the handle is given up: no callbacks any more */
    bool ended;    /* on_end is called or due */
    bool in_callback;
    pthread_t callback_thread;
};

LIST_HEAD(rpc_client_call_list, rpc_client_call);

struct rpc_client {
    struct rpc_client_config config;
    struct rpc_mailbox *mailbox;
    struct rpc_mail mail;  /* posted when one of want_* was set */
    struct rpc_conn *conn; /* loop */
    bool destroyed;        /* loop: on its way out */

    pthread_mutex_t lock; /* all below; taken before a call's lock */
    struct rpc_client_call_list calls;
    bool closed; /* takes no more calls: close_err says why */
    struct err close_err;
    bool want_close;
    struct rpc_client_waiter *want_free;
};

/* Puts a call into the client's list, which has a reference then, and posts it; *ret_call is
 * written first. Any thread. */
int rpc_client_call_add(struct rpc_client *client, struct rpc_client_call *call,
                        struct rpc_client_call **ret_call, struct err *err);
/* What a call's mail does. Loop. */
void rpc_client_on_call_mail(struct rpc_mail *mail);

/* One reference less, and with the last the call is gone; any thread. NULL is fine. */
void rpc_client_call_unref(struct rpc_client_call *call);

/* What the caller has said since the last time. */
struct rpc_client_news {
    struct rpc_chunk *chunks; /* the taker's */
    bool last;
    bool released;
};
/* Takes it. Loop. */
struct rpc_client_news rpc_client_call_take(struct rpc_client_call *call);

/* One reply (its data is taken); -1: cannot be decoded, and the call is to be ended with err. Loop.
 */
int rpc_client_call_message(struct rpc_client_call *call, struct rpc_bytes *message,
                            struct err *err);
/* Whether the caller has paused it. Loop. */
bool rpc_client_call_holds(struct rpc_client_call *call);
/* n queued bytes have left. Loop. */
void rpc_client_call_sent(struct rpc_client_call *call, size_t n);
/* Tells the caller of the end (err NULL: OK), once. The loop's reference stays. Loop. */
void rpc_client_call_end(struct rpc_client_call *call, const struct err *err);
