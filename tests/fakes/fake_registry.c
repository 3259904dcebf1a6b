/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread accepts, one thread serves each connection and closes it after one answer. Stopping
 * shuts down all sockets, which ends every thread wherever it waits.
 */
#include "tests/fakes/fake_registry.h"

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_ANSWERS = 128, MAX_REQUESTS = 1024, MAX_CONNECTIONS = 1024, HEAD_SIZE = 32768 };

struct scripted {
    struct fake_answer a;
    unsigned used;
};

struct seen {
    char path[512];
    char authorization[1024];
};

struct connection {
    struct fake_registry *registry;
    int fd;
    pthread_t thread;
};

struct fake_registry {
    int listen_fd;
    char host[64];
    pthread_t acceptor;
    pthread_mutex_t lock;
    pthread_cond_t asked;
    bool stopping;
    struct scripted script[MAX_ANSWERS];
    size_t n_script;
    struct seen seen[MAX_REQUESTS];
    size_t n_seen;
    struct connection connections[MAX_CONNECTIONS];
    size_t n_connections;
};

static void require(bool ok, const char *what)
{
    if (!ok) {
        perror(what);
        abort();
    }
}

static char *copy_text(const char *s)
{
    char *copy = s == NULL ? NULL : strdup(s);
    require(s == NULL || copy != NULL, "strdup");
    return copy;
}

static bool send_all(int fd, const void *bytes, size_t n)
{
    const char *p = bytes;
    while (n > 0) {
        ssize_t sent = send(fd, p, n, MSG_NOSIGNAL);
        if (sent <= 0)
            return false;
        p += sent;
        n -= (size_t)sent;
    }
    return true;
}

/* Waits until the peer closes, or the registry stops. */
static void wait_for_close(int fd)
{
    char c;
    while (recv(fd, &c, 1, 0) > 0)
        ;
}

static void send_head(int fd, const struct fake_answer *a, int status, const char *length)
{
    char head[4096];
    int n = snprintf(head, sizeof(head), "HTTP/1.1 %d Scripted\r\n%s%sConnection: close\r\n\r\n",
                     status, length, a->headers == NULL ? "" : a->headers);
    (void)send_all(fd, head, (size_t)n);
}

static void send_endless(int fd, const struct fake_answer *a)
{
    static const char zeros[65536];
    send_head(fd, a, 200, "");
    while (send_all(fd, zeros, sizeof(zeros)))
        ;
}

/* The answer's body from an offset on, as the mode says. */
static void send_body(int fd, const struct fake_answer *a, size_t offset)
{
    char length[160];
    int status = a->status == 0 ? 200 : a->status;
    const char *body = a->body;
    if (a->mode == FAKE_NO_RANGE || offset > a->n || status != 200)
        offset = 0;
    size_t n = a->n - offset;
    size_t half = n / 2;
    if (a->mode == FAKE_SHORT)
        n = half;
    int at = snprintf(length, sizeof(length), "Content-Length: %zu\r\n", n);
    if (offset > 0) {
        status = 206;
        (void)snprintf(length + at, sizeof(length) - (size_t)at,
                       "Content-Range: bytes %zu-%zu/%zu\r\n", offset, a->n - 1, a->n);
    }
    send_head(fd, a, status, length);
    if (a->mode == FAKE_CUT || a->mode == FAKE_STALL)
        n = half;
    if (n > 0)
        (void)send_all(fd, body + offset, n);
    if (a->mode == FAKE_STALL)
        wait_for_close(fd);
}

static void send_trickle(int fd, const struct fake_answer *a)
{
    char length[64];
    const char *body = a->body;
    (void)snprintf(length, sizeof(length), "Content-Length: %zu\r\n", a->n);
    send_head(fd, a, 200, length);
    for (size_t i = 0; i < a->n && send_all(fd, body + i, 1); i++) {
        struct pollfd p = {.fd = fd, .events = POLLIN}; /* readable: the peer has closed */
        if (poll(&p, 1, 50) != 0)
            return;
    }
}

