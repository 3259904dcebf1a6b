/* SPDX-License-Identifier: Apache-2.0 */
/* The link handshake against an agent of the test's own on a socketpair. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/text.h"
#include "host/vmm/link.h"

/* What the agent does: reads preambles until it answers the answer_at-th one. */
struct agent {
    int fd;
    int answer_at;
    const char *before; /* sent before the echo, once */
    size_t flood_bytes; /* so many more before it */
    const char *after;  /* sent in one piece with the echo */
    bool hang_up;
    char nonces[64][LINK_NONCE_DIGITS + 1];
    int n;
};

static void *run_agent(void *arg)
{
    struct agent *a = arg;
    struct err err;
    static char noise[65536];

    if (a->before != NULL)
        (void)fd_write_all(a->fd, a->before, strlen(a->before), &err);
    memset(noise, 'C', sizeof(noise));
    for (size_t sent = 0; sent < a->flood_bytes; sent += sizeof(noise))
        if (send(a->fd, noise, sizeof(noise), MSG_NOSIGNAL) < 0)
            return NULL;
    while (a->n < 64) {
        char line[LINK_PREAMBLE_SIZE + 1] = "", answer[256];
        size_t got;
        if (fd_read_full(a->fd, line, LINK_PREAMBLE_SIZE, &got, &err) < 0 ||
            got < LINK_PREAMBLE_SIZE)
            return NULL;
        assert_memory_equal(line, LINK_PREAMBLE, strlen(LINK_PREAMBLE));
        assert_int_equal(line[LINK_PREAMBLE_SIZE - 1], '\n');
        memcpy(a->nonces[a->n], line + strlen(LINK_PREAMBLE), LINK_NONCE_DIGITS);
        assert_true(text_is_hex(a->nonces[a->n], LINK_NONCE_DIGITS));
        if (a->n++ + 1 != a->answer_at)
            continue;
        if (a->hang_up) {
            shutdown(a->fd, SHUT_RDWR);
            return NULL;
        }
        int n = snprintf(answer, sizeof(answer), LINK_ECHO "%s\n%s", a->nonces[0],
                         a->after != NULL ? a->after : "");
        (void)fd_write_all(a->fd, answer, (size_t)n, &err);
        return NULL;
    }
    return NULL;
}

static int shake(struct agent *a, int64_t timeout_ms, int *ret_fd, struct err *err)
{
    int pair[2];
    pthread_t thread;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    a->fd = pair[1];
    assert_int_equal(pthread_create(&thread, NULL, run_agent, a), 0);
    int result = link_handshake(pair[0], -1, clock_deadline(timeout_ms), err);
    if (result < 0)
        shutdown(pair[0], SHUT_RDWR);
    pthread_join(thread, NULL);
    close(pair[1]);
    *ret_fd = pair[0];
    return result;
}

static void finds_its_echo(void **state)
{
    struct agent a = {.answer_at = 1};
    struct err err = {0};
    int fd;

    (void)state;
    if (shake(&a, 10000, &fd, &err) < 0)
        fail_msg("%s", err.msg);
    close(fd);
}

static void repeats_and_uses_fresh_nonces(void **state)
{
    struct agent a = {.answer_at = 3}, b = {.answer_at = 1};
    struct err err;
    int fd;

    (void)state;
    assert_int_equal(shake(&a, 10000, &fd, &err), 0);
    close(fd);
    assert_string_equal(a.nonces[0], a.nonces[1]);
    assert_string_equal(a.nonces[0], a.nonces[2]);
    assert_int_equal(shake(&b, 10000, &fd, &err), 0);
    close(fd);
    assert_string_not_equal(a.nonces[0], b.nonces[0]);
}

/* Stale bytes of all kinds come first, and what comes behind the echo is untouched. */
static void discards_before_and_nothing_after(void **state)
{
    static const char *const stale[] = {
        "x",
        "CASEMATE-AGENT/1 ",
        "CASEMATE-AGENT/1 00000000000000000000000000000000\n",
        "CCASEMATE-AGENT/1 0000000000000000000000000000000C",
        "CASEMATE-AGENT/1 00000000000000000000000000000000\nCASEMATE",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(stale); i++) {
        struct agent a = {.answer_at = 1, .before = stale[i], .after = "CASEMATE-AGENT/1 is first"};
        char rest[64] = "";
        struct err err = {0};
        int fd;
        if (shake(&a, 10000, &fd, &err) < 0)
            fail_msg("%s: %s", stale[i], err.msg);
        assert_int_equal(read(fd, rest, sizeof(rest) - 1), (ssize_t)strlen(a.after));
        assert_string_equal(rest, a.after);
        close(fd);
    }
}

static void gives_up(void **state)
{
    struct err err;
    int fd;

    (void)state;
    struct agent silent = {.answer_at = -1};
    int64_t before = clock_monotonic_ms();
    assert_int_equal(shake(&silent, 350, &fd, &err), -1);
    assert_int_equal(err.code, ERR_DEADLINE);
    assert_true(clock_monotonic_ms() - before >= 350);
    assert_true(silent.n >= 3 && silent.n <= 5);
    close(fd);

    struct agent gone = {.answer_at = 2, .hang_up = true};
    assert_int_equal(shake(&gone, 10000, &fd, &err), -1);
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    close(fd);

    struct agent flood = {.answer_at = 1, .flood_bytes = 2 * (size_t)LINK_DISCARD_MAX};
    assert_int_equal(shake(&flood, 60000, &fd, &err), -1);
    assert_int_equal(err.code, ERR_PROTOCOL);
    close(fd);
}

static void ends_with_the_machine(void **state)
{
    int pair[2], end[2];
    struct err err;

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(pipe(end), 0);
    close(end[1]);
    int64_t before = clock_monotonic_ms();
    assert_int_equal(link_handshake(pair[0], end[0], clock_deadline(20000), &err), -1);
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    assert_true(clock_monotonic_ms() - before < 5000);
    close(end[0]);
    close(pair[0]);
    close(pair[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_its_echo),
        cmocka_unit_test(repeats_and_uses_fresh_nonces),
        cmocka_unit_test(discards_before_and_nothing_after),
        cmocka_unit_test(gives_up),
        cmocka_unit_test(ends_with_the_machine),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
