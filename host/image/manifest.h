/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The JSON documents of an image: index (or Docker manifest list), manifest (OCI or Docker schema
 * 2), config. They come from a registry and are hostile: bounded in size and count, every digest
 * checked for its form. Pure functions.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/cleanup.h"
#include "common/base/err.h"
#include "host/image/digest.h"

#define MANIFEST_MAX_BYTES   (4u << 20) /* of one document, as in containerd */
#define MANIFEST_MAX_LAYERS  500        /* overlayfs takes no more lower directories */
#define MANIFEST_MAX_ENTRIES 1024       /* of an index */
#define MANIFEST_MAX_DEPTH   3          /* of indexes in indexes */

/* All media types a manifest request accepts, as one Accept header line. */
#define MANIFEST_ACCEPT                                                                            \
    "Accept: application/vnd.oci.image.index.v1+json, "                                            \
    "application/vnd.oci.image.manifest.v1+json, "                                                 \
    "application/vnd.docker.distribution.manifest.list.v2+json, "                                  \
    "application/vnd.docker.distribution.manifest.v2+json"

struct descriptor {
    char digest[DIGEST_TEXT_SIZE];
    uint64_t size; /* bytes of the blob */
};

struct manifest {
    struct descriptor config;
    struct descriptor *layers; /* lowest first */
    size_t n_layers;
};

/* What a document turned out to be. */
struct manifest_doc {
    bool is_index;
    struct descriptor chosen; /* of an index: the manifest (or index) for this machine */
    struct manifest manifest; /* else */
};

/* "amd64" or "arm64" …: this machine's architecture in OCI's words. */
const char *manifest_architecture(void);

/*
 * Parses an index or a manifest; of an index picks the entry for linux on this machine. PROTOCOL:
 * malformed; UNSUPPORTED: no entry fits, or an old schema; EXHAUSTED: too many layers.
 */
int manifest_parse(const char *json, size_t n, struct manifest_doc *ret_doc, struct err *err);
/* Frees the layers; a zeroed struct is fine. */
void manifest_fini(struct manifest *m);
#define cleanup_manifest CLEANUP(manifest_fini)

/* All entries of an index that fit this machine and are images, best first; for import. free() the
 * array. */
int manifest_parse_layout_index(const char *json, size_t n, struct descriptor **ret_items,
                                char ***ret_names, size_t *ret_n, struct err *err);

/* The diff ids of a config: *ret_n strings of DIGEST_TEXT_SIZE; free() the array. Checks os and
 * architecture too. */
int manifest_parse_diff_ids(const char *config, size_t n, char (**ret_ids)[DIGEST_TEXT_SIZE],
                            size_t *ret_n, struct err *err);
