/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. A request is an object with two owners: the caller who waits for it and the
 * loop that carries it out. The caller posts it to the loop and sleeps on its condition; the loop
 * submits it to the engine, whose callback completes it. A caller whose deadline passes leaves, and
 * the loop drops the request when its answer comes. So a reply has always a place to go, and every
 * request is completed exactly once: by the engine's contract, or in run_request when the engine
 * does not take it.
 *
 * The client itself is kept alive by its owner and by each posted piece of work.
 */
#include "host/vmm/qmp_client.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/loop/loop.h"
#include "host/vmm/json.h"
#include "host/vmm/sync.h"

#define READ_SIZE (64 * 1024)
#define READS_PER_ROUND                                                                            \
    16 /* so that a QEMU that floods the socket does not keep the loop to itself */

struct qmp_client {
    atomic_uint refs;
    struct loop *loop;
    struct qmp_client_handlers handlers;
    /* The loop's. */
    int fd;
    struct loop_source *source;
    struct qmp *qmp;
    bool closed;
    /* By whoever closes first. */
    atomic_bool close_asked;
    struct err close_why;
};

struct request {
    atomic_uint refs;
    struct qmp_client *client;
    char command[48];
    json_t *args;
    int fd;
    bool wants_value;
    qmp_reply_fn fn; /* asynchronous: called instead of waking anyone */
    void *arg;
    pthread_mutex_t lock; /* for what follows */
    pthread_cond_t changed;
    bool done;
    json_t *value;  /* with wants_value and no err */
    struct err err; /* ERR_NONE: success */
};

static void client_unref(struct qmp_client *client)
{
    if (atomic_fetch_sub(&client->refs, 1) != 1)
        return;
    qmp_free(client->qmp);
    close_fd(&client->fd);
    free(client);
}

static void request_unref(struct request *r)
{
    if (atomic_fetch_sub(&r->refs, 1) != 1)
        return;
    json_decref(r->args);
    json_decref(r->value);
    close_fd(&r->fd);
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->lock);
    client_unref(r->client);
    free(r);
}

/* On the loop: hangs up, and fails everything. */
static void shut(struct qmp_client *client, const struct err *why)
{
    if (client->closed)
        return;
    client->closed = true;
    loop_source_free(steal_ptr(&client->source));
    close_fd(&client->fd);
    qmp_close(client->qmp, why);
}

/* On the loop: the peer is gone, or cannot be talked to. */
static void lose(struct qmp_client *client, const struct err *why)
{
    if (client->closed)
        return;
    shut(client, why);
    if (client->handlers.closed != NULL)
        client->handlers.closed(client->handlers.arg, why);
}

static ssize_t send_with_fd(int socket_fd, const void *bytes, size_t n, int fd)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    /* iovec's pointer lacks the const that sendmsg honours. */
    union {
        const void *in;
        void *out;
    } data = {.in = bytes};
    struct iovec iov = {.iov_base = data.out, .iov_len = n};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    if (fd >= 0) {
        msg.msg_control = control.space;
        msg.msg_controllen = sizeof(control.space);
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
    }
    return sendmsg(socket_fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Sends what the engine has, and watches for writability while there is more. */
static void flush(struct qmp_client *client)
{
    uint32_t events = EPOLLIN;
    struct err err;

    while (!client->closed) {
        const void *bytes;
        size_t n;
        int fd;
        qmp_output(client->qmp, &bytes, &n, &fd);
        if (n == 0)
            break;
        ssize_t sent = send_with_fd(client->fd, bytes, n, fd);
        if (sent > 0) {
            qmp_sent(client->qmp, (size_t)sent);
            continue;
        }
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno == EAGAIN) {
            events |= EPOLLOUT;
            break;
        }
        (void)err_set(&err, ERR_UNAVAILABLE, "QMP: sending failed: %s", strerrordesc_np(errno));
        lose(client, &err);
        return;
    }
    if (!client->closed && loop_set_events(client->source, events, &err) < 0)
        lose(client, &err);
}

