/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Three things happen to a process, in any order: its launch channel speaks, its output arrives,
 * and it is reaped. Each updates the fields and calls the watches; nothing else moves the state.
 * When it is reaped the channel is read first, since a message sent before death may still be in
 * it.
 *
 * Each time the agent is woken it takes the processor from the very process that it hears of, and
 * most commands last a few milliseconds. Of a process that is only asked for its outcome
 * (`outcome_only`) nothing is listened to at first: all that there is to hear is still in the
 * channel and the pipes when it is reaped. Only one that lasts longer is listened to before, for it
 * may have more to say than its pipes hold.
 *
 * Back-pressure is not reading: when a ring is full the pipe's source is taken out of the loop
 * altogether (a level- triggered loop would spin on a hang-up) and put back by the acknowledgement
 * that makes room. When the process has ended, what its pipe can still hold is let in beyond the
 * limit, so that its end does not wait for acknowledgements.
 *
 * Output ends when every holder of the pipe has closed it. For a container's first process that is
 * at once, since all others die with it; a process run by Exec may leave children that go on
 * writing, and is settled when they are done.
 */
#include "agent/process/process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/loop/loop.h"

#define READ_CHUNK (64u << 10) /* per stream and round of the loop, for fairness */
#define READ_FIRST 4096u       /* most processes say less, and a ring has room for what is asked */
#define PIPE_REST  (1u << 20)  /* what an unprivileged process can make its pipe hold */
#define QUIET_MS   10          /* after its start, when only the outcome is asked for */
#define LODGES_MS  100         /* between two looks at one that has not come to its exec by then */

static void on_output_stdout(void *arg, uint32_t events);
static void on_output_stderr(void *arg, uint32_t events);

const char *process_state_name(enum process_state state)
{
    static const char *const names[] = {
        [PROCESS_PREPARING] = "preparing", [PROCESS_HELD] = "created",
        [PROCESS_STARTING] = "starting",   [PROCESS_RUNNING] = "running",
        [PROCESS_ENDED] = "exited",
    };
    return (unsigned)state < ARRAY_SIZE(names) ? names[state] : "?";
}

/* ---- references and watches
 * ---------------------------------------------------------------------------------------- */

struct process *process_ref(struct process *p)
{
    p->refs++;
    return p;
}

static void close_output(struct process_output *o)
{
    loop_source_free(o->source);
    o->source = NULL;
    close_fd(&o->fd);
}

static void close_stdin(struct process *p)
{
    loop_source_free(p->stdin_source);
    p->stdin_source = NULL;
    close_fd(&p->stdin_fd);
}

static void close_channel(struct process *p)
{
    loop_source_free(p->channel_source);
    p->channel_source = NULL;
    close_fd(&p->channel);
}

void process_unref(struct process *p)
{
    if (p == NULL || --p->refs > 0)
        return;
    if (p->pid > 0 && p->state != PROCESS_ENDED)
        reaper_forget(&p->child);
    for (size_t i = 0; i < 2; i++) {
        close_output(&p->out[i]);
        ring_fini(&p->out[i].ring);
    }
    close_stdin(p);
    close_channel(p);
    loop_source_free(p->quiet_timer);
    close_fd(&p->master_fd);
    close_fd(&p->ptmx_fd);
    free(p->failure);
    free(p->user);
    free(p);
}

void process_watch(struct process *p, struct process_watch *watch)
{
    TAILQ_INSERT_TAIL(&p->watches, watch, entry);
}

void process_unwatch(struct process *p, struct process_watch *watch)
{
    if (p->next_watch == watch)
        p->next_watch = TAILQ_NEXT(watch, entry);
    TAILQ_REMOVE(&p->watches, watch, entry);
}

/* Calls every watch. A watch may take back itself or any other one. Not re-entered: nothing that
 * watches do notifies. */
static void notify(struct process *p)
{
    (void)process_ref(p);
    struct process_watch *w = TAILQ_FIRST(&p->watches);
    while (w != NULL) {
        p->next_watch = TAILQ_NEXT(w, entry);
        w->fn(w->arg);
        w = p->next_watch;
    }
    p->next_watch = NULL;
    process_unref(p);
}

/* ---- output
 * --------------------------------------------------------------------------------------------------------
 */

bool process_output_complete(const struct process *p, unsigned stream)
{
    return p->state == PROCESS_ENDED && p->out[stream].fd < 0;
}

static void update_settled(struct process *p)
{
    p->settled = process_output_complete(p, 0) && process_output_complete(p, 1);
}

/* Watches the descriptor, or stops doing so while the ring is full. Without memory for it the
 * output is lost: closed. */
