/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a Network message of the host can be acted on. Pure functions; one thread. */
#pragma once

#include "common/base/err.h"
#include "proto/agent/agent.pb-c.h"

#define NETVALID_MAX_INTERFACES 8u
#define NETVALID_MAX_ITEMS      1024u  /* addresses, routes, neighbours of an interface, each */
#define NETVALID_MAX_FILE       65536u /* bytes */

/* INVALID, naming the field. */
int netvalid_check(const Casemate__Agent__V1__Network *network, struct err *err);
