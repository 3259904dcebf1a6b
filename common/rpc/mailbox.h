/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Work for a loop's thread that cannot fail to be handed over: items are members of the objects
 * they are about, so that posting allocates nothing. An item that is posted again before it was
 * taken is taken once. Thread-safe but for the functions marked "loop".
 */
#pragma once

#include <stdbool.h>

#include "common/base/err.h"

struct loop;
struct rpc_mailbox;

/* Zero-initialised and given its fn before it is posted. */
struct rpc_mail {
    struct rpc_mail *next;
    bool posted;
    /* On the loop. Called with its item no longer posted: what was set before the post is seen. */
    void (*fn)(struct rpc_mail *mail);
};

enum rpc_post { RPC_POST_CLOSED, RPC_POST_QUEUED, RPC_POST_ALREADY };

/* A mailbox with one reference. after(arg), on the loop, follows each batch of items. Loop. */
int rpc_mailbox_new(struct loop *loop, void (*after)(void *arg), void *arg,
                    struct rpc_mailbox **ret_mailbox, struct err *err);

/* One reference more, for one rpc_mailbox_unref. Any thread. */
struct rpc_mailbox *rpc_mailbox_ref(struct rpc_mailbox *mailbox);
/* NULL is fine. */
void rpc_mailbox_unref(struct rpc_mailbox *mailbox);

/*
 * Has mail->fn called soon. With QUEUED the item stays in use until then; ALREADY: it was posted
 * and not yet taken; CLOSED: it never will be.
 */
enum rpc_post rpc_mailbox_post(struct rpc_mailbox *mailbox, struct rpc_mail *mail);

/* Takes no more items; those posted are taken now, without `after`. Loop. The reference stays. */
void rpc_mailbox_close(struct rpc_mailbox *mailbox);
