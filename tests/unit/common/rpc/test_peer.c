/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server against a client of hand-made frames: HTTP that is no gRPC, malformed messages, broken
 * framing, floods, and what a client sees of a reply, of deadlines and of a shutdown. And a client
 * against a server that talks nonsense.
 */
#include "tests/unit/common/rpc/h2_peer.h"

#define HELLO     "\0\0\0\0\7\x0a\5hello"
#define HELLO_LEN 12

static void start(struct fixture *f, struct h2_peer *p)
{
    fixture_start(f, &(struct fixture_options){.no_client = true});
    h2_open(p, f);
}

static void stop(struct fixture *f, struct h2_peer *p)
{
    h2_close(p);
    fixture_stop(f);
}

/* A good call on this stream gets a good answer: the connection lives. */
static void expect_alive(struct h2_peer *p, int32_t stream)
{
    memset(h2_answer(p, stream), 0, sizeof(struct h2_answer));
    h2_headers(p, &(struct h2_request){.stream = stream});
    h2_data(p, stream, HELLO, HELLO_LEN, true);
    h2_until(p, h2_answer(p, stream)->ended);
    assert_string_equal(h2_answer(p, stream)->status, "200");
    assert_string_equal(h2_answer(p, stream)->grpc_status, "0");
    assert_int_equal(h2_answer(p, stream)->data_bytes, HELLO_LEN);
    assert_false(p->eof);
}

static void test_good_reply(void **state)
{
    struct fixture f;
    struct h2_peer p;
    (void)state;
    start(&f, &p);
    expect_alive(&p, 1);
    assert_int_equal(p.first_type, NGHTTP2_SETTINGS);
    assert_false(h2_answer(&p, 1)->reset);
    h2_headers(&p, &(struct h2_request){.stream = 3, .content_type = "application/grpc+proto"});
    for (size_t i = 0; i < HELLO_LEN; i++) /* a byte at a time */
        h2_data(&p, 3, HELLO + i, 1, i == HELLO_LEN - 1);
    h2_until(&p, h2_answer(&p, 3)->ended);
    assert_string_equal(h2_answer(&p, 3)->grpc_status, "0");
    h2_frame(&p, NGHTTP2_PING, 0, 0, "12345678", 8);
    h2_until(&p, p.ping_acks == 1);
    stop(&f, &p);
}

static void test_not_grpc(void **state)
{
    struct fixture f;
    struct h2_peer p;
    (void)state;
    start(&f, &p);
    h2_headers(&p, &(struct h2_request){.stream = 1, .content_type = "application/json"});
    h2_until(&p, h2_answer(&p, 1)->ended);
    assert_string_equal(h2_answer(&p, 1)->status, "415");
    h2_headers(&p, &(struct h2_request){.stream = 3, .content_type = "", .end_stream = true});
    h2_until(&p, h2_answer(&p, 3)->ended);
    assert_string_equal(h2_answer(&p, 3)->status, "415");
    h2_headers(&p, &(struct h2_request){.stream = 5, .method = "GET", .end_stream = true});
    h2_until(&p, h2_answer(&p, 5)->ended);
    assert_string_equal(h2_answer(&p, 5)->status, "405");
    expect_alive(&p, 7);
    stop(&f, &p);
}

