/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Modules that are loaded when somebody in the VM wants them, not in every boot: a bridge, a
 * tunnel. The kernel asks by running the agent's program as its modprobe; only this file knows the
 * list that mkinitrd.sh has made for that, and nothing that is not in it can be loaded.
 */
#pragma once

#include <stdbool.h>

#include "common/base/err.h"

/* Where list and modules are, in the initramfs and behind it in the agent's root. */
#define DEMAND_DIR "/demand"

/* In PID 1, before it leaves the initramfs: takes the folder along to the coming root. A kernel
 * without modules has none. */
void demand_keep(const char *new_root);

/* In PID 1, once /proc and /dev are there: the kernel asks us from now on, and device nodes whose
 * opening makes it ask are made. */
void demand_enable(void);

/* Whether these are the arguments of the kernel's modprobe. */
bool demand_is_asked(int argc, char *const *argv);
/* The program's exit status as modprobe. */
int demand_main(const char *name);

/*
 * The files to load for what the kernel asks for ("bridge", "rtnl-link-bridge"), in order,
 * separated by blanks; NULL: not in the list. The list has lines "PATTERN FILE…", patterns as
 * modules.alias has them; it is changed.
 */
char *demand_match(char *list, const char *name);