static void resume_output(struct process *p, unsigned stream)
{
    struct process_output *o = &p->out[stream];
    if (o->fd < 0 || o->source != NULL || ring_room(&o->ring) == 0)
        return;
    struct err err;
    if (loop_add_fd(p->loop, o->fd, EPOLLIN, stream == 0 ? on_output_stdout : on_output_stderr, p,
                    &o->source, &err) < 0) {
        log_event(LOG_ERROR, NULL, &err, "cannot watch output, closing it");
        close_output(o);
    }
}

/* Reads what there is, at most READ_CHUNK bytes. Returns whether anything changed. */
static bool pump_output(struct process *p, unsigned stream)
{
    struct process_output *o = &p->out[stream];
    size_t total = 0, want = o->ring.capacity <= READ_FIRST ? READ_FIRST : READ_CHUNK;
    struct err err;
    while (o->fd >= 0 && total < READ_CHUNK) {
        uint8_t *space;
        size_t room;
        if (want > READ_CHUNK - total)
            want = READ_CHUNK - total;
        if (ring_reserve(&o->ring, want, &space, &room, &err) < 0) {
            /* No memory now: try again when something is acknowledged. */
            room = 0;
        }
        if (room == 0) {
            loop_source_free(o->source);
            o->source = NULL;
            break;
        }
        ssize_t n = read(o->fd, space, room);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n <= 0) {
            /* The end; a tty's is EIO. */
            close_output(o);
            return true;
        }
        ring_commit(&o->ring, (size_t)n, clock_realtime_ns());
        total += (size_t)n;
        if ((size_t)n < room)
            break;
        want = READ_CHUNK;
    }
    return total > 0;
}

static void on_output(struct process *p, unsigned stream)
{
    if (!pump_output(p, stream))
        return;
    update_settled(p);
    notify(p);
}

static void on_output_stdout(void *arg, uint32_t events)
{
    (void)events;
    on_output(arg, 0);
}

static void on_output_stderr(void *arg, uint32_t events)
{
    (void)events;
    on_output(arg, 1);
}

void process_ack(struct process *p, unsigned stream, uint64_t offset)
{
    ring_ack(&p->out[stream].ring, offset);
    resume_output(p, stream);
}

/* ---- stdin
 * -----------------------------------------------------------------------------------------------------------
 */

static int stdin_fd(const struct process *p)
{
    return p->tty ? p->master_fd : p->stdin_fd;
}

static void on_stdin_room(void *arg, uint32_t events)
{
    struct process *p = arg;
    (void)events;
    loop_source_free(p->stdin_source);
    p->stdin_source = NULL;
    notify(p);
}

int process_write_stdin(struct process *p, uint64_t offset, const uint8_t *data, size_t n, bool eof,
                        struct err *err)
{
    if (offset > p->stdin_offset)
        return err_set(err, ERR_INVALID, "stdin: %llu bytes are missing before offset %llu",
                       (unsigned long long)(offset - p->stdin_offset), (unsigned long long)offset);
    uint64_t skip = p->stdin_offset - offset;
    if (skip > n)
        skip = n;
    data += skip;
    n -= (size_t)skip;
    int fd = stdin_fd(p);
    if (fd < 0) {
        if (n == 0)
            return 0; /* a repeated end */
        return err_set(err, ERR_BAD_STATE, "stdin is closed");
    }
    while (n > 0) {
        ssize_t w = write(fd, data, n);
        if (w < 0 && errno == EINTR)
            continue;
        if (w < 0 && errno == EAGAIN) {
            if (p->stdin_source != NULL)
                return 0;
            return loop_add_fd(p->loop, fd, EPOLLOUT, on_stdin_room, p, &p->stdin_source, err);
        }
        if (w < 0) {
            close_stdin(p);
            return err_set(err, ERR_BAD_STATE, "stdin is closed: the process does not read it");
        }
        p->stdin_offset += (uint64_t)w;
        data += w;
        n -= (size_t)w;
    }
    if (eof && !p->tty)
        close_stdin(p);
    return 0;
}

/* ---- launch
 * ----------------------------------------------------------------------------------------------------------
 */

static void set_failure(struct process *p, const struct err *failure)
{
    p->failed = true;
    free(p->failure);
    p->failure = malloc(sizeof(*p->failure));
    if (p->failure != NULL)
        *p->failure = *failure;
}

/* The master is read as stdout, and written as stdin. */
static void adopt_master(struct process *p, int master)
{
    struct err err;
    if (master < 0)
        return;
    p->master_fd = master;
    int copy = fcntl(master, F_DUPFD_CLOEXEC, 0);
    if (copy < 0 || fd_set_nonblock(master, &err) < 0) {
        log_error("cannot read the terminal of a process");
        if (copy >= 0)
            (void)close(copy);
        return;
    }
    p->out[0].fd = copy;
    resume_output(p, 0);
}

