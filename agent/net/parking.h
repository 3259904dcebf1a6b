/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a card is that no container may see: in a network namespace that nobody but the agent
 * holds. The pod's containers are in the agent's own. Only this file leaves that, for a moment. One
 * thread.
 */
#pragma once

#include <net/if.h>

#include "common/base/err.h"
#include "agent/net/ifind.h"

struct parking {
    int ns_fd;           /* -1: not made yet */
    char name[IFNAMSIZ]; /* of what is parked; "": nothing */
};

/* Nothing is parked, and there is no namespace yet. */
void parking_init(struct parking *parking);
/* Makes the namespace, which takes longest, so that it is there when it is needed; once. */
int parking_make(struct parking *parking, struct err *err);
/* Lets go of it. */
void parking_fini(struct parking *parking);

/* Moves an interface of the agent's namespace out of sight; it is down then. One at a time. */
int parking_put(struct parking *parking, const struct ifind *card, struct err *err);

/* Moves it back, under its name, still down; nothing parked is fine. */
int parking_take(struct parking *parking, struct err *err);
