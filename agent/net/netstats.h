/* SPDX-License-Identifier: Apache-2.0 */
/* What the VM's interfaces have moved. Never waits. One thread. */
#pragma once

#include <net/if.h>
#include <stddef.h>

#include "common/base/err.h"
#include "proto/agent/agent.pb-c.h"

#define NETSTATS_MAX 32u /* interfaces; a container may make more of its own */

struct netstats {
    Casemate__Agent__V1__NetInterfaceStats message; /* its strings are in here: not to be moved */
    char name[IFNAMSIZ];
};

/* All but loopback, at most NETSTATS_MAX, in the order in which they came into being. */
int netstats_read(struct netstats ret_stats[NETSTATS_MAX], size_t *ret_n, struct err *err);
