/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The calling end of gRPC: one HTTP/2 connection over one stream descriptor. When the connection
 * ends every pending call fails exactly once with UNAVAILABLE. Threads: any thread may call and
 * cancel; callbacks come on the loop's thread.
 */
#pragma once

#include "common/rpc/rpc.h"

struct loop;
struct rpc_client;
struct rpc_client_call;

struct rpc_client_config {
    struct loop *loop;
    struct rpc_limits limits;
    const char *authority; /* the :authority header; default "localhost" */
    /* Once, on the loop, when the connection has ended (err says why); may be NULL. The client must
     * still be freed. */
    void (*on_closed)(void *arg, const struct err *err);
    void *on_closed_arg;
};

/* A client over a connected stream (taken, also on failure). Any thread. */
int rpc_client_new(const struct rpc_client_config *config, int fd, struct rpc_client **ret_client,
                   struct err *err);

/*
 * Closes the connection and fails what is pending with UNAVAILABLE before it returns; on_closed is
 * not called any more. Any thread, but not from a callback of this client but on_closed; on another
 * thread than the loop's, the loop must be running. Kept handles stay valid. NULL is fine.
 */
void rpc_client_free(struct rpc_client *client);

/* Closes the connection now, as if the peer had: pending calls fail, on_closed is called. Any
 * thread. */
void rpc_client_close(struct rpc_client *client);

/* What to call. */
struct rpc_target {
    const ProtobufCServiceDescriptor *descriptor;
    const char *service; /* name on the wire; NULL: the descriptor's */
    const char *method;
};

/* A reply and the arena that it lives in. */
struct rpc_reply {
    const ProtobufCMessage *message; /* of the method's output type */
    void *arena;
};

/* Releases a reply; a zeroed one is fine. */
void rpc_reply_fini(struct rpc_reply *reply);

/*
 * One unary call, blocking. On a thread that is not the loop's it waits; on the loop's own thread
 * (a program without a loop thread, such as a command) it runs the loop meanwhile. DEADLINE after
 * deadline_ms (sent to the peer as grpc-timeout); the peer's error status otherwise, its message as
 * the error's. Not from a callback or handler on the loop.
 */
int rpc_client_call(struct rpc_client *client, const struct rpc_target *target,
                    const ProtobufCMessage *request, int64_t deadline_ms,
                    struct rpc_reply *ret_reply, struct err *err);

struct rpc_call_handlers {
    /* One reply message; it lives until this returns. */
    void (*on_message)(void *arg, const ProtobufCMessage *message);
    /* The end, exactly once, NULL for status OK; the handle is invalid afterwards. Not after
     * rpc_client_cancel. */
    void (*on_end)(void *arg, const struct err *err);
    /* May be NULL: what rpc_client_send queued has fallen below drain_low_bytes after having been
     * above. */
    void (*on_drain)(void *arg);
    size_t drain_low_bytes;
    void *arg;
    /*
     * The handle stays valid after on_end until rpc_client_cancel, which is then needed exactly
     * once. For callers that use the handle on another thread than the loop's, where on_end may
     * come at any time, even before rpc_client_start returns.
     */
    bool keep;
};

/*
 * Starts a call whose replies come by callbacks. request may be NULL: then requests follow by
 * rpc_client_send. The handle is valid until on_end has been called or rpc_client_cancel.
 */
int rpc_client_start(struct rpc_client *client, const struct rpc_target *target,
                     const ProtobufCMessage *request, int64_t deadline_ms,
                     const struct rpc_call_handlers *handlers, struct rpc_client_call **ret_call,
                     struct err *err);

/*
 * One more request message of a client-streaming call; last ends the stream. message may be NULL
 * with last. CANCELLED when the call has ended; EXHAUSTED when it is too large, or when two largest
 * messages' worth is queued already: heed rpc_client_queued.
 */
int rpc_client_send(struct rpc_client_call *call, const ProtobufCMessage *message, bool last,
                    struct err *err);

/* Encoded bytes that rpc_client_send queued and the connection has not taken yet. */
size_t rpc_client_queued(const struct rpc_client_call *call);

/* Stops taking replies (the peer is held back by flow control) or goes on. */
void rpc_client_pause(struct rpc_client_call *call, bool paused);

/*
 * Gives a call up (RST_STREAM CANCEL). No callback begins after this returns when called on the
 * loop's thread; from another thread it waits until a running callback has ended.
 */
void rpc_client_cancel(struct rpc_client_call *call);