/* Without memory for it nobody learns who it runs as; it runs all the same. */
static void keep_user(struct process *p, const struct user *user)
{
    size_t bytes = user->n_groups * sizeof(p->user->groups[0]);
    if (user->n_groups > USERDB_MAX_GROUPS || p->user != NULL)
        return;
    p->user = malloc(sizeof(*p->user) + bytes);
    if (p->user == NULL)
        return;
    p->user->uid = user->uid;
    p->user->gid = user->gid;
    p->user->n_groups = user->n_groups;
    memcpy(p->user->groups, user->groups, bytes);
}

/* Hears everything that the child has said so far. Returns whether anything changed. */
static bool pump_channel(struct process *p)
{
    bool changed = false;
    while (p->channel >= 0 || p->lodges) {
        struct launch_ready ready;
        struct err failure;
        switch (p->lodges ? launch_ask_lodger(&failure)
                          : launch_receive(p->channel, &ready, &failure)) {
        case LAUNCH_NOTHING:
            return changed;
        case LAUNCH_READY:
            p->ptmx_fd = ready.ptmx;
            adopt_master(p, ready.master);
            keep_user(p, ready.user);
            if (p->state == PROCESS_PREPARING)
                p->state = PROCESS_HELD;
            break;
        case LAUNCH_FAILED:
            set_failure(p, &failure);
            break;
        case LAUNCH_CLOSED:
            close_channel(p);
            p->lodges = false;
            if (!p->failed && p->state == PROCESS_STARTING) {
                p->state = PROCESS_RUNNING;
                p->status.started_ns = p->launched_ns != 0 ? p->launched_ns : clock_realtime_ns();
            }
            break;
        }
        changed = true;
    }
    return changed;
}

static void on_channel(void *arg, uint32_t events)
{
    struct process *p = arg;
    (void)events;
    if (pump_channel(p))
        notify(p);
}

static int listen_to(struct process *p, struct err *err)
{
    resume_output(p, 0);
    resume_output(p, 1);
    if (p->channel < 0)
        return 0;
    return loop_add_fd(p->loop, p->channel, EPOLLIN, on_channel, p, &p->channel_source, err);
}

static void on_quiet_over(void *arg)
{
    struct process *p = arg;
    struct err err;
    (void)process_ref(p);
    if (p->lodges && pump_channel(p))
        notify(p);
    if (p->lodges)
        loop_arm(p->quiet_timer, LODGES_MS);
    else
        loop_source_free(steal_ptr(&p->quiet_timer));
    if (listen_to(p, &err) < 0)
        log_event(LOG_WARN, NULL, &err, "cannot watch the start of a process, waiting for its end");
    process_unref(p);
}

/* Listens to it now, or when it turns out to last, which cannot fail. */
static int begin_listening(struct process *p, struct err *err)
{
    if (p->quiet_timer == NULL)
        return listen_to(p, err);
    loop_arm(p->quiet_timer, QUIET_MS);
    p->launched_ns = clock_realtime_ns();
    return 0;
}

static void on_reaped(void *arg, pid_t pid, int status)
{
    struct process *p = arg;
    (void)pid;
    (void)process_ref(p);
    loop_source_free(steal_ptr(&p->quiet_timer));
    (void)pump_channel(p);
    close_channel(p);
    if (p->state != PROCESS_RUNNING && !p->failed) {
        struct err failure;
        if (WIFSIGNALED(status))
            (void)err_set(&failure, ERR_BAD_STATE, "killed by signal %d before its exec",
                          WTERMSIG(status));
        else
            (void)err_set(&failure, ERR_BAD_STATE, "ended before its exec");
        set_failure(p, &failure);
    }
    p->state = PROCESS_ENDED;
    p->status.finished_ns = clock_realtime_ns();
    p->status.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    p->status.exit_code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    if (p->on_exit != NULL)
        p->on_exit(p->on_exit_arg, p);
    for (unsigned i = 0; i < 2; i++) {
        if (p->out[i].fd < 0)
            continue;
        ring_raise_limit(&p->out[i].ring, PIPE_REST);
        (void)pump_output(p, i);
        resume_output(p, i); /* when someone else still has it open */
    }
    close_stdin(p);
    update_settled(p);
    notify(p);
    process_unref(p);
}

