/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connection of the calling end, on the loop's thread; other threads reach it by the mailbox.
 * Calls are put into the list by their caller, under the lock and only while the client is open, so
 * that the connection's end finds every call that was accepted, sent or not, and ends each exactly
 * once: whoever takes a call out of the list ends it.
 *
 * A peer that says GOAWAY takes no new calls; those in flight go on, and with the last of them the
 * connection ends.
 */
#include "common/rpc/client.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "common/base/clock.h"
#include "common/loop/loop.h"
#include "common/rpc/client_call.h"
#include "common/rpc/conn.h"
#include "common/rpc/mem.h"

struct rpc_client_waiter {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool done;
    struct err *err; /* of the attempt, for rpc_client_new */
    int result;
    struct rpc_client *client;
    int fd;
};

#define WAITER_INIT                                                                                \
    {                                                                                              \
        .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER                        \
    }

static void waiter_wait(struct rpc_client_waiter *w)
{
    (void)pthread_mutex_lock(&w->lock);
    while (!w->done)
        (void)pthread_cond_wait(&w->cond, &w->lock);
    (void)pthread_mutex_unlock(&w->lock);
}

static void waiter_wake(struct rpc_client_waiter *w)
{
    (void)pthread_mutex_lock(&w->lock);
    w->done = true;
    (void)pthread_cond_signal(&w->cond);
    (void)pthread_mutex_unlock(&w->lock);
}

static void lock(struct rpc_client *client)
{
    (void)pthread_mutex_lock(&client->lock);
}

static void unlock(struct rpc_client *client)
{
    (void)pthread_mutex_unlock(&client->lock);
}

/* ---- calls ---- */

int rpc_client_call_add(struct rpc_client *client, struct rpc_client_call *call,
                        struct rpc_client_call **ret_call, struct err *err)
{
    lock(client);
    if (client->closed) {
        if (err != NULL)
            *err = client->close_err;
        unlock(client);
        return -1;
    }
    call->client = client;
    call->refs += 2; /* the list's and the mail's; nobody else knows the call yet */
    LIST_INSERT_HEAD(&client->calls, call, link);
    *ret_call = call; /* before the loop knows of it: on_end may come at any time afterwards */
    /* The mailbox is open: it is closed by rpc_client_free, which sets `closed` first. */
    (void)rpc_mailbox_post(client->mailbox, &call->mail);
    unlock(client);
    return 0;
}

/* Ends a call; with err NULL and released handle nobody hears of it. */
static void end_call(struct rpc_client_call *call, const struct err *err)
{
    struct rpc_client *client = steal_ptr(&call->client);
    if (client == NULL)
        return;
    lock(client);
    LIST_REMOVE(call, link);
    unlock(client);
    struct rpc_stream *stream = steal_ptr(&call->stream);
    if (stream != NULL) {
        rpc_stream_cancel(stream); /* unless it is complete */
        rpc_stream_set_user(stream, NULL);
    }
    rpc_client_call_end(call, err);
    rpc_client_call_unref(call);
}

/* The code of a reply that is no gRPC (gRPC "http-grpc-status-mapping"). */
static enum err_code http_err(uint32_t status)
{
    switch (status) {
    case 401:
    case 403:
        return ERR_DENIED;
    case 404:
        return ERR_UNSUPPORTED;
    case 429:
    case 502:
    case 503:
    case 504:
        return ERR_UNAVAILABLE;
    default:
        return ERR_PROTOCOL;
    }
}

/* What the peer's headers and trailers say. */
static int outcome(const struct rpc_head *head, struct err *err)
{
    if (head->too_large)
        return err_set(err, ERR_EXHAUSTED, "reply metadata is larger than %u bytes",
                       RPC_MAX_METADATA);
    if (head->http_status != 200)
        return err_set(err, http_err(head->http_status), "HTTP status %u", head->http_status);
    if (!head->has_status)
        return err_set(err, ERR_PROTOCOL, "the reply has no grpc-status");
    if (head->grpc_status == RPC_OK)
        return 0;
    bool has_text = head->message != NULL && head->message[0] != '\0';
    return err_set(err, rpc_status_to_err(head->grpc_status), "%s",
                   has_text ? head->message : rpc_status_name(head->grpc_status));
}