static void test_refused_by_headers(void **state)
{
    static const struct {
        struct h2_request r;
        const char *status;
        const char *says;
    } cases[] = {
        {{.path = "/casemate.test.v1.RpcTest/Nope"}, "12", "unknown method Nope"},
        {{.path = "/casemate.test.v1.RpcTest/Missing"}, "12", "unimplemented method Missing"},
        {{.path = "/other.Service/Echo"}, "12", "other.Service"},
        {{.path = "/"}, "12", "unknown service"},
        {{.path = "/casemate.test.v1.RpcTest"}, "12", "unknown service"},
        {{.encoding = "gzip"}, "12", "compressed"},
        {{.timeout = "soon"}, "3", "grpc-timeout"},
        {{.filler = 17000}, "8", "metadata"},
        {{.timeout = "0m"}, "4", "deadline"},
    };
    struct fixture f;
    struct h2_peer p;
    int32_t stream = 1;
    (void)state;
    start(&f, &p);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++, stream += 2) {
        struct h2_request r = cases[i].r;
        r.stream = stream;
        h2_headers(&p, &r);
        h2_until(&p, h2_answer(&p, stream)->ended);
        assert_string_equal(h2_answer(&p, stream)->grpc_status, cases[i].status);
        assert_non_null(strstr(h2_answer(&p, stream)->grpc_message, cases[i].says));
        /* We had not ended our side: the server says that we may stop. */
        h2_until(&p, h2_answer(&p, stream)->reset);
        assert_int_equal(h2_answer(&p, stream)->reset_code, NGHTTP2_NO_ERROR);
    }
    expect_alive(&p, stream);
    stop(&f, &p);
}

static void test_bad_messages(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        const char *status;
    } cases[] = {
        {"\0\0\0\0\7\x0a\5hel\0o", 12, "3"},  /* NUL in a string */
        {"\0\0\0\0\4\x0a\2\xc3\x28", 9, "3"}, /* not UTF-8 */
        {"\0\0\0\0\3\x0a\5h", 8, "3"},        /* field beyond the end */
        {"\1\0\0\0\7\x0a\5hello", 12, "12"},  /* compressed */
        {"\7\0\0\0\7\x0a\5hello", 12, "13"},  /* unknown flag */
        {"\0\0\0\0\7\x0a\5hel", 10, "13"},    /* ends inside the message */
        {"\0\0\0", 3, "13"},                  /* ends inside the frame's head */
        {"", 0, "13"},                        /* no message */
        {"\0\0\0\0\0\0\0\0\0\0", 10, "13"},   /* two messages */
        {"\0\x01\0\0\1", 5, "8"},             /* one byte over 16 MiB */
        {"\0\xff\xff\xff\xff", 5, "8"},
    };
    struct fixture f;
    struct h2_peer p;
    int32_t stream = 1;
    (void)state;
    start(&f, &p);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++, stream += 4) {
        h2_headers(&p, &(struct h2_request){.stream = stream});
        h2_data(&p, stream, cases[i].bytes, cases[i].n, true);
        h2_until(&p, h2_answer(&p, stream)->ended);
        assert_string_equal(h2_answer(&p, stream)->grpc_status, cases[i].status);
        expect_alive(&p, stream + 2);
    }
    stop(&f, &p);
}

/* The server keeps the deadline by itself: the handler is parked and this client sends no reset. */
static void test_server_deadline(void **state)
{
    struct fixture f;
    struct h2_peer p;
    (void)state;
    start(&f, &p);
    h2_headers(&p, &(struct h2_request){.stream = 1, .timeout = "30m"});
    h2_data(&p, 1, "\0\0\0\0\6\x0a\4park", 11, true);
    h2_until(&p, h2_answer(&p, 1)->ended);
    assert_string_equal(h2_answer(&p, 1)->grpc_status, "4");
    assert_int_equal(f.cancels, 1);
    assert_int_equal(f.last_status, RPC_DEADLINE_EXCEEDED);
    unpark(&f, RPC_OK);
    expect_alive(&p, 3);
    stop(&f, &p);
}

/* A client that never opens its window holds one call's queue and nothing more, until the deadline.
 */
static void test_stuck_reader(void **state)
{
    struct fixture f;
    struct h2_peer p;
    (void)state;
    start(&f, &p);
    h2_headers(&p, &(struct h2_request){
                       .stream = 1, .path = "/casemate.test.v1.RpcTest/Count", .timeout = "300m"});
    h2_data(&p, 1, "\0\0\0\0\7\x08\xc0\x84\x3d\x10\x90\x4e", 12, true); /* 10^6 of 10000 bytes */
    h2_until(&p, h2_answer(&p, 1)->data_bytes >= 65535);
    assert_int_equal(h2_answer(&p, 1)->data_bytes, 65535);
    h2_until(&p, h2_answer(&p, 1)->reset);
    assert_int_equal(h2_answer(&p, 1)->reset_code, NGHTTP2_CANCEL);
    assert_int_equal(f.cancels, 1);
    assert_true(f.most_queued <= WATERMARK + 10100);
    stop(&f, &p);
}

