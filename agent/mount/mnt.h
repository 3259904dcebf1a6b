/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounting by descriptor: a file system is made detached, and attached to a place that was resolved
 * below a root without leaving it, so that no path which an image can bend is ever given to
 * mount(2). Calls may block: for children only, unless said otherwise. Needs Linux 5.12.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/base/err.h"

/* Options of a file system; the list ends with a NULL key. A NULL value makes it a flag. */
struct mnt_option {
    const char *key;
    const char *value;
};

/* A new detached mount of a file system type. attributes: MOUNT_ATTR_*. options may be NULL. */
int mnt_new(const char *fs_type, const struct mnt_option *options, unsigned attributes, int *ret_fd,
            struct err *err);

/* A detached copy of the mount at path (resolved as usual), with its submounts if recursive. */
int mnt_copy(const char *path, bool recursive, int *ret_fd, struct err *err);

/* A detached copy of the mount that fd is in, from what fd names down. */
int mnt_copy_at(int fd, bool recursive, int *ret_fd, struct err *err);

/* Attaches a detached mount to what target_fd (O_PATH) names. The descriptor stays the caller's. */
int mnt_attach(int mount_fd, int target_fd, struct err *err);

/* Makes the mount that fd is the root of read-only; its submounts too if recursive. */
int mnt_set_read_only(int fd, bool recursive, struct err *err);

/* Opens (O_PATH | flags) what path names below root_fd, following links inside it only. NOT_FOUND
 * when there is none. */
int mnt_open_in(int root_fd, const char *path, int flags, int *ret_fd, struct err *err);

/*
 * Opens (O_PATH) the directory at path below root_fd, making what is missing (0755), also where a
 * link leads to. INVALID when part of it is a link and links are not allowed: for the places where
 * a file system of the kernel must really be where its name says.
 */
int mnt_make_dir_in(int root_fd, const char *path, bool allow_links, int *ret_fd, struct err *err);

/*
 * Opens (O_PATH) the file at path below root_fd, making it (0644, empty) and the directories before
 * it where they are missing; links are followed inside the root, also those whose target is
 * missing. INVALID when there is a directory.
 */
int mnt_make_file_in(int root_fd, const char *path, int *ret_fd, struct err *err);
