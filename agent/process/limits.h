/* SPDX-License-Identifier: Apache-2.0 */
/* Resource limits by the names that OCI gives them, without "RLIMIT_"; the OOM score. */
#pragma once

#include <stdint.h>

#include "common/base/err.h"

/* The RLIMIT_* number of a name such as "NOFILE", or -1. */
int rlimit_by_name(const char *name);

/*
 * Sets the calling process's OOM score adjustment; 0 leaves it. To be called before the container's
 * root is entered, since what is at /proc there is the container's business, and as root of the VM.
 */
int limits_set_oom_score(int32_t score, struct err *err);