static void test_garbage(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
    } cases[] = {
        {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27},
        {"\0\0\0\4\0\0\0\0\0", 9},
        {NGHTTP2_CLIENT_MAGIC "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 34},
        {NGHTTP2_CLIENT_MAGIC "\0\0\0\4\0\0\0\0\0\0\0\1\1\4\0\0\0\1\xff", 43},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fixture f;
        fixture_start(&f, &(struct fixture_options){.no_client = true});
        log_set_level(LOG_ERROR);
        assert_int_equal(write(f.peer_fd, cases[i].bytes, cases[i].n), (ssize_t)cases[i].n);
        spin_until(&f, f.server_closed == 1);
        fixture_stop(&f);
    }
}

/* The peer goes in the middle of a frame. */
static void test_truncated(void **state)
{
    struct fixture f;
    struct h2_peer p;
    (void)state;
    start(&f, &p);
    h2_headers(&p, &(struct h2_request){.stream = 1});
    h2_data(&p, 1, HELLO, HELLO_LEN, true);
    size_t all = p.out.len;
    stop(&f, &p);
    for (size_t n = 0; n < all; n += 3) {
        start(&f, &p);
        h2_headers(&p, &(struct h2_request){.stream = 1});
        h2_data(&p, 1, HELLO, HELLO_LEN, true);
        assert_int_equal(p.out.len, all);
        assert_int_equal(write(f.peer_fd, buf_bytes(&p.out), n), (ssize_t)n);
        close(f.peer_fd);
        f.peer_fd = -1;
        spin_until(&f, f.server_closed == 1);
        assert_int_equal(f.dones, n >= all - HELLO_LEN - 9 ? 1 : 0);
        stop(&f, &p);
    }
}

static void test_rapid_reset(void **state)
{
    struct fixture f;
    struct h2_peer p;
    int32_t stream = 1;
    (void)state;
    start(&f, &p);
    for (int i = 0; i < 3000; i++, stream += 2) {
        h2_headers(&p, &(struct h2_request){.stream = stream});
        h2_frame(&p, NGHTTP2_RST_STREAM, 0, stream, "\0\0\0\x08", 4);
    }
    h2_until(&p, p.eof);
    assert_int_equal(f.server_closed, 1);
    assert_int_equal(p.goaways, 1);
    assert_int_equal(p.goaway_code, NGHTTP2_ENHANCE_YOUR_CALM);
    stop(&f, &p);
}

/* Streams that the server has to reset because of what the client does on purpose. */
static void test_provoked_reset(void **state)
{
    struct fixture f;
    struct h2_peer p;
    int32_t stream = 1;
    (void)state;
    start(&f, &p);
    for (int i = 0; i < 3000; i++, stream += 2) {
        h2_headers(&p, &(struct h2_request){.stream = stream});
        h2_frame(&p, NGHTTP2_WINDOW_UPDATE, 0, stream, "\0\0\0\0", 4);
        if (i % 50 == 0)
            h2_round(&p);
        if (p.eof)
            break;
    }
    h2_until(&p, p.eof);
    assert_int_equal(f.server_closed, 1);
    stop(&f, &p);
}

static void flood(uint8_t type, uint8_t flags, const void *payload, size_t n)
{
    struct fixture f;
    struct h2_peer p;
    start(&f, &p);
    h2_headers(&p, &(struct h2_request){.stream = 1});
    for (int i = 0; i < 20000; i++)
        h2_frame(&p, type, flags, type == NGHTTP2_DATA ? 1 : 0, payload, n);
    /* Nothing is read back meanwhile. */
    struct err err;
    int64_t until = clock_deadline(PATIENCE_MS);
    while (f.server_closed == 0 && clock_monotonic_ms() < until) {
        ssize_t sent = send(f.peer_fd, buf_bytes(&p.out), p.out.len, MSG_NOSIGNAL);
        if (sent > 0)
            buf_consume(&p.out, (size_t)sent);
        settle_ok(loop_run_once(f.loop, 1, &err), &err);
    }
    assert_int_equal(f.server_closed, 1);
    stop(&f, &p);
}

