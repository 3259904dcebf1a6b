/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole reads and writes, bounded files, atomic replacement, descriptor passing. Every descriptor
 * made here is close-on-exec. Calls block and retry EINTR. Thread-safe.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/base/err.h"

/* Writes all n bytes to a blocking descriptor. */
int fd_write_all(int fd, const void *bytes, size_t n, struct err *err);

/* Reads until n bytes or the end; *ret_n says how many came. */
int fd_read_full(int fd, void *ret_bytes, size_t n, size_t *ret_n, struct err *err);

/* Sets O_NONBLOCK. */
int fd_set_nonblock(int fd, struct err *err);

/*
 * Reads a whole file of at most max bytes into a NUL-terminated heap string (free it). dir_fd as in
 * openat(2). ret_len may be NULL. EXHAUSTED when it is larger. Works for /proc and /sys files.
 */
int fd_read_file(int dir_fd, const char *path, size_t max, char **ret_text, size_t *ret_len,
                 struct err *err);

/* Replaces path with n bytes by write-to-temporary, fsync, rename: readers see the old or the new
 * file, whole. */
int fd_write_file_atomic(int dir_fd, const char *path, const void *bytes, size_t n, mode_t mode,
                         struct err *err);

/* Writes text to an existing file in one write(2) (for /proc and /sys and cgroup files). */
int fd_write_text(int dir_fd, const char *path, const char *text, struct err *err);

/* Makes a directory and its missing parents (mode for the ones made); an existing directory is
 * fine. */
int fd_make_dirs(const char *path, mode_t mode, struct err *err);

/* Removes a file or a whole directory tree, however deep, without following symlinks or crossing
 * mounts; a missing one is fine. */
int fd_remove_tree(int dir_fd, const char *path, struct err *err);

/* Sends one byte with one descriptor over a unix socket (SCM_RIGHTS); the descriptor stays the
 * caller's. */
int fd_send(int socket_fd, int fd, struct err *err);
/* Receives what fd_send sent; the new descriptor is the caller's. */
int fd_receive(int socket_fd, int *ret_fd, struct err *err);

/* A listening unix stream socket at path (an existing socket file is replaced); mode is applied
 * before listen(2). */
int fd_listen_unix(const char *path, mode_t mode, int *ret_fd, struct err *err);

/* A connected, blocking unix stream socket. UNAVAILABLE when nobody listens, NOT_FOUND when there
 * is no such path. */
int fd_connect_unix(const char *path, int *ret_fd, struct err *err);
