/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One epoll loop: descriptors, timers, signals, and work posted from other threads. Level-triggered
 * unless EPOLLET is asked for. Threads: a loop and its sources belong to the thread that runs it;
 * only loop_post, loop_stop and loop_is_current may be called from anywhere. A source may be freed
 * at any time, also inside any callback of the same loop; its callback is not called after that.
 * Times in milliseconds of the monotonic clock.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "common/base/err.h"

struct loop;
struct loop_source;

typedef void (*loop_fd_fn)(void *arg, uint32_t events);
typedef void (*loop_fn)(void *arg);
typedef void (*loop_signal_fn)(void *arg, int signo);

/* A loop without sources. Free it with loop_free after its sources. */
int loop_new(struct loop **ret_loop, struct err *err);
/* Runs what is still posted, then frees. NULL is fine. */
void loop_free(struct loop *loop);

/* Dispatches until loop_stop. Fails only when epoll_wait does. */
int loop_run(struct loop *loop, struct err *err);
/* One round of dispatching that waits at most timeout_ms (-1: for ever). */
int loop_run_once(struct loop *loop, int timeout_ms, struct err *err);
/* Makes loop_run return after the current round. Any thread, also a signal-free handler. */
void loop_stop(struct loop *loop);

/* Whether the calling thread is the one that runs (or, before it runs, made) the loop. */
bool loop_is_current(const struct loop *loop);

/* Calls fn(arg) on the loop's thread, soon and in order of posting. Any thread. Fails only for want
 * of memory. */
int loop_post(struct loop *loop, loop_fn fn, void *arg, struct err *err);

/* Watches fd (which stays the caller's and must stay open until the source is freed) for EPOLL*
 * events. */
int loop_add_fd(struct loop *loop, int fd, uint32_t events, loop_fd_fn fn, void *arg,
                struct loop_source **ret_source, struct err *err);
/* Changes the events watched for; 0 leaves only EPOLLHUP and EPOLLERR. */
int loop_set_events(struct loop_source *source, uint32_t events, struct err *err);

/* A timer, not armed yet. */
int loop_add_timer(struct loop *loop, loop_fn fn, void *arg, struct loop_source **ret_source,
                   struct err *err);
/* Fires once, timeout_ms from now (0: in the next round); arming again replaces. */
void loop_arm(struct loop_source *timer, int64_t timeout_ms);
/* Takes back an armed timer; an unarmed one stays so. */
void loop_disarm(struct loop_source *timer);

/*
 * Delivers these signals (0-terminated list) to fn on the loop. Blocks them for the calling thread:
 * call it before any other thread is started. One such source per loop.
 */
int loop_add_signals(struct loop *loop, const int *signals, loop_signal_fn fn, void *arg,
                     struct loop_source **ret_source, struct err *err);

/* Calls fn once when the process behind pidfd (the caller's, open until then) has ended. Does not
 * reap it. */
int loop_add_pidfd(struct loop *loop, int pidfd, loop_fn fn, void *arg,
                   struct loop_source **ret_source, struct err *err);

/* Stops watching; NULL is fine. Never closes the descriptor. */
void loop_source_free(struct loop_source *source);
