/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The folder of the image service: layers/<64 hex digits of the diff id>.squashfs, whole and
 * read-only, and ingest/ for what is being written. Only this file knows the names. Thread-safe:
 * nothing here changes after content_open.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/base/cleanup.h"
#include "common/base/err.h"
#include "host/image/digest.h"

#define CONTENT_NAME_SIZE 80 /* of a file in layers/ or ingest/, NUL included */

struct content;

/* Opens the folder, making what is missing (0700). */
int content_open(const char *root, struct content **ret_content, struct err *err);
/* NULL is fine. */
void content_free(struct content *c);
DEFINE_CLEANUP(content, struct content, content_free)
#define cleanup_content CLEANUP(content_cleanup_)

/* The folder, as given. */
const char *content_root(const struct content *c);

/* The path of a layer's file, heap; NULL when out of memory. */
char *content_layer_path(const struct content *c, const char *diff_id);

/* A fresh file in ingest/, open for reading and writing. */
int content_ingest(struct content *c, char ret_name[CONTENT_NAME_SIZE], int *ret_fd,
                   struct err *err);
/* Deletes a file in ingest/; a missing one is fine. */
void content_discard(struct content *c, const char *name);
/* Makes fd's file durable and gives it its place as the layer; replaces one that is there. */
int content_commit(struct content *c, const char *name, int fd, const char *diff_id,
                   struct err *err);

/* Opens a layer read-only; *ret_size may be NULL. NOT_FOUND. */
int content_open_layer(struct content *c, const char *diff_id, int *ret_fd, uint64_t *ret_size,
                       struct err *err);
/* The size of a layer's file without opening it. NOT_FOUND. */
int content_stat_layer(struct content *c, const char *diff_id, uint64_t *ret_size, struct err *err);
/* Deletes a layer; a missing one is fine. */
int content_remove_layer(struct content *c, const char *diff_id, struct err *err);

/* Deletes everything in ingest/. */
int content_clean_ingest(struct content *c, struct err *err);
/* Calls fn with the diff id of each layer file; names that are none are deleted. Non-zero of fn
 * ends it (err filled). */
int content_each_layer(struct content *c,
                       int (*fn)(void *arg, const char *diff_id, struct err *err), void *arg,
                       struct err *err);

/* What the folder occupies: allocated bytes and inodes, itself included. */
int content_usage(struct content *c, uint64_t *ret_bytes, uint64_t *ret_inodes, struct err *err);
