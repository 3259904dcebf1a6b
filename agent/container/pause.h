/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pod's shared pid namespace: its process 1 does nothing but reap orphans, as the pause
 * container does elsewhere. Lives until the VM ends. One thread.
 */
#pragma once

#include <sys/types.h>

#include "common/base/err.h"

struct pause;
struct reaper;

/* Starts it. */
int pause_start(struct reaper *reaper, struct pause **ret_pause, struct err *err);

/* Its pid in the agent's namespace. */
pid_t pause_pid(const struct pause *pause);

/* Forgets it; the process goes on. NULL is fine. */
void pause_free(struct pause *pause);
