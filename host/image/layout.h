/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads an OCI image layout (OCI image-spec 1.1, image-layout.md) or a `docker save` archive, from
 * a folder or from an uncompressed tar, without unpacking it. Only plain files are seen; nothing
 * outside the folder is reached. Constant after layout_open, so that several threads may read.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/cleanup.h"
#include "common/base/err.h"

struct layout;

/* Opens a folder or a tar. PROTOCOL for a damaged tar, UNSUPPORTED for a compressed one. */
int layout_open(const char *path, struct layout **ret_layout, struct err *err);
/* NULL is fine. */
void layout_free(struct layout *l);
DEFINE_CLEANUP(layout, struct layout, layout_free)
#define cleanup_layout CLEANUP(layout_cleanup_)

/* A range of an open file. */
struct layout_file {
    int fd; /* of its own: close it */
    uint64_t offset;
    uint64_t size;
};

/* Finds a file by its path in the layout. NOT_FOUND. */
int layout_find(struct layout *l, const char *name, struct layout_file *ret_file, struct err *err);

/* A whole file of at most max bytes, NUL-terminated on the heap. */
int layout_read(struct layout *l, const char *name, size_t max, char **ret_text, size_t *ret_n,
                struct err *err);

/* Indexes an uncompressed tar of `size` bytes behind fd; for layout_open and the fuzzer. fd becomes
 * the layout's. */
int layout_open_tar(int fd, struct layout **ret_layout, struct err *err);