static void serve_answer(int fd, const struct fake_answer *a, size_t offset)
{
    switch (a->mode) {
    case FAKE_DROP:
        return;
    case FAKE_HANG:
        wait_for_close(fd);
        return;
    case FAKE_ENDLESS:
        send_endless(fd, a);
        return;
    case FAKE_TRICKLE:
        send_trickle(fd, a);
        return;
    default:
        send_body(fd, a, offset);
        return;
    }
}

/* The value of a request header, or "". */
static void header_value(const char *head, const char *name, char *out, size_t size)
{
    out[0] = '\0';
    size_t n = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line != NULL; line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, name, n) == 0 && line[2 + n] == ':') {
            const char *value = line + 2 + n + 1 + strspn(line + 2 + n + 1, " ");
            (void)snprintf(out, size, "%.*s", (int)strcspn(value, "\r\n"), value);
            return;
        }
    }
}

/* Chooses the answer and counts it. */
static bool choose(struct fake_registry *r, const char *path, const char *authorization,
                   struct fake_answer *ret)
{
    bool found = false;
    (void)pthread_mutex_lock(&r->lock);
    if (r->n_seen < MAX_REQUESTS) {
        struct seen *s = &r->seen[r->n_seen++];
        (void)snprintf(s->path, sizeof(s->path), "%s", path);
        (void)snprintf(s->authorization, sizeof(s->authorization), "%s", authorization);
    }
    for (size_t i = 0; !found && i < r->n_script; i++) {
        struct scripted *s = &r->script[i];
        if (strcmp(s->a.path, path) != 0 || (s->a.times != 0 && s->used >= s->a.times) ||
            (s->a.want_authorization != NULL &&
             strcmp(s->a.want_authorization, authorization) != 0))
            continue;
        s->used++;
        *ret = s->a;
        found = true;
    }
    (void)pthread_cond_broadcast(&r->asked);
    (void)pthread_mutex_unlock(&r->lock);
    return found;
}

static bool read_head(int fd, char *head)
{
    size_t n = 0;
    while (n + 1 < HEAD_SIZE) {
        ssize_t got = recv(fd, head + n, HEAD_SIZE - 1 - n, 0);
        if (got <= 0)
            return false;
        n += (size_t)got;
        head[n] = '\0';
        if (strstr(head, "\r\n\r\n") != NULL)
            return true;
    }
    return false;
}

static void *serve(void *arg)
{
    struct connection *c = arg;
    char *head = malloc(HEAD_SIZE);
    char authorization[1024];
    char range[128];
    struct fake_answer answer = {.status = 404};
    require(head != NULL, "malloc");
    if (read_head(c->fd, head)) {
        char *path = strchr(head, ' ');
        require(path != NULL, "request line");
        path++;
        header_value(head, "Authorization", authorization, sizeof(authorization));
        header_value(head, "Range", range, sizeof(range));
        path[strcspn(path, " ?")] = '\0';
        (void)choose(c->registry, path, authorization, &answer);
        size_t offset = strncmp(range, "bytes=", 6) == 0 ? strtoul(range + 6, NULL, 10) : 0;
        serve_answer(c->fd, &answer, offset);
    }
    free(head);
    /* the peer gets all of it before the reset that a close with unread input causes */
    (void)shutdown(c->fd, SHUT_WR);
    wait_for_close(c->fd);
    return NULL;
}

