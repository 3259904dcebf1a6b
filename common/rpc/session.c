/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nghttp2 behind plain buffers. Its callbacks are turned into those of rpc_session_ops, and its
 * errors into two kinds: the ones that concern a stream end that stream, the others (out of memory,
 * a broken peer) are noted in `fatal` and end the session at the next feed or pull.
 *
 * Abuse. Windows, header sizes, stream counts, CONTINUATION floods, unacknowledged SETTINGS and
 * PING floods are limited by nghttp2. What it does not count is work that a peer makes us begin and
 * throw away: streams reset right after they were opened (by the peer, or by us because the peer
 * broke a rule on purpose) and empty DATA frames. Each costs one token; there are ABUSE_BURST of
 * them, and ABUSE_PER_SECOND come back. Without a token the connection is closed.
 *
 * Headers. A field that is in HPACK's table takes one byte to repeat, and nghttp2 looks at all of
 * its bytes each time; it advertises our limit of a header list, but does not keep it. We therefore
 * count what comes out: a block that is over RPC_MAX_METADATA is an error of its call, one that is
 * over MAX_HEADER_BYTES ends the connection while it comes in. gRPC has one block before the
 * messages and one after them, but HTTP lets a server send any number of 1xx blocks before; a few
 * are allowed, more end the connection.
 */
#include "common/rpc/stream.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/rpc/mem.h"
#include "common/rpc/meta.h"

#define ABUSE_BURST       1000
#define ABUSE_PER_SECOND  100
#define MAX_CONTINUATION  8
#define MAX_HEADER_BYTES  (4 * RPC_MAX_METADATA)
#define MAX_HEADER_BLOCKS 4  /* per stream */
#define FIELD_OVERHEAD    32 /* RFC 9113 6.5.2: of a field in a header list */
#define BUDGET_MESSAGES   4u /* incomplete messages of full size per connection */

nghttp2_nv rpc_nv(const char *name, const char *value)
{
    return (nghttp2_nv){
        .name = (uint8_t *)(uintptr_t)name, /* nghttp2 copies and does not write */
        .value = (uint8_t *)(uintptr_t)value,
        .namelen = strlen(name),
        .valuelen = strlen(value),
    };
}

struct rpc_limits rpc_limits_complete(struct rpc_limits l)
{
    if (l.max_message_bytes == 0)
        l.max_message_bytes = RPC_DEFAULT_MAX_MESSAGE;
    if (l.max_arena_bytes == 0)
        l.max_arena_bytes = (size_t)RPC_ARENA_FACTOR * l.max_message_bytes;
    if (l.max_streams == 0)
        l.max_streams = 256;
    if (l.stream_window_bytes == 0)
        l.stream_window_bytes = 1u << 20;
    if (l.stream_window_bytes > (64u << 20))
        l.stream_window_bytes = 64u << 20;
    if (l.keepalive_timeout_ms <= 0)
        l.keepalive_timeout_ms = 20000;
    return l;
}

void rpc_session_note(struct rpc_session *session, int rv)
{
    if (rv < 0 && nghttp2_is_fatal(rv) && session->fatal == 0)
        session->fatal = rv;
}

/* Says that the peer goes too far, and why; for callbacks to return. */
static int end_session(struct rpc_session *session, const char *why)
{
    if (session->broken == NULL)
        rpc_session_note(session,
                         nghttp2_session_terminate_session(session->ng, NGHTTP2_ENHANCE_YOUR_CALM));
    session->broken = why;
    return NGHTTP2_ERR_CALLBACK_FAILURE;
}

static void abuse(struct rpc_session *session)
{
    int64_t back = (session->now_ms - session->tokens_at_ms) * ABUSE_PER_SECOND / 1000;
    if (back > 0) {
        session->tokens += back;
        session->tokens_at_ms = session->now_ms;
        if (session->tokens > ABUSE_BURST)
            session->tokens = ABUSE_BURST;
    }
    if (session->tokens > 0) {
        session->tokens--;
        return;
    }
    (void)end_session(session, "the peer wastes streams or frames");
}

