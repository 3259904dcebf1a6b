/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One process of a container as the daemon sees it: launched, held, running, ended; its output in
 * two rings, its stdin at an offset, its exit status. Everything is asynchronous: a change calls
 * the watches, which look at the fields they care about. Shared by reference count: the container
 * holds one reference, each call that waits another. One thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "common/base/cleanup.h"
#include "common/base/err.h"
#include "agent/process/launch.h"
#include "agent/process/reaper.h"
#include "agent/process/ring.h"

struct loop;
struct loop_source;

enum process_state {
    PROCESS_PREPARING, /* forked: builds its root and identity. Next: HELD, STARTING (not gated),
                          ENDED */
    PROCESS_HELD, /* ready, waits at its exec. Next: STARTING by process_start, ENDED when killed */
    PROCESS_STARTING, /* told to exec. Next: RUNNING, ENDED when the exec fails */
    PROCESS_RUNNING,  /* the program runs. Next: ENDED */
    PROCESS_ENDED,    /* reaped; output may still be on its way: see `settled` */
};

/* The state's name for logs and errors, such as "running". */
const char *process_state_name(enum process_state state);

struct process_status {
    int exit_code; /* 128+n when signal n ended it */
    int signal;    /* 0: exited by itself */
    bool oom_killed;
    int64_t started_ns;  /* realtime; 0: never ran */
    int64_t finished_ns; /* realtime */
};

/* Called when anything about the process has changed. May call process_unwatch on itself. */
struct process_watch {
    TAILQ_ENTRY(process_watch) entry;
    void (*fn)(void *arg);
    void *arg;
};

/* Who a process runs as. */
struct process_user {
    uint32_t uid;
    uint32_t gid;
    size_t n_groups;
    uint32_t groups[]; /* supplementary */
};

struct process_output {
    struct ring ring;
    int fd;                     /* read end or tty master; -1: nothing more comes */
    struct loop_source *source; /* NULL: paused because the ring is full, or closed */
};

struct process {
    unsigned refs;
    struct loop *loop;
    struct reaper_child child;
    enum process_state state;
    bool failed;  /* it never ran; `failure` says why */
    bool settled; /* ENDED, and all its output is in the rings */
    bool gone;    /* removed: who waits gives up */
    bool tty;
    pid_t pid;                 /* valid until ENDED */
    struct err *failure;       /* heap; NULL until failed */
    struct process_user *user; /* heap; NULL until HELD */
    struct process_status status;
    struct process_output out[2]; /* stdout (everything with a tty), stderr */
    int stdin_fd;          /* write end; -1: closed or never open. With a tty the master is used */
    uint64_t stdin_offset; /* bytes taken so far */
    struct loop_source *stdin_source;
    int master_fd; /* of the tty, or -1 */
    int ptmx_fd;   /* O_PATH of the container's devpts ptmx, or -1 */
    int channel;   /* -1: it has no more to say, or lodges */
    bool lodges;   /* in the agent's memory, not yet in its program */
    struct loop_source *channel_source;
    struct loop_source *quiet_timer; /* outcome_only: nothing is listened to until it fires */
    int64_t launched_ns;             /* outcome_only: realtime, taken for its start; else 0 */
    void (*on_exit)(void *arg,
                    struct process *p); /* right after it was reaped; may set status.oom_killed */
    void *on_exit_arg;
    TAILQ_HEAD(, process_watch) watches;
    struct process_watch *next_watch;
};

struct process_config {
    struct loop *loop;
    struct reaper *reaper;
    size_t ring_bytes; /* per stream; 0: PROCESS_DEFAULT_RING */
    /* Nobody asks for its start or its output as it comes, only for everything at its end: what
     * happens before may be seen late, and its start is the time of its launch. Not gated. */
    bool outcome_only;
    void (*on_exit)(void *arg, struct process *p);
    void *on_exit_arg;
};

#define PROCESS_DEFAULT_RING (256u << 10)
#define PROCESS_MAX_RING     (4u << 20)

/*
 * Forks the process: spec gives all but stdio, which is made here; spec->master_fd is taken on
 * success. Preparing goes on by itself; the outcome is seen by watching: HELD, RUNNING (not gated),
 * or failed.
 */
int process_launch(const struct process_config *config, const struct launch_spec *spec,
                   struct process **ret_process, struct err *err);

/* One more reference. */
struct process *process_ref(struct process *p);
/* Gives a reference back; the last one releases everything (the child, if it lives, is left alone).
 * NULL is fine. */
void process_unref(struct process *p);
DEFINE_CLEANUP(process, struct process, process_unref)

/* Calls watch->fn at every change until process_unwatch. The watch is the caller's memory. */
void process_watch(struct process *p, struct process_watch *watch);
/* Takes a watch back. */
void process_unwatch(struct process *p, struct process_watch *watch);

/* Lets a held process exec. BAD_STATE in any other state. */
int process_start(struct process *p, struct err *err);

/* Sends a signal. NOT_FOUND when it has ended. */
int process_signal(struct process *p, int signo, struct err *err);

/* SIGKILL for the process and what is left of its group. Nothing happens when it has ended. */
void process_kill(struct process *p);

/* Forgets output before the offset; the process may go on writing. stream: 0 stdout, 1 stderr. */
void process_ack(struct process *p, unsigned stream, uint64_t offset);

/* Whether every byte of the stream that will ever be is in its ring. */
bool process_output_complete(const struct process *p, unsigned stream);

/*
 * Gives bytes at `offset` to stdin; those before p->stdin_offset were given earlier and are
 * skipped. Takes what fits without waiting, possibly nothing: then watches are called once there is
 * room. eof closes it when all were taken. BAD_STATE when stdin is not open, INVALID when bytes are
 * missing before the offset.
 */
int process_write_stdin(struct process *p, uint64_t offset, const uint8_t *data, size_t n, bool eof,
                        struct err *err);

/* The size of the tty's window. BAD_STATE without a tty. */
int process_resize(struct process *p, uint16_t width, uint16_t height, struct err *err);

/* Marks it removed and calls the watches a last time. Its output is closed. */
void process_mark_gone(struct process *p);
