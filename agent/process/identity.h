/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who a process is and what it may do, applied to the calling process: user and groups, limits,
 * capabilities, no_new_privs, seccomp. For the child between fork and exec, in the container's
 * root.
 */
#pragma once

#include "common/base/err.h"
#include "agent/process/caps.h"
#include "agent/process/userdb.h"
#include "proto/agent/agent.pb-c.h"

/* Finds out who the process runs as: numbers, or a name looked up in the files below "/", which are
 * read into scratch; memo is userdb_find_home's. */
int identity_find(const Casemate__Agent__V1__Process *process, struct userdb_memo *memo,
                  struct scratch *scratch, struct user *ret_user, struct err *err);

/* Becomes that, from root: limits, user, groups, capabilities (caps, not those that process names),
 * no_new_privs, seccomp filter. */
int identity_become(const Casemate__Agent__V1__Process *process, const struct caps *caps,
                    const struct user *user, struct err *err);