static void on_message(void *user, struct rpc_bytes *message)
{
    struct rpc_client_call *call = user;
    const struct rpc_head *head = rpc_stream_head(call->stream);
    struct err err;
    if (head->http_status != 200 || !head->grpc_content) {
        free(message->data);
        return;
    }
    if (rpc_client_call_message(call, message, &err) < 0)
        end_call(call, &err);
}

static void on_end(void *user)
{
    struct rpc_client_call *call = user;
    struct err err;
    if (outcome(rpc_stream_head(call->stream), &err) < 0)
        end_call(call, &err);
    else
        end_call(call, NULL);
}

static void on_bad(void *user, const struct err *why)
{
    struct rpc_client_call *call = user;
    const struct rpc_head *head = rpc_stream_head(call->stream);
    struct err err = *why;
    if (head->http_status != 200)
        (void)outcome(head, &err);
    end_call(call, &err);
}

static void on_reset(void *user, uint32_t code)
{
    struct rpc_client_call *call = user;
    struct err err;
    call->stream = NULL;
    if (call->deadline_ms <= clock_monotonic_ms())
        (void)err_set(&err, ERR_DEADLINE, "deadline exceeded");
    else
        (void)rpc_reset_err(code, &err);
    end_call(call, &err);
}

static void on_expired(void *user)
{
    struct err err;
    (void)err_set(&err, ERR_DEADLINE, "deadline exceeded");
    end_call(user, &err);
}

static bool hold(void *user)
{
    return rpc_client_call_holds(user);
}

static void on_sent(void *user, size_t n)
{
    rpc_client_call_sent(user, n);
}

static int open_stream(struct rpc_client_call *call, struct rpc_session *session, struct err *err)
{
    int64_t now = clock_monotonic_ms();
    if (call->deadline_ms <= now)
        return err_set(err, ERR_DEADLINE, "deadline exceeded");
    return rpc_session_request(session, call->path, call->deadline_ms, now, call, &call->stream,
                               err);
}

static void handle_news(struct rpc_client_call *call, struct rpc_client_news *news)
{
    struct rpc_session *session =
        call->client != NULL ? rpc_conn_session(call->client->conn) : NULL;
    struct err err;
    if (session == NULL)
        return; /* over, or the connection's end is about to end it */
    if (news->released) {
        end_call(call, NULL);
        return;
    }
    if (call->stream == NULL && open_stream(call, session, &err) < 0) {
        end_call(call, &err);
        return;
    }
    rpc_stream_send(call->stream, steal_ptr(&news->chunks));
    if (news->last)
        rpc_stream_end(call->stream);
    if (!rpc_client_call_holds(call))
        rpc_stream_resume(call->stream);
}

void rpc_client_on_call_mail(struct rpc_mail *mail)
{
    struct rpc_client_call *call = container_of(mail, struct rpc_client_call, mail);
    struct rpc_client_news news = rpc_client_call_take(call);
    handle_news(call, &news);
    rpc_chunk_free(news.chunks);
    rpc_client_call_unref(call);
}

/* ---- the connection ---- */

static void refuse_calls(struct rpc_client *client, const char *text)
{
    lock(client);
    if (!client->closed) {
        client->closed = true;
        (void)err_set(&client->close_err, ERR_UNAVAILABLE, "%s", text);
    }
    unlock(client);
}

static void fail_calls(struct rpc_client *client, const char *text)
{
    struct err err;
    (void)err_set(&err, ERR_UNAVAILABLE, "%s", text);
    for (;;) {
        lock(client);
        struct rpc_client_call *call = LIST_FIRST(&client->calls);
        unlock(client);
        if (call == NULL)
            return;
        end_call(call, &err);
    }
}

static void on_conn_closed(void *arg, const struct err *err)
{
    struct rpc_client *client = arg;
    struct err why;
    if (err != NULL)
        why = *err;
    else
        (void)err_set(&why, ERR_UNAVAILABLE, "the peer has shut the connection down");
    refuse_calls(client, why.msg);
    fail_calls(client, why.msg);
    if (client->config.on_closed != NULL)
        client->config.on_closed(client->config.on_closed_arg, &why); /* may free the client */
}

static void on_goaway(void *arg)
{
    refuse_calls(arg, "the peer is shutting down");
}

static void on_pong(void *arg, uint64_t token)
{
    (void)arg;
    (void)token;
}

static void after_mail(void *arg)
{
    struct rpc_client *client = arg;
    rpc_conn_flush(client->conn);
}

