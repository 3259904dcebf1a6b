/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which images and layers there are: records in the store, the same in memory, who uses what, and
 * which layer is being fetched right now. Two locks: `commit` is held over changes of records and
 * files and may wait for the disk; `lock` guards memory and never does. Order: commit, then lock.
 * Thread-safe.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "host/image/content.h"
#include "host/image/http.h"
#include "host/image/image.h"

struct catalog;
struct store;

/* Loads the records; drops damaged ones with a log line. `pinned`: normalised references, borrowed
 * for the catalog's life. */
int catalog_open(struct store *store, struct content *content, const char *const *pinned,
                 size_t n_pinned, struct catalog **ret_catalog, struct err *err);
/* NULL is fine. */
void catalog_free(struct catalog *c);

/* ---- layers of an operation ---- */

enum catalog_lease {
    CATALOG_PRESENT, /* the layer is there */
    CATALOG_FETCH,   /* the caller has to bring it: then catalog_layer_done */
};

/*
 * Keeps a layer from being collected until catalog_unlease. Waits while somebody else fetches it.
 * On failure nothing is leased.
 */
int catalog_lease_layer(struct catalog *c, const char *diff_id, const struct http_limits *limits,
                        enum catalog_lease *ret_lease, struct err *err);
/* Makes the layer's record, after its file is in place. A failure leaves the fetch to be ended with
 * catalog_layer_failed. */
int catalog_layer_done(struct catalog *c, const char *diff_id, uint64_t size, uint32_t flags,
                       struct err *err);
/* The caller could not bring it; someone who waits will try. */
void catalog_layer_failed(struct catalog *c, const char *diff_id);
/* Ends a lease; a layer that nothing needs any more is deleted. */
void catalog_unlease(struct catalog *c, const char *diff_id);

/* Whether layers that are present hold marks that only the layers below can resolve. */
bool catalog_needs_completion(struct catalog *c, const char (*diff_ids)[DIGEST_TEXT_SIZE],
                              size_t n);
/* The completing layer of a known image, "" if it has none. False: the image is not known. */
bool catalog_completion(struct catalog *c, const char *image_id, char ret_id[DIGEST_TEXT_SIZE]);

/* ---- images ---- */

/* An image whose layers the caller has leased. */
struct catalog_image {
    const char *id;
    const char *config_json;
    const char *const *tags; /* these names now mean this image */
    size_t n_tags;
    const char *const *digests;
    size_t n_digests;
    const char *completion; /* id of the completing layer, leased too; "": none */
};

/* Makes the image and its names visible; all of it or nothing. */
int catalog_commit(struct catalog *c, const struct catalog_image *image, struct err *err);

/* See image_get. */
int catalog_get(struct catalog *c, const char *name_or_id, struct image **ret_image,
                struct err *err);
/* See image_list: a reference to each, sorted by id. */
int catalog_list(struct catalog *c, struct image_list *ret_list, struct err *err);
/* See image_remove. One that containers use is hidden at once and deleted with its last use. */
int catalog_remove(struct catalog *c, const char *name_or_id, struct err *err);
/* See image_use. id is the full id; waits for a removal under way. */
int catalog_use(struct catalog *c, const char *id, const char *user, struct err *err);
/* See image_release. */
void catalog_release(struct catalog *c, const char *id, const char *user);
/* See image_service_collect: the images' and layers' part of it. */
int catalog_collect(struct catalog *c, struct err *err);
