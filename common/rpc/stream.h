/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What session.c and stream.c share, and nobody else includes: the structs behind session.h.
 * session.c speaks for the connection and receives nghttp2's callbacks; stream.c holds one call's
 * queue, decoder and end.
 */
#pragma once

#include <sys/queue.h>
#include <nghttp2/nghttp2.h>

#include "common/base/buf.h"
#include "common/rpc/session.h"

struct rpc_stream {
    struct rpc_session *session;
    TAILQ_ENTRY(rpc_stream) link;
    int32_t id;
    void *user;
    struct rpc_head head;
    size_t header_bytes;    /* of the block being received */
    unsigned header_blocks; /* that have begun */
    int64_t deadline_ms;
    unsigned busy;  /* callbacks in progress: not freed meanwhile */
    bool closed;    /* nghttp2 has forgotten it */
    bool cancelled; /* RST_STREAM submitted */

    struct rpc_frame frame;
    struct buf held;   /* received and kept back; at most the stream's window */
    bool bad;          /* what comes is dropped */
    bool remote_ended; /* END_STREAM received */
    bool end_told;

    struct rpc_chunk *queue;
    struct rpc_chunk **queue_last;
    bool responded; /* server: reply headers are submitted */
    bool local_end; /* nothing follows the queue but the end */
    bool deferred;  /* nghttp2 waits for more to send */
    bool eof_sent;  /* nghttp2 has taken all and the end */
    enum rpc_status status;
    char *text;
};

TAILQ_HEAD(rpc_stream_list, rpc_stream);

struct rpc_session {
    nghttp2_session *ng;
    bool server;
    struct rpc_limits limits;
    char *authority;
    const struct rpc_session_ops *ops;
    void *arg;
    struct rpc_stream_list streams;
    size_t n_open;
    struct rpc_budget budget; /* of incomplete messages */
    int fatal;                /* nghttp2's error that ended the session, 0: none */
    const char *broken;       /* how the peer went too far, NULL: it did not */
    int64_t now_ms;           /* as of the last feed */
    int64_t tokens;           /* see session.c, abuse */
    int64_t tokens_at_ms;
};

/* A stream in the session's list; user as given. NULL when out of memory. */
struct rpc_stream *rpc_stream_new(struct rpc_session *session, int32_t id, void *user);
/* Takes it out of the list and frees it. */
void rpc_stream_free(struct rpc_stream *s);
/* Frees it if nghttp2 and its user are done with it. */
void rpc_stream_release(struct rpc_stream *s);

/* Bytes of the body, END_STREAM, and nghttp2's end of the stream. */
void rpc_stream_input(struct rpc_stream *s, const uint8_t *bytes, size_t n);
/*
 * The peer has said all: tells the user, once what is held back was taken. s may be gone after it.
 */
void rpc_stream_remote_end(struct rpc_stream *s);
/*
 * nghttp2 knows it no more; code: HTTP/2's. What was queued is dropped, and the user is told of a
 * reset unless the peer had ended in order. s may be gone after it.
 */
void rpc_stream_closed(struct rpc_stream *s, uint32_t code);

/* nghttp2's source of a stream's DATA. */
nghttp2_data_provider rpc_stream_provider(struct rpc_stream *s);

/* Notes the result of an nghttp2 call: an error that the session does not survive stays in
 * session->fatal. */
void rpc_session_note(struct rpc_session *session, int rv);

/* A header field of constant text. */
nghttp2_nv rpc_nv(const char *name, const char *value);
