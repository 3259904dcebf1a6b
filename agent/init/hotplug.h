/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hardware that the VM is given while it runs: processors and memory are put to use as soon as they
 * appear. Nothing is told to the host; it sees Hello's figures grow. One thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/base/err.h"

struct hotplug;
struct loop;

/* Begins to watch, and lets the kernel use new memory by itself. */
int hotplug_start(struct loop *loop, struct hotplug **ret_hotplug, struct err *err);
/* NULL is fine. */
void hotplug_free(struct hotplug *hotplug);

/*
 * Whether n bytes (a header and NUL-terminated KEY=value strings) tell that a processor was added;
 * then ret_path is its path below /sys. Pure.
 */
bool hotplug_is_new_cpu(const char *event, size_t n, char *ret_path, size_t size);
