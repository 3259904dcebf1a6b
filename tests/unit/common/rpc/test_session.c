/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A session against header blocks that cost more than they weigh: HPACK repeats a field of 4000
 * bytes with one. Frames are made by hand and fed one by one, so that it is seen which of them ends
 * the connection.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <nghttp2/nghttp2.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/rpc/session.h"

#define LONG_VALUE 4000
#define LAST_ADDED 0xbe /* the field that came into HPACK's table last */

struct fixture {
    struct rpc_session *session;
    struct rpc_stream *stream; /* a client's call */
    struct buf block;          /* encoded header fields */
    bool goaway;
    uint32_t goaway_code;
};

static bool hold(void *user)
{
    (void)user;
    return false;
}

static void on_nothing(void *arg, struct rpc_stream *stream)
{
    (void)arg;
    (void)stream;
}

static void on_reset(void *user, uint32_t code)
{
    (void)user;
    (void)code;
}

static const struct rpc_session_ops ops = {
    .on_request = on_nothing,
    .hold = hold,
    .on_reset = on_reset,
};

/* Takes what the session says, and looks for a GOAWAY at the beginning of it. */
static void pull_all(struct fixture *f)
{
    const uint8_t *bytes;
    struct err err;
    size_t n;

    do {
        assert_int_equal(rpc_session_pull(f->session, &bytes, &n, &err), 0);
        if (n >= 17 && bytes[3] == NGHTTP2_GOAWAY) {
            f->goaway = true;
            f->goaway_code = bytes[16];
        }
    } while (n > 0);
}

static void put(struct fixture *f, const void *bytes, size_t n)
{
    struct err err;
    assert_int_equal(buf_append(&f->block, bytes, n, &err), 0);
}

/* A field "x" of LONG_VALUE bytes that goes into HPACK's table; the last byte is chosen. */
static void put_long(struct fixture *f, char last)
{
    char value[LONG_VALUE];
    memset(value, 'v', sizeof(value));
    value[sizeof(value) - 1] = last;
    /* 127 and the rest of the length in two bytes of seven bits, the lower ones first. */
    const uint8_t head[] = {
        0x40, 1, 'x', 0x7f, (uint8_t)(0x80 | (LONG_VALUE - 127) % 128), (LONG_VALUE - 127) / 128};
    put(f, head, sizeof(head));
    put(f, value, sizeof(value));
}

static void put_again(struct fixture *f, unsigned n)
{
    const uint8_t again = LAST_ADDED;
    for (unsigned i = 0; i < n; i++)
        put(f, &again, 1);
}

/* One frame, with the block as its payload, to the session. */
static int feed(struct fixture *f, uint8_t type, uint8_t flags, int32_t stream, struct err *err)
{
    size_t n = f->block.len;
    const uint8_t head[9] = {0, (uint8_t)(n >> 8), (uint8_t)n, type, flags, 0, 0,
                             0, (uint8_t)stream};
    int64_t now = clock_monotonic_ms();
    int result = rpc_session_feed(f->session, head, sizeof(head), now, err);
    if (result == 0 && n > 0)
        result = rpc_session_feed(f->session, buf_bytes(&f->block), n, now, err);
    buf_consume(&f->block, n);
    return result;
}

static void start(struct fixture *f, bool server)
{
    static int user;
    struct rpc_session_config config = {
        .server = server, .limits = rpc_limits_complete((struct rpc_limits){0}), .ops = &ops};
    struct err err;

    *f = (struct fixture){0};
    buf_init(&f->block, 1 << 20);
    assert_int_equal(rpc_session_new(&config, &f->session, &err), 0);
    if (server)
        assert_int_equal(rpc_session_feed(f->session, (const uint8_t *)NGHTTP2_CLIENT_MAGIC,
                                          NGHTTP2_CLIENT_MAGIC_LEN, clock_monotonic_ms(), &err),
                         0);
    else
        assert_int_equal(
            rpc_session_request(f->session, "/a/b", CLOCK_NO_DEADLINE, 0, &user, &f->stream, &err),
            0);
    assert_int_equal(feed(f, NGHTTP2_SETTINGS, 0, 0, &err), 0);
    pull_all(f);
}

static void stop(struct fixture *f)
{
    rpc_session_free(f->session);
    buf_fini(&f->block);
}

static void expect_end(struct fixture *f, const struct err *err, const char *words)
{
    assert_int_equal(err->code, ERR_PROTOCOL);
    assert_non_null(strstr(err->msg, words));
    pull_all(f);
    assert_true(f->goaway);
    assert_int_equal(f->goaway_code, NGHTTP2_ENHANCE_YOUR_CALM);
    stop(f);
}

/* ":status" 100, as a literal. */
static void put_continue(struct fixture *f)
{
    put(f,
        "\x08\x03"
        "100",
        5);
}

static void a_large_block_is_an_error_of_its_call(void **state)
{
    struct fixture f;
    struct err err;
    (void)state;
    start(&f, false);
    put(&f, "\x88", 1); /* ":status" 200 */
    put_long(&f, 'v');
    put_again(&f, 7);
    assert_int_equal(feed(&f, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 1, &err), 0);
    assert_true(rpc_stream_head(f.stream)->too_large);
    pull_all(&f);
    assert_false(f.goaway);
    stop(&f);
}

/* Without waiting for the block's end, which may be 128 KiB away. */
static void a_block_that_grows_ends_the_connection(void **state)
{
    struct fixture f;
    struct err err;
    (void)state;
    start(&f, false);
    put_continue(&f);
    put_long(&f, 'v');
    put_again(&f, 20);
    assert_int_equal(feed(&f, NGHTTP2_HEADERS, 0, 1, &err), -1);
    expect_end(&f, &err, "header block");
}

/* The last byte is one that HTTP forbids: nghttp2 looks at all of them and leaves the field out. */
static void fields_that_are_left_out_count(void **state)
{
    struct fixture f;
    struct err err;
    (void)state;
    start(&f, false);
    put_continue(&f);
    put_long(&f, '\x01');
    put_again(&f, 20);
    assert_int_equal(feed(&f, NGHTTP2_HEADERS, 0, 1, &err), -1);
    expect_end(&f, &err, "header block");
}

static void a_request_that_grows_ends_the_connection(void **state)
{
    struct fixture f;
    struct err err;
    (void)state;
    start(&f, true);
    put(&f, "\x83\x86\x84", 3); /* POST, http, "/" */
    put_long(&f, 'v');
    put_again(&f, 20);
    assert_int_equal(feed(&f, NGHTTP2_HEADERS, 0, 1, &err), -1);
    expect_end(&f, &err, "header block");
}

static void blocks_before_the_answer_are_few(void **state)
{
    struct fixture f;
    struct err err;
    int rc = 0;
    unsigned n = 0;
    (void)state;
    start(&f, false);
    while (rc == 0 && n < 10) {
        put_continue(&f);
        rc = feed(&f, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 1, &err);
        n++;
    }
    assert_int_equal(rc, -1);
    assert_int_equal(n, 5);
    expect_end(&f, &err, "too many header blocks");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_large_block_is_an_error_of_its_call),
        cmocka_unit_test(a_block_that_grows_ends_the_connection),
        cmocka_unit_test(fields_that_are_left_out_count),
        cmocka_unit_test(a_request_that_grows_ends_the_connection),
        cmocka_unit_test(blocks_before_the_answer_are_few),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
