/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Settings of a cgroup that the kernel takes without doing what they say, or does not have: found
 * before anything is written. Only this file knows which. Files of cgroupfs do not wait. One
 * thread.
 */
#pragma once

#include <stdbool.h>

#include "common/base/err.h"
#include "proto/agent/agent.pb-c.h"

/*
 * Checks the settings (may be NULL) against what the base folder, the parent of the containers'
 * cgroups, has. A set of CPUs or memory nodes beyond it is EXHAUSTED (a CPU that was just plugged
 * in may come a moment later), a malformed one INVALID, a size of huge pages that the guest does
 * not have UNSUPPORTED.
 */
int cgcheck_settings(int base_fd, const Casemate__Agent__V1__Resources *settings, struct err *err);

/* Whether a setting is fulfilled by the want of its file: no huge pages of a size that is not
 * there. */
bool cgcheck_is_moot(int cgroup_fd, const Casemate__Agent__V1__CgroupSetting *setting);
