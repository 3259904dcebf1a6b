/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input goes through a socket pair rather than a pipe: send(2) can be told not to raise SIGPIPE
 * when the child is gone. The result is read when the input has been sent, or as soon as sending
 * fails, which is how a child that gives up in the middle gets to say why. It is at most one
 * struct; anything else, or nothing, means that the child crashed or was killed by its filter or
 * limits.
 *
 * The program is started through a descriptor (/proc/self/fd), because the identity that it runs
 * with need not be able to reach its path: a checkout in somebody's home folder is closed to
 * others.
 */
#include "host/image/converter.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/spawn.h"
#include "common/base/text.h"

enum { POLL_MS = 100, SOCKET_BUFFER = 1 << 20, CPU_LIMIT_S = 1800, MAX_FILES = 16 };

struct converter {
    struct spawn_child child;
    bool running;
    int in_fd;     /* our end of the input */
    int result_fd; /* our end of the result pipe */
    int out_fd;
    struct http_limits limits;
};

struct arguments {
    char bytes[24];
    char ratio[24];
    char entries[24];
    char workers[24];
    char cpu[24];
    char complete[24];
    const char *argv[16];
};

static void number_argument(char out[24], uint64_t value)
{
    (void)snprintf(out, 24, "%llu", (unsigned long long)value);
}

static void fill_arguments(const struct converter_spec *spec, struct arguments *a)
{
    number_argument(a->bytes, spec->max_bytes);
    number_argument(a->ratio, spec->max_ratio);
    number_argument(a->entries, spec->max_entries);
    number_argument(a->workers, spec->workers);
    number_argument(a->cpu, CPU_LIMIT_S);
    number_argument(a->complete, spec->n_layers);
    const char *task_option = spec->task == CONVERTER_COMPLETE ? "--complete"
                              : spec->task == CONVERTER_RETAR  ? "--retar"
                                                               : NULL;
    const char *const argv[] = {"casemate-convert",
                                "--compression",
                                image_compression_name(spec->compression),
                                "--max-bytes",
                                a->bytes,
                                "--max-ratio",
                                a->ratio,
                                "--max-entries",
                                a->entries,
                                "--workers",
                                a->workers,
                                "--cpu-seconds",
                                a->cpu,
                                task_option,
                                spec->task == CONVERTER_COMPLETE ? a->complete : NULL,
                                NULL};
    memcpy(a->argv, argv, sizeof(argv));
}

static int start_child(struct converter *c, const struct converter_spec *spec, int in_fd,
                       int result_fd, struct err *err)
{
    struct arguments a;
    char path[32];
    bool root = geteuid() == 0;
    cleanup_fd int program = open(spec->path, O_PATH | O_CLOEXEC);
    if (program < 0)
        return err_set_errno(err, errno, "'%s'", spec->path);
    cleanup_free struct spawn_fd *fds = calloc(spec->n_layers + 4, sizeof(*fds));
    if (fds == NULL)
        return err_no_memory(err);
    fds[0] = (struct spawn_fd){in_fd, CONVERT_FD_IN};
    fds[1] = (struct spawn_fd){result_fd, CONVERT_FD_RESULT};
    fds[2] = (struct spawn_fd){spec->out_fd, CONVERT_FD_OUT};
    fds[3] = (struct spawn_fd){program, CONVERT_FD_SELF};
    for (size_t i = 0; i < spec->n_layers; i++)
        fds[4 + i] = (struct spawn_fd){spec->layers[i], CONVERT_FD_LAYERS + (int)i};
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", CONVERT_FD_SELF);
    struct spawn_spec s = {
        .path = path,
        .argv = a.argv,
        .fds = fds,
        .n_fds = spec->n_layers + 4,
        .set_ids = root,
        .uid = spec->uid,
        .gid = spec->gid,
        .unshare_flags = root ? CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS : 0,
        .new_session = true,
        .die_with_parent = true,
        .no_new_privs = true,
        .limit_file_size = spec->max_bytes,
        .limit_memory = spec->memory_bytes,
        .limit_files = MAX_FILES + spec->n_layers,
    };
    fill_arguments(spec, &a);
    if (spawn_start(&s, &c->child, err) < 0)
        return -1;
    c->running = true;
    return 0;
}

void converter_spec_init(struct converter_spec *spec, const struct image_config *config, int out_fd,
                         const struct http_limits *limits)
{
    *spec = (struct converter_spec){.path = config->converter,
                                    .uid = config->converter_uid,
                                    .gid = config->converter_gid,
                                    .compression = config->compression,
                                    .max_bytes = config->limits.layer_bytes,
                                    .max_ratio = config->limits.layer_ratio,
                                    .max_entries = config->limits.layer_entries,
                                    .memory_bytes = config->limits.memory_bytes,
                                    .workers = 1,
                                    .out_fd = out_fd,
                                    .task = CONVERTER_LAYER,
                                    .limits = *limits};
}

