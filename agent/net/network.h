/* SPDX-License-Identifier: Apache-2.0 */
/* The VM's interfaces as the host wants them. Waits for interfaces: for a child. */
#pragma once

#include <stdint.h>

#include "common/base/err.h"
#include "proto/agent/agent.pb-c.h"

/* Brings the loopback up: 127.0.0.1 and ::1. Never waits. */
int network_loopback_up(struct err *err);

/*
 * Makes every interface of the message (checked by netvalid.h) as it says, then sets its sysctls.
 * An interface that is not there (just plugged in) is waited for until the deadline: NOT_FOUND.
 * May be repeated, also with another message. After a failure some of it may be done.
 */
int network_apply(const Casemate__Agent__V1__Network *network, int64_t deadline_ms,
                  struct err *err);
