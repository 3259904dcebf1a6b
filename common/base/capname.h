/* SPDX-License-Identifier: Apache-2.0 */
/* The capabilities of linux/capability.h by name. Any thread; nothing allocates. */
#pragma once

#define CAPNAME_COUNT 41 /* numbers 0 to CAP_CHECKPOINT_RESTORE */

/* The name without "CAP_", static; NULL: no such number. */
const char *capname_get(unsigned number);

/* The number of a name written just like that, or -1. */
int capname_number(const char *name);