static struct rpc_stream *find(nghttp2_session *ng, int32_t id)
{
    return nghttp2_session_get_stream_user_data(ng, id);
}

/* ---- headers ---- */

static int on_begin_headers(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
    struct rpc_session *session = arg;
    struct rpc_stream *s = find(ng, frame->hd.stream_id);
    if (s == NULL && session->server && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
        s = rpc_stream_new(session, frame->hd.stream_id, NULL);
        if (s == NULL)
            return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        if (nghttp2_session_set_stream_user_data(ng, s->id, s) < 0) {
            rpc_stream_free(s);
            return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        }
    }
    if (s == NULL)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* nobody would count what comes */
    s->header_bytes = 0;
    if (++s->header_blocks > MAX_HEADER_BLOCKS)
        return end_session(session, "too many header blocks in one call");
    return 0;
}

struct field {
    const uint8_t *name, *value;
    size_t name_len, value_len;
};

static bool named(const struct field *f, const char *name)
{
    return f->name_len == strlen(name) && memcmp(f->name, name, f->name_len) == 0;
}

static bool valued(const struct field *f, const char *value)
{
    return f->value_len == strlen(value) && memcmp(f->value, value, f->value_len) == 0;
}

static void request_field(struct rpc_head *h, const struct field *f)
{
    if (named(f, ":path")) {
        if (h->path == NULL && f->value_len < RPC_MAX_PATH)
            h->path = rpc_strndup((const char *)f->value, f->value_len);
    } else if (named(f, ":method")) {
        h->post = valued(f, "POST");
    } else if (named(f, "content-type")) {
        h->grpc_content = rpc_is_grpc_content(f->value, f->value_len);
    } else if (named(f, "grpc-encoding")) {
        h->encoded = !valued(f, "identity");
    } else if (named(f, "grpc-timeout")) {
        h->bad_timeout = rpc_timeout_parse(f->value, f->value_len, &h->timeout_ms) < 0;
    }
}

static void response_field(struct rpc_head *h, const struct field *f)
{
    if (named(f, ":status")) {
        if (rpc_number_parse(f->value, f->value_len, &h->http_status) < 0)
            h->http_status = 0;
    } else if (named(f, "content-type")) {
        h->grpc_content = rpc_is_grpc_content(f->value, f->value_len);
    } else if (named(f, "grpc-encoding")) {
        h->encoded = !valued(f, "identity");
    } else if (named(f, "grpc-status")) {
        h->has_status = true;
        if (rpc_number_parse(f->value, f->value_len, &h->grpc_status) < 0)
            h->grpc_status = RPC_UNKNOWN;
    } else if (named(f, "grpc-message") && h->message == NULL) {
        size_t size = f->value_len < RPC_MAX_STATUS_TEXT ? f->value_len + 1 : RPC_MAX_STATUS_TEXT;
        h->message = rpc_malloc(size);
        if (h->message != NULL)
            rpc_percent_decode(f->value, f->value_len, h->message, size);
    }
}

static int count_field(struct rpc_session *session, struct rpc_stream *s, size_t bytes)
{
    s->header_bytes += bytes + FIELD_OVERHEAD;
    if (s->header_bytes > RPC_MAX_METADATA)
        s->head.too_large = true;
    if (s->header_bytes > MAX_HEADER_BYTES)
        return end_session(session, "a header block far beyond the limit");
    return 0;
}

static int on_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                     void *arg)
{
    struct rpc_session *session = arg;
    struct rpc_stream *s = find(ng, frame->hd.stream_id);
    (void)flags;
    if (s == NULL)
        return 0;
    int rv = count_field(session, s, name_len + value_len);
    if (rv != 0 || s->head.too_large)
        return rv;
    struct field f = {name, value, name_len, value_len};
    if (!session->server)
        response_field(&s->head, &f);
    else if (frame->headers.cat == NGHTTP2_HCAT_REQUEST)
        request_field(&s->head, &f);
    return 0;
}