/* Returns false when the connection is lost. */
static bool read_some(struct qmp_client *client)
{
    static const char gone[] = "QMP: QEMU closed the connection";
    char bytes[READ_SIZE];
    struct err err;

    for (int i = 0; i < READS_PER_ROUND; i++) {
        ssize_t n = recv(client->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return true;
        if (n <= 0) {
            (void)err_set(&err, ERR_UNAVAILABLE, "%s", gone);
            lose(client, &err);
            return false;
        }
        if (qmp_feed(client->qmp, bytes, (size_t)n, &err) < 0) {
            lose(client, &err);
            return false;
        }
        if (client->closed)
            return false;
    }
    return true;
}

static void on_socket(void *arg, uint32_t events)
{
    struct qmp_client *client = arg;

    (void)events;
    /* A handler may close and free the client. */
    atomic_fetch_add(&client->refs, 1);
    if (read_some(client))
        flush(client);
    client_unref(client);
}

static void on_event(void *arg, const char *name, const json_t *data)
{
    struct qmp_client *client = arg;

    if (!client->closed && client->handlers.event != NULL)
        client->handlers.event(client->handlers.arg, name, data);
}

/* Posted by qmp_client_new; the reference that came with it is the loop's until the connection is
 * shut. */
static void start(void *arg)
{
    struct qmp_client *client = arg;
    struct err err;

    if (!client->closed && loop_add_fd(client->loop, client->fd, EPOLLIN, on_socket, client,
                                       &client->source, &err) < 0)
        lose(client, &err);
    client_unref(client);
}

int qmp_client_new(struct loop *loop, int fd, const struct qmp_client_handlers *handlers,
                   struct qmp_client **ret_client, struct err *err)
{
    struct qmp_client *client = calloc(1, sizeof(*client));

    if (client == NULL)
        return err_no_memory(err);
    client->loop = loop;
    client->handlers = *handlers;
    client->fd = -1;
    atomic_init(&client->refs, 2);
    const struct qmp_handlers qmp_handlers = {.event = on_event, .arg = client};
    if (qmp_new(&qmp_handlers, &client->qmp, err) < 0 || fd_set_nonblock(fd, err) < 0)
        goto fail;
    client->fd = fd;
    /* Before the loop may call a handler, which may use it at once. */
    *ret_client = client;
    if (loop_post(loop, start, client, err) < 0) {
        *ret_client = NULL;
        client->fd = -1;
        goto fail;
    }
    return 0;
fail:
    qmp_free(client->qmp);
    free(client);
    return -1;
}

/* ---- requests ------------------------------------------------------------------------------- */

static void complete(void *arg, json_t *ret, const struct err *err)
{
    struct request *r = arg;

    if (r->fn != NULL) {
        r->fn(r->arg, ret, err);
    } else {
        pthread_mutex_lock(&r->lock);
        r->done = true;
        /* A copy, since the message that holds ret stays with this thread. */
        if (ret == NULL)
            r->err = *err;
        else if (r->wants_value && (r->value = json_deep_copy(ret)) == NULL)
            (void)err_no_memory(&r->err);
        pthread_cond_broadcast(&r->changed);
        pthread_mutex_unlock(&r->lock);
    }
    request_unref(r);
}

static void run_request(void *arg)
{
    struct request *r = arg;
    struct qmp_client *client = r->client;
    struct err err;

    atomic_fetch_add(&client->refs, 1);
    if (qmp_submit(client->qmp, r->command, steal_ptr(&r->args), steal_fd(&r->fd), complete, r,
                   &err) < 0)
        complete(r, NULL, &err);
    else if (client->source != NULL)
        flush(client);
    client_unref(client);
}

/* A request with one reference; takes args over in any case, duplicates fd. */
static int request_new(struct qmp_client *client, const char *command, json_t *args, int fd,
                       struct request **ret_request, struct err *err)
{
    struct request *r = calloc(1, sizeof(*r));

    if (r == NULL) {
        json_decref(args);
        return err_no_memory(err);
    }
    atomic_fetch_add(&client->refs, 1);
    atomic_init(&r->refs, 1);
    r->client = client;
    r->args = args;
    r->fd = -1;
    pthread_mutex_init(&r->lock, NULL);
    sync_cond_init(&r->changed);
    memcpy(r->command, command, strnlen(command, sizeof(r->command) - 1));
    if (fd >= 0 && (r->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3)) < 0) {
        (void)err_set_errno(err, errno, "QMP %s: cannot duplicate a descriptor", command);
        request_unref(r);
        return -1;
    }
    *ret_request = r;
    return 0;
}

/* Queues a request that will be waited for: its second reference is the caller's. */
static int begin(struct qmp_client *client, const char *command, json_t *args, int fd,
                 bool wants_value, struct request **ret_request, struct err *err)
{
    struct request *r;

    if (loop_is_current(client->loop)) {
        json_decref(args);
        return err_set(err, ERR_BAD_STATE, "QMP %s: a blocking call on the loop's thread", command);
    }
    if (request_new(client, command, args, fd, &r, err) < 0)
        return -1;
    r->wants_value = wants_value;
    atomic_fetch_add(&r->refs, 1);
    if (loop_post(client->loop, run_request, r, err) < 0) {
        request_unref(r);
        request_unref(r);
        return -1;
    }
    *ret_request = r;
    return 0;
}