static void *accept_all(void *arg)
{
    struct fake_registry *r = arg;
    for (;;) {
        int fd = accept4(r->listen_fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            return NULL;
        (void)pthread_mutex_lock(&r->lock);
        bool stopping = r->stopping || r->n_connections == MAX_CONNECTIONS;
        if (!stopping) {
            struct connection *c = &r->connections[r->n_connections++];
            *c = (struct connection){.registry = r, .fd = fd};
            require(pthread_create(&c->thread, NULL, serve, c) == 0, "pthread_create");
        }
        (void)pthread_mutex_unlock(&r->lock);
        if (stopping) {
            (void)close(fd);
            return NULL;
        }
    }
}

struct fake_registry *fake_registry_start(void)
{
    struct fake_registry *r = calloc(1, sizeof(*r));
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    require(r != NULL, "calloc");
    (void)pthread_mutex_init(&r->lock, NULL);
    (void)pthread_cond_init(&r->asked, NULL);
    r->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    require(r->listen_fd >= 0 && bind(r->listen_fd, (struct sockaddr *)&address, len) == 0 &&
                listen(r->listen_fd, 64) == 0 &&
                getsockname(r->listen_fd, (struct sockaddr *)&address, &len) == 0,
            "listen");
    (void)snprintf(r->host, sizeof(r->host), "127.0.0.1:%u", ntohs(address.sin_port));
    require(pthread_create(&r->acceptor, NULL, accept_all, r) == 0, "pthread_create");
    return r;
}

void fake_registry_stop(struct fake_registry *r)
{
    (void)pthread_mutex_lock(&r->lock);
    r->stopping = true;
    (void)pthread_mutex_unlock(&r->lock);
    (void)shutdown(r->listen_fd, SHUT_RDWR);
    (void)pthread_join(r->acceptor, NULL);
    for (size_t i = 0; i < r->n_connections; i++) {
        (void)shutdown(r->connections[i].fd, SHUT_RDWR);
        (void)pthread_join(r->connections[i].thread, NULL);
        (void)close(r->connections[i].fd);
    }
    (void)close(r->listen_fd);
    for (size_t i = 0; i < r->n_script; i++) {
        struct fake_answer *a = &r->script[i].a;
        const void *owned[] = {a->path, a->headers, a->body, a->want_authorization};
        for (size_t k = 0; k < sizeof(owned) / sizeof(owned[0]); k++) {
            void *p;
            memcpy(&p, &owned[k], sizeof(p));
            free(p);
        }
    }
    free(r);
}

const char *fake_registry_host(const struct fake_registry *r)
{
    return r->host;
}

void fake_registry_add(struct fake_registry *r, const struct fake_answer *answer)
{
    (void)pthread_mutex_lock(&r->lock);
    require(r->n_script < MAX_ANSWERS, "script is full");
    struct scripted *s = &r->script[r->n_script++];
    s->a = *answer;
    s->a.path = copy_text(answer->path);
    s->a.headers = copy_text(answer->headers);
    s->a.want_authorization = copy_text(answer->want_authorization);
    char *body = malloc(answer->n + 1);
    require(body != NULL, "malloc");
    if (answer->n > 0)
        memcpy(body, answer->body, answer->n);
    s->a.body = body;
    (void)pthread_mutex_unlock(&r->lock);
}

static unsigned count_locked(const struct fake_registry *r, const char *path)
{
    unsigned count = 0;
    for (size_t i = 0; i < r->n_seen; i++)
        if (path == NULL || strcmp(r->seen[i].path, path) == 0)
            count++;
    return count;
}

unsigned fake_registry_count(struct fake_registry *r, const char *path)
{
    (void)pthread_mutex_lock(&r->lock);
    unsigned count = count_locked(r, path);
    (void)pthread_mutex_unlock(&r->lock);
    return count;
}

bool fake_registry_saw_authorization(struct fake_registry *r, const char *value)
{
    bool seen = false;
    (void)pthread_mutex_lock(&r->lock);
    for (size_t i = 0; i < r->n_seen; i++)
        seen = seen || strcmp(r->seen[i].authorization, value) == 0;
    (void)pthread_mutex_unlock(&r->lock);
    return seen;
}

void fake_registry_wait(struct fake_registry *r, const char *path, unsigned count)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 10;
    (void)pthread_mutex_lock(&r->lock);
    while (count_locked(r, path) < count)
        require(pthread_cond_timedwait(&r->asked, &r->lock, &until) == 0, "request did not come");
    (void)pthread_mutex_unlock(&r->lock);
}
