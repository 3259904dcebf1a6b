/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections, routing and the end of the server. The loop's thread does everything in here.
 *
 * A request's headers are checked and routed as soon as they are complete; a unary call waits for
 * its message and the client's end of stream before it is dispatched, a client-streaming one is
 * dispatched at once. Dispatch hands a reference to the handler, by the executor or directly.
 * Answers come back by the mailbox (rpc_server_on_mail); after each batch of them every connection
 * is flushed once.
 *
 * A call that its client gave up, or whose deadline passed, loses its stream at once, and the
 * handler is told; the call stays in the connection's list until the handler has ended it, because
 * handlers that still run are what costs: beyond twice the stream limit of them new calls are
 * refused.
 *
 * Shutdown: (1) GOAWAY with the highest stream id, which asks clients to go elsewhere, and a PING;
 * (2) when the PING is answered, everything sent before the client knew has arrived: GOAWAY with
 * the last stream taken; (3) when a connection's streams have ended it is closed; (4) without
 * connections the server is drained. The deadline cuts it short.
 */
#include "common/rpc/server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/loop/loop.h"
#include "common/rpc/call.h"
#include "common/rpc/conn.h"
#include "common/rpc/mem.h"

#define DEFAULT_CONNECTIONS 256
#define ACCEPTS_PER_EVENT   16
#define ACCEPT_RETRY_MS     100 /* after accept(2) failed for want of descriptors */
#define SHUTDOWN_TOKEN      0x73687574646f776eull

struct server_conn {
    LIST_ENTRY(server_conn) link;
    struct rpc_server *server;
    struct rpc_conn *conn;
    LIST_HEAD(, rpc_call) calls;
    size_t n_calls;
    bool refuses; /* second GOAWAY sent */
    void (*on_closed)(void *arg);
    void *arg;
};

struct rpc_server {
    struct rpc_server_config config;
    struct rpc_mailbox *mailbox;
    struct rpc_mail flush_mail; /* posted for the flush that follows it */
    LIST_HEAD(, server_conn) conns;
    size_t n_conns;
    int listen_fd;
    struct loop_source *listen_source;
    struct loop_source *accept_timer;
    struct loop_source *drain_timer;
    bool draining;
    bool drained;
    void (*on_drained)(void *arg);
    void *on_drained_arg;
};

/* ---- one call ---- */

static void report(struct server_conn *sc, struct rpc_call *call, enum rpc_status status)
{
    const struct rpc_server_config *config = &sc->server->config;
    if (call->reported)
        return;
    call->reported = true;
    if (config->on_done != NULL)
        config->on_done(config->on_done_arg, call->method->name, status,
                        clock_monotonic_ns() - call->start_ns);
}

static void detach_stream(struct rpc_call *call)
{
    struct rpc_stream *stream = steal_ptr(&call->stream);
    if (stream != NULL)
        rpc_stream_set_user(stream, NULL);
}

/* The loop is done with the call. */
static void forget(struct rpc_call *call)
{
    detach_stream(call);
    if (call->conn != NULL) {
        call->conn->n_calls--;
        LIST_REMOVE(call, link);
        call->conn = NULL;
        rpc_call_unref(call);
    }
}

/* Nobody waits for this call any more. Its stream is gone or has been answered by the caller. */
static void give_up(struct rpc_call *call, enum rpc_status status)
{
    detach_stream(call);
    report(call->conn, call, status);
    if (!call->dispatched) {
        forget(call);
        return;
    }
    rpc_call_cancel(call);
}

static void answer_and_give_up(struct rpc_call *call, enum rpc_status status, const char *text)
{
    rpc_stream_abort(call->stream, status, text);
    give_up(call, status);
}