/* Waits for the answer, and drops the reference. */
static int finish(struct request *r, int64_t deadline_ms, json_t **ret_value, struct err *err)
{
    int result = -1;

    pthread_mutex_lock(&r->lock);
    while (!r->done && sync_wait_until(&r->changed, &r->lock, deadline_ms))
        continue;
    if (!r->done) {
        (void)err_set(err, ERR_DEADLINE, "QMP %s: QEMU did not answer in time", r->command);
    } else if (r->err.code != ERR_NONE) {
        if (err != NULL)
            *err = r->err;
        (void)err_prefix(err, "QMP %s", r->command);
    } else {
        result = 0;
        if (ret_value != NULL)
            *ret_value = steal_ptr(&r->value);
    }
    pthread_mutex_unlock(&r->lock);
    request_unref(r);
    return result;
}

int qmp_client_call(struct qmp_client *client, const char *command, json_t *args, int fd,
                    int64_t deadline_ms, json_t **ret_value, struct err *err)
{
    struct request *r;

    if (begin(client, command, args, fd, ret_value != NULL, &r, err) < 0)
        return -1;
    return finish(r, deadline_ms, ret_value, err);
}

/* Queues the steps as far as that succeeds; *ret_n counts them. Takes over all arguments. */
static int begin_all(struct qmp_client *client, struct qmp_step *steps, size_t n,
                     struct request **ret_requests, size_t *ret_n, struct err *err)
{
    int result = 0;

    *ret_n = 0;
    for (size_t i = 0; i < n; i++) {
        json_t *args = steal_ptr(&steps[i].args);
        if (result == 0 && args == NULL)
            result = err_no_memory(err);
        else if (result == 0)
            result = begin(client, steps[i].command, args, steps[i].fd, false,
                           &ret_requests[*ret_n], err);
        else
            json_decref(args);
        *ret_n += result == 0;
    }
    return result;
}

int qmp_client_call_all(struct qmp_client *client, struct qmp_step *steps, size_t n,
                        int64_t deadline_ms, struct err *err)
{
    struct request *requests[QMP_STEPS_MAX];
    struct err why = {0};
    size_t begun = 0;

    if (n > QMP_STEPS_MAX)
        abort();
    int result = begin_all(client, steps, n, requests, &begun, &why);
    /* The last one first: when it is answered, all are. The error that stays is the first step's.
     */
    while (begun-- > 0) {
        if (finish(requests[begun], deadline_ms, NULL, &why) < 0)
            result = -1;
    }
    if (result < 0 && err != NULL)
        *err = why;
    return result;
}

static void ignore_reply(void *arg, json_t *ret, const struct err *err)
{
    (void)arg;
    (void)ret;
    (void)err;
}

int qmp_client_send(struct qmp_client *client, const char *command, json_t *args, qmp_reply_fn fn,
                    void *arg, struct err *err)
{
    struct request *r;

    if (request_new(client, command, args, -1, &r, err) < 0)
        return -1;
    r->fn = fn != NULL ? fn : ignore_reply;
    r->arg = arg;
    if (loop_post(client->loop, run_request, r, err) < 0) {
        request_unref(r);
        return -1;
    }
    return 0;
}

/* ---- the end -------------------------------------------------------------------------------- */

static void run_close(void *arg)
{
    struct qmp_client *client = arg;

    shut(client, &client->close_why);
    client_unref(client);
}

void qmp_client_close(struct qmp_client *client, const struct err *why)
{
    if (loop_is_current(client->loop)) {
        shut(client, why);
        return;
    }
    if (atomic_exchange(&client->close_asked, true))
        return;
    client->close_why = *why;
    atomic_fetch_add(&client->refs, 1);
    /* Without memory the connection stays open, and so must its reference: a leak, not a dangling
     * pointer. */
    (void)loop_post(client->loop, run_close, client, NULL);
}

void qmp_client_free(struct qmp_client *client)
{
    struct err why;

    if (client == NULL)
        return;
    (void)err_set(&why, ERR_CANCELLED, "QMP: connection was given up");
    qmp_client_close(client, &why);
    client_unref(client);
}
