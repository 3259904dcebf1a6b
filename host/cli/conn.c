/* SPDX-License-Identifier: Apache-2.0 */
/*
 * There is no thread besides the caller's: rpc_client_call runs the loop while it waits, and a
 * streaming call is a few rounds of the loop here. `lost` is how a connection that broke is told
 * from a daemon that answers UNAVAILABLE for reasons of its own.
 */
#include "host/cli/conn.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/loop/loop.h"

enum { RETRY_PAUSE_MS = 200, STREAM_ROUND_MS = 1000 };

struct cli_conn {
    char *path;
    struct loop *loop;
    struct rpc_client *client;
    bool lost;
    struct rpc_client_call *background;
};

static void on_closed(void *arg, const struct err *err)
{
    struct cli_conn *conn = arg;
    (void)err;
    conn->lost = true;
}

static int connect_daemon(struct cli_conn *conn, struct err *err)
{
    int fd = -1;
    if (fd_connect_unix(conn->path, &fd, err) < 0) {
        switch (err->code) {
        case ERR_NOT_FOUND:
        case ERR_UNAVAILABLE:
            return err_set(err, ERR_UNAVAILABLE,
                           "no daemon at '%s': start it with 'systemctl start casemated', or name "
                           "its socket with --socket",
                           conn->path);
        case ERR_DENIED:
            return err_set(err, ERR_DENIED,
                           "'%s' may not be opened: run this as root (the socket is root's)",
                           conn->path);
        default:
            return err_prefix(err, "connect to the daemon");
        }
    }
    conn->lost = false;
    struct rpc_client_config config = {
        .loop = conn->loop, .on_closed = on_closed, .on_closed_arg = conn};
    return rpc_client_new(&config, fd, &conn->client, err);
}

static void disconnect(struct cli_conn *conn)
{
    /* Ends the background call too. */
    rpc_client_free(conn->client);
    conn->client = NULL;
    conn->background = NULL;
}

int cli_conn_open(const char *socket_path, struct cli_conn **ret_conn, struct err *err)
{
    cleanup_cli_conn struct cli_conn *conn = calloc(1, sizeof(*conn));
    if (conn == NULL)
        return err_no_memory(err);
    conn->path = strdup(socket_path);
    if (conn->path == NULL)
        return err_no_memory(err);
    if (loop_new(&conn->loop, err) < 0 || connect_daemon(conn, err) < 0)
        return -1;
    *ret_conn = steal_ptr(&conn);
    return 0;
}

void cli_conn_free(struct cli_conn *conn)
{
    if (conn == NULL)
        return;
    disconnect(conn);
    loop_free(conn->loop);
    free(conn->path);
    free(conn);
}

struct loop *cli_conn_loop(struct cli_conn *conn)
{
    return conn->loop;
}

static struct rpc_target target_of(enum cli_service service, const char *method)
{
    const ProtobufCServiceDescriptor *d = &casemate__control__v1__control__descriptor;
    if (service == CLI_RUNTIME)
        d = &runtime__v1__runtime_service__descriptor;
    else if (service == CLI_IMAGE)
        d = &runtime__v1__image_service__descriptor;
    return (struct rpc_target){.descriptor = d, .method = method};
}

int cli_conn_call(struct cli_conn *conn, enum cli_service service, const char *method,
                  const ProtobufCMessage *request, int64_t timeout_ms, struct rpc_reply *ret_reply,
                  struct err *err)
{
    struct rpc_target target = target_of(service, method);
    return rpc_client_call(conn->client, &target, request, clock_deadline(timeout_ms), ret_reply,
                           err);
}

int cli_conn_tell(struct cli_conn *conn, enum cli_service service, const char *method,
                  const ProtobufCMessage *request, int64_t timeout_ms, struct err *err)
{
    struct rpc_reply reply = {0};
    if (cli_conn_call(conn, service, method, request, timeout_ms, &reply, err) < 0)
        return -1;
    rpc_reply_fini(&reply);
    return 0;
}

