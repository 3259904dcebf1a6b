/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A root file system for a user namespace whose file system cannot map ids while it is mounted: the
 * owners of all files are changed. Only this file knows what a change of owner takes away and must
 * be given back. Blocks, and takes time in proportion to the number of files: for children only.
 */
#pragma once

#include "common/base/err.h"
#include "agent/process/userns.h"

/* The deepest directory of an image. */
#define SHIFT_MAX_DEPTH 512u

/*
 * Gives every file below root_fd (a directory, of which nothing is in use yet) from the id that the
 * image gave it to the one of the VM that is the same inside the user namespace. What the namespace
 * has not belongs to nobody inside. Set-id bits and file capabilities stay, the latter those of the
 * namespace. Follows no link and enters no other mount.
 */
int shift_tree(int root_fd, const struct userns *userns, struct err *err);
