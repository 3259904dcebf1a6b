/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An HTTP/2 client of hand-made frames for the tests of common/rpc: it says what no honest client
 * would. Output is collected in a buffer; what comes back is taken apart into what tests ask about.
 * HPACK is nghttp2's.
 */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <nghttp2/nghttp2.h>

#include "common/base/buf.h"
#include "common/base/fd.h"
#include "tests/unit/common/rpc/rpc_fixture.h"

#define H2_STREAMS 64

struct h2_answer {
    char status[8];      /* ":status" */
    char grpc_status[8]; /* "" when there was none */
    char grpc_message[256];
    size_t data_bytes;
    bool ended;
    bool reset;
    uint32_t reset_code;
};

struct h2_peer {
    struct fixture *f;
    struct buf out;
    struct buf in;
    nghttp2_hd_deflater *deflater;
    nghttp2_hd_inflater *inflater;
    struct h2_answer answers[H2_STREAMS]; /* by stream id / 2, modulo the array */
    uint8_t first_type;
    unsigned frames;
    unsigned goaways;
    uint32_t goaway_code;
    int32_t goaway_last;
    unsigned ping_acks;
    bool eof;
};

static inline struct h2_answer *h2_answer(struct h2_peer *p, int32_t stream)
{
    return &p->answers[(stream / 2) % H2_STREAMS];
}

static inline void h2_frame(struct h2_peer *p, uint8_t type, uint8_t flags, int32_t stream,
                            const void *payload, size_t n)
{
    struct err err;
    uint8_t head[9] = {(uint8_t)(n >> 16),
                       (uint8_t)(n >> 8),
                       (uint8_t)n,
                       type,
                       flags,
                       (uint8_t)(stream >> 24),
                       (uint8_t)(stream >> 16),
                       (uint8_t)(stream >> 8),
                       (uint8_t)stream};
    settle_ok(buf_append(&p->out, head, sizeof(head), &err), &err);
    settle_ok(buf_append(&p->out, payload, n, &err), &err);
}

static inline void h2_open(struct h2_peer *p, struct fixture *f)
{
    struct err err;
    memset(p, 0, sizeof(*p));
    p->f = f;
    buf_init(&p->out, 64 << 20);
    buf_init(&p->in, 64 << 20);
    assert_int_equal(nghttp2_hd_deflate_new(&p->deflater, 4096), 0);
    assert_int_equal(nghttp2_hd_inflate_new(&p->inflater), 0);
    settle_ok(buf_append(&p->out, NGHTTP2_CLIENT_MAGIC, NGHTTP2_CLIENT_MAGIC_LEN, &err), &err);
    h2_frame(p, NGHTTP2_SETTINGS, 0, 0, NULL, 0);
    settle_ok(fd_set_nonblock(f->peer_fd, &err), &err);
}

static inline void h2_close(struct h2_peer *p)
{
    nghttp2_hd_deflate_del(p->deflater);
    nghttp2_hd_inflate_del(p->inflater);
    buf_fini(&p->out);
    buf_fini(&p->in);
}

/* A request's headers as they should be, with these changes; NULL: as they should be, "": left out.
 */
struct h2_request {
    int32_t stream;
    const char *path, *method, *content_type, *timeout, *encoding;
    size_t filler; /* bytes of one more header */
    bool end_stream;
};