static void dispatch(struct rpc_call *call)
{
    const struct rpc_server_config *config = &call->conn->server->config;
    struct err err;
    call->dispatched = true;
    rpc_call_ref(call);
    if (config->execute == NULL || call->method->on_loop) {
        rpc_call_run(call);
    } else if (config->execute(config->executor, rpc_call_run, call, &err) < 0) {
        rpc_call_fail(call, &err);
    }
}

static void on_message(void *user, struct rpc_bytes *message)
{
    struct rpc_call *call = user;
    struct err err;
    if (!call->method->client_streaming) {
        if (!call->got_request) {
            call->got_request = true;
            call->raw = *message;
            return;
        }
        free(message->data);
        answer_and_give_up(call, RPC_INTERNAL, "more than one request message");
        return;
    }
    rpc_call_ref(call); /* the handler may end it in there */
    if (rpc_call_deliver(call, message, &err) < 0 && call->stream != NULL)
        answer_and_give_up(call, rpc_status_from_err(err.code), err.msg);
    rpc_call_unref(call);
}

static void on_end(void *user)
{
    struct rpc_call *call = user;
    struct err err;
    call->peer_ended = true;
    if (!call->method->client_streaming) {
        if (call->got_request)
            dispatch(call);
        else
            answer_and_give_up(call, RPC_INTERNAL, "no request message");
    } else if (!rpc_call_holds(call)) {
        call->peer_ended = false;
        (void)rpc_call_deliver(call, NULL, &err);
    }
}

static void on_bad(void *user, const struct err *err)
{
    struct rpc_call *call = user;
    answer_and_give_up(call, rpc_status_from_err(err->code), err->msg);
}

static void on_reset(void *user, uint32_t code)
{
    struct rpc_call *call = user;
    (void)code;
    call->stream = NULL;
    give_up(call, RPC_CANCELLED);
}

static void on_expired(void *user)
{
    answer_and_give_up(user, RPC_DEADLINE_EXCEEDED, "deadline exceeded");
}

static bool hold(void *user)
{
    return rpc_call_holds(user);
}

static void on_sent(void *user, size_t n)
{
    rpc_call_sent(user, n);
}

void rpc_server_on_mail(struct rpc_mail *mail)
{
    struct rpc_call *call = container_of(mail, struct rpc_call, mail);
    struct rpc_call_news news = rpc_call_take(call);
    struct err err;
    if (call->conn == NULL || call->stream == NULL) {
        rpc_chunk_free(news.chunks);
    } else {
        rpc_stream_send(call->stream, news.chunks);
        if (news.finished && news.cut)
            rpc_stream_drop_unsent(call->stream);
        if (news.finished)
            rpc_stream_finish(call->stream, news.status, news.text);
        else if (call->method->client_streaming && !rpc_call_holds(call))
            rpc_stream_resume(call->stream);
    }
    if (call->conn != NULL && news.finished) {
        report(call->conn, call, news.status);
        forget(call);
    } else if (call->conn != NULL) {
        if (call->peer_ended && call->stream != NULL && call->method->client_streaming &&
            !rpc_call_holds(call)) {
            call->peer_ended = false;
            (void)rpc_call_deliver(call, NULL, &err);
        }
        rpc_call_tell(call);
    }
    rpc_call_unref(call);
}

/* ---- routing ---- */

/* "/service/method": finds the service, and where the method's name begins in path. */
static const struct rpc_service *find_service(const struct rpc_server *server, const char *path,
                                              const char **ret_method)
{
    const char *slash = path[0] == '/' ? strchr(path + 1, '/') : NULL;
    if (slash == NULL)
        return NULL;
    size_t n = (size_t)(slash - path) - 1;
    *ret_method = slash + 1;
    for (size_t i = 0; i < server->config.n_services; i++) {
        const struct rpc_service *s = &server->config.services[i];
        if (strlen(s->name) == n && memcmp(s->name, path + 1, n) == 0)
            return s;
    }
    return NULL;
}

