/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One call on the wire.
 *
 * Receiving: body bytes go through the frame decoder and each message to the user, and only then
 * are they reported to nghttp2 as consumed, which reopens the peer's window. While the user holds,
 * bytes are kept in `held` unconsumed, so that the peer can send one window more and no further.
 * The connection's own window is reopened at once: one held stream must not stop the others.
 *
 * Sending: encoded messages wait in `queue`; nghttp2 fetches from it as the peer's windows and the
 * socket allow. When the queue is empty the stream is deferred until more is queued. At the end of
 * a reply the trailers are submitted from inside the fetch, so that they follow the last byte.
 *
 * A stream is freed when nghttp2 has closed it and its user has detached, in either order.
 */
#include "common/rpc/stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/rpc/mem.h"
#include "common/rpc/meta.h"

#define MIN_WINDOW 65535u /* what a peer may send before it has seen our SETTINGS */

struct rpc_stream *rpc_stream_new(struct rpc_session *session, int32_t id, void *user)
{
    struct rpc_stream *s = rpc_calloc(1, sizeof(*s));
    if (s == NULL)
        return NULL;
    s->session = session;
    s->id = id;
    s->user = user;
    s->head.timeout_ms = -1;
    s->deadline_ms = CLOCK_NO_DEADLINE;
    s->queue_last = &s->queue;
    uint32_t window = session->limits.stream_window_bytes;
    buf_init(&s->held, window < MIN_WINDOW ? MIN_WINDOW : window);
    rpc_frame_init(&s->frame, session->limits.max_message_bytes, &session->budget);
    TAILQ_INSERT_TAIL(&session->streams, s, link);
    session->n_open++;
    return s;
}

static void drop_queue(struct rpc_stream *s)
{
    rpc_chunk_free(s->queue);
    s->queue = NULL;
    s->queue_last = &s->queue;
}

void rpc_stream_free(struct rpc_stream *s)
{
    TAILQ_REMOVE(&s->session->streams, s, link);
    if (!s->closed)
        s->session->n_open--;
    drop_queue(s);
    rpc_frame_fini(&s->frame);
    buf_fini(&s->held);
    free(s->head.path);
    free(s->head.message);
    free(s->text);
    free(s);
}

void rpc_stream_release(struct rpc_stream *s)
{
    if (s->closed && s->user == NULL && s->busy == 0)
        rpc_stream_free(s);
}

/* ---- receiving ---- */

static void consumed(struct rpc_stream *s, size_t n)
{
    if (n > 0 && !s->closed)
        rpc_session_note(s->session, nghttp2_session_consume_stream(s->session->ng, s->id, n));
}

static void stream_bad(struct rpc_stream *s, const struct err *err)
{
    s->bad = true;
    rpc_frame_fini(&s->frame);
    if (s->user != NULL)
        s->session->ops->on_bad(s->user, err);
}

/* Feeds the decoder until the bytes are used up or the user holds; returns how many were used. */
static size_t deliver(struct rpc_stream *s, const uint8_t *bytes, size_t n)
{
    const struct rpc_session_ops *ops = s->session->ops;
    size_t used = 0;
    while (used < n) {
        if (s->user == NULL || s->bad)
            return n;
        if (ops->hold(s->user))
            return used;
        struct rpc_bytes message;
        struct err err;
        size_t step = 0;
        int r = rpc_frame_feed(&s->frame, bytes + used, n - used, &step, &message, &err);
        if (r < 0) {
            stream_bad(s, &err);
            return n;
        }
        used += step;
        if (r > 0)
            ops->on_message(s->user, &message);
    }
    return used;
}

static void tell_end(struct rpc_stream *s)
{
    if (!s->remote_ended || s->end_told || s->held.len > 0 || s->user == NULL || s->bad)
        return;
    s->end_told = true;
    if (rpc_frame_partial(&s->frame)) {
        struct err err;
        (void)err_set(&err, ERR_PROTOCOL, "the stream ended inside a message");
        stream_bad(s, &err);
        return;
    }
    s->session->ops->on_end(s->user);
}

