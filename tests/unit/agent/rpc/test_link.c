/* SPDX-License-Identifier: Apache-2.0 */
/* The greeting on a port: split anywhere, behind garbage, repeated, taken over; then the same on a
 * socket pair with a server. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/rpc/link.h"
#include "agent/rpc/transport.h"
#include "common/base/clock.h"
#include "common/loop/loop.h"
#include "common/rpc/server.h"

#define A        "CASEMATE-LINK/1 aaaabbbbccccdddd0000111122223333\n"
#define B        "CASEMATE-LINK/1 ffffffffffffffff9999999999999999\n"
#define ANSWER_A "CASEMATE-AGENT/1 aaaabbbbccccdddd0000111122223333\n"
#define ANSWER_B "CASEMATE-AGENT/1 ffffffffffffffff9999999999999999\n"
#define PREFACE  "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define SETTINGS "\0\0\0\4\0\0\0\0\0"

/* Feeds the text in pieces of `step` bytes; collects the answers; returns the offset where HTTP/2
 * begins, or -1. */
static int feed(struct link *l, const char *text, size_t step, char *answers)
{
    size_t len = strlen(text), at = 0;
    answers[0] = '\0';
    while (at < len) {
        size_t n = len - at < step ? len - at : step, taken;
        enum link_event e = link_feed(l, (const uint8_t *)text + at, n, &taken);
        assert_true(taken <= n);
        at += taken;
        if (e == LINK_ECHO)
            strncat(answers, l->answer, LINK_ANSWER_SIZE);
        if (e == LINK_SESSION)
            return (int)at;
    }
    return -1;
}

static void check(const char *text, const char *answers, int session)
{
    for (size_t step = 1; step < 200; step += step < 60 ? 1 : 47) {
        struct link l;
        char got[400];
        link_reset(&l);
        assert_int_equal(feed(&l, text, step, got), session);
        assert_string_equal(got, answers);
    }
}

static void test_greeting(void **state)
{
    (void)state;
    assert_int_equal(LINK_GREETING_SIZE, 49);
    assert_int_equal(LINK_ANSWER_SIZE, 50);
    check(A, ANSWER_A, -1);
    check(A A A, ANSWER_A, -1);
    check(A A "PRI", ANSWER_A, 98);
    check(A B A "P", ANSWER_A ANSWER_B ANSWER_A, 147);
    check("P" A "P", ANSWER_A, 50);
    check("", "", -1);
}

static void test_garbage(void **state)
{
    (void)state;
    check("garbage \n PRI * HTTP/2.0" A "P", ANSWER_A, 73);
    check("CASEMATE-LINK/1 aaaa" A "P", ANSWER_A, 69);
    check("CCASEMATE-LINK/1 aaaabbbbccccdddd0000111122223333\nP", ANSWER_A, 50);
    check("CASEMATE-LINK/1 AAAABBBBCCCCDDDD0000111122223333\nP", "", -1);
    check("CASEMATE-LINK/2 aaaabbbbccccdddd0000111122223333\nP", "", -1);
    check("CASEMATE-LINK/1 aaaabbbbccccdddd000011112222333\nP", "", -1);
    /* After an answer only greetings and HTTP/2 may come; anything else starts from the beginning.
     */
    check(A "xPRI", ANSWER_A, -1);
    check(A "x" A "P", ANSWER_A ANSWER_A, 99);
}

/* link_wants never asks for more than is certain to be taken, and always makes progress. */
static void test_wants(void **state)
{
    (void)state;
    const char *text = "noise" A "CASEMATE" A A "PRI";
    struct link l;
    link_reset(&l);
    size_t at = 0;
    for (;;) {
        size_t n = link_wants(&l), taken;
        assert_true(n >= 1 && n <= LINK_GREETING_SIZE);
        assert_true(at < strlen(text));
        if (n > strlen(text) - at)
            n = strlen(text) - at;
        enum link_event e = link_feed(&l, (const uint8_t *)text + at, n, &taken);
        at += taken;
        if (e == LINK_SESSION)
            break;
        assert_int_equal(taken, n);
    }
    assert_string_equal(text + at, "PRI");
}

/* ---- on a socket pair
 * -------------------------------------------------------------------------------------------------
 */

