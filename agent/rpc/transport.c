/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The port is one open file for ever; sessions come and go on it. Between sessions this file reads
 * it, a few bytes at a time (link_wants), so that next to nothing of a session is read before it
 * begins; for a session the rpc server gets a duplicate descriptor and this file does not touch the
 * port until that is closed.
 *
 * While no host is connected the port is permanently readable with a hang-up. It is therefore
 * watched edge-triggered: the driver wakes its waiters when a host connects and when bytes come,
 * and there is no other reason to look. The rpc server watches level-triggered and meets a hang-up
 * as end of file, which ends the session.
 *
 * A host that reconnects so fast that the hang-up is never seen talks into the old session: its
 * greeting is no HTTP/2 frame, the session fails, and scanning finds the next greeting. See
 * PROTOCOL.md for how the host makes sure of that.
 */
#include "agent/rpc/transport.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/vm_sockets.h>

#include "common/base/cleanup.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/loop/loop.h"
#include "common/rpc/server.h"
#include "agent/rpc/link.h"

#define VSOCK_BACKLOG 16

struct transport_port {
    struct loop *loop;
    struct rpc_server *server;
    int fd;
    struct loop_source *source; /* NULL while a session owns the port */
    struct link link;
    size_t unsent; /* bytes of link.answer still to be written, from its end */
};

/* ---- virtio-serial ---- */

static void on_port(void *arg, uint32_t events);

static int scan(struct transport_port *port, struct err *err)
{
    link_reset(&port->link);
    port->unsent = 0;
    return loop_add_fd(port->loop, port->fd, EPOLLIN | EPOLLOUT | (uint32_t)EPOLLET, on_port, port,
                       &port->source, err);
}

static void on_session_closed(void *arg)
{
    struct transport_port *port = arg;
    struct err err;
    log_debug("the host's session has ended");
    if (scan(port, &err) < 0)
        log_event(LOG_ERROR, NULL, &err, "the port is not served any more");
}

static void begin_session(struct transport_port *port, const uint8_t *first, size_t n)
{
    struct err err;
    int copy = fcntl(port->fd, F_DUPFD_CLOEXEC, 0);
    loop_source_free(port->source);
    port->source = NULL;
    if (copy < 0)
        (void)err_set_errno(&err, errno, "duplicate the port");
    if (copy < 0 || rpc_server_add_connection_after(port->server, copy, first, n, on_session_closed,
                                                    port, &err) < 0) {
        log_event(LOG_ERROR, NULL, &err, "cannot serve the host");
        on_session_closed(port);
    }
}

/* Writes what is left of the answer. What does not fit now is tried again when the port has room.
 */
static void send_answer(struct transport_port *port)
{
    while (port->unsent > 0) {
        ssize_t n =
            write(port->fd, port->link.answer + LINK_ANSWER_SIZE - port->unsent, port->unsent);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return;
        port->unsent -= (size_t)n;
    }
}

/* Returns whether to go on reading. */
static bool take(struct transport_port *port, const uint8_t *bytes, size_t n)
{
    while (n > 0) {
        size_t taken;
        enum link_event event = link_feed(&port->link, bytes, n, &taken);
        bytes += taken;
        n -= taken;
        if (event == LINK_SESSION) {
            begin_session(port, bytes, n);
            return false;
        }
        if (event == LINK_ECHO) {
            port->unsent = LINK_ANSWER_SIZE;
            send_answer(port);
        }
    }
    return true;
}

static void on_port(void *arg, uint32_t events)
{
    struct transport_port *port = arg;
    (void)events;
    send_answer(port);
    for (;;) {
        uint8_t bytes[LINK_GREETING_SIZE];
        ssize_t n = read(port->fd, bytes, link_wants(&port->link));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return; /* nothing there, or nobody: the next edge says more */
        if (!take(port, bytes, (size_t)n))
            return;
    }
}

int transport_serve_port(struct loop *loop, struct rpc_server *server, int fd,
                         struct transport_port **ret_port, struct err *err)
{
    struct transport_port *port = calloc(1, sizeof(*port));
    if (port == NULL) {
        (void)close(fd);
        return err_no_memory(err);
    }
    *port = (struct transport_port){.loop = loop, .server = server, .fd = fd};
    if (fd_set_nonblock(fd, err) < 0 || scan(port, err) < 0) {
        transport_port_free(port);
        return -1;
    }
    *ret_port = port;
    return 0;
}

void transport_port_free(struct transport_port *port)
{
    if (port == NULL)
        return;
    loop_source_free(port->source);
    close_fd(&port->fd);
    free(port);
}

