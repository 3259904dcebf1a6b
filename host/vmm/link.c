/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The handshake. A virtio-serial port is one channel for the life of a machine: when the daemon
 * restarts and connects again, the guest may still be sending the end of an answer to its
 * predecessor, and bytes of the predecessor may wait on their way in. So, before HTTP/2 starts:
 *
 *   host  → guest  "CASEMATE-LINK/1 "  nonce "\n"     every 100 ms, until the echo was seen
 *   guest → host   "CASEMATE-AGENT/1 " nonce "\n"     once for each new nonce
 *
 * The nonce is 32 lowercase hexadecimal digits from the kernel's random generator, so no stale byte
 * can be the echo. The host discards everything before its own echo, and sends nothing else until
 * it has seen it; the guest drops the session that it had when a preamble arrives. The same is done
 * on vsock, where it costs one round trip and saves a second path.
 *
 * Matching is a plain automaton without a failure table: 'C' occurs only at the start of the echo.
 * The host never reads more bytes than the echo still lacks, so that not one byte of the session
 * behind it is swallowed.
 */
#include "host/vmm/link.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "common/base/clock.h"
#include "common/base/text.h"

struct handshake {
    int socket_fd;
    char preamble[LINK_PREAMBLE_SIZE + 1];
    char echo[LINK_ECHO_SIZE + 1];
    size_t matched; /* bytes of the echo that were seen */
    size_t unsent;  /* bytes at the end of the preamble still to be sent */
    uint64_t discarded;
};

/* Sends what is left of the preamble; a full socket is no error. */
static int send_some(struct handshake *h, struct err *err)
{
    while (h->unsent > 0) {
        ssize_t n = send(h->socket_fd, h->preamble + LINK_PREAMBLE_SIZE - h->unsent, h->unsent,
                         MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return 0;
        if (n < 0)
            return err_set(err, ERR_UNAVAILABLE, "agent link: %s", strerrordesc_np(errno));
        h->unsent -= (size_t)n;
    }
    return 0;
}

static void match(struct handshake *h, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] == h->echo[h->matched]) {
            h->matched++;
            continue;
        }
        h->discarded += h->matched;
        h->matched = 0;
        if (bytes[i] == h->echo[0])
            h->matched = 1;
        else
            h->discarded++;
    }
}

/* Reads until the socket is empty or the echo is complete. */
static int receive_some(struct handshake *h, struct err *err)
{
    char bytes[LINK_ECHO_SIZE];

    while (h->matched < LINK_ECHO_SIZE) {
        ssize_t n = recv(h->socket_fd, bytes, LINK_ECHO_SIZE - h->matched, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return 0;
        if (n < 0)
            return err_set(err, ERR_UNAVAILABLE, "agent link: %s", strerrordesc_np(errno));
        if (n == 0)
            return err_set(err, ERR_UNAVAILABLE, "agent link: hung up during the handshake");
        match(h, bytes, (size_t)n);
        if (h->discarded > LINK_DISCARD_MAX)
            return err_set(err, ERR_PROTOCOL, "agent link: no echo in %d bytes", LINK_DISCARD_MAX);
    }
    return 0;
}

int link_handshake(int socket_fd, int abort_fd, int64_t deadline_ms, struct err *err)
{
    struct handshake h = {.socket_fd = socket_fd};
    char nonce[LINK_NONCE_DIGITS + 1];
    int64_t repeat_at = 0;

    text_random_hex(LINK_NONCE_DIGITS / 2, nonce);
    (void)snprintf(h.preamble, sizeof(h.preamble), LINK_PREAMBLE "%s\n", nonce);
    (void)snprintf(h.echo, sizeof(h.echo), LINK_ECHO "%s\n", nonce);
    for (;;) {
        int64_t now = clock_monotonic_ms();
        if (now >= deadline_ms)
            return err_set(err, ERR_DEADLINE, "agent link: the agent did not answer in time");
        if (h.unsent == 0 && now >= repeat_at) {
            h.unsent = LINK_PREAMBLE_SIZE;
            repeat_at = now + LINK_REPEAT_MS;
        }
        if (send_some(&h, err) < 0 || receive_some(&h, err) < 0)
            return -1;
        /* A preamble that was begun must be finished: half a line would swallow the session's
         * start. */
        if (h.matched == LINK_ECHO_SIZE && (h.unsent == 0 || h.unsent == LINK_PREAMBLE_SIZE))
            return 0;

        struct pollfd fds[2] = {
            {.fd = socket_fd, .events = (short)(h.unsent > 0 ? POLLIN | POLLOUT : POLLIN)},
            {.fd = abort_fd, .events = POLLIN},
        };
        if (h.matched == LINK_ECHO_SIZE)
            fds[0].events = POLLOUT;
        int64_t until = h.unsent > 0 ? deadline_ms : clock_earlier(deadline_ms, repeat_at);
        if (poll(fds, 2, clock_poll_timeout(until)) < 0 && errno != EINTR)
            return err_set_errno(err, errno, "agent link: poll");
        if (fds[1].revents != 0)
            return err_set(err, ERR_UNAVAILABLE, "agent link: the machine ended");
    }
}