static inline void h2_field(nghttp2_nv *nv, size_t *n, const char *name, const char *value)
{
    nv[(*n)++] = (nghttp2_nv){(uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, strlen(name),
                              strlen(value), NGHTTP2_NV_FLAG_NO_INDEX};
}

static inline void h2_headers(struct h2_peer *p, const struct h2_request *r)
{
    nghttp2_nv nv[10];
    size_t n = 0;
    char *filler = calloc(1, r->filler + 1);
    memset(filler, 'x', r->filler);
    h2_field(nv, &n, ":method", r->method != NULL ? r->method : "POST");
    h2_field(nv, &n, ":scheme", "http");
    h2_field(nv, &n, ":path", r->path != NULL ? r->path : "/casemate.test.v1.RpcTest/Echo");
    h2_field(nv, &n, ":authority", "localhost");
    if (r->content_type == NULL || r->content_type[0] != '\0')
        h2_field(nv, &n, "content-type",
                 r->content_type != NULL ? r->content_type : "application/grpc");
    h2_field(nv, &n, "te", "trailers");
    if (r->timeout != NULL)
        h2_field(nv, &n, "grpc-timeout", r->timeout);
    if (r->encoding != NULL)
        h2_field(nv, &n, "grpc-encoding", r->encoding);
    if (r->filler > 0)
        h2_field(nv, &n, "x-filler", filler);
    static uint8_t block[200000];
    ssize_t len = nghttp2_hd_deflate_hd(p->deflater, block, sizeof(block), nv, n);
    assert_true(len > 0);
    uint8_t type = NGHTTP2_HEADERS;
    uint8_t flags = r->end_stream ? NGHTTP2_FLAG_END_STREAM : 0;
    for (size_t at = 0; at < (size_t)len;) {
        size_t part = (size_t)len - at > 16384 ? 16384 : (size_t)len - at;
        bool last = at + part == (size_t)len;
        h2_frame(p, type, (uint8_t)(flags | (last ? NGHTTP2_FLAG_END_HEADERS : 0)), r->stream,
                 block + at, part);
        at += part;
        type = NGHTTP2_CONTINUATION;
        flags = 0;
    }
    free(filler);
}

static inline void h2_data(struct h2_peer *p, int32_t stream, const void *bytes, size_t n, bool end)
{
    h2_frame(p, NGHTTP2_DATA, end ? NGHTTP2_FLAG_END_STREAM : 0, stream, bytes, n);
}

static inline void h2_take_headers(struct h2_peer *p, int32_t stream, const uint8_t *bytes,
                                   size_t n)
{
    struct h2_answer *a = h2_answer(p, stream);
    for (;;) {
        nghttp2_nv nv;
        int flags = 0;
        ssize_t used = nghttp2_hd_inflate_hd2(p->inflater, &nv, &flags, bytes, n, 1);
        assert_true(used >= 0);
        bytes += used;
        n -= (size_t)used;
        if ((flags & NGHTTP2_HD_INFLATE_EMIT) != 0) {
            char *to = NULL;
            size_t size = 0;
            if (nv.namelen == 7 && memcmp(nv.name, ":status", 7) == 0)
                to = a->status, size = sizeof(a->status);
            if (nv.namelen == 11 && memcmp(nv.name, "grpc-status", 11) == 0)
                to = a->grpc_status, size = sizeof(a->grpc_status);
            if (nv.namelen == 12 && memcmp(nv.name, "grpc-message", 12) == 0)
                to = a->grpc_message, size = sizeof(a->grpc_message);
            if (to != NULL)
                snprintf(to, size, "%.*s", (int)nv.valuelen, (const char *)nv.value);
        }
        if ((flags & NGHTTP2_HD_INFLATE_FINAL) != 0) {
            nghttp2_hd_inflate_end_headers(p->inflater);
            return;
        }
    }
}

static inline uint32_t h2_u32(const uint8_t *b)
{
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static inline void h2_take_frame(struct h2_peer *p, const uint8_t *b, size_t n)
{
    int32_t stream = (int32_t)(h2_u32(b + 5) & 0x7fffffff);
    struct h2_answer *a = h2_answer(p, stream);
    if (p->frames++ == 0)
        p->first_type = b[3];
    switch (b[3]) {
    case NGHTTP2_HEADERS:
        h2_take_headers(p, stream, b + 9, n);
        a->ended = a->ended || (b[4] & NGHTTP2_FLAG_END_STREAM) != 0;
        break;
    case NGHTTP2_DATA:
        a->data_bytes += n;
        break;
    case NGHTTP2_RST_STREAM:
        a->reset = true;
        a->reset_code = h2_u32(b + 9);
        break;
    case NGHTTP2_GOAWAY:
        p->goaways++;
        p->goaway_last = (int32_t)h2_u32(b + 9);
        p->goaway_code = h2_u32(b + 13);
        break;
    case NGHTTP2_SETTINGS:
        if ((b[4] & NGHTTP2_FLAG_ACK) == 0)
            h2_frame(p, NGHTTP2_SETTINGS, NGHTTP2_FLAG_ACK, 0, NULL, 0);
        break;
    case NGHTTP2_PING:
        if ((b[4] & NGHTTP2_FLAG_ACK) != 0)
            p->ping_acks++;
        else
            h2_frame(p, NGHTTP2_PING, NGHTTP2_FLAG_ACK, 0, b + 9, 8);
        break;
    default:
        break;
    }
}

/* One round: writes what fits, runs the server's loop for a moment, reads what is there. */
static inline void h2_round(struct h2_peer *p)
{
    struct err err;
    if (p->out.len > 0) {
        ssize_t n = send(p->f->peer_fd, buf_bytes(&p->out), p->out.len, MSG_NOSIGNAL);
        if (n > 0)
            buf_consume(&p->out, (size_t)n);
        else if (errno != EAGAIN)
            buf_consume(&p->out, p->out.len);
    }
    settle_ok(loop_run_once(p->f->loop, 1, &err), &err);
    for (;;) {
        void *space;
        settle_ok(buf_reserve(&p->in, 65536, &space, &err), &err);
        ssize_t n = read(p->f->peer_fd, space, 65536);
        if (n == 0 || (n < 0 && errno != EAGAIN))
            p->eof = true;
        if (n <= 0)
            break;
        buf_commit(&p->in, (size_t)n);
    }
    while (p->in.len >= 9) {
        const uint8_t *b = buf_bytes(&p->in);
        size_t n = (size_t)b[0] << 16 | (size_t)b[1] << 8 | b[2];
        if (p->in.len < 9 + n)
            break;
        h2_take_frame(p, b, n);
        buf_consume(&p->in, 9 + n);
    }
}

#define h2_until(p, condition)                                                                     \
    do {                                                                                           \
        int64_t give_up_ = clock_deadline(PATIENCE_MS);                                            \
        while (!(condition)) {                                                                     \
            if (clock_monotonic_ms() > give_up_)                                                   \
                fail_msg("no event: %s", #condition);                                              \
            h2_round(p);                                                                           \
        }                                                                                          \
    } while (0)