struct fixture {
    struct loop *loop;
    struct rpc_server *server;
    struct transport_port *port;
    int host;
};

static int setup(void **state)
{
    static struct fixture f;
    struct err err;
    int pair[2];
    f = (struct fixture){.host = -1};
    struct rpc_server_config config = {0};
    if (loop_new(&f.loop, &err) < 0)
        return -1;
    config.loop = f.loop;
    if (rpc_server_new(&config, &f.server, &err) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return -1;
    f.host = pair[0];
    *state = &f;
    return transport_serve_port(f.loop, f.server, pair[1], &f.port, &err);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    rpc_server_free(f->server);
    transport_port_free(f->port);
    loop_free(f->loop);
    (void)close(f->host);
    return 0;
}

static void say(struct fixture *f, const void *bytes, size_t n)
{
    assert_int_equal(send(f->host, bytes, n, MSG_NOSIGNAL), (ssize_t)n);
}

/* Runs the loop until `wanted` has come from the agent, whatever comes before it. */
static void hear(struct fixture *f, const char *wanted, size_t len)
{
    size_t matched = 0;
    int64_t deadline = clock_deadline(5000);
    struct err err;
    while (matched < len) {
        assert_int_not_equal(clock_poll_timeout(deadline), 0);
        assert_int_equal(loop_run_once(f->loop, 10, &err), 0);
        char c;
        while (matched < len && recv(f->host, &c, 1, MSG_DONTWAIT) == 1) {
            if (c == wanted[matched])
                matched++;
            else
                matched = c == wanted[0] ? 1 : 0;
        }
    }
}

static void test_session(void **state)
{
    struct fixture *f = *state;
    say(f, "old bytes" A, 9 + 49);
    hear(f, ANSWER_A, 50);
    say(f, A A PREFACE, 98 + 24);
    say(f, SETTINGS, 9);
    hear(f, "\0\0\0\4\1\0\0\0\0", 9); /* the acknowledgement of our SETTINGS */
}

/* Repeats greeting B until it is answered, then begins a session. */
static void greet_until_answered(struct fixture *f)
{
    int64_t deadline = clock_deadline(5000);
    struct err err;
    char got[65536];
    size_t len = 0;
    while (memmem(got, len, ANSWER_B, 50) == NULL) {
        assert_int_not_equal(clock_poll_timeout(deadline), 0);
        say(f, B, 49);
        assert_int_equal(loop_run_once(f->loop, 10, &err), 0);
        ssize_t n = recv(f->host, got + len, sizeof(got) - len, MSG_DONTWAIT);
        if (n > 0)
            len += (size_t)n;
    }
    say(f, PREFACE, 24);
    say(f, SETTINGS, 9);
    hear(f, "\0\0\0\4\1\0\0\0\0", 9);
}

/* A new host talks into the session of the old one, which the agent does not know to be gone. */
static void test_takeover(void **state)
{
    struct fixture *f = *state;
    say(f, A, 49);
    hear(f, ANSWER_A, 50);
    say(f, PREFACE, 24);
    say(f, SETTINGS, 9);
    hear(f, "\0\0\0\4\1\0\0\0\0", 9);
    greet_until_answered(f); /* the first ends the session */
}

/* The old host died in the middle of a frame of the largest size: a burst of greetings fills it up
 * and ends the session. */
static void test_takeover_in_frame(void **state)
{
    struct fixture *f = *state;
    say(f, A, 49);
    hear(f, ANSWER_A, 50);
    say(f, PREFACE, 24);
    say(f, SETTINGS, 9);
    say(f, "\0\x40\0\xee\0\0\0\0\0",
        9); /* 16384 bytes of a frame type that nobody knows: ignored by RFC 9113 */
    static char burst[400 * 49];
    for (size_t i = 0; i < 400; i++)
        memcpy(burst + i * 49, B, 49);
    say(f, burst, sizeof(burst));
    greet_until_answered(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greeting),
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_wants),
        cmocka_unit_test_setup_teardown(test_session, setup, teardown),
        cmocka_unit_test_setup_teardown(test_takeover, setup, teardown),
        cmocka_unit_test_setup_teardown(test_takeover_in_frame, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
