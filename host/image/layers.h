/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Brings all layers of an image onto the disk, several at a time, each through its own converter,
 * whatever the source: a registry or a layout. Identical layers in flight share one transfer,
 * layers that are there are not fetched. A job belongs to the thread that runs it; its sources are
 * called from several.
 */
#pragma once

#include "common/base/err.h"
#include "host/image/http.h"
#include "host/image/manifest.h"
#include "host/image/service.h"

/* Where blobs come from. Called by several threads at once; the sink gets the bytes in order,
 * verified at the end. */
typedef int (*layers_source_fn)(void *source, struct http_client *client,
                                const struct descriptor *blob, http_body_fn sink, void *arg,
                                struct err *err);

struct layers_job; /* one run */

struct layers_spec {
    struct image_service *svc;
    const char (*diff_ids)[DIGEST_TEXT_SIZE]; /* lowest first */
    const struct descriptor *blobs;           /* of the same count */
    size_t n;
    layers_source_fn get_blob;
    void *source;
    const char *reference; /* for progress */
    struct http_limits limits;
    void (*progress)(void *arg, const struct image_progress *progress);
    void *progress_arg;
};

/*
 * Fetches what is missing and keeps everything leased until layers_free. On failure nothing is
 * leased and what was brought for this image alone is gone again.
 */
int layers_run(const struct layers_spec *spec, struct layers_job **ret_job, struct err *err);
/* Ends the leases: call it after the image was committed. NULL is fine. */
void layers_free(struct layers_job *job);