static const struct rpc_method *find_method(const struct rpc_service *service, const char *name)
{
    for (size_t i = 0; i < service->n_methods; i++) {
        if (strcmp(service->methods[i].name, name) == 0)
            return &service->methods[i];
    }
    return NULL;
}

static void refuse(struct rpc_stream *stream, const struct err *err)
{
    rpc_stream_finish(stream, rpc_status_from_err(err->code), err->msg);
}

/* Fails with what the client is to be told. */
static int make_call(struct server_conn *sc, const struct rpc_head *head,
                     struct rpc_call **ret_call, struct err *err)
{
    struct rpc_server *server = sc->server;
    const char *name;
    if (head->too_large)
        return err_set(err, ERR_EXHAUSTED, "request metadata is larger than %u bytes",
                       RPC_MAX_METADATA);
    if (head->encoded)
        return err_set(err, ERR_UNSUPPORTED, "compressed messages are not supported");
    if (head->bad_timeout)
        return err_set(err, ERR_INVALID, "malformed grpc-timeout");
    if (head->path == NULL)
        return err_set(err, ERR_UNSUPPORTED, "unknown method: the path is missing or too long");
    const struct rpc_service *service = find_service(server, head->path, &name);
    if (service == NULL)
        return err_set(err, ERR_UNSUPPORTED, "unknown service or malformed path %s", head->path);
    const ProtobufCMethodDescriptor *shape =
        protobuf_c_service_descriptor_get_method_by_name(service->descriptor, name);
    const struct rpc_method *method = shape != NULL ? find_method(service, name) : NULL;
    if (method == NULL)
        return err_set(err, ERR_UNSUPPORTED, "%s method %s for service %s",
                       shape == NULL ? "unknown" : "unimplemented", name, service->name);
    if (sc->n_calls >= 2 * (size_t)server->config.limits.max_streams)
        return err_set(err, ERR_EXHAUSTED, "too many calls of this connection have not ended");
    return rpc_call_new(service, method, shape, server->mailbox, &server->config.limits, ret_call,
                        err);
}

static void on_request(void *arg, struct rpc_stream *stream)
{
    struct server_conn *sc = arg;
    const struct rpc_head *head = rpc_stream_head(stream);
    struct rpc_call *call;
    struct err err;
    if (!head->too_large && !head->post) {
        rpc_stream_refuse(stream, "405");
        return;
    }
    if (!head->too_large && !head->grpc_content) {
        rpc_stream_refuse(stream, "415");
        return;
    }
    if (make_call(sc, head, &call, &err) < 0) {
        refuse(stream, &err);
        return;
    }
    if (head->timeout_ms >= 0)
        call->deadline_ms = clock_deadline(head->timeout_ms);
    LIST_INSERT_HEAD(&sc->calls, call, link);
    sc->n_calls++;
    call->conn = sc;
    call->stream = stream;
    rpc_stream_set_deadline(stream, call->deadline_ms);
    rpc_stream_set_user(stream, call);
    if (call->method->client_streaming)
        dispatch(call);
}

/* ---- connections ---- */

static void check_drained(struct rpc_server *server)
{
    if (!server->draining || server->drained || server->n_conns > 0)
        return;
    server->drained = true;
    loop_disarm(server->drain_timer);
    if (server->on_drained != NULL)
        server->on_drained(server->on_drained_arg); /* may free the server */
}

static void free_conn(struct server_conn *sc)
{
    struct rpc_call *call;
    while ((call = LIST_FIRST(&sc->calls)) != NULL) {
        rpc_call_ref(call);
        give_up(call, RPC_CANCELLED);
        forget(call);
        rpc_call_unref(call);
    }
    LIST_REMOVE(sc, link);
    sc->server->n_conns--;
    rpc_conn_free(sc->conn);
    if (sc->on_closed != NULL)
        sc->on_closed(sc->arg);
    free(sc);
}

