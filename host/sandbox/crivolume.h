/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the volumes that an image names (OCI image-spec 1.1, config "Volumes") are in a container.
 * The names are a stranger's. Pure, thread-safe; nothing is owned.
 */
#pragma once

#include "common/base/err.h"

/* The most of one container: the agent's bound. */
#define CRIVOLUME_MAX 128u

/*
 * The clean absolute path of a volume, to ret_path, which has strlen(name) + 2 bytes: as containerd
 * has it, without empty parts, "." and "..", and below "/" whether or not the name begins with
 * that.
 * "" for one that is left out: "/" itself, and /proc, /sys, /dev and what is below them. INVALID:
 * as long as PATH_MAX.
 */
int crivolume_path(const char *name, char *ret_path, struct err *err);
