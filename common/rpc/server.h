/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The serving end of gRPC. A server belongs to one loop; connections are added to it by descriptor.
 * A handler gets a call, owns it until it ends it with exactly one of rpc_call_reply,
 * rpc_call_finish, rpc_call_cut or rpc_call_fail, and may end it later and from any thread. A call
 * whose client went away stays valid until then: what is sent on it goes nowhere. A handler that
 * runs on the loop must neither block nor run the loop. Threads: rpc_call_* may be called from any
 * thread, rpc_server_* on the loop's thread.
 */
#pragma once

#include "common/rpc/rpc.h"

struct loop;
struct rpc_server;
struct rpc_call;

/* Handles one call; request by rpc_call_request (unary and server-streaming), or
 * rpc_call_on_message. */
typedef void (*rpc_handler)(struct rpc_call *call, void *arg);

struct rpc_method {
    const char *name; /* as in the .proto, such as "RunPodSandbox" */
    rpc_handler handler;
    bool client_streaming; /* handler is called at once, requests come by rpc_call_on_message */
    bool on_loop; /* handler does not block: run it on the loop's thread even if there is an
                     executor */
};

struct rpc_service {
    const char *name; /* full name on the wire, such as "runtime.v1.RuntimeService" */
    const ProtobufCServiceDescriptor
        *descriptor; /* shapes of requests and replies, by method name */
    const struct rpc_method
        *methods; /* methods of the descriptor that are not here answer UNIMPLEMENTED by name */
    size_t n_methods;
    void *arg; /* given to its handlers */
};

struct rpc_server_config {
    struct loop *loop;
    const struct rpc_service *services; /* kept by reference: must outlive the server */
    size_t n_services;
    struct rpc_limits limits;
    size_t max_connections; /* more are accepted and closed at once; default 256 */
    /* Runs fn(arg) on a thread that may block; NULL: handlers run on the loop's thread and must not
     * block. Failure (its err) is answered with the status of its code. */
    int (*execute)(void *executor, void (*fn)(void *arg), void *arg, struct err *err);
    void *executor;
    /* Called on the loop's thread when a call has ended, for logs and metrics; may be NULL. */
    void (*on_done)(void *arg, const char *method, enum rpc_status status, int64_t duration_ns);
    void *on_done_arg;
};

/* A server without connections. */
int rpc_server_new(const struct rpc_server_config *config, struct rpc_server **ret_server,
                   struct err *err);

/* Accepts on a listening socket (taken) until shutdown. */
int rpc_server_listen(struct rpc_server *server, int listen_fd, struct err *err);

/* Serves a connected stream (taken, also on failure). on_closed (may be NULL) is called once when
 * it is gone. */
int rpc_server_add_connection(struct rpc_server *server, int fd, void (*on_closed)(void *arg),
                              void *arg, struct err *err);

/* The same for a stream of which somebody has read the first n bytes already (copied); at most 64
 * KiB. */
int rpc_server_add_connection_after(struct rpc_server *server, int fd, const void *first, size_t n,
                                    void (*on_closed)(void *arg), void *arg, struct err *err);

/*
 * Graceful end: stops listening, sends GOAWAY in two steps, lets calls in flight end, then closes
 * connections and calls on_drained (on the loop); at the deadline what is left is cancelled and
 * closed.
 */
void rpc_server_shutdown(struct rpc_server *server, int64_t deadline_ms,
                         void (*on_drained)(void *arg), void *arg);

/*
 * Closes everything at once. Calls still owned by handlers are cancelled, stay valid and are ended
 * into nothing; the services must outlive them too. Not from a handler or a callback of this server
 * but on_drained. NULL is fine.
 */
void rpc_server_free(struct rpc_server *server);

/* The decoded request of a unary or server-streaming call; lives until the call is ended. */
const ProtobufCMessage *rpc_call_request(const struct rpc_call *call);

/* The method's name and its service's name on the wire. */
const char *rpc_call_method(const struct rpc_call *call);
/* With its package: "runtime.v1.RuntimeService". Lives as long as the services of the server. */
const char *rpc_call_service(const struct rpc_call *call);

/* Zeroed memory that lives until the call is ended, or NULL. For building replies. */
void *rpc_call_alloc(struct rpc_call *call, size_t size);
/* A copy of text in that memory, or NULL. */
char *rpc_call_strdup(struct rpc_call *call, const char *text);

/* The client's deadline, CLOCK_NO_DEADLINE if it gave none. */
int64_t rpc_call_deadline(const struct rpc_call *call);

/* Whether nobody waits for the answer any more: cancelled, past its deadline, or connection lost.
 */
bool rpc_call_cancelled(const struct rpc_call *call);

/*
 * fn(arg) once, on the loop, when the call is cancelled; soon if it is already (by the caller, when
 * the server was freed). NULL takes it back; so does ending the call. Both wait, on another thread,
 * until a callback of this call that runs has returned: hold no lock that it takes. The same goes
 * for rpc_call_on_message and rpc_call_on_drain.
 */
void rpc_call_on_cancel(struct rpc_call *call, void (*fn)(void *arg), void *arg);

/* Client-streaming: fn per request message, and with message NULL at the client's end of stream. On
 * the loop. */
void rpc_call_on_message(struct rpc_call *call,
                         void (*fn)(void *arg, struct rpc_call *call, const ProtobufCMessage *msg),
                         void *arg);

/*
 * Queues one message of a server-streaming reply; it is encoded before this returns. CANCELLED when
 * nobody listens; EXHAUSTED when it is too large, or when two largest messages' worth is queued
 * already: heed rpc_call_queued.
 */
int rpc_call_send(struct rpc_call *call, const ProtobufCMessage *message, struct err *err);

/* Encoded bytes queued by rpc_call_send and not yet taken by the connection: the sender's
 * back-pressure. */
size_t rpc_call_queued(const struct rpc_call *call);

/* fn(arg), on the loop, each time the queue falls below low_bytes after having been above. */
void rpc_call_on_drain(struct rpc_call *call, size_t low_bytes, void (*fn)(void *arg), void *arg);

/* Ends a call with one message and OK. The call is gone afterwards. */
void rpc_call_reply(struct rpc_call *call, const ProtobufCMessage *message);
/* Ends a call with a status and a message for people (copied, percent-encoded on the wire). */
void rpc_call_finish(struct rpc_call *call, enum rpc_status status, const char *message);
/*
 * The same ahead of what rpc_call_send queued: messages of which no byte has been sent are dropped.
 * For a client that does not keep up with a stream.
 */
void rpc_call_cut(struct rpc_call *call, enum rpc_status status, const char *message);
/* Ends a call with rpc_status_from_err(err->code) and its message. */
void rpc_call_fail(struct rpc_call *call, const struct err *err);
