/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Settings of a cgroup written whole or not at all. Only this file knows what to write so that a
 * file is what it was. Files of cgroupfs do not wait, except that lowering a limit of memory may
 * reclaim. One thread.
 */
#pragma once

#include "common/base/err.h"
#include "proto/agent/agent.pb-c.h"

/*
 * Writes the settings (may be NULL) in their order. Before that each file must be there, else
 * nothing is written; when the kernel refuses one, those before it are put back. What cannot be put
 * back is logged.
 */
int cgrevert_apply(int cgroup_fd, const Casemate__Agent__V1__Resources *settings, struct err *err);