static void on_conn_closed(void *arg, const struct err *err)
{
    struct server_conn *sc = arg;
    struct rpc_server *server = sc->server;
    if (err != NULL && err->code == ERR_PROTOCOL)
        log_event(LOG_WARN, NULL, err, "closing an rpc connection");
    free_conn(sc);
    check_drained(server);
}

static void on_pong(void *arg, uint64_t token)
{
    struct server_conn *sc = arg;
    struct rpc_session *session = rpc_conn_session(sc->conn);
    if (token != SHUTDOWN_TOKEN || session == NULL || sc->refuses || !sc->server->draining)
        return;
    sc->refuses = true;
    rpc_session_goaway(session); /* and when its streams have ended the session is done */
}

/* After a batch of mail: send what handlers had to say. */
static void flush_all(void *arg)
{
    struct rpc_server *server = arg;
    struct server_conn *next;
    for (struct server_conn *sc = LIST_FIRST(&server->conns); sc != NULL; sc = next) {
        next = LIST_NEXT(sc, link);
        bool last = next == NULL;
        rpc_conn_flush(sc->conn); /* may end the connection, and with the last one the server */
        if (last)
            return;
    }
}

static void begin_shutdown(struct server_conn *sc)
{
    struct rpc_session *session = rpc_conn_session(sc->conn);
    if (session == NULL)
        return;
    rpc_session_shutdown_notice(session);
    rpc_session_ping(session, SHUTDOWN_TOKEN);
}

int rpc_server_add_connection(struct rpc_server *server, int fd, void (*on_closed)(void *arg),
                              void *arg, struct err *err)
{
    return rpc_server_add_connection_after(server, fd, NULL, 0, on_closed, arg, err);
}

int rpc_server_add_connection_after(struct rpc_server *server, int fd, const void *first, size_t n,
                                    void (*on_closed)(void *arg), void *arg, struct err *err)
{
    static const struct rpc_session_ops ops = {
        .on_request = on_request,
        .hold = hold,
        .on_message = on_message,
        .on_end = on_end,
        .on_bad = on_bad,
        .on_reset = on_reset,
        .on_sent = on_sent,
        .on_expired = on_expired,
        .on_pong = on_pong,
    };
    cleanup_fd int owned = fd;
    if (server->n_conns >= server->config.max_connections)
        return err_set(err, ERR_EXHAUSTED, "too many rpc connections");
    if (server->draining)
        return err_set(err, ERR_UNAVAILABLE, "the rpc server is shutting down");
    struct server_conn *sc = rpc_calloc(1, sizeof(*sc));
    if (sc == NULL)
        return err_no_memory(err);
    struct rpc_conn_config config = {
        .loop = server->config.loop,
        .session = {.server = true, .limits = server->config.limits, .ops = &ops, .arg = sc},
        .first = first,
        .n_first = n,
        .on_closed = on_conn_closed,
    };
    if (rpc_conn_new(&config, steal_fd(&owned), &sc->conn, err) < 0) {
        free(sc);
        return -1;
    }
    sc->server = server;
    sc->on_closed = on_closed;
    sc->arg = arg;
    LIST_INIT(&sc->calls);
    LIST_INSERT_HEAD(&server->conns, sc, link);
    server->n_conns++;
    return 0;
}

/* ---- the server ---- */

