/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pod's writable disk: a sparse file with an empty ext4, copied from a template that is made once
 * per size. Only this file knows how it is formatted. Blocks on the disk; thread-safe for different
 * target paths. Sizes in bytes.
 */
#pragma once

#include <stdint.h>

#include "common/base/err.h"

/* Makes the template with mke2fs unless it exists; whole or not there, whatever is killed. */
int scratch_make_template(const char *path, uint64_t size_bytes, int64_t deadline_ms,
                          struct err *err);

/* A private copy (0600) that shares blocks where the filesystem can, holes stay holes. *ret_fd:
 * read-write, the caller's. A failure leaves no file. */
int scratch_copy(const char *template_path, const char *path, int *ret_fd, struct err *err);