int transport_open_port(int *ret_fd, struct err *err)
{
    DIR *dir = opendir("/sys/class/virtio-ports");
    if (dir == NULL)
        return err_set_errno(err, errno, "open /sys/class/virtio-ports");
    struct dirent *e;
    int rc = -1;
    (void)err_set(err, ERR_NOT_FOUND, "there is no port named %s", TRANSPORT_PORT_NAME);
    while (rc < 0 && (e = readdir(dir)) != NULL) {
        char path[300];
        cleanup_free char *name = NULL;
        struct err ignored;
        (void)snprintf(path, sizeof(path), "%.255s/name", e->d_name);
        if (e->d_name[0] == '.' || fd_read_file(dirfd(dir), path, 256, &name, NULL, &ignored) < 0)
            continue;
        name[strcspn(name, "\n")] = '\0';
        if (strcmp(name, TRANSPORT_PORT_NAME) != 0)
            continue;
        (void)snprintf(path, sizeof(path), "/dev/%.255s", e->d_name);
        int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        if (fd < 0) {
            (void)err_set_errno(err, errno, "open %s", path);
            continue;
        }
        *ret_fd = fd;
        rc = 0;
    }
    (void)closedir(dir);
    return rc;
}

/* ---- streams with connections of their own ---- */

/* A connected stream whose greeting has not come whole yet. */
struct greeter {
    struct rpc_server *server;
    int fd;
    struct loop_source *source;
    struct link link;
};

static void greeter_free(struct greeter *g)
{
    loop_source_free(g->source);
    close_fd(&g->fd);
    free(g);
}

/* Returns whether the greeter is still there and wants more. */
static bool greeter_take(struct greeter *g, const uint8_t *bytes, size_t n)
{
    while (n > 0) {
        struct err err;
        size_t taken;
        enum link_event event = link_feed(&g->link, bytes, n, &taken);
        bytes += taken;
        n -= taken;
        if (event == LINK_SESSION) {
            loop_source_free(g->source);
            g->source = NULL;
            if (rpc_server_add_connection_after(g->server, steal_fd(&g->fd), bytes, n, NULL, NULL,
                                                &err) < 0)
                log_event(LOG_ERROR, NULL, &err, "cannot serve the host");
            greeter_free(g);
            return false;
        }
        /* 50 bytes always fit into a connection on which nothing was written yet. */
        if (event == LINK_ECHO && write(g->fd, g->link.answer, LINK_ANSWER_SIZE) < 0) {
            greeter_free(g);
            return false;
        }
    }
    return true;
}

static void on_greeter(void *arg, uint32_t events)
{
    struct greeter *g = arg;
    uint8_t bytes[LINK_GREETING_SIZE];
    (void)events;
    ssize_t n = read(g->fd, bytes, link_wants(&g->link));
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0)
        greeter_free(g);
    else
        (void)greeter_take(g, bytes, (size_t)n);
}

int transport_greet(struct loop *loop, struct rpc_server *server, int fd, struct err *err)
{
    struct greeter *g = calloc(1, sizeof(*g));
    if (g == NULL) {
        (void)close(fd);
        return err_no_memory(err);
    }
    *g = (struct greeter){.server = server, .fd = fd};
    link_reset(&g->link);
    if (fd_set_nonblock(fd, err) < 0 ||
        loop_add_fd(loop, fd, EPOLLIN, on_greeter, g, &g->source, err) < 0) {
        greeter_free(g);
        return -1;
    }
    return 0;
}

/* ---- vsock ---- */

struct transport_vsock {
    struct loop *loop;
    struct rpc_server *server;
    int fd;
    struct loop_source *source;
};

static void on_vsock(void *arg, uint32_t events)
{
    struct transport_vsock *vsock = arg;
    struct sockaddr_vm peer;
    socklen_t len = sizeof(peer);
    struct err err;
    (void)events;
    int fd = accept4(vsock->fd, (struct sockaddr *)&peer, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    if (len < sizeof(peer) || peer.svm_family != AF_VSOCK || peer.svm_cid != VMADDR_CID_HOST) {
        log_warn("a peer that is not the host (CID %u) was turned away", peer.svm_cid);
        (void)close(fd);
        return;
    }
    if (transport_greet(vsock->loop, vsock->server, fd, &err) < 0)
        log_event(LOG_ERROR, NULL, &err, "cannot serve the host");
}

int transport_serve_vsock(struct loop *loop, struct rpc_server *server,
                          struct transport_vsock **ret_vsock, struct err *err)
{
    cleanup_fd int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_set(err, ERR_UNSUPPORTED, "the guest has no vsock");
    /* Any CID: a clone's is another than the one that its template was listening on. */
    struct sockaddr_vm address = {
        .svm_family = AF_VSOCK,
        .svm_cid = VMADDR_CID_ANY,
        .svm_port = TRANSPORT_VSOCK_PORT,
    };
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, VSOCK_BACKLOG) < 0)
        return err_set_errno(err, errno, "listen on vsock port %u", TRANSPORT_VSOCK_PORT);
    struct transport_vsock *vsock = calloc(1, sizeof(*vsock));
    if (vsock == NULL)
        return err_no_memory(err);
    vsock->loop = loop;
    vsock->server = server;
    if (loop_add_fd(loop, fd, EPOLLIN, on_vsock, vsock, &vsock->source, err) < 0) {
        free(vsock);
        return -1;
    }
    vsock->fd = steal_fd(&fd);
    *ret_vsock = vsock;
    return 0;
}

void transport_vsock_free(struct transport_vsock *vsock)
{
    if (vsock == NULL)
        return;
    loop_source_free(vsock->source);
    close_fd(&vsock->fd);
    free(vsock);
}