static void on_accept(void *arg, uint32_t events)
{
    struct rpc_server *server = arg;
    struct err err;
    (void)events;
    for (int i = 0; i < ACCEPTS_PER_EVENT; i++) {
        int fd = accept4(server->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (fd < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (fd < 0) {
            /* The client stays in the backlog, and the descriptor readable: pause instead of
             * spinning. */
            (void)err_set_errno(&err, errno, "accept");
            log_event(LOG_WARN, NULL, &err, "an rpc client has to wait");
            (void)loop_set_events(server->listen_source, 0, &err);
            loop_arm(server->accept_timer, ACCEPT_RETRY_MS);
            return;
        }
        if (rpc_server_add_connection(server, fd, NULL, NULL, &err) < 0)
            log_event(LOG_WARN, NULL, &err, "an rpc client was turned away");
    }
}

static void on_accept_again(void *arg)
{
    struct rpc_server *server = arg;
    struct err err;
    if (server->listen_source != NULL)
        (void)loop_set_events(server->listen_source, EPOLLIN, &err);
}

int rpc_server_listen(struct rpc_server *server, int listen_fd, struct err *err)
{
    cleanup_fd int fd = listen_fd;
    if (server->listen_fd >= 0)
        return err_set(err, ERR_BAD_STATE, "the rpc server listens already");
    if (fd_set_nonblock(fd, err) < 0)
        return -1;
    if (server->accept_timer == NULL && loop_add_timer(server->config.loop, on_accept_again, server,
                                                       &server->accept_timer, err) < 0)
        return -1;
    if (loop_add_fd(server->config.loop, fd, EPOLLIN, on_accept, server, &server->listen_source,
                    err) < 0)
        return -1;
    server->listen_fd = steal_fd(&fd);
    return 0;
}

static void stop_listening(struct rpc_server *server)
{
    loop_source_free(steal_ptr(&server->listen_source));
    loop_source_free(steal_ptr(&server->accept_timer));
    close_fd(&server->listen_fd);
}

/* The deadline of a shutdown, or at once when there was nothing to drain. */
static void on_drain_timer(void *arg)
{
    struct rpc_server *server = arg;
    struct server_conn *sc;
    while ((sc = LIST_FIRST(&server->conns)) != NULL)
        free_conn(sc);
    check_drained(server);
}

/* There is nothing to do for it but what follows each batch. */
static void on_flush_mail(struct rpc_mail *mail)
{
    (void)mail;
}

int rpc_server_new(const struct rpc_server_config *config, struct rpc_server **ret_server,
                   struct err *err)
{
    struct rpc_server *server = rpc_calloc(1, sizeof(*server));
    if (server == NULL)
        return err_no_memory(err);
    server->config = *config;
    server->config.limits = rpc_limits_complete(config->limits);
    if (config->max_connections == 0)
        server->config.max_connections = DEFAULT_CONNECTIONS;
    server->listen_fd = -1;
    LIST_INIT(&server->conns);
    server->flush_mail.fn = on_flush_mail;
    if (loop_add_timer(config->loop, on_drain_timer, server, &server->drain_timer, err) < 0 ||
        rpc_mailbox_new(config->loop, flush_all, server, &server->mailbox, err) < 0) {
        loop_source_free(server->drain_timer);
        free(server);
        return -1;
    }
    *ret_server = server;
    return 0;
}

void rpc_server_shutdown(struct rpc_server *server, int64_t deadline_ms,
                         void (*on_drained)(void *arg), void *arg)
{
    if (server->draining)
        return;
    server->draining = true;
    server->on_drained = on_drained;
    server->on_drained_arg = arg;
    stop_listening(server);
    struct server_conn *sc;
    LIST_FOREACH (sc, &server->conns, link)
        begin_shutdown(sc);
    if (server->n_conns == 0)
        loop_arm(server->drain_timer, 0);
    else if (deadline_ms != CLOCK_NO_DEADLINE)
        loop_arm(server->drain_timer, clock_poll_timeout(deadline_ms));
    (void)rpc_mailbox_post(server->mailbox, &server->flush_mail);
}

void rpc_server_free(struct rpc_server *server)
{
    if (server == NULL)
        return;
    server->draining = true;
    server->drained = true;
    stop_listening(server);
    loop_source_free(server->drain_timer);
    struct server_conn *sc;
    while ((sc = LIST_FIRST(&server->conns)) != NULL)
        free_conn(sc);
    rpc_mailbox_close(server->mailbox);
    rpc_mailbox_unref(server->mailbox);
    free(server);
}