/* Until somebody listens again; the loop runs meanwhile, for signals. */
static int reconnect(struct cli_conn *conn, int64_t deadline_ms, struct err *err)
{
    disconnect(conn);
    while (connect_daemon(conn, err) < 0) {
        int64_t now = clock_monotonic_ms();
        if (err->code != ERR_UNAVAILABLE || now >= deadline_ms)
            return -1;
        int64_t until = clock_earlier(now + RETRY_PAUSE_MS, deadline_ms);
        struct err quiet = {0};
        while (clock_monotonic_ms() < until) {
            if (loop_run_once(conn->loop, clock_poll_timeout(until), &quiet) < 0) {
                *err = quiet;
                return -1;
            }
        }
    }
    return 0;
}

int cli_conn_call_again(struct cli_conn *conn, enum cli_service service, const char *method,
                        const ProtobufCMessage *request, int64_t retry_ms,
                        struct rpc_reply *ret_reply, struct err *err)
{
    int64_t deadline = clock_deadline(retry_ms);
    for (;;) {
        bool up = conn->client != NULL && !conn->lost;
        if (!up && reconnect(conn, deadline, err) < 0)
            return -1;
        if (cli_conn_call(conn, service, method, request, retry_ms, ret_reply, err) == 0)
            return 0;
        if (!conn->lost || clock_monotonic_ms() >= deadline)
            return -1;
    }
}

static void ignore_message(void *arg, const ProtobufCMessage *message)
{
    (void)arg;
    (void)message;
}

static void on_background_end(void *arg, const struct err *err)
{
    struct cli_conn *conn = arg;
    (void)err;
    conn->background = NULL;
}

int cli_conn_start(struct cli_conn *conn, enum cli_service service, const char *method,
                   const ProtobufCMessage *request, int64_t timeout_ms, struct err *err)
{
    if (conn->client == NULL)
        return err_set(err, ERR_UNAVAILABLE, "the connection to the daemon is lost");
    if (conn->background != NULL)
        rpc_client_cancel(steal_ptr(&conn->background));
    struct rpc_target target = target_of(service, method);
    struct rpc_call_handlers handlers = {
        .on_message = ignore_message, .on_end = on_background_end, .arg = conn};
    return rpc_client_start(conn->client, &target, request, clock_deadline(timeout_ms), &handlers,
                            &conn->background, err);
}

bool cli_conn_busy(const struct cli_conn *conn)
{
    return conn->background != NULL;
}

/* A stream under way. */
struct streaming {
    const struct cli_stream *spec;
    bool ended;
    bool failed;
    struct err err;
};

static void on_stream_message(void *arg, const ProtobufCMessage *message)
{
    struct streaming *s = arg;
    s->spec->on_message(s->spec->arg, message);
}

static void on_stream_end(void *arg, const struct err *err)
{
    struct streaming *s = arg;
    s->ended = true;
    if (err != NULL) {
        s->failed = true;
        s->err = *err;
    }
}

int cli_conn_stream(struct cli_conn *conn, const struct cli_stream *stream, struct err *err)
{
    struct streaming s = {.spec = stream};
    struct rpc_target target = target_of(stream->service, stream->method);
    struct rpc_call_handlers handlers = {
        .on_message = on_stream_message, .on_end = on_stream_end, .arg = &s};
    struct rpc_client_call *call = NULL;
    if (rpc_client_start(conn->client, &target, stream->request, CLOCK_NO_DEADLINE, &handlers,
                         &call, err) < 0)
        return -1;
    while (!s.ended) {
        if (stream->stop != NULL && *stream->stop) {
            rpc_client_cancel(call);
            return err_set(err, ERR_CANCELLED, "interrupted");
        }
        if (loop_run_once(conn->loop, STREAM_ROUND_MS, err) < 0) {
            rpc_client_cancel(call);
            return -1;
        }
    }
    if (s.failed) {
        *err = s.err;
        return -1;
    }
    return 0;
}
