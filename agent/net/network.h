/* SPDX-License-Identifier: Apache-2.0 */
/* The VM's interfaces as the host wants them. One thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "agent/net/ifind.h"
#include "proto/agent/agent.pb-c.h"

/* The interface that the VM has from the start, before anybody has asked for anything. */
struct network_card {
    bool ready;        /* the rest is known, and it is as network_prepare left it */
    bool ipv6;         /* the kernel has it */
    unsigned int slot; /* PCI, as in the message */
    struct ifind is;
    int outside_ns; /* network namespace in which the VM's cards appear; -1: this one */
};

/*
 * When the VM boots (which, for a clone, its template did): loopback up, and the card, if there is
 * one, too, though it has no address and says nothing. Never waits; what fails is logged.
 */
void network_prepare(struct network_card *ret_card);

/*
 * Before and after the calling process enters another network namespace, for good. From then on a
 * card is fetched when it is asked for. There, loopback is brought up. card->outside_ns is the
 * caller's.
 */
int network_leave(struct network_card *card, struct err *err);
int network_arrive(struct network_card *card, struct err *err);

/* See ifind_by_slot: of the interfaces that the calling process sees. */
const char *network_class_dir(const struct network_card *card);

/* Whether network_apply will not wait: nothing but the card, if that, is asked for. */
bool network_is_ready(const Casemate__Agent__V1__Network *network, const struct network_card *card);

/*
 * Makes the one interface of the message, which must be the card while it is ready (INVALID), and
 * takes everything back. Under emulation each path of the kernel is dear the first time that a
 * machine takes it, so a machine made ahead takes these before anybody waits. After a failure the
 * card is in no known state.
 */
int network_rehearse(const Casemate__Agent__V1__Network *network, const struct network_card *card,
                     struct err *err);

/*
 * Makes every interface of the message (checked by netvalid.h) as it says, then sets its sysctls.
 * card (may be NULL) makes the first time quicker. An interface that is not there (just plugged in)
 * is waited for until the deadline: NOT_FOUND. May be repeated, without the card, also with another
 * message. After a failure some of it may be done.
 */
int network_apply(const Casemate__Agent__V1__Network *network, const struct network_card *card,
                  int64_t deadline_ms, struct err *err);