static void test_floods(void **state)
{
    (void)state;
    flood(NGHTTP2_DATA, 0, NULL, 0);
}

static void test_continuation_flood(void **state)
{
    struct fixture f;
    struct h2_peer p;
    (void)state;
    start(&f, &p);
    h2_frame(&p, NGHTTP2_HEADERS, 0, 1, "\x82", 1);
    for (int i = 0; i < 1000; i++)
        h2_frame(&p, NGHTTP2_CONTINUATION, 0, 1, NULL, 0);
    h2_until(&p, p.eof);
    assert_int_equal(f.server_closed, 1);
    stop(&f, &p);
}

static void test_two_step_goaway(void **state)
{
    struct fixture f;
    struct h2_peer p;
    (void)state;
    start(&f, &p);
    h2_headers(&p, &(struct h2_request){.stream = 1});
    h2_data(&p, 1, "\0\0\0\0\6\x0a\4park", 11, true);
    h2_until(&p, n_parked(&f) == 1);
    rpc_server_shutdown(f.server, CLOCK_NO_DEADLINE, on_drained, &f);
    /* Until our PING answer is on its way, the server takes what we sent before we knew. */
    struct err err;
    int64_t until = clock_deadline(PATIENCE_MS);
    while (p.goaways == 0 && clock_monotonic_ms() < until) {
        p.out.len = 0;
        h2_round(&p);
    }
    assert_int_equal(p.goaways, 1);
    assert_int_equal(p.goaway_last, INT32_MAX);
    size_t answers = p.out.len; /* the PING's answer waits while another call goes first */
    uint8_t held[64];
    assert_true(answers <= sizeof(held));
    memcpy(held, buf_bytes(&p.out), answers);
    p.out.len = 0;
    h2_headers(&p, &(struct h2_request){.stream = 3});
    h2_data(&p, 3, HELLO, HELLO_LEN, true);
    settle_ok(buf_append(&p.out, held, answers, &err), &err);
    h2_until(&p, p.goaways == 2 && h2_answer(&p, 3)->ended);
    assert_string_equal(h2_answer(&p, 3)->grpc_status, "0");
    assert_int_equal(p.goaway_last, 3);
    assert_int_equal(f.drained, 0);
    unpark(&f, RPC_OK);
    h2_until(&p, p.eof);
    assert_string_equal(h2_answer(&p, 1)->grpc_status, "0");
    assert_int_equal(f.drained, 1);
    stop(&f, &p);
}

static void test_first_bytes(void **state)
{
    struct fixture f;
    struct h2_peer p;
    struct err err;
    int fds[2];
    (void)state;
    start(&f, &p);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    settle_ok(
        rpc_server_add_connection_after(f.server, fds[0], buf_bytes(&p.out), 30, NULL, NULL, &err),
        &err);
    buf_consume(&p.out, 30);
    close(f.peer_fd);
    f.peer_fd = fds[1];
    settle_ok(fd_set_nonblock(f.peer_fd, &err), &err);
    expect_alive(&p, 1);
    stop(&f, &p);
}

/* ---- the client against nonsense ---- */

