/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One epoll descriptor. A source that is freed while events of the same round are still to be
 * dispatched is only marked dead and put on a list; its memory goes at the end of the round, so
 * that no stale pointer out of epoll_wait's array is ever followed. Timers live in a binary heap
 * ordered by due time, and the wait's timeout is the head's. Posted work is a queue behind a mutex
 * with an eventfd to wake the loop; the mutex is held for list operations only.
 */
#include "common/loop/loop.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "common/base/clock.h"

enum { MAX_EVENTS = 64 };

enum source_kind { SOURCE_FD, SOURCE_TIMER, SOURCE_SIGNALS, SOURCE_PIDFD };

struct loop_source {
    struct loop *loop;
    enum source_kind kind;
    bool dead;    /* freed by its owner, memory still held for this round */
    int fd;       /* watched descriptor, -1 for a timer */
    bool owns_fd; /* a signalfd is ours */
    union {
        loop_fd_fn fd_fn;
        loop_fn fn;
        loop_signal_fn signal_fn;
    };
    void *arg;
    int64_t due_ms;    /* timers */
    size_t heap_index; /* 1-based position in the heap, 0 when unarmed */
    SLIST_ENTRY(loop_source) dead_link;
};

struct posted {
    loop_fn fn;
    void *arg;
    STAILQ_ENTRY(posted) link;
};
STAILQ_HEAD(posted_list, posted);

struct loop {
    int epoll_fd;
    int wake_fd;
    _Atomic bool stopping;
    _Atomic(pthread_t) thread;
    struct loop_source **heap; /* heap[1..n_armed] */
    size_t n_armed, heap_room;
    size_t n_timers; /* alive; the heap always has room for all of them */
    SLIST_HEAD(, loop_source) dead;
    pthread_mutex_t lock; /* guards posted; never held while calling out */
    struct posted_list posted;
};

int loop_new(struct loop **ret_loop, struct err *err)
{
    struct loop *l = calloc(1, sizeof(*l));
    if (l == NULL)
        return err_no_memory(err);
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
    if (l->epoll_fd < 0 || l->wake_fd < 0 ||
        epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, l->wake_fd, &ev) < 0) {
        int e = errno;
        close_fd(&l->epoll_fd);
        close_fd(&l->wake_fd);
        free(l);
        return err_set_errno(err, e, "make an event loop");
    }
    (void)pthread_mutex_init(&l->lock, NULL);
    STAILQ_INIT(&l->posted);
    SLIST_INIT(&l->dead);
    atomic_store(&l->thread, pthread_self());
    *ret_loop = l;
    return 0;
}

static void bury(struct loop *l)
{
    struct loop_source *s;
    while ((s = SLIST_FIRST(&l->dead)) != NULL) {
        SLIST_REMOVE_HEAD(&l->dead, dead_link);
        free(s);
    }
}

static void run_posted(struct loop *l)
{
    struct posted_list mine = STAILQ_HEAD_INITIALIZER(mine);
    pthread_mutex_lock(&l->lock);
    STAILQ_CONCAT(&mine, &l->posted);
    pthread_mutex_unlock(&l->lock);
    struct posted *p;
    while ((p = STAILQ_FIRST(&mine)) != NULL) {
        STAILQ_REMOVE_HEAD(&mine, link);
        loop_fn fn = p->fn;
        void *arg = p->arg;
        free(p);
        fn(arg);
    }
}

void loop_free(struct loop *l)
{
    if (l == NULL)
        return;
    while (!STAILQ_EMPTY(&l->posted))
        run_posted(l);
    bury(l);
    close_fd(&l->epoll_fd);
    close_fd(&l->wake_fd);
    free(l->heap);
    (void)pthread_mutex_destroy(&l->lock);
    free(l);
}

/* ---- timers ---- */

static void heap_place(struct loop *l, size_t i, struct loop_source *s)
{
    l->heap[i] = s;
    s->heap_index = i;
}

static void heap_sift(struct loop *l, size_t i)
{
    struct loop_source *s = l->heap[i];
    for (; i > 1 && l->heap[i / 2]->due_ms > s->due_ms; i /= 2)
        heap_place(l, i, l->heap[i / 2]);
    for (;;) {
        size_t child = 2 * i;
        if (child > l->n_armed)
            break;
        if (child + 1 <= l->n_armed && l->heap[child + 1]->due_ms < l->heap[child]->due_ms)
            child++;
        if (l->heap[child]->due_ms >= s->due_ms)
            break;
        heap_place(l, i, l->heap[child]);
        i = child;
    }
    heap_place(l, i, s);
}

