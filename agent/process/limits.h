/* SPDX-License-Identifier: Apache-2.0 */
/* Resource limits by the names that OCI gives them, without "RLIMIT_". Pure. */
#pragma once

/* The RLIMIT_* number of a name such as "NOFILE", or -1. */
int rlimit_by_name(const char *name);
