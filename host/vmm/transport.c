/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. The two transports differ in what "not up yet" looks like. The unix socket
 * of a virtio-serial port belongs to QEMU and accepts from the first moment on; bytes wait until
 * the guest opens its port. A vsock connection fails or hangs while the guest is booting: no such
 * device yet (ENODEV), no listener (ECONNRESET), no driver (ETIMEDOUT), so attempts are short and
 * repeated. Anything that a later attempt cannot change ends the loop.
 *
 * A handshake that breaks with a hang-up is tried again too: an agent that takes the new connection
 * may drop it while it is still tearing down the old one.
 */
#include "host/vmm/transport.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#include "common/base/cleanup.h"
#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/text.h"
#include "host/vmm/link.h"

#define RETRY_MS         10
#define VSOCK_ATTEMPT_MS 1000

bool transport_vsock_available(void)
{
    cleanup_fd int vhost = open("/dev/vhost-vsock", O_RDWR | O_CLOEXEC);
    cleanup_fd int sock = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

    return vhost >= 0 && sock >= 0;
}

int transport_open_vhost(int *ret_fd, struct err *err)
{
    int fd = open("/dev/vhost-vsock", O_RDWR | O_CLOEXEC);

    if (fd < 0)
        return err_set_errno(err, errno, "/dev/vhost-vsock");
    *ret_fd = fd;
    return 0;
}

uint32_t transport_random_cid(void)
{
    uint32_t cid = 0;

    do {
        if (getrandom(&cid, sizeof(cid), 0) != (ssize_t)sizeof(cid))
            cid = (uint32_t)clock_monotonic_ns();
        cid &= 0x7fffffffU;
    } while (cid < 1024);
    return cid;
}

/* Waits until fd has one of the events. UNAVAILABLE when abort_fd is readable first, DEADLINE. */
static int wait_for(int fd, short events, int abort_fd, int64_t deadline_ms, struct err *err)
{
    struct pollfd fds[2] = {{.fd = fd, .events = events}, {.fd = abort_fd, .events = POLLIN}};

    for (;;) {
        int n = poll(fds, 2, clock_poll_timeout(deadline_ms));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set_errno(err, errno, "poll");
        if (fds[1].revents != 0)
            return err_set(err, ERR_UNAVAILABLE, "the machine ended");
        if (n > 0)
            return 0;
        if (clock_monotonic_ms() >= deadline_ms)
            return err_set(err, ERR_DEADLINE, "the agent cannot be reached in time");
    }
}

static int connect_vsock(uint32_t cid, int abort_fd, int64_t deadline_ms, int *ret_fd,
                         struct err *err)
{
    struct sockaddr_vm addr = {
        .svm_family = AF_VSOCK,
        .svm_cid = cid,
        .svm_port = TRANSPORT_VSOCK_PORT,
    };
    cleanup_fd int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    socklen_t len = sizeof(int);
    int failure = 0;

    if (fd < 0)
        return err_set_errno(err, errno, "vsock socket");
    /* The kernel's own limit is 2 s, and it applies to non-blocking sockets as well. */
    struct timeval limit = {.tv_sec = VSOCK_ATTEMPT_MS / 1000};
    (void)setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &limit, sizeof(limit));
    if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
        if (errno != EINPROGRESS)
            return err_set(err, ERR_UNAVAILABLE, "vsock cid %u: %s", cid, strerrordesc_np(errno));
        if (wait_for(fd, POLLOUT, abort_fd, deadline_ms, err) < 0)
            return -1;
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &failure, &len) < 0)
            return err_set_errno(err, errno, "vsock cid %u", cid);
        if (failure != 0)
            return err_set(err, ERR_UNAVAILABLE, "vsock cid %u: %s", cid, strerrordesc_np(failure));
    }
    *ret_fd = steal_fd(&fd);
    return 0;
}

static int set_blocking(int fd, struct err *err)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0)
        return err_set_errno(err, errno, "agent link");
    return 0;
}

static int connect_serial(const char *dir, int *ret_fd, struct err *err)
{
    cleanup_free char *path = text_printf("%s/" TRANSPORT_AGENT_SOCKET, dir);

    if (path == NULL)
        return err_no_memory(err);
    return fd_connect_unix(path, ret_fd, err);
}

static int attempt(const struct transport_target *target, int abort_fd, int64_t deadline_ms,
                   int *ret_fd, struct err *err)
{
    cleanup_fd int fd = -1;

    if (target->kind == VMM_TRANSPORT_VSOCK) {
        if (connect_vsock(target->cid, abort_fd, deadline_ms, &fd, err) < 0)
            return -1;
    } else if (connect_serial(target->dir, &fd, err) < 0) {
        return -1;
    }
    if (link_handshake(fd, abort_fd, deadline_ms, err) < 0 || set_blocking(fd, err) < 0)
        return -1;
    *ret_fd = steal_fd(&fd);
    return 0;
}

int transport_connect(const struct transport_target *target, int abort_fd, int64_t deadline_ms,
                      int *ret_fd, struct err *err)
{
    for (;;) {
        struct err why;
        if (attempt(target, abort_fd, deadline_ms, ret_fd, &why) == 0)
            return 0;
        int64_t retry_at = clock_deadline(RETRY_MS);
        struct err waited;
        bool again = why.code == ERR_UNAVAILABLE && retry_at < deadline_ms;
        /* A pause that only the machine's end cuts short: no descriptor to wait for but abort_fd.
         */
        if (again && wait_for(-1, 0, abort_fd, retry_at, &waited) < 0 &&
            waited.code == ERR_DEADLINE)
            continue;
        if (err != NULL)
            *err = why;
        return -1;
    }
}