void loop_disarm(struct loop_source *timer)
{
    struct loop *l = timer->loop;
    size_t i = timer->heap_index;
    if (i == 0)
        return;
    timer->heap_index = 0;
    struct loop_source *last = l->heap[l->n_armed--];
    if (last != timer) {
        heap_place(l, i, last);
        heap_sift(l, i);
    }
}

void loop_arm(struct loop_source *timer, int64_t timeout_ms)
{
    struct loop *l = timer->loop;
    timer->due_ms = clock_deadline(timeout_ms < 0 ? 0 : timeout_ms);
    if (timer->heap_index == 0)
        heap_place(l, ++l->n_armed, timer);
    heap_sift(l, timer->heap_index);
}

/* Room is taken when a timer is made, so that arming cannot fail. */
static int heap_make_room(struct loop *l, struct err *err)
{
    if (l->n_timers + 2 <= l->heap_room)
        return 0;
    size_t room = l->heap_room == 0 ? 16 : l->heap_room * 2;
    struct loop_source **p = realloc(l->heap, room * sizeof(*p));
    if (p == NULL)
        return err_no_memory(err);
    l->heap = p;
    l->heap_room = room;
    return 0;
}

static void run_timers(struct loop *l)
{
    int64_t now = clock_monotonic_ms();
    /* One that arms itself again with 0 waits for the next round: at most the timers armed now are
     * run. */
    for (size_t n = l->n_armed; n > 0 && l->n_armed > 0 && l->heap[1]->due_ms <= now; n--) {
        struct loop_source *s = l->heap[1];
        loop_disarm(s);
        s->fn(s->arg);
    }
}

/* ---- sources ---- */

static struct loop_source *source_new(struct loop *l, enum source_kind kind, int fd, void *arg)
{
    struct loop_source *s = calloc(1, sizeof(*s));
    if (s != NULL) {
        s->loop = l;
        s->kind = kind;
        s->fd = fd;
        s->arg = arg;
    }
    return s;
}

static int source_watch(struct loop_source *s, uint32_t events, struct err *err)
{
    struct epoll_event ev = {.events = events, .data.ptr = s};
    if (epoll_ctl(s->loop->epoll_fd, EPOLL_CTL_ADD, s->fd, &ev) < 0)
        return err_set_errno(err, errno, "watch descriptor %d", s->fd);
    return 0;
}

int loop_add_fd(struct loop *loop, int fd, uint32_t events, loop_fd_fn fn, void *arg,
                struct loop_source **ret_source, struct err *err)
{
    struct loop_source *s = source_new(loop, SOURCE_FD, fd, arg);
    if (s == NULL)
        return err_no_memory(err);
    s->fd_fn = fn;
    if (source_watch(s, events, err) < 0) {
        free(s);
        return -1;
    }
    *ret_source = s;
    return 0;
}

int loop_set_events(struct loop_source *source, uint32_t events, struct err *err)
{
    struct epoll_event ev = {.events = events, .data.ptr = source};
    if (epoll_ctl(source->loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &ev) < 0)
        return err_set_errno(err, errno, "watch descriptor %d", source->fd);
    return 0;
}

int loop_add_timer(struct loop *loop, loop_fn fn, void *arg, struct loop_source **ret_source,
                   struct err *err)
{
    if (heap_make_room(loop, err) < 0)
        return -1;
    struct loop_source *s = source_new(loop, SOURCE_TIMER, -1, arg);
    if (s == NULL)
        return err_no_memory(err);
    s->fn = fn;
    loop->n_timers++;
    *ret_source = s;
    return 0;
}

int loop_add_signals(struct loop *loop, const int *signals, loop_signal_fn fn, void *arg,
                     struct loop_source **ret_source, struct err *err)
{
    sigset_t set;
    sigemptyset(&set);
    for (; *signals != 0; signals++)
        sigaddset(&set, *signals);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        return err_set_errno(err, errno, "signalfd");
    struct loop_source *s = source_new(loop, SOURCE_SIGNALS, fd, arg);
    if (s == NULL || source_watch(s, EPOLLIN, err) < 0) {
        if (s == NULL)
            (void)err_no_memory(err);
        (void)close(fd);
        free(s);
        return -1;
    }
    s->owns_fd = true;
    s->signal_fn = fn;
    *ret_source = s;
    return 0;
}

