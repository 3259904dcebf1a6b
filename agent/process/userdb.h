/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who a container's process runs as: numbers, or names looked up in the image's own passwd(5) and
 * group(5) texts, which are hostile. Pure functions over texts, and one that reads the two files
 * below a root without following links out of it, without waiting, and without reading more than a
 * limit. For the child between fork and exec.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <time.h>

#include "common/base/err.h"
#include "agent/process/scratch.h"

#define USERDB_MAX_FILE   (1u << 20) /* bytes of passwd or group that are looked at */
#define USERDB_MAX_GROUPS 1024u
#define USERDB_MAX_HOME   256u

struct user {
    uid_t uid;
    gid_t gid;
    gid_t groups[USERDB_MAX_GROUPS]; /* supplementary */
    size_t n_groups;
    char home[USERDB_MAX_HOME]; /* "" when no passwd entry says */
};

/*
 * Resolves "user", "uid", "user:group", "uid:gid" and their mixtures (OCI image-spec 1.1, config
 * "User"). passwd and group are the files' texts, NULL when missing. What is all digits is a
 * number, never a name, and need not be in them; a name must, and a number must be an id:
 * NOT_FOUND. Without ":group" the primary group is the passwd entry's (0 without one) and, with
 * `memberships`, the groups that list the user are added. The primary group is always the first of
 * the supplementary ones, so that a process cannot shed it.
 */
int userdb_resolve(const char *spec, const char *passwd, const char *group, bool memberships,
                   struct user *ret_user, struct err *err);

/*
 * userdb_resolve with the files below the directory root_fd, which are read into scratch. One that
 * cannot be used, being too large or no file, fails it only if a name is to be looked up in it, or
 * the groups of one; who goes by number then goes without what the file would say.
 */
int userdb_find(int root_fd, const char *spec, bool memberships, struct scratch *scratch,
                struct user *ret_user, struct err *err);

/* The home of a uid, "" if passwd (may be NULL) has none. */
void userdb_home(const char *passwd, uid_t uid, char ret_home[USERDB_MAX_HOME]);

/*
 * What was found in a passwd file for one uid, and which file that was: a container's, in which one
 * command after another is run as the same user. Zeroed: nothing. It may be in memory that others
 * read at any time, and its writer may be killed at any time.
 */
struct userdb_memo {
    atomic_bool valid;
    dev_t dev;
    ino_t ino;
    off_t size;
    struct timespec changed;  /* st_ctim */
    struct timespec modified; /* st_mtim */
    uid_t uid;
    char home[USERDB_MAX_HOME];
};

/*
 * userdb_home of /etc/passwd; the file is read when it is not the one in *memo (NULL: always),
 * where it is then noted. "" when the file is missing or cannot be used.
 */
void userdb_find_home(uid_t uid, struct userdb_memo *memo, struct scratch *scratch,
                      char ret_home[USERDB_MAX_HOME]);

/* Adds a supplementary group unless it is there. EXHAUSTED beyond USERDB_MAX_GROUPS. */
int userdb_add_group(struct user *user, gid_t gid, struct err *err);

/*
 * Reads etc/passwd or etc/group (`name` says which) below the directory root_fd. *ret_text is a
 * string in scratch, or NULL when there is no such file, or what is there is no regular one.
 * INVALID when it is too large.
 */
int userdb_read(int root_fd, const char *name, struct scratch *scratch, char **ret_text,
                struct err *err);
