/* SPDX-License-Identifier: Apache-2.0 */
/* Kernel settings of the VM below /proc/sys. Never waits. One thread. */
#pragma once

#include <stddef.h>
#include <sys/types.h>

#include "common/base/err.h"
#include "proto/agent/agent.pb-c.h"

/*
 * Sets them in order (names checked by validate.h); the first that the kernel refuses ends it.
 * ns_root: who is root in the user namespace that the agent's namespaces belong to; 0: none. err is
 * not NULL.
 */
int sysctl_set(Casemate__Agent__V1__Sysctl *const *list, size_t n, uid_t ns_root, struct err *err);