int loop_add_pidfd(struct loop *loop, int pidfd, loop_fn fn, void *arg,
                   struct loop_source **ret_source, struct err *err)
{
    struct loop_source *s = source_new(loop, SOURCE_PIDFD, pidfd, arg);
    if (s == NULL)
        return err_no_memory(err);
    s->fn = fn;
    /* One shot: a pidfd stays readable for as long as nobody reaps and closes it. */
    if (source_watch(s, EPOLLIN | EPOLLONESHOT, err) < 0) {
        free(s);
        return -1;
    }
    *ret_source = s;
    return 0;
}

void loop_source_free(struct loop_source *source)
{
    if (source == NULL || source->dead)
        return;
    struct loop *l = source->loop;
    source->dead = true;
    if (source->kind == SOURCE_TIMER) {
        loop_disarm(source);
        l->n_timers--;
    } else {
        (void)epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
        if (source->owns_fd)
            close_fd(&source->fd);
    }
    SLIST_INSERT_HEAD(&l->dead, source, dead_link);
}

/* ---- running ---- */

/* What one read does not take is reported by the next round. */
static void dispatch_signals(struct loop_source *s)
{
    struct signalfd_siginfo info[4];
    ssize_t n = read(s->fd, info, sizeof(info));
    for (size_t i = 0; n > 0 && i < (size_t)n / sizeof(info[0]) && !s->dead; i++)
        s->signal_fn(s->arg, (int)info[i].ssi_signo);
}

static void dispatch(struct loop_source *s, uint32_t events)
{
    if (s->dead)
        return;
    switch (s->kind) {
    case SOURCE_FD:
        s->fd_fn(s->arg, events);
        break;
    case SOURCE_PIDFD:
        s->fn(s->arg);
        break;
    case SOURCE_SIGNALS:
        dispatch_signals(s);
        break;
    case SOURCE_TIMER:
        break; /* not in epoll */
    }
}

int loop_run_once(struct loop *l, int timeout_ms, struct err *err)
{
    atomic_store(&l->thread, pthread_self());
    if (l->n_armed > 0) {
        int until = clock_poll_timeout(l->heap[1]->due_ms);
        if (timeout_ms < 0 || until < timeout_ms)
            timeout_ms = until;
    }
    struct epoll_event events[MAX_EVENTS];
    int n = epoll_wait(l->epoll_fd, events, MAX_EVENTS, timeout_ms);
    if (n < 0 && errno != EINTR)
        return err_set_errno(err, errno, "epoll_wait");
    for (int i = 0; i < n; i++) {
        if (events[i].data.ptr == NULL) {
            uint64_t count;
            ssize_t got = read(l->wake_fd, &count, sizeof(count));
            (void)got;
        } else {
            dispatch(events[i].data.ptr, events[i].events);
        }
    }
    run_timers(l);
    run_posted(l);
    bury(l);
    return 0;
}

int loop_run(struct loop *l, struct err *err)
{
    while (!atomic_exchange(&l->stopping, false)) {
        if (loop_run_once(l, -1, err) < 0)
            return -1;
    }
    return 0;
}

static void wake(struct loop *l)
{
    uint64_t one = 1;
    /* EAGAIN means that the counter is full, so the loop is awake anyway. */
    ssize_t n = write(l->wake_fd, &one, sizeof(one));
    (void)n;
}

void loop_stop(struct loop *l)
{
    atomic_store(&l->stopping, true);
    wake(l);
}

bool loop_is_current(const struct loop *l)
{
    return pthread_equal(atomic_load(&l->thread), pthread_self()) != 0;
}

int loop_post(struct loop *l, loop_fn fn, void *arg, struct err *err)
{
    struct posted *p = malloc(sizeof(*p));
    if (p == NULL)
        return err_no_memory(err);
    p->fn = fn;
    p->arg = arg;
    pthread_mutex_lock(&l->lock);
    bool first = STAILQ_EMPTY(&l->posted);
    STAILQ_INSERT_TAIL(&l->posted, p, link);
    pthread_mutex_unlock(&l->lock);
    if (first)
        wake(l);
    return 0;
}
