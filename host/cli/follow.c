/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inotify on the log's folder says when to read; where it cannot be had, the polling of the status
 * does. The status is asked for often at first (most commands are short) and then less and less;
 * CRI promises that when it says EXITED, all output is in the log.
 */
#include "host/cli/follow.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/text.h"
#include "common/loop/loop.h"
#include "host/cli/cli.h"

enum {
    POLL_FIRST_MS = 20,
    POLL_BUSY_MS = 100, /* not more than this after output came */
    POLL_LAST_MS = 500,
    READ_AT_ONCE = 1 << 20,
};

struct follow {
    const struct cli_follow *spec;
    struct cli_log_file *log;
    int inotify_fd;
    struct loop_source *source;
    int64_t interval_ms;
    int64_t next_poll_ms;
    bool changed; /* inotify has spoken */
    bool exited;
    bool rotated; /* and the new file is not read yet */
    struct cli_exit_status status;
};

static void on_inotify(void *arg, uint32_t events)
{
    struct follow *f = arg;
    char events_read[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
    (void)events;
    while (read(f->inotify_fd, events_read, sizeof(events_read)) > 0)
        f->changed = true;
}

/* Watches the log's folder, if that can be done. */
static void watch(struct follow *f)
{
    struct err quiet = {0};
    const char *slash = strrchr(f->spec->log_path, '/');
    cleanup_free char *dir = slash == NULL
                                 ? strdup(".")
                                 : strndup(f->spec->log_path, (size_t)(slash - f->spec->log_path));
    f->inotify_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (dir == NULL || f->inotify_fd < 0)
        return;
    if (inotify_add_watch(f->inotify_fd, *dir == '\0' ? "/" : dir,
                          IN_MODIFY | IN_CREATE | IN_MOVED_TO) < 0)
        return;
    (void)loop_add_fd(cli_conn_loop(f->spec->conn), f->inotify_fd, EPOLLIN, on_inotify, f,
                      &f->source, &quiet);
}

static void take_status(struct follow *f, const Runtime__V1__ContainerStatus *s)
{
    f->exited = s->state == RUNTIME__V1__CONTAINER_STATE__CONTAINER_EXITED;
    f->status.exit_code = s->exit_code;
    (void)snprintf(f->status.reason, sizeof(f->status.reason), "%s", s->reason);
    (void)snprintf(f->status.message, sizeof(f->status.message), "%s", s->message);
}

static int poll_status(struct follow *f, struct err *err)
{
    Runtime__V1__ContainerStatusRequest q = RUNTIME__V1__CONTAINER_STATUS_REQUEST__INIT;
    q.container_id = cli_lend(f->spec->container_id);
    struct rpc_reply reply = {0};
    if (cli_conn_call_again(f->spec->conn, CLI_RUNTIME, "ContainerStatus", &q.base,
                            f->spec->daemon_timeout_ms, &reply, err) < 0)
        return -1;
    const Runtime__V1__ContainerStatusResponse *m =
        (const Runtime__V1__ContainerStatusResponse *)reply.message;
    int r = 0;
    if (m->status == NULL)
        r = err_set(err, ERR_PROTOCOL, "the daemon's answer has no status");
    else
        take_status(f, m->status);
    rpc_reply_fini(&reply);
    if (r == 0 && !f->exited && f->spec->on_poll != NULL)
        f->spec->on_poll(f->spec->arg);
    f->interval_ms = f->interval_ms * 2 < POLL_LAST_MS ? f->interval_ms * 2 : POLL_LAST_MS;
    f->next_poll_ms = clock_monotonic_ms() + f->interval_ms;
    return r;
}

/*
 * A log of ours that has been read is thrown away now and then. Best effort: should the daemon not
 * begin a new file (the container has just exited), both go on with the old one, which has no name.
 */
static void rotate(struct follow *f)
{
    bool big = cli_log_file_taken(f->log) >= f->spec->rotate_bytes;
    if (!big)
        f->rotated = false;
    if (f->spec->rotate_bytes == 0 || !big || f->rotated)
        return;
    f->rotated = true;
    cleanup_free char *old = text_printf("%s.old", f->spec->log_path);
    if (old == NULL || rename(f->spec->log_path, old) < 0)
        return;
    Runtime__V1__ReopenContainerLogRequest q = RUNTIME__V1__REOPEN_CONTAINER_LOG_REQUEST__INIT;
    q.container_id = cli_lend(f->spec->container_id);
    struct err quiet = {0};
    (void)cli_conn_tell(f->spec->conn, CLI_RUNTIME, "ReopenContainerLog", &q.base,
                        f->spec->daemon_timeout_ms, &quiet);
    (void)unlink(old);
}

/* Reads what there is; waits if there was nothing, at most until the next poll is due. */
static int read_or_wait(struct follow *f, bool *ret_more, struct err *err)
{
    uint64_t before = cli_log_file_taken(f->log);
    f->changed = false;
    if (cli_log_file_read(f->log, READ_AT_ONCE, cli_output_piece, f->spec->output, ret_more, err) <
            0 ||
        cli_output_flush(f->spec->output, err) < 0)
        return -1;
    if (cli_log_file_taken(f->log) != before && f->interval_ms > POLL_BUSY_MS) {
        f->interval_ms = POLL_BUSY_MS;
        f->next_poll_ms = clock_earlier(f->next_poll_ms, clock_monotonic_ms() + POLL_BUSY_MS);
    }
    if (*ret_more || f->exited)
        return 0;
    rotate(f);
    while (!f->changed && clock_monotonic_ms() < f->next_poll_ms) {
        if (loop_run_once(cli_conn_loop(f->spec->conn), clock_poll_timeout(f->next_poll_ms), err) <
            0)
            return -1;
    }
    return 0;
}

static int follow_to_end(struct follow *f, struct err *err)
{
    for (;;) {
        bool more = false;
        bool was_exited = f->exited;
        if (read_or_wait(f, &more, err) < 0)
            return -1;
        if (f->spec->output->broken && f->spec->on_poll == NULL)
            return 0;
        if (was_exited && !more)
            return 0;
        if (!f->exited && clock_monotonic_ms() >= f->next_poll_ms && poll_status(f, err) < 0)
            return -1;
    }
}

int cli_follow(const struct cli_follow *spec, struct cli_exit_status *ret_status, struct err *err)
{
    struct follow f = {.spec = spec,
                       .inotify_fd = -1,
                       .interval_ms = POLL_FIRST_MS,
                       .next_poll_ms = clock_monotonic_ms()};
    if (cli_log_file_new(spec->log_path, &f.log, err) < 0)
        return -1;
    watch(&f);
    int r = follow_to_end(&f, err);
    uint64_t bad = cli_log_file_bad_lines(f.log);
    if (bad > 0)
        cli_complain("%llu lines of the log were no log lines and were left out",
                     (unsigned long long)bad);
    if (r == 0)
        *ret_status = f.status;
    loop_source_free(f.source);
    close_fd(&f.inotify_fd);
    cli_log_file_free(f.log);
    return r;
}