static void client_against(const void *bytes, size_t n, enum err_code expect)
{
    struct fixture f;
    struct err err;
    int fds[2];
    struct outcome o = {0};
    fixture_start(&f, &(struct fixture_options){.no_client = true});
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    struct rpc_client_config config = {
        .loop = f.loop, .on_closed = on_client_closed, .on_closed_arg = &f};
    settle_ok(rpc_client_new(&config, fds[1], &f.client, &err), &err);
    EchoRequest request = ECHO_REQUEST;
    (void)begin(&f, &ECHO, &request.base, clock_deadline(PATIENCE_MS), &o);
    /* The client's request first: an answer to what was not asked is another matter. */
    char got[256];
    ssize_t r;
    size_t total = 0;
    struct err e;
    assert_int_equal(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
    while (total < 150) {
        settle_ok(loop_run_once(f.loop, 5, &e), &e);
        r = read(fds[0], got, sizeof(got));
        total += r > 0 ? (size_t)r : 0;
        if (r < 0 && total > 100)
            break;
    }
    assert_int_equal(write(fds[0], bytes, n), (ssize_t)n);
    shutdown(fds[0], SHUT_WR);
    spin_until(&f, o.ends == 1);
    assert_false(o.ok);
    assert_int_equal(o.err.code, expect);
    close(fds[0]);
    spin_until(&f, f.client_closed == 1);
    fixture_stop(&f);
}

#define SETTINGS "\0\0\0\4\0\0\0\0\0"

static void test_client_against_nonsense(void **state)
{
    /* ":status 200" is one indexed field (0x88), 404 is 0x8d, 503 is literal; content-type is
     * index 31. */
#define CT                                                                                         \
    "\x0f\x10\x10"                                                                                 \
    "application/grpc"
    (void)state;
#define AGAINST(code, literal) client_against(literal, sizeof(literal) - 1, code)
    AGAINST(ERR_UNAVAILABLE, "");
    AGAINST(ERR_UNAVAILABLE, "HTTP/1.1 400 Bad Request\r\n\r\n");
    AGAINST(ERR_UNAVAILABLE, SETTINGS);
    /* Headers with END_STREAM and no grpc-status. */
    AGAINST(ERR_PROTOCOL, SETTINGS "\0\0\1\1\5\0\0\0\1\x88");
    AGAINST(ERR_UNSUPPORTED, SETTINGS "\0\0\1\1\5\0\0\0\1\x8d");
    AGAINST(ERR_PROTOCOL, SETTINGS "\0\0\4\3\0\0\0\0\1\0\0\0\2");
    AGAINST(ERR_UNAVAILABLE, SETTINGS "\0\0\4\3\0\0\0\0\1\0\0\0\7"); /* REFUSED_STREAM */
    AGAINST(ERR_CANCELLED, SETTINGS "\0\0\4\3\0\0\0\0\1\0\0\0\x08");
    AGAINST(ERR_EXHAUSTED, SETTINGS "\0\0\4\3\0\0\0\0\1\0\0\0\x0b");
    /* A body of more than the limit, then one of a bad message; 0x14 = 20 bytes of headers. */
    AGAINST(ERR_EXHAUSTED, SETTINGS "\0\0\x14\1\4\0\0\0\1\x88" CT "\0\0\5\0\0\0\0\0\1\0\xff\0\0\0");
    AGAINST(ERR_PROTOCOL,
            SETTINGS "\0\0\x14\1\4\0\0\0\1\x88" CT "\0\0\x08\0\1\0\0\0\1\0\0\0\0\3\x0a\1\xff");
    AGAINST(ERR_UNSUPPORTED,
            SETTINGS "\0\0\x14\1\4\0\0\0\1\x88" CT "\0\0\x08\0\1\0\0\0\1\1\0\0\0\3\x0a\1x");
    /* HTML instead of gRPC. */
    AGAINST(ERR_PROTOCOL, SETTINGS "\0\0\1\1\4\0\0\0\1\x88"
                                   "\0\0\6\0\1\0\0\0\1<html>");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_reply),
        cmocka_unit_test(test_not_grpc),
        cmocka_unit_test(test_refused_by_headers),
        cmocka_unit_test(test_bad_messages),
        cmocka_unit_test(test_server_deadline),
        cmocka_unit_test(test_stuck_reader),
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_rapid_reset),
        cmocka_unit_test(test_provoked_reset),
        cmocka_unit_test(test_floods),
        cmocka_unit_test(test_continuation_flood),
        cmocka_unit_test(test_two_step_goaway),
        cmocka_unit_test(test_first_bytes),
        cmocka_unit_test(test_client_against_nonsense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
