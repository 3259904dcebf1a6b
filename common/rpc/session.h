/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One HTTP/2 connection carrying gRPC calls, over byte buffers: no descriptor, no clock but what
 * the caller passes. Only this module and stream.c know nghttp2. A stream belongs to its session;
 * its user is told of everything by the session's ops until it detaches. One thread at a time.
 * Callbacks come from rpc_session_feed, rpc_session_pull, rpc_session_expire and rpc_stream_resume;
 * inside them everything may be called but these four and rpc_session_free.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/rpc/frame.h"
#include "common/rpc/rpc.h"

#define RPC_MAX_PATH 512 /* bytes of :path, NUL included */
#define RPC_MAX_METADATA                                                                           \
    (16u << 10) /* bytes of one header block, 32 added per field as HTTP/2 counts */
#define RPC_MAX_STATUS_TEXT 1024 /* bytes of a decoded grpc-message, NUL included */

struct rpc_session;
struct rpc_stream;

/* What the peer's headers say. A server's streams have the first half, a client's the second. */
struct rpc_head {
    char *path; /* ":path", NULL if there is none or it is too long */
    bool post;
    bool grpc_content;
    bool encoded; /* grpc-encoding other than identity */
    bool bad_timeout;
    int64_t timeout_ms; /* -1: none */
    bool too_large;     /* the header block is over RPC_MAX_METADATA */

    uint32_t http_status; /* 0: none yet */
    bool has_status;
    uint32_t grpc_status;
    char *message; /* grpc-message, decoded; may be NULL */
};

/* arg is the session's, user the stream's. No function is called for a stream that has no user but
 * on_request. */
struct rpc_session_ops {
    /* Server: a request's headers are complete. Sets a user, or answers the stream without one. */
    void (*on_request)(void *arg, struct rpc_stream *stream);
    /* Whether messages are to be kept back (the peer is then held back by its window) until
     * rpc_stream_resume. */
    bool (*hold)(void *user);
    /* One message; its data is the callee's. */
    void (*on_message)(void *user, struct rpc_bytes *message);
    /* The peer's last message has been delivered and it sends no more (client: with its status, see
     * rpc_stream_head). */
    void (*on_end)(void *user);
    /* What the peer sent cannot be decoded, or is over a limit; nothing of it is delivered any
     * more. */
    void (*on_bad)(void *user, const struct err *err);
    /* The stream ended before both sides were done; code is HTTP/2's (RFC 9113 7). The last call
     * for a user. */
    void (*on_reset)(void *user, uint32_t code);
    /* n bytes of the stream's queue have gone out. */
    void (*on_sent)(void *user, size_t n);
    /* The stream's deadline is past. */
    void (*on_expired)(void *user);
    /* The peer will take no more streams; may be NULL. */
    void (*on_goaway)(void *arg);
    /* An answer to rpc_session_ping. */
    void (*on_pong)(void *arg, uint64_t token);
};

struct rpc_session_config {
    bool server;
    struct rpc_limits limits; /* complete: see rpc_limits_complete */
    const char *authority;    /* client; copied */
    const struct rpc_session_ops *ops;
    void *arg;
};

/* Fills defaults in. */
struct rpc_limits rpc_limits_complete(struct rpc_limits limits);

/*
 * A session that has SETTINGS to be pulled, and a client's its preface. config is copied; what ops
 * and arg point to must outlive the session. EXHAUSTED.
 */
int rpc_session_new(const struct rpc_session_config *config, struct rpc_session **ret_session,
                    struct err *err);
/* Frees its streams too, without callbacks. NULL is fine. */
void rpc_session_free(struct rpc_session *session);

/* Bytes from the peer. Failure means that the connection is beyond use (pull what is left, then
 * close). */
int rpc_session_feed(struct rpc_session *session, const uint8_t *bytes, size_t n, int64_t now_ms,
                     struct err *err);
/* The next bytes for the peer, valid until the next call of any function here; *ret_n 0: nothing
 * now. */
int rpc_session_pull(struct rpc_session *session, const uint8_t **ret_bytes, size_t *ret_n,
                     struct err *err);
/* Whether neither side has anything to say any more: close the connection. */
bool rpc_session_done(struct rpc_session *session);

/* Streams that are open. */
size_t rpc_session_streams(const struct rpc_session *session);
/* The earliest deadline of an open stream, CLOCK_NO_DEADLINE if there is none. */
int64_t rpc_session_next_deadline(const struct rpc_session *session);
/* Calls on_expired for each stream whose deadline is not after now_ms; resets the ones that have no
 * user. */
void rpc_session_expire(struct rpc_session *session, int64_t now_ms);

/* Sends a PING that is answered with on_pong(token). */
void rpc_session_ping(struct rpc_session *session, uint64_t token);
/* Graceful end, step one: asks the peer to open no more streams. */
void rpc_session_shutdown_notice(struct rpc_session *session);
/* Step two: streams that the peer opens from now on are refused. */
void rpc_session_goaway(struct rpc_session *session);

/* Client: opens a stream; its timeout is what is left until the deadline. */
int rpc_session_request(struct rpc_session *session, const char *path, int64_t deadline_ms,
                        int64_t now_ms, void *user, struct rpc_stream **ret_stream,
                        struct err *err);

/* What a reset stream means to a client (gRPC "PROTOCOL-HTTP2", Errors). Returns -1. */
int rpc_reset_err(uint32_t code, struct err *err);

/* The peer's headers so far. */
const struct rpc_head *rpc_stream_head(const struct rpc_stream *stream);
/* Who is told of what happens; NULL (detach): nobody, and the stream is freed once it is closed. */
void rpc_stream_set_user(struct rpc_stream *stream, void *user);
/*
 * When rpc_session_expire finds it (monotonic ms; CLOCK_NO_DEADLINE: never). The peer is not told.
 */
void rpc_stream_set_deadline(struct rpc_stream *stream, int64_t deadline_ms);

/* Queues encoded messages (taken). */
void rpc_stream_send(struct rpc_stream *stream, struct rpc_chunk *chunks);
/* Client: no more messages follow. */
void rpc_stream_end(struct rpc_stream *stream);
/* Server: ends the reply after what is queued. text may be NULL. */
void rpc_stream_finish(struct rpc_stream *stream, enum rpc_status status, const char *text);
/* Drops what is queued, but for the rest of a message that has begun to be sent. */
void rpc_stream_drop_unsent(struct rpc_stream *stream);
/* Server: ends the reply now; what is queued and not sent is dropped. */
void rpc_stream_abort(struct rpc_stream *stream, enum rpc_status status, const char *text);
/* Server: answers what is no gRPC request with a bare HTTP status. */
void rpc_stream_refuse(struct rpc_stream *stream, const char *http_status);
/* Gives the stream up (RST_STREAM CANCEL). */
void rpc_stream_cancel(struct rpc_stream *stream);
/* hold() may have changed: delivers what was kept back. */
void rpc_stream_resume(struct rpc_stream *stream);
