/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes between a descriptor and a session. Everything that calls into the session runs between
 * enter() and leave(); what must not happen inside the session's callbacks (freeing it, writing)
 * waits for the outermost leave(), which writes, ends the connection if that was decided meanwhile,
 * and sets the timer anew.
 *
 * Reading takes a few buffers per event and then lets other descriptors have their turn. The buffer
 * is the connection's, not on the stack: there each of its pages would be touched for every event,
 * however little comes, and most of what comes is little. Output is pulled from the session only
 * while less than OUT_LOW bytes wait for the descriptor, so that the session, which knows about
 * windows and queues, and not this buffer, is where data waits.
 *
 * One timer serves two purposes: the earliest deadline of the session's streams, and keepalive:
 * after keepalive_ms of silence a PING; without any byte within keepalive_timeout_ms of it the
 * connection is dead.
 *
 * When a write fails the peer may still have sent its last words: reading goes on to its end.
 */
#include "common/rpc/conn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/loop/loop.h"
#include "common/rpc/mem.h"

#define READ_SIZE       (64u << 10)
#define READS_PER_EVENT 4
#define OUT_LOW         (64u << 10)
#define OUT_MAX         (1u << 20)
#define KEEPALIVE_TOKEN 0x6b65657061736b21ull

struct rpc_conn {
    struct rpc_conn_config config;
    struct rpc_session *session;
    int fd;
    bool is_socket;
    struct loop_source *source;
    struct loop_source *timer;
    uint32_t events;
    uint8_t *in; /* READ_SIZE bytes */
    struct buf out;
    struct buf first; /* read before us; fed in the first round */
    unsigned depth;   /* enter() without leave() */
    bool write_failed;
    bool closing; /* on_closed is due or done */
    bool closed;
    bool has_close_err;
    struct err close_err;
    int64_t last_read_ms;
    int64_t ping_sent_ms; /* 0: none is out */
    int64_t timer_due_ms; /* CLOCK_NO_DEADLINE: not armed */
};

static void enter(struct rpc_conn *conn)
{
    conn->depth++;
}

static ssize_t write_some(struct rpc_conn *conn)
{
    const uint8_t *bytes = buf_bytes(&conn->out);
    for (;;) {
        ssize_t n = conn->is_socket ? send(conn->fd, bytes, conn->out.len, MSG_NOSIGNAL)
                                    : write(conn->fd, bytes, conn->out.len);
        if (n >= 0 || errno != EINTR)
            return n;
    }
}

/* Fills `out` from the session up to its low mark. */
static int pull(struct rpc_conn *conn, struct err *err)
{
    while (conn->out.len < OUT_LOW) {
        const uint8_t *bytes;
        size_t n;
        if (rpc_session_pull(conn->session, &bytes, &n, err) < 0)
            return -1;
        if (n == 0)
            return 0;
        if (buf_append(&conn->out, bytes, n, err) < 0)
            return -1;
    }
    return 0;
}

/* Writes until the descriptor is full or there is nothing left. */
static void push(struct rpc_conn *conn)
{
    struct err err;
    for (;;) {
        if (pull(conn, &err) < 0) {
            rpc_conn_close(conn, &err);
            /* What is already in `out`, such as a GOAWAY, is still offered to the descriptor once.
             */
            if (conn->out.len > 0 && !conn->write_failed)
                (void)write_some(conn);
            return;
        }
        if (conn->write_failed)
            buf_consume(&conn->out, conn->out.len);
        if (conn->out.len == 0)
            return;
        ssize_t n = write_some(conn);
        if (n < 0) {
            if (errno != EAGAIN && errno != EWOULDBLOCK)
                conn->write_failed = true;
            else
                return;
            continue;
        }
        buf_consume(&conn->out, (size_t)n);
    }
}

static void end(struct rpc_conn *conn)
{
    conn->closed = true;
    loop_source_free(steal_ptr(&conn->source));
    loop_source_free(steal_ptr(&conn->timer));
    close_fd(&conn->fd);
    conn->config.on_closed(conn->config.session.arg, conn->has_close_err ? &conn->close_err : NULL);
}

static void set_timer(struct rpc_conn *conn)
{
    const struct rpc_limits *l = &conn->config.session.limits;
    int64_t due = rpc_session_next_deadline(conn->session);
    if (conn->ping_sent_ms != 0)
        due = clock_earlier(due, conn->ping_sent_ms + l->keepalive_timeout_ms);
    else if (l->keepalive_ms > 0)
        due = clock_earlier(due, conn->last_read_ms + l->keepalive_ms);
    if (due == conn->timer_due_ms)
        return;
    conn->timer_due_ms = due;
    if (due == CLOCK_NO_DEADLINE)
        loop_disarm(conn->timer);
    else
        loop_arm(conn->timer, due > clock_monotonic_ms() ? due - clock_monotonic_ms() : 0);
}

static void leave(struct rpc_conn *conn)
{
    if (conn->depth > 1) {
        conn->depth--;
        return;
    }
    if (!conn->closing)
        push(conn);
    if (!conn->closing && conn->out.len == 0 && rpc_session_done(conn->session))
        rpc_conn_close(conn, NULL);
    conn->depth--;
    if (conn->closing) {
        if (!conn->closed)
            end(conn); /* may free conn */
        return;
    }
    uint32_t events = EPOLLIN | (conn->out.len > 0 ? (uint32_t)EPOLLOUT : 0u);
    struct err err;
    if (events != conn->events && loop_set_events(conn->source, events, &err) == 0)
        conn->events = events;
    set_timer(conn);
}