int converter_start(const struct converter_spec *spec, struct converter **ret_converter,
                    struct err *err)
{
    int in[2];
    int result[2];
    int size = SOCKET_BUFFER;
    cleanup_converter struct converter *c = calloc(1, sizeof(*c));
    if (c == NULL)
        return err_no_memory(err);
    c->in_fd = c->result_fd = -1;
    c->out_fd = spec->out_fd;
    c->limits = spec->limits;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, in) < 0)
        return err_set_errno(err, errno, "socketpair");
    c->in_fd = in[0];
    cleanup_fd int child_in = in[1];
    if (pipe2(result, O_CLOEXEC) < 0)
        return err_set_errno(err, errno, "pipe");
    c->result_fd = result[0];
    cleanup_fd int child_result = result[1];
    (void)setsockopt(c->in_fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    if (fd_set_nonblock(c->in_fd, err) < 0 || fd_set_nonblock(c->result_fd, err) < 0 ||
        start_child(c, spec, child_in, child_result, err) < 0)
        return err_prefix(err, "layer converter");
    *ret_converter = steal_ptr(&c);
    return 0;
}

void converter_free(struct converter *c)
{
    if (c == NULL)
        return;
    close_fd(&c->in_fd);
    close_fd(&c->result_fd);
    if (c->running)
        spawn_kill(&c->child);
    free(c);
}

/* Waits for an event, at most until the operation is over. */
static int wait_for(struct converter *c, int fd, short events, struct err *err)
{
    for (;;) {
        struct pollfd p = {.fd = fd, .events = events};
        if (c->limits.cancelled != NULL && c->limits.cancelled(c->limits.arg))
            return err_set(err, ERR_CANCELLED, "cancelled");
        int left = clock_poll_timeout(c->limits.deadline_ms);
        if (left == 0)
            return err_set(err, ERR_DEADLINE, "deadline exceeded");
        int n = poll(&p, 1, left < 0 || left > POLL_MS ? POLL_MS : left);
        if (n < 0 && errno != EINTR)
            return err_set_errno(err, errno, "poll");
        if (n > 0)
            return 0;
    }
}

static int read_result(struct converter *c, struct convert_result *r, size_t *ret_n,
                       struct err *err)
{
    size_t n = 0;
    while (n < sizeof(*r)) {
        if (wait_for(c, c->result_fd, POLLIN, err) < 0)
            return -1;
        ssize_t got = read(c->result_fd, (char *)r + n, sizeof(*r) - n);
        if (got < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (got < 0)
            return err_set_errno(err, errno, "read the layer converter's result");
        if (got == 0)
            break;
        n += (size_t)got;
    }
    *ret_n = n;
    return 0;
}

/* Reaps the child, whose result pipe is at its end or full. */
static int reap(struct converter *c, int *ret_status, struct err *err)
{
    if (wait_for(c, c->child.pidfd, POLLIN, err) < 0)
        return -1;
    if (spawn_wait(&c->child, clock_deadline(1000), ret_status, err) < 0)
        return -1;
    c->running = false;
    close_fd(&c->child.pidfd);
    return 0;
}

/* The child's verdict: its struct, checked. */
static int verdict(struct converter *c, struct convert_result *ret_result, struct err *err)
{
    struct convert_result r = {0};
    struct stat st;
    size_t n = 0;
    int status = 0;
    if (read_result(c, &r, &n, err) < 0 || reap(c, &status, err) < 0)
        return -1;
    if (n == 0 && status >= 128)
        return err_set(err, ERR_PROTOCOL, "layer converter was killed by signal %d", status - 128);
    if (n != sizeof(r) || r.magic != CONVERT_MAGIC)
        return err_set(err, ERR_SYSTEM, "layer converter failed with status %d", status);
    if (r.code != ERR_NONE || status != 0) {
        r.message[sizeof(r.message) - 1] = '\0';
        bool known = r.code > ERR_NONE && r.code <= ERR_SYSTEM;
        return err_set(err, known ? (enum err_code)r.code : ERR_SYSTEM, "%s",
                       text_is_utf8(r.message, strlen(r.message)) ? r.message : "layer not valid");
    }
    if (fstat(c->out_fd, &st) < 0)
        return err_set_errno(err, errno, "stat the layer's image");
    if ((uint64_t)st.st_size != r.image_bytes)
        return err_set(err, ERR_SYSTEM, "layer converter wrote %llu bytes and says %llu",
                       (unsigned long long)st.st_size, (unsigned long long)r.image_bytes);
    *ret_result = r;
    return 0;
}

int converter_feed(struct converter *c, const void *bytes, size_t n, struct err *err)
{
    const char *p = bytes;
    struct convert_result ignored;
    while (n > 0) {
        ssize_t sent = send(c->in_fd, p, n, MSG_NOSIGNAL);
        if (sent >= 0) {
            p += sent;
            n -= (size_t)sent;
        } else if (errno == EAGAIN) {
            if (wait_for(c, c->in_fd, POLLOUT, err) < 0)
                return -1;
        } else if (errno == EPIPE || errno == ECONNRESET) {
            if (verdict(c, &ignored, err) < 0)
                return -1;
            return err_set(err, ERR_SYSTEM, "layer converter ended early");
        } else if (errno != EINTR) {
            return err_set_errno(err, errno, "feed the layer converter");
        }
    }
    return 0;
}

int converter_finish(struct converter *c, struct convert_result *ret_result, struct err *err)
{
    close_fd(&c->in_fd);
    return verdict(c, ret_result, err);
}