/* What nghttp2 leaves out because HTTP forbids it has cost as much. */
static int on_invalid_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name,
                             size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                             void *arg)
{
    struct rpc_stream *s = find(ng, frame->hd.stream_id);
    (void)name;
    (void)value;
    (void)flags;
    return s == NULL ? 0 : count_field(arg, s, name_len + value_len);
}

/* ---- frames ---- */

static int on_frame_recv(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
    struct rpc_session *session = arg;
    const nghttp2_frame_hd *hd = &frame->hd;
    struct rpc_stream *s = hd->stream_id > 0 ? find(ng, hd->stream_id) : NULL;
    uint64_t token;

    switch (hd->type) {
    case NGHTTP2_HEADERS:
        if (s == NULL)
            break;
        s->busy++;
        if (session->server && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
            session->ops->on_request(session->arg, s);
        s->busy--;
        if ((hd->flags & NGHTTP2_FLAG_END_STREAM) != 0)
            rpc_stream_remote_end(s);
        break;
    case NGHTTP2_DATA:
        if ((hd->flags & NGHTTP2_FLAG_END_STREAM) != 0) {
            if (s != NULL)
                rpc_stream_remote_end(s);
        } else if (hd->length == 0 && session->server) {
            abuse(session);
        }
        break;
    case NGHTTP2_RST_STREAM:
        if (session->server)
            abuse(session);
        break;
    case NGHTTP2_PING:
        if ((hd->flags & NGHTTP2_FLAG_ACK) != 0) {
            memcpy(&token, frame->ping.opaque_data, sizeof(token));
            session->ops->on_pong(session->arg, token);
        }
        break;
    case NGHTTP2_GOAWAY:
        if (session->ops->on_goaway != NULL)
            session->ops->on_goaway(session->arg);
        break;
    default:
        break;
    }
    return session->broken != NULL ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_data(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *bytes, size_t n,
                   void *arg)
{
    struct rpc_session *session = arg;
    struct rpc_stream *s = find(ng, id);
    (void)flags;
    rpc_session_note(session, nghttp2_session_consume_connection(ng, n));
    if (s != NULL)
        rpc_stream_input(s, bytes, n);
    return session->fatal != 0 ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_stream_close(nghttp2_session *ng, int32_t id, uint32_t code, void *arg)
{
    (void)arg;
    struct rpc_stream *s = find(ng, id);
    if (s != NULL)
        rpc_stream_closed(s, code);
    return 0;
}

static int on_frame_send(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
    struct rpc_session *session = arg;
    if (!session->server)
        return 0;
    if (frame->hd.type == NGHTTP2_RST_STREAM && frame->rst_stream.error_code != NGHTTP2_NO_ERROR)
        abuse(session);
    if (frame->hd.type != NGHTTP2_HEADERS || (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0)
        return 0;
    /* The reply is complete; a client that is still sending may stop (RFC 9113 8.1). */
    struct rpc_stream *s = find(ng, frame->hd.stream_id);
    if (s != NULL && !s->remote_ended && !s->cancelled) {
        s->cancelled = true;
        rpc_session_note(session,
                         nghttp2_submit_rst_stream(ng, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_NO_ERROR));
    }
    return 0;
}

/* ---- the session ---- */

static int submit_settings(struct rpc_session *session)
{
    const struct rpc_limits *l = &session->limits;
    nghttp2_settings_entry iv[4];
    size_t n = 0;
    iv[n++] =
        (nghttp2_settings_entry){NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, l->stream_window_bytes};
    iv[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, RPC_MAX_METADATA};
    if (session->server)
        iv[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, l->max_streams};
    else
        iv[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_ENABLE_PUSH, 0};
    int rv = nghttp2_submit_settings(session->ng, NGHTTP2_FLAG_NONE, iv, n);
    if (rv == 0)
        rv = nghttp2_session_set_local_window_size(session->ng, NGHTTP2_FLAG_NONE, 0,
                                                   (int32_t)l->stream_window_bytes * 4);
    return rv;
}

static int open_ng(struct rpc_session *session)
{
    nghttp2_session_callbacks *cb = NULL;
    nghttp2_option *option = NULL;
    int rv = nghttp2_session_callbacks_new(&cb);
    if (rv == 0)
        rv = nghttp2_option_new(&option);
    if (rv == 0) {
        nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
        nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
        nghttp2_session_callbacks_set_on_invalid_header_callback(cb, on_invalid_header);
        nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame_recv);
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
        nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
        nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_send);
        nghttp2_option_set_no_auto_window_update(option, 1);
        nghttp2_option_set_no_closed_streams(option, 1);
        nghttp2_option_set_max_outbound_ack(option, 256);
        nghttp2_option_set_max_settings(option, 16);
        nghttp2_option_set_max_continuations(option, MAX_CONTINUATION);
        /* Ours comes first: its GOAWAY says ENHANCE_YOUR_CALM. */
        nghttp2_option_set_stream_reset_rate_limit(option, 2 * ABUSE_BURST, ABUSE_PER_SECOND);
        rv =
            session->server
                ? nghttp2_session_server_new3(&session->ng, cb, session, option, rpc_mem_nghttp2())
                : nghttp2_session_client_new3(&session->ng, cb, session, option, rpc_mem_nghttp2());
    }
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(cb);
    return rv;
}

int rpc_session_new(const struct rpc_session_config *config, struct rpc_session **ret_session,
                    struct err *err)
{
    struct rpc_session *session = rpc_calloc(1, sizeof(*session));
    if (session == NULL)
        return err_no_memory(err);
    session->server = config->server;
    session->limits = config->limits;
    session->ops = config->ops;
    session->arg = config->arg;
    session->tokens = ABUSE_BURST;
    session->budget.max = (size_t)BUDGET_MESSAGES * config->limits.max_message_bytes;
    TAILQ_INIT(&session->streams);
    const char *authority = config->authority != NULL ? config->authority : "localhost";
    session->authority = rpc_strndup(authority, strlen(authority));
    int rv = session->authority == NULL ? NGHTTP2_ERR_NOMEM : open_ng(session);
    if (rv == 0)
        rv = submit_settings(session);
    if (rv != 0) {
        rpc_session_free(session);
        return err_set(err, ERR_EXHAUSTED, "HTTP/2 session: %s", nghttp2_strerror(rv));
    }
    *ret_session = session;
    return 0;
}

void rpc_session_free(struct rpc_session *session)
{
    if (session == NULL)
        return;
    nghttp2_session_del(session->ng);
    while (!TAILQ_EMPTY(&session->streams))
        rpc_stream_free(TAILQ_FIRST(&session->streams));
    free(session->authority);
    free(session);
}

static int fail(struct rpc_session *session, int rv, struct err *err)
{
    if (session->broken != NULL)
        return err_set(err, ERR_PROTOCOL, "HTTP/2: %s", session->broken);
    if (rv == NGHTTP2_ERR_NOMEM)
        return err_no_memory(err);
    return err_set(err, ERR_PROTOCOL, "HTTP/2: %s", nghttp2_strerror(rv));
}

int rpc_session_feed(struct rpc_session *session, const uint8_t *bytes, size_t n, int64_t now_ms,
                     struct err *err)
{
    if (session->tokens_at_ms == 0)
        session->tokens_at_ms = now_ms;
    session->now_ms = now_ms;
    ssize_t rv = session->fatal;
    if (rv == 0)
        rv = nghttp2_session_mem_recv(session->ng, bytes, n);
    if (session->fatal != 0)
        rv = session->fatal;
    if (rv < 0) {
        session->fatal = (int)rv;
        return fail(session, (int)rv, err);
    }
    return 0;
}

int rpc_session_pull(struct rpc_session *session, const uint8_t **ret_bytes, size_t *ret_n,
                     struct err *err)
{
    const uint8_t *bytes = NULL;
    ssize_t n = session->fatal;
    if (n == 0 || session->broken != NULL) /* the GOAWAY that says so still goes out */
        n = nghttp2_session_mem_send(session->ng, &bytes);
    if (n < 0) {
        session->fatal = (int)n;
        return fail(session, (int)n, err);
    }
    *ret_bytes = bytes;
    *ret_n = (size_t)n;
    return 0;
}

bool rpc_session_done(struct rpc_session *session)
{
    return nghttp2_session_want_read(session->ng) == 0 &&
           nghttp2_session_want_write(session->ng) == 0;
}

size_t rpc_session_streams(const struct rpc_session *session)
{
    return session->n_open;
}

int64_t rpc_session_next_deadline(const struct rpc_session *session)
{
    int64_t earliest = CLOCK_NO_DEADLINE;
    const struct rpc_stream *s;
    TAILQ_FOREACH (s, &session->streams, link)
        earliest = clock_earlier(earliest, s->deadline_ms);
    return earliest;
}

void rpc_session_expire(struct rpc_session *session, int64_t now_ms)
{
    struct rpc_stream *next;
    for (struct rpc_stream *s = TAILQ_FIRST(&session->streams); s != NULL; s = next) {
        next = TAILQ_NEXT(s, link);
        if (s->deadline_ms > now_ms)
            continue;
        s->deadline_ms = CLOCK_NO_DEADLINE;
        if (s->user != NULL)
            session->ops->on_expired(s->user);
        else
            rpc_stream_cancel(s);
    }
}

void rpc_session_ping(struct rpc_session *session, uint64_t token)
{
    uint8_t data[8];
    memcpy(data, &token, sizeof(data));
    rpc_session_note(session, nghttp2_submit_ping(session->ng, NGHTTP2_FLAG_NONE, data));
}

void rpc_session_shutdown_notice(struct rpc_session *session)
{
    rpc_session_note(session, nghttp2_submit_shutdown_notice(session->ng));
}

void rpc_session_goaway(struct rpc_session *session)
{
    int32_t last = nghttp2_session_get_last_proc_stream_id(session->ng);
    rpc_session_note(session, nghttp2_submit_goaway(session->ng, NGHTTP2_FLAG_NONE, last,
                                                    NGHTTP2_NO_ERROR, NULL, 0));
}

int rpc_reset_err(uint32_t code, struct err *err)
{
    enum err_code c = ERR_PROTOCOL;
    if (code == NGHTTP2_REFUSED_STREAM)
        c = ERR_UNAVAILABLE;
    else if (code == NGHTTP2_CANCEL)
        c = ERR_CANCELLED;
    else if (code == NGHTTP2_ENHANCE_YOUR_CALM)
        c = ERR_EXHAUSTED;
    return err_set(err, c, "the peer ended the call with %s", nghttp2_http2_strerror(code));
}

int rpc_session_request(struct rpc_session *session, const char *path, int64_t deadline_ms,
                        int64_t now_ms, void *user, struct rpc_stream **ret_stream, struct err *err)
{
    char timeout[RPC_TIMEOUT_SIZE];
    nghttp2_nv nv[8] = {
        rpc_nv(":method", "POST"),
        rpc_nv(":scheme", "http"),
        rpc_nv(":path", path),
        rpc_nv(":authority", session->authority),
        rpc_nv("content-type", "application/grpc"),
        rpc_nv("te", "trailers"),
        rpc_nv("user-agent", "casemate/" CASEMATE_VERSION),
    };
    size_t n = 7;
    if (deadline_ms != CLOCK_NO_DEADLINE) {
        rpc_timeout_format(deadline_ms - now_ms, timeout);
        nv[n++] = rpc_nv("grpc-timeout", timeout);
    }
    struct rpc_stream *s = rpc_stream_new(session, 0, user);
    if (s == NULL)
        return err_no_memory(err);
    s->deadline_ms = deadline_ms;
    nghttp2_data_provider provider = rpc_stream_provider(s);
    int32_t id = nghttp2_submit_request(session->ng, NULL, nv, n, &provider, s);
    if (id < 0) {
        rpc_stream_free(s);
        rpc_session_note(session, id);
        return err_set(err, id == NGHTTP2_ERR_NOMEM ? ERR_EXHAUSTED : ERR_UNAVAILABLE,
                       "HTTP/2 request: %s", nghttp2_strerror(id));
    }
    s->id = id;
    *ret_stream = s;
    return 0;
}
