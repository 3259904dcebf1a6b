/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes a squashfs image to an inherited descriptor: file contents as they stream by, then, from
 * the finished tree, the inodes, the directories and the tables. Only this file knows libsquashfs.
 * Runs in the confined converter; a writer belongs to one thread, the compression threads it starts
 * are its own.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/cleanup.h"
#include "common/base/err.h"
#include "host/image/image.h"
#include "host/image/tree.h"

struct squash;

struct squash_options {
    enum image_compression compression;
    uint64_t max_bytes; /* of the image */
    unsigned workers;   /* compression threads */
};

/* A writer onto out_fd (empty, read-write, stays the caller's). Starts its threads here, before any
 * input is read. */
int squash_new(int out_fd, const struct squash_options *options, struct squash **ret_squash,
               struct err *err);
/* NULL is fine. Free it before the tree whose files it wrote. */
void squash_free(struct squash *s);
DEFINE_CLEANUP(squash, struct squash, squash_free)
#define cleanup_squash CLEANUP(squash_cleanup_)

/* Begins the content of a regular file: inode->file gets it. One file at a time. */
int squash_file_begin(struct squash *s, struct tree_inode *inode, struct err *err);
/* Appends n bytes; bytes NULL means zeros. */
int squash_file_data(struct squash *s, const void *bytes, uint64_t n, struct err *err);
/* Ends the content; inode->file may still change until squash_finish. */
int squash_file_end(struct squash *s, struct err *err);

/* Writes everything else. Afterwards the image is complete: *ret_bytes long, a multiple of 4096. */
int squash_finish(struct squash *s, struct tree *tree, uint64_t *ret_bytes, struct err *err);
