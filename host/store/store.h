/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Durable records: (kind, id) -> (version, bytes) in one SQLite file, WAL, synchronous=FULL: when a
 * put returns, the record survives a power cut. Only this room knows SQL. The content of a record
 * is its owner's; `version` is the owner's format number. The store copies what it is given; what
 * it gives out is the caller's. Every function is thread-safe and blocks on the disk; a transaction
 * belongs to the thread that began it and keeps the others out until it ends.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/cleanup.h"
#include "common/base/err.h"

/* Largest record, in bytes; a larger one is refused with INVALID. */
#define STORE_MAX_RECORD (8u << 20)
/* Longest kind or id, in bytes; both are non-empty text without NUL. */
#define STORE_MAX_NAME 512

struct store;

/*
 * Opens the file at path, made (0600) if missing, its folder must exist; brings an older schema up
 * to date. UNSUPPORTED when a newer release wrote it; PROTOCOL when it is damaged, the message
 * names the file and the remedy; EXHAUSTED, DENIED, SYSTEM as the disk says. BAD_STATE when another
 * process has it open.
 */
int store_open(const char *path, struct store **ret_store, struct err *err);
/* Closes the file; an open transaction is rolled back. NULL is fine. */
void store_close(struct store *store);
DEFINE_CLEANUP(store, struct store, store_close)
#define cleanup_store CLEANUP(store_cleanup_)

/* Makes or replaces a record. EXHAUSTED when the disk is full: then nothing has changed. */
int store_put(struct store *store, const char *kind, const char *id, uint32_t version,
              const void *bytes, size_t n, struct err *err);

/* Reads a record into heap memory (free it; never NULL, also when n is 0). NOT_FOUND. */
int store_get(struct store *store, const char *kind, const char *id, uint32_t *ret_version,
              void **ret_bytes, size_t *ret_n, struct err *err);

/* Removes a record; a missing one is fine. */
int store_delete(struct store *store, const char *kind, const char *id, struct err *err);

/* One record of a walk; the pointers live until it returns. Non-zero ends the walk (fills err). */
typedef int (*store_each_fn)(void *arg, const char *id, uint32_t version, const void *bytes,
                             size_t n, struct err *err);

/*
 * Calls fn for each record of a kind, by id in byte order, as they were when the walk began: fn may
 * put and delete. Fails with fn's error when fn returns non-zero.
 */
int store_each(struct store *store, const char *kind, store_each_fn fn, void *arg, struct err *err);

/*
 * Begins a transaction: what the calling thread does until commit or rollback happens together or
 * not at all. Other threads wait meanwhile: keep it short, do nothing but store calls in it.
 * BAD_STATE when this thread has one already.
 */
int store_begin(struct store *store, struct err *err);
/* Ends the transaction and makes it durable; on failure everything of it is undone. */
int store_commit(struct store *store, struct err *err);
/* Ends the transaction and undoes it. Nothing happens when this thread has none. */
void store_rollback(struct store *store);
