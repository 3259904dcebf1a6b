/* SPDX-License-Identifier: Apache-2.0 */
/* Kernel settings of the VM below /proc/sys. Never waits. One thread. */
#pragma once

#include <stddef.h>

#include "common/base/err.h"
#include "proto/agent/agent.pb-c.h"

/* Sets them in order (names checked by validate.h); the first that the kernel refuses ends it. */
int sysctl_set(Casemate__Agent__V1__Sysctl *const *list, size_t n, struct err *err);
