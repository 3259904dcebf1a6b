/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A list under a mutex and an eventfd that is written when the list stops being empty. loop_post
 * would do the same with an allocation, and an answer that cannot be handed to the loop for want of
 * memory would leave its call open for ever. The loop's own thread has no need to wake itself: what
 * it posts is taken at the end of the same round, by a timer that is due at once.
 *
 * Lock order: a poster may hold its object's lock while posting; item functions are called without
 * the mailbox's lock.
 */
#include "common/rpc/mailbox.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "common/loop/loop.h"
#include "common/rpc/mem.h"

struct rpc_mailbox {
    pthread_mutex_t lock;
    unsigned refs;          /* lock */
    bool closed;            /* lock */
    struct rpc_mail *first; /* lock */
    struct rpc_mail **last; /* lock */
    int event_fd;           /* lock for writing; closed together with `closed` */
    struct loop *loop;
    struct loop_source *source;
    struct loop_source *soon;
    void (*after)(void *arg);
    void *arg;
};

/* Takes what is in the list now, one item after the other. */
static void take_all(struct rpc_mailbox *mb)
{
    (void)pthread_mutex_lock(&mb->lock);
    struct rpc_mail *list = mb->first;
    mb->first = NULL;
    mb->last = &mb->first;
    while (list != NULL) {
        struct rpc_mail *mail = list;
        list = mail->next;
        mail->posted = false;
        (void)pthread_mutex_unlock(&mb->lock);
        mail->fn(mail);
        (void)pthread_mutex_lock(&mb->lock);
    }
    (void)pthread_mutex_unlock(&mb->lock);
}

static void on_soon(void *arg)
{
    struct rpc_mailbox *mb = arg;
    rpc_mailbox_ref(mb);
    take_all(mb);
    if (!mb->closed)
        mb->after(mb->arg);
    rpc_mailbox_unref(mb);
}

static void on_event(void *arg, uint32_t events)
{
    struct rpc_mailbox *mb = arg;
    (void)events;
    uint64_t count;
    ssize_t n = read(mb->event_fd, &count, sizeof(count));
    (void)n; /* EAGAIN is fine: the list tells what there is to do */
    on_soon(mb);
}

int rpc_mailbox_new(struct loop *loop, void (*after)(void *arg), void *arg,
                    struct rpc_mailbox **ret_mailbox, struct err *err)
{
    struct rpc_mailbox *mb = rpc_calloc(1, sizeof(*mb));
    if (mb == NULL)
        return err_no_memory(err);
    mb->refs = 1;
    mb->last = &mb->first;
    mb->loop = loop;
    mb->after = after;
    mb->arg = arg;
    mb->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (mb->event_fd < 0) {
        (void)err_set_errno(err, errno, "eventfd");
        free(mb);
        return -1;
    }
    if (loop_add_timer(loop, on_soon, mb, &mb->soon, err) < 0 ||
        loop_add_fd(loop, mb->event_fd, EPOLLIN, on_event, mb, &mb->source, err) < 0) {
        loop_source_free(mb->soon);
        close_fd(&mb->event_fd);
        free(mb);
        return -1;
    }
    (void)pthread_mutex_init(&mb->lock, NULL);
    *ret_mailbox = mb;
    return 0;
}

struct rpc_mailbox *rpc_mailbox_ref(struct rpc_mailbox *mailbox)
{
    (void)pthread_mutex_lock(&mailbox->lock);
    mailbox->refs++;
    (void)pthread_mutex_unlock(&mailbox->lock);
    return mailbox;
}

void rpc_mailbox_unref(struct rpc_mailbox *mailbox)
{
    if (mailbox == NULL)
        return;
    (void)pthread_mutex_lock(&mailbox->lock);
    bool last = --mailbox->refs == 0;
    (void)pthread_mutex_unlock(&mailbox->lock);
    if (!last)
        return;
    rpc_mailbox_close(mailbox); /* does nothing if its owner did, as it must when others may post */
    (void)pthread_mutex_destroy(&mailbox->lock);
    free(mailbox);
}

/* Under the lock. */
static void wake(struct rpc_mailbox *mb)
{
    if (loop_is_current(mb->loop)) {
        loop_arm(mb->soon, 0);
        return;
    }
    uint64_t one = 1;
    ssize_t n = write(mb->event_fd, &one, sizeof(one));
    (void)n; /* EAGAIN needs 2^64-2 unread writes */
}

enum rpc_post rpc_mailbox_post(struct rpc_mailbox *mailbox, struct rpc_mail *mail)
{
    enum rpc_post result = RPC_POST_QUEUED;
    (void)pthread_mutex_lock(&mailbox->lock);
    if (mailbox->closed) {
        result = RPC_POST_CLOSED;
    } else if (mail->posted) {
        result = RPC_POST_ALREADY;
    } else {
        if (mailbox->first == NULL)
            wake(mailbox);
        mail->posted = true;
        mail->next = NULL;
        *mailbox->last = mail;
        mailbox->last = &mail->next;
    }
    (void)pthread_mutex_unlock(&mailbox->lock);
    return result;
}

void rpc_mailbox_close(struct rpc_mailbox *mailbox)
{
    (void)pthread_mutex_lock(&mailbox->lock);
    bool was_closed = mailbox->closed;
    mailbox->closed = true;
    if (!was_closed) {
        loop_source_free(steal_ptr(&mailbox->source));
        loop_source_free(steal_ptr(&mailbox->soon));
        close_fd(&mailbox->event_fd);
    }
    (void)pthread_mutex_unlock(&mailbox->lock);
    take_all(mailbox);
}
