/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon's end of casemate-convert: starts it confined, feeds it a blob, takes its verdict. The
 * child is not trusted: what it answers is checked, what it writes goes to the one file it was
 * given. Belongs to one thread, which must live until converter_free (the child dies with it).
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "common/base/cleanup.h"
#include "common/base/err.h"
#include "host/image/convert.h"
#include "host/image/http.h"

struct converter;

enum converter_task {
    CONVERTER_LAYER,    /* a blob, fed in, to a layer image (convert.h) */
    CONVERTER_COMPLETE, /* layer images to the one that completes them (complete.h) */
    CONVERTER_RETAR,    /* a layer image to a tar (retar.h) */
};

struct converter_spec {
    const char *path; /* of the program */
    uid_t uid;
    gid_t gid;
    enum image_compression compression;
    uint64_t max_bytes;
    uint64_t max_ratio;
    uint64_t max_entries;
    uint64_t memory_bytes;
    unsigned workers;
    int out_fd; /* stays the caller's */
    enum converter_task task;
    const int *layers; /* the images that COMPLETE (lowest first) and RETAR (one) read */
    size_t n_layers;
    struct http_limits limits; /* deadline and cancellation of the operation */
};

/*
 * What the configuration says of every child: its program, identity and limits. For a layer and one
 * worker; the caller changes what differs.
 */
void converter_spec_init(struct converter_spec *spec, const struct image_config *config, int out_fd,
                         const struct http_limits *limits);

/* Starts the child. */
int converter_start(const struct converter_spec *spec, struct converter **ret_converter,
                    struct err *err);
/* Kills and reaps the child if it still runs. NULL is fine. */
void converter_free(struct converter *c);
DEFINE_CLEANUP(converter, struct converter, converter_free)
#define cleanup_converter CLEANUP(converter_cleanup_)

/* Hands over the next n bytes of the blob. When the child has given up, its reason is the error. */
int converter_feed(struct converter *c, const void *bytes, size_t n, struct err *err);

/* Ends the input and waits for the verdict. */
int converter_finish(struct converter *c, struct convert_result *ret_result, struct err *err);
