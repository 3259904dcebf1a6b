/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tree of one layer, in memory: names, metadata and overlay marks, but not file contents. Knows
 * how tar entries combine: later ones replace earlier ones, whiteouts and opaque marks hold for the
 * lower layers only, in whatever order they come. Runs in the confined converter. Owned by one
 * thread. Nodes live as long as the tree; pointers are stable.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/base/cleanup.h"
#include "common/base/err.h"

#define TREE_MAX_NAME   255   /* bytes of a name: NAME_MAX */
#define TREE_MAX_PATH   4095  /* bytes of a path or of a symlink's target: PATH_MAX - 1 */
#define TREE_MAX_XATTRS 65536 /* bytes of all names and values of one inode: XATTR_SIZE_MAX */

struct sqfs_inode_generic_t;

struct tree_xattr {
    struct tree_xattr *next;
    char *name;
    void *value;
    size_t size;
};

/* What hard links share. */
struct tree_inode {
    struct tree_inode *next; /* all inodes of the tree, for freeing */
    mode_t mode; /* type and permissions; a whiteout is S_IFCHR with rdev 0 and `whiteout` */
    uint32_t uid;
    uint32_t gid;
    uint32_t mtime;
    uint32_t rdev; /* squashfs encoding */
    char *target;  /* of a symlink */
    struct tree_xattr *xattrs;
    struct sqfs_inode_generic_t *file; /* content of a regular file; filled by the writer */
    uint32_t nlink;                    /* names in the tree; of a directory, unused */
    uint32_t number;                   /* for the writer: 0 = not written */
    uint64_t location;                 /* for the writer */
    bool whiteout;
    bool opaque;     /* directory: hides what lower layers have there */
    bool implicit;   /* directory that only showed as part of other paths */
    bool lower_link; /* hard link to `target` of a lower layer */
};

struct tree_node {
    struct tree_node *parent; /* of the root: itself */
    struct tree_inode *inode;
    void *children; /* tsearch(3) root, ordered by name */
    size_t n_children;
    char name[];
};

struct tree;

/* An empty tree with an implicit root. */
int tree_new(uint64_t max_entries, struct tree **ret_tree, struct err *err);
/* Frees all, the `file` members with sqfs_free. NULL is fine. */
void tree_free(struct tree *t);
DEFINE_CLEANUP(tree, struct tree, tree_free)
#define cleanup_tree CLEANUP(tree_cleanup_)

/* The implicit root folder; the tree's. */
struct tree_node *tree_root(struct tree *t);
/* Nodes ever made, replaced ones too. */
uint64_t tree_entries(const struct tree *t);

/* A detached inode that belongs to the tree; NULL (EXHAUSTED) when out of memory. */
struct tree_inode *tree_make_inode(struct tree *t, mode_t mode, struct err *err);

/* Adds an attribute to an inode; the bytes are copied. A second one of the same name replaces the
 * first. */
int tree_add_xattr(struct tree_inode *inode, const char *name, const void *value, size_t size,
                   struct err *err);

/*
 * Puts an inode at a path, as an entry of the tar does. A directory over a directory updates its
 * metadata; anything else replaces what was there. Whiteout names (".wh.…") are understood: then
 * the inode is unused. INVALID for a path that climbs out of the root or is too long.
 */
int tree_put(struct tree *t, const char *path, struct tree_inode *inode, struct err *err);

/* Makes path a further name of the file at target. A target that this layer lacks becomes a
 * `lower_link`. */
int tree_link(struct tree *t, const char *path, const char *target, struct err *err);

/*
 * Calls fn for each child in byte order of names; stops when it returns non-zero and returns that.
 * Whiteouts in an opaque directory are left out: they hide nothing and would show as devices.
 */
int tree_each_child(struct tree_node *dir, int (*fn)(void *arg, struct tree_node *child),
                    void *arg);
