/* SPDX-License-Identifier: Apache-2.0 */
/* agent/rpc/transport: a connected stream is served after the handshake, and not without it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "agent/rpc/link.h"
#include "agent/rpc/transport.h"
#include "common/base/cleanup.h"
#include "common/base/clock.h"
#include "common/loop/loop.h"
#include "common/rpc/server.h"

#define NONCE "0123456789abcdef0123456789abcdef"

struct fixture {
    struct loop *loop;
    struct rpc_server *server;
    int host; /* the host's end of the stream */
};

static int setup(void **state)
{
    static struct fixture f;
    struct err err = {0};
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0 ||
        loop_new(&f.loop, &err) < 0)
        return -1;
    struct rpc_server_config config = {.loop = f.loop};
    f.host = pair[0];
    *state = &f;
    if (rpc_server_new(&config, &f.server, &err) < 0)
        return -1;
    return transport_greet(f.loop, f.server, pair[1], &err);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    close_fd(&f->host);
    struct err err = {0};
    (void)loop_run_once(f->loop, 0, &err);
    rpc_server_free(f->server);
    loop_free(f->loop);
    return 0;
}

/* Runs the loop until n bytes have come, or the stream has ended; returns how many came. */
static size_t receive(struct fixture *f, uint8_t *bytes, size_t n)
{
    struct err err = {0};
    size_t got = 0;
    int64_t until = clock_deadline(5000);
    while (got < n && clock_poll_timeout(until) > 0) {
        assert_int_equal(loop_run_once(f->loop, 10, &err), 0);
        ssize_t r = read(f->host, bytes + got, n - got);
        if (r == 0)
            break;
        if (r > 0)
            got += (size_t)r;
    }
    return got;
}

static void say(struct fixture *f, const char *bytes, size_t n)
{
    assert_int_equal(write(f->host, bytes, n), (ssize_t)n);
}

static void a_greeting_leads_to_http2(void **state)
{
    struct fixture *f = *state;
    uint8_t answer[LINK_ANSWER_SIZE], frame[9];
    say(f, "stale bytes of somebody else", 28);
    say(f, LINK_GREETING NONCE "\n" LINK_GREETING NONCE "\n", 2 * LINK_GREETING_SIZE);
    assert_int_equal(receive(f, answer, sizeof(answer)), sizeof(answer));
    assert_memory_equal(answer, LINK_ANSWER NONCE "\n", sizeof(answer));
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0";
    say(f, preface, sizeof(preface)); /* the literal's own NUL ends the SETTINGS frame */
    assert_int_equal(receive(f, frame, sizeof(frame)), sizeof(frame));
    assert_int_equal(frame[3], 4); /* SETTINGS, the first frame of a server */
}

static void http2_without_a_greeting_is_not_served(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    uint8_t byte;
    say(f, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    for (int i = 0; i < 50; i++)
        assert_int_equal(loop_run_once(f->loop, 0, &err), 0);
    assert_int_equal(read(f->host, &byte, 1), -1);
}

static void a_stream_that_ends_early_is_closed(void **state)
{
    struct fixture *f = *state;
    uint8_t byte;
    say(f, LINK_GREETING, sizeof(LINK_GREETING) - 1);
    assert_int_equal(shutdown(f->host, SHUT_WR), 0);
    assert_int_equal(receive(f, &byte, 1), 0);
    assert_int_equal(read(f->host, &byte, 1), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_greeting_leads_to_http2, setup, teardown),
        cmocka_unit_test_setup_teardown(http2_without_a_greeting_is_not_served, setup, teardown),
        cmocka_unit_test_setup_teardown(a_stream_that_ends_early_is_closed, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
