/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looks into a squashfs image that a converter wrote: paths, metadata, contents, attributes. Parses
 * what came from a tenant once removed, so that the daemon does not use it: only the confined
 * converter and tests do. One thread.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/base/cleanup.h"
#include "common/base/err.h"

struct squash_reader;
struct sqfs_inode_generic_t;

/* Opens the image behind fd, which stays the caller's. PROTOCOL when it is none. */
int squash_reader_open(int fd, struct squash_reader **ret_reader, struct err *err);
/* The same for a caller that knows the file's size and cannot stat it any more. */
int squash_reader_open_sized(int fd, uint64_t size, struct squash_reader **ret_reader,
                             struct err *err);
/* NULL is fine. */
void squash_reader_free(struct squash_reader *r);
DEFINE_CLEANUP(squash_reader, struct squash_reader, squash_reader_free)
#define cleanup_squash_reader CLEANUP(squash_reader_cleanup_)

/* An entry of the image. */
struct squash_node {
    mode_t mode;
    uint32_t uid;
    uint32_t gid;
    uint32_t mtime;
    uint32_t rdev; /* squashfs encoding */
    uint32_t nlink;
    uint32_t number; /* of the inode */
    uint64_t size;   /* of a regular file */
    char *target;    /* of a symlink; else NULL */
    struct sqfs_inode_generic_t *inode;
};

/* NULL is fine. */
void squash_node_free(struct squash_node *n);
DEFINE_CLEANUP(squash_node, struct squash_node, squash_node_free)
#define cleanup_squash_node CLEANUP(squash_node_cleanup_)

/* The root. */
int squash_reader_root(struct squash_reader *r, struct squash_node **ret_node, struct err *err);
/* The child of a directory. NOT_FOUND. */
int squash_reader_child(struct squash_reader *r, const struct squash_node *dir, const char *name,
                        struct squash_node **ret_node, struct err *err);
/* The entry at "a/b/c", no symlinks followed. NOT_FOUND. */
int squash_reader_find(struct squash_reader *r, const char *path, struct squash_node **ret_node,
                       struct err *err);

/* Calls fn for each child in order of names; non-zero of fn ends it (err filled). */
int squash_reader_each(struct squash_reader *r, const struct squash_node *dir,
                       int (*fn)(void *arg, const char *name, const struct squash_node *node,
                                 struct err *err),
                       void *arg, struct err *err);

/* Hands the content of a regular file to fn, piece by piece. */
int squash_reader_data(struct squash_reader *r, const struct squash_node *node,
                       int (*fn)(void *arg, const void *bytes, size_t n, struct err *err),
                       void *arg, struct err *err);

/* Hands each extended attribute to fn. */
int squash_reader_xattrs(struct squash_reader *r, const struct squash_node *node,
                         int (*fn)(void *arg, const char *name, const void *value, size_t size,
                                   struct err *err),
                         void *arg, struct err *err);

/* The value of one attribute as NUL-terminated heap text; NOT_FOUND. */
int squash_reader_xattr(struct squash_reader *r, const struct squash_node *node, const char *name,
                        char **ret_value, size_t *ret_size, struct err *err);