/* Everything but the memory of kept calls. Loop. */
static void destroy(struct rpc_client *client)
{
    client->destroyed = true;
    client->config.on_closed = NULL;
    refuse_calls(client, "the client was closed");
    fail_calls(client, "the client was closed");
    if (client->mailbox != NULL)
        rpc_mailbox_close(client->mailbox);
    rpc_mailbox_unref(client->mailbox);
    rpc_conn_free(client->conn);
    (void)pthread_mutex_destroy(&client->lock);
    free((char *)(uintptr_t)client->config.authority);
    free(client);
}

static void on_client_mail(struct rpc_mail *mail)
{
    struct rpc_client *client = container_of(mail, struct rpc_client, mail);
    if (client->destroyed)
        return;
    lock(client);
    bool close = client->want_close;
    struct rpc_client_waiter *waiter = client->want_free;
    unlock(client);
    if (waiter != NULL) {
        destroy(client);
        waiter_wake(waiter);
    } else if (close && rpc_conn_session(client->conn) != NULL) {
        struct err err;
        (void)err_set(&err, ERR_UNAVAILABLE, "the connection was closed");
        rpc_conn_close(client->conn, &err);
    }
}

/* On the loop's thread. */
static int attach(struct rpc_client *client, int fd, struct err *err)
{
    static const struct rpc_session_ops ops = {
        .hold = hold,
        .on_message = on_message,
        .on_end = on_end,
        .on_bad = on_bad,
        .on_reset = on_reset,
        .on_sent = on_sent,
        .on_expired = on_expired,
        .on_goaway = on_goaway,
        .on_pong = on_pong,
    };
    struct rpc_conn_config config = {
        .loop = client->config.loop,
        .session = {.limits = client->config.limits,
                    .authority = client->config.authority,
                    .ops = &ops,
                    .arg = client},
        .on_closed = on_conn_closed,
    };
    if (rpc_mailbox_new(client->config.loop, after_mail, client, &client->mailbox, err) < 0) {
        (void)close(fd);
        return -1;
    }
    return rpc_conn_new(&config, fd, &client->conn, err);
}

static void attach_posted(void *arg)
{
    struct rpc_client_waiter *w = arg;
    w->result = attach(w->client, w->fd, w->err);
    if (w->result < 0)
        destroy(w->client);
    waiter_wake(w);
}

static int attach_on_loop(struct rpc_client *client, int fd, struct err *err)
{
    if (loop_is_current(client->config.loop)) {
        int r = attach(client, fd, err);
        if (r < 0)
            destroy(client);
        return r;
    }
    struct rpc_client_waiter w = WAITER_INIT;
    w.client = client;
    w.fd = fd;
    w.err = err;
    if (loop_post(client->config.loop, attach_posted, &w, err) < 0) {
        (void)close(fd);
        destroy(client); /* nothing of it is on the loop yet */
        return -1;
    }
    waiter_wait(&w);
    return w.result;
}

int rpc_client_new(const struct rpc_client_config *config, int fd, struct rpc_client **ret_client,
                   struct err *err)
{
    cleanup_fd int owned = fd;
    const char *authority = config->authority != NULL ? config->authority : "localhost";
    struct rpc_client *client = rpc_calloc(1, sizeof(*client));
    if (client == NULL)
        return err_no_memory(err);
    client->config = *config;
    client->config.limits = rpc_limits_complete(config->limits);
    client->config.authority = rpc_strndup(authority, strlen(authority));
    client->mail.fn = on_client_mail;
    LIST_INIT(&client->calls);
    (void)pthread_mutex_init(&client->lock, NULL);
    if (client->config.authority == NULL) {
        destroy(client);
        return err_no_memory(err);
    }
    if (attach_on_loop(client, steal_fd(&owned), err) < 0)
        return -1;
    *ret_client = client;
    return 0;
}

void rpc_client_free(struct rpc_client *client)
{
    if (client == NULL)
        return;
    if (loop_is_current(client->config.loop)) {
        destroy(client);
        return;
    }
    struct rpc_client_waiter w = WAITER_INIT;
    lock(client);
    client->want_free = &w;
    (void)rpc_mailbox_post(client->mailbox, &client->mail);
    unlock(client);
    waiter_wait(&w);
}

void rpc_client_close(struct rpc_client *client)
{
    lock(client);
    client->want_close = true;
    (void)rpc_mailbox_post(client->mailbox, &client->mail);
    unlock(client);
}