static void feed(struct rpc_conn *conn, const uint8_t *bytes, size_t n)
{
    struct err err;
    conn->last_read_ms = clock_monotonic_ms();
    conn->ping_sent_ms = 0;
    if (rpc_session_feed(conn->session, bytes, n, conn->last_read_ms, &err) < 0) {
        rpc_conn_close(conn, &err);
        push(conn); /* a GOAWAY that says why */
    }
}

static void feed_first(struct rpc_conn *conn)
{
    if (conn->first.len > 0)
        feed(conn, buf_bytes(&conn->first), conn->first.len);
    buf_fini(&conn->first);
}

static void read_all(struct rpc_conn *conn)
{
    struct err err;
    feed_first(conn);
    for (int i = 0; i < READS_PER_EVENT && !conn->closing; i++) {
        ssize_t n = read(conn->fd, conn->in, READ_SIZE);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            if (conn->write_failed) {
                (void)err_set(&err, ERR_UNAVAILABLE, "connection lost");
                rpc_conn_close(conn, &err);
            }
            return;
        }
        if (n <= 0) {
            if (n < 0)
                (void)err_set_errno(&err, errno, "connection lost");
            else
                (void)err_set(&err, ERR_UNAVAILABLE, "connection closed by the peer");
            rpc_conn_close(conn, &err);
            return;
        }
        feed(conn, conn->in, (size_t)n);
        if ((size_t)n < READ_SIZE)
            return;
    }
}

static void on_ready(void *arg, uint32_t events)
{
    struct rpc_conn *conn = arg;
    if (conn->depth > 0)
        return; /* a handler runs the loop: see server.h; nothing can be done in here */
    enter(conn);
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0)
        read_all(conn);
    leave(conn);
}

static void on_timer(void *arg)
{
    struct rpc_conn *conn = arg;
    const struct rpc_limits *l = &conn->config.session.limits;
    int64_t now = clock_monotonic_ms();
    conn->timer_due_ms = CLOCK_NO_DEADLINE;
    enter(conn);
    feed_first(conn);
    rpc_session_expire(conn->session, now);
    if (conn->ping_sent_ms != 0 && now - conn->ping_sent_ms >= l->keepalive_timeout_ms) {
        struct err err;
        (void)err_set(&err, ERR_UNAVAILABLE, "the peer did not answer a keepalive ping");
        rpc_conn_close(conn, &err);
    } else if (conn->ping_sent_ms == 0 && l->keepalive_ms > 0 &&
               now - conn->last_read_ms >= l->keepalive_ms) {
        conn->ping_sent_ms = now;
        rpc_session_ping(conn->session, KEEPALIVE_TOKEN);
    }
    leave(conn);
}

static int attach(struct rpc_conn *conn, struct err *err)
{
    int type;
    socklen_t len = sizeof(type);
    conn->in = rpc_malloc(READ_SIZE);
    if (conn->in == NULL)
        return err_no_memory(err);
    conn->is_socket = getsockopt(conn->fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0;
    if (fd_set_nonblock(conn->fd, err) < 0)
        return -1;
    if (rpc_session_new(&conn->config.session, &conn->session, err) < 0)
        return -1;
    conn->events = EPOLLIN | EPOLLOUT; /* there is a SETTINGS frame to send */
    if (loop_add_fd(conn->config.loop, conn->fd, conn->events, on_ready, conn, &conn->source, err) <
        0)
        return -1;
    if (loop_add_timer(conn->config.loop, on_timer, conn, &conn->timer, err) < 0)
        return -1;
    if (conn->config.n_first > 0) {
        if (buf_append(&conn->first, conn->config.first, conn->config.n_first, err) < 0)
            return -1;
        conn->timer_due_ms = 0;
        loop_arm(conn->timer, 0);
    }
    return 0;
}

int rpc_conn_new(const struct rpc_conn_config *config, int fd, struct rpc_conn **ret_conn,
                 struct err *err)
{
    struct rpc_conn *conn = rpc_calloc(1, sizeof(*conn));
    if (conn == NULL) {
        (void)close(fd);
        return err_no_memory(err);
    }
    conn->config = *config;
    conn->fd = fd;
    conn->last_read_ms = clock_monotonic_ms();
    conn->timer_due_ms = CLOCK_NO_DEADLINE;
    buf_init(&conn->out, OUT_MAX);
    buf_init(&conn->first, READ_SIZE);
    if (attach(conn, err) < 0) {
        rpc_conn_free(conn);
        return -1;
    }
    *ret_conn = conn;
    return 0;
}

void rpc_conn_free(struct rpc_conn *conn)
{
    if (conn == NULL)
        return;
    loop_source_free(conn->source);
    loop_source_free(conn->timer);
    close_fd(&conn->fd);
    rpc_session_free(conn->session);
    buf_fini(&conn->out);
    buf_fini(&conn->first);
    free(conn->in);
    free(conn);
}

struct rpc_session *rpc_conn_session(struct rpc_conn *conn)
{
    return conn->closing ? NULL : conn->session;
}

void rpc_conn_flush(struct rpc_conn *conn)
{
    if (conn->closed || conn->depth > 0)
        return;
    enter(conn);
    leave(conn);
}

void rpc_conn_close(struct rpc_conn *conn, const struct err *err)
{
    if (conn->closing)
        return;
    conn->closing = true;
    if (err != NULL) {
        conn->has_close_err = true;
        conn->close_err = *err;
    }
    if (conn->depth == 0)
        end(conn);
}