/* A pipe whose end for the agent does not block. read_end says which one the agent keeps. */
static int make_pipe(bool read_end, int *ret_ours, int *ret_theirs, struct err *err)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return err_set_errno(err, errno, "make a pipe");
    *ret_ours = ends[read_end ? 0 : 1];
    *ret_theirs = ends[read_end ? 1 : 0];
    if (fcntl(*ret_ours, F_SETFL, O_NONBLOCK) < 0) /* it has no other flags */
        return err_set_errno(err, errno, "make a pipe");
    return 0;
}

static struct process *process_new(const struct process_config *config, bool tty)
{
    struct process *p = calloc(1, sizeof(*p));
    if (p == NULL)
        return NULL;
    p->refs = 1;
    p->loop = config->loop;
    p->on_exit = config->on_exit;
    p->on_exit_arg = config->on_exit_arg;
    p->tty = tty;
    p->stdin_fd = p->master_fd = p->ptmx_fd = p->channel = -1;
    size_t limit = config->ring_bytes == 0 ? PROCESS_DEFAULT_RING : config->ring_bytes;
    for (size_t i = 0; i < 2; i++) {
        ring_init(&p->out[i].ring, limit < PROCESS_MAX_RING ? limit : PROCESS_MAX_RING);
        p->out[i].fd = -1;
    }
    TAILQ_INIT(&p->watches);
    return p;
}

static int make_stdio(struct process *p, bool wants_stdin, int theirs[3], struct err *err)
{
    for (unsigned i = 0; i < 2; i++) {
        if (make_pipe(true, &p->out[i].fd, &theirs[i + 1], err) < 0)
            return -1;
    }
    return wants_stdin ? make_pipe(false, &p->stdin_fd, &theirs[0], err) : 0;
}

int process_launch(const struct process_config *config, const struct launch_spec *spec,
                   struct process **ret_process, struct err *err)
{
    CLEANUP(process_cleanup_) struct process *p = process_new(config, spec->process->tty);
    if (p == NULL)
        return err_no_memory(err);
    struct launch_spec s = *spec;
    struct launch launched = {.pid = 0, .channel = -1};
    s.stdio[0] = s.stdio[1] = s.stdio[2] = -1;

    /* A child that lodges reads what is the caller's: from its birth on nothing may fail. */
    int rc =
        config->outcome_only ? loop_add_timer(p->loop, on_quiet_over, p, &p->quiet_timer, err) : 0;
    if (rc == 0 && !s.process->tty)
        rc = make_stdio(p, s.process->stdin, s.stdio, err);
    if (rc == 0)
        rc = launch_start(&s, &launched, err);
    for (size_t i = 0; i < 3; i++)
        close_fd(&s.stdio[i]);
    if (rc < 0)
        return -1;
    p->channel = launched.channel;
    p->lodges = launched.lodges;
    p->state = s.gated ? PROCESS_PREPARING : PROCESS_STARTING;
    p->pid = launched.pid;
    reaper_add(config->reaper, &p->child, p->pid, on_reaped, p);
    if (begin_listening(p, err) < 0) {
        (void)kill(p->pid, SIGKILL);
        return -1;
    }
    adopt_master(p, s.master_fd);
    *ret_process = steal_ptr(&p);
    return 0;
}

/* ---- control
 * ---------------------------------------------------------------------------------------------------------
 */

int process_start(struct process *p, struct err *err)
{
    if (p->state != PROCESS_HELD)
        return err_set(err, ERR_BAD_STATE, "the process is %s", process_state_name(p->state));
    if (launch_go(p->channel, err) < 0)
        return -1;
    p->state = PROCESS_STARTING;
    return 0;
}

int process_signal(struct process *p, int signo, struct err *err)
{
    if (p->state == PROCESS_ENDED)
        return err_set(err, ERR_NOT_FOUND, "the process has ended");
    if (kill(p->pid, signo) < 0)
        return err_set_errno(err, errno, "signal %d", signo);
    return 0;
}

void process_kill(struct process *p)
{
    if (p->state == PROCESS_ENDED)
        return;
    /* It leads a group of its own, unless it has not come that far. */
    if (kill(-p->pid, SIGKILL) < 0)
        (void)kill(p->pid, SIGKILL);
}

int process_resize(struct process *p, uint16_t width, uint16_t height, struct err *err)
{
    if (p->master_fd < 0)
        return err_set(err, ERR_BAD_STATE, "the process has no terminal");
    struct winsize size = {.ws_col = width, .ws_row = height};
    if (ioctl(p->master_fd, TIOCSWINSZ, &size) < 0)
        return err_set_errno(err, errno, "set the terminal's size");
    return 0;
}

void process_mark_gone(struct process *p)
{
    p->gone = true;
    close_output(&p->out[0]);
    close_output(&p->out[1]);
    close_stdin(p);
    notify(p);
}