void rpc_stream_input(struct rpc_stream *s, const uint8_t *bytes, size_t n)
{
    s->busy++;
    size_t used = s->held.len > 0 ? 0 : deliver(s, bytes, n);
    consumed(s, used);
    struct err err;
    if (used < n && buf_append(&s->held, bytes + used, n - used, &err) < 0)
        stream_bad(s, &err);
    s->busy--;
    rpc_stream_release(s);
}

void rpc_stream_resume(struct rpc_stream *s)
{
    s->busy++;
    if (s->held.len > 0) {
        /* Taken out while callbacks run: they may detach, and new bytes do not come before we
         * return. */
        struct buf held = s->held;
        buf_init(&s->held, held.max);
        size_t used = deliver(s, buf_bytes(&held), held.len);
        buf_consume(&held, used);
        s->held = held;
        consumed(s, used);
    }
    tell_end(s);
    s->busy--;
    rpc_stream_release(s);
}

void rpc_stream_remote_end(struct rpc_stream *s)
{
    s->busy++;
    s->remote_ended = true;
    tell_end(s);
    s->busy--;
    rpc_stream_release(s);
}

void rpc_stream_closed(struct rpc_stream *s, uint32_t code)
{
    s->closed = true;
    s->session->n_open--;
    drop_queue(s);
    s->busy++;
    /* A client whose peer has said all there is to say still gets what is held back, and then its
     * end. */
    bool complete = !s->session->server && s->remote_ended && !s->bad;
    if (s->user != NULL && !complete) {
        void *user = s->user;
        s->user = NULL;
        s->session->ops->on_reset(user, code);
    }
    s->busy--;
    rpc_stream_release(s);
}

/* ---- sending ---- */

static void submit_trailers(struct rpc_stream *s)
{
    char text[RPC_MAX_STATUS_TEXT * 3];
    nghttp2_nv nv[2] = {rpc_nv("grpc-status", rpc_status_digits(s->status))};
    size_t n = 1;
    if (s->text != NULL && s->text[0] != '\0') {
        rpc_percent_encode(s->text, text, sizeof(text));
        nv[n++] = rpc_nv("grpc-message", text);
    }
    rpc_session_note(s->session, nghttp2_submit_trailer(s->session->ng, s->id, nv, n));
}

static ssize_t read_queue(nghttp2_session *ng, int32_t id, uint8_t *to, size_t room,
                          uint32_t *flags, nghttp2_data_source *source, void *arg)
{
    struct rpc_stream *s = source->ptr;
    size_t n = 0;
    (void)ng;
    (void)id;
    (void)arg;
    while (s->queue != NULL && n < room) {
        struct rpc_chunk *c = s->queue;
        size_t step = c->len - c->sent < room - n ? c->len - c->sent : room - n;
        memcpy(to + n, c->bytes + c->sent, step);
        c->sent += step;
        n += step;
        if (c->sent < c->len)
            break;
        s->queue = c->next;
        if (s->queue == NULL)
            s->queue_last = &s->queue;
        free(c);
    }
    s->busy++;
    if (n > 0 && s->user != NULL)
        s->session->ops->on_sent(s->user, n);
    s->busy--;
    if (s->queue != NULL)
        return (ssize_t)n;
    if (s->local_end) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        s->eof_sent = true;
        if (s->session->server) {
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            submit_trailers(s);
        }
        return (ssize_t)n;
    }
    if (n == 0) {
        s->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    return (ssize_t)n;
}

nghttp2_data_provider rpc_stream_provider(struct rpc_stream *s)
{
    return (nghttp2_data_provider){.source.ptr = s, .read_callback = read_queue};
}

static void wake(struct rpc_stream *s)
{
    if (!s->deferred || s->closed)
        return;
    s->deferred = false;
    rpc_session_note(s->session, nghttp2_session_resume_data(s->session->ng, s->id));
}

