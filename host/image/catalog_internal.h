/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the catalog's two halves share: catalog.c holds images and names, catalog_layers.c holds
 * layers. For no other file. All fields of the entries are guarded by `lock` unless a comment says
 * otherwise.
 */
#pragma once

#include <uthash.h>

#include "host/image/catalog.h"
#include "host/store/store.h"

#define RECORD_IMAGE "image"
#define RECORD_LAYER "image-layer"

enum layer_state {
    LAYER_ABSENT,  /* no file; may be fetched */
    LAYER_BUSY,    /* somebody fetches or deletes it; wait on `changed` */
    LAYER_PRESENT, /* file and record are there */
};

struct layer_entry {
    char diff_id[DIGEST_TEXT_SIZE];
    enum layer_state state;
    uint64_t size;
    uint32_t flags;  /* CONVERT_… */
    unsigned leases; /* operations that need it */
    unsigned images; /* images that hold it, each once per occurrence */
    UT_hash_handle hh;
};

struct user_entry {
    UT_hash_handle hh;
    char name[];
};

struct image_entry {
    char id[DIGEST_TEXT_SIZE];
    struct image *image;                /* replaced, never changed */
    char (*diff_ids)[DIGEST_TEXT_SIZE]; /* the config's layers, then the completing one; constant */
    size_t n_diff_ids;
    bool completed; /* the last one is the completing one */
    bool removed;   /* not listed any more, kept for its users */
    struct user_entry *users;
    UT_hash_handle hh;
};

struct catalog {
    pthread_mutex_t commit;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* a layer left LAYER_BUSY */
    struct store *store;
    struct content *content;
    const char *const *pinned;
    size_t n_pinned;
    struct image_entry *images;
    struct layer_entry *layers;
};

/* The entry of a layer, or NULL. Needs lock. */
struct layer_entry *catalog_find_layer(struct catalog *c, const char *diff_id);
/* Loads the layer records and drops those without a file. */
int catalog_load_layers(struct catalog *c, struct err *err);
/* Deletes a layer that nothing needs. Takes lock; call without it. */
void catalog_drop_layer(struct catalog *c, const char *diff_id);
/* Deletes files without a record. */
int catalog_collect_layers(struct catalog *c, struct err *err);