static void respond(struct rpc_stream *s)
{
    nghttp2_nv nv[] = {rpc_nv(":status", "200"), rpc_nv("content-type", "application/grpc")};
    nghttp2_data_provider provider = rpc_stream_provider(s);
    s->responded = true;
    rpc_session_note(s->session, nghttp2_submit_response(s->session->ng, s->id, nv,
                                                         sizeof(nv) / sizeof(nv[0]), &provider));
}

void rpc_stream_send(struct rpc_stream *s, struct rpc_chunk *chunks)
{
    if (s->closed || s->cancelled || s->local_end) {
        rpc_chunk_free(chunks);
        return;
    }
    if (chunks == NULL)
        return;
    *s->queue_last = chunks;
    while (*s->queue_last != NULL)
        s->queue_last = &(*s->queue_last)->next;
    if (s->session->server && !s->responded)
        respond(s);
    else
        wake(s);
}

void rpc_stream_end(struct rpc_stream *s)
{
    s->local_end = true;
    wake(s);
}

/* A reply of nothing but headers, which carry the status. */
static void respond_trailers_only(struct rpc_stream *s)
{
    char text[RPC_MAX_STATUS_TEXT * 3];
    nghttp2_nv nv[5] = {rpc_nv(":status", "200"), rpc_nv("content-type", "application/grpc"),
                        rpc_nv("grpc-status", rpc_status_digits(s->status))};
    size_t n = 3;
    if (s->text != NULL && s->text[0] != '\0') {
        rpc_percent_encode(s->text, text, sizeof(text));
        nv[n++] = rpc_nv("grpc-message", text);
    }
    if (s->status == RPC_UNIMPLEMENTED)
        nv[n++] = rpc_nv("grpc-accept-encoding", "identity");
    s->responded = true;
    rpc_session_note(s->session, nghttp2_submit_response(s->session->ng, s->id, nv, n, NULL));
}

void rpc_stream_finish(struct rpc_stream *s, enum rpc_status status, const char *text)
{
    if (s->closed || s->cancelled || s->local_end)
        return;
    s->local_end = true;
    s->status = status;
    if (text != NULL)
        s->text = rpc_strndup(text, strnlen(text, RPC_MAX_STATUS_TEXT - 1));
    if (s->responded)
        wake(s);
    else
        respond_trailers_only(s);
}

void rpc_stream_drop_unsent(struct rpc_stream *s)
{
    struct rpc_chunk **from = &s->queue;
    if (*from != NULL && (*from)->sent > 0)
        from = &(*from)->next;
    rpc_chunk_free(*from);
    *from = NULL;
    s->queue_last = from;
}

void rpc_stream_abort(struct rpc_stream *s, enum rpc_status status, const char *text)
{
    if (s->queue != NULL && s->responded)
        rpc_stream_cancel(s);
    else
        rpc_stream_finish(s, status, text);
}

void rpc_stream_refuse(struct rpc_stream *s, const char *http_status)
{
    nghttp2_nv nv[] = {rpc_nv(":status", http_status)};
    s->responded = true;
    s->local_end = true;
    rpc_session_note(s->session, nghttp2_submit_response(s->session->ng, s->id, nv, 1, NULL));
}

void rpc_stream_cancel(struct rpc_stream *s)
{
    if (s->closed || s->cancelled || (s->remote_ended && s->eof_sent))
        return;
    s->cancelled = true;
    drop_queue(s);
    rpc_session_note(s->session, nghttp2_submit_rst_stream(s->session->ng, NGHTTP2_FLAG_NONE, s->id,
                                                           NGHTTP2_CANCEL));
}

/* ---- its user ---- */

const struct rpc_head *rpc_stream_head(const struct rpc_stream *s)
{
    return &s->head;
}

void rpc_stream_set_user(struct rpc_stream *s, void *user)
{
    s->user = user;
    if (user == NULL) {
        rpc_frame_fini(&s->frame);
        rpc_stream_release(s);
    }
}

void rpc_stream_set_deadline(struct rpc_stream *s, int64_t deadline_ms)
{
    s->deadline_ms = deadline_ms;
}
