/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A layer blob (tar, perhaps gzip or zstd) becomes a squashfs image, in one pass and without an
 * unpacked copy. This is the part that parses a tenant's bytes: the daemon never calls it, it
 * starts casemate-convert and reads a struct convert_result from it. Linked into the daemon's tests
 * and fuzzers too. One conversion at a time per thread.
 */
#pragma once

#include <stdint.h>

#include "common/base/err.h"
#include "host/image/digest.h"
#include "host/image/image.h"

/* Descriptors of casemate-convert. */
enum {
    CONVERT_FD_IN = 0,
    CONVERT_FD_RESULT = 1,
    CONVERT_FD_OUT = 3,
    CONVERT_FD_SELF = 4,
    CONVERT_FD_LAYERS = 5, /* and the following: layer images, lowest first (--complete, --retar) */
};

struct convert_options {
    enum image_compression compression;
    uint64_t max_bytes; /* of the tar stream, of the files' apparent sizes and of the image, each */
    uint64_t max_ratio; /* tar : blob, counted from 64 MiB of tar on */
    uint64_t max_entries; /* nodes of the tree */
    unsigned workers;     /* compression threads, at least 1 */
    int (*confine)(
        struct err *err); /* called when all threads run and no byte is read yet; NULL: nothing */
};

#define CONVERT_MAGIC 0x31545643u /* "CVT1" */

/* Layer facts that concern the layers below; see docs/images.md. */
#define CONVERT_ROOT_OPAQUE 1u /* the root hides all lower layers */
#define CONVERT_IMPLICIT                                                                           \
    2u /* holds directories that no entry describes: metadata of the lower layer is wanted */
#define CONVERT_LOWER_LINKS 4u /* holds hard links to files of a lower layer */

/* What casemate-convert writes to CONVERT_FD_RESULT, once, at its end; native byte order. */
struct convert_result {
    uint32_t magic;
    uint32_t code; /* enum err_code; ERR_NONE: the rest is valid and message empty */
    uint8_t diff_id[DIGEST_BYTES];
    uint64_t tar_bytes;
    uint64_t image_bytes;
    uint32_t entries;
    uint32_t flags;
    uint32_t xattrs_dropped; /* attributes squashfs or this room cannot carry */
    uint32_t reserved;
    char message[1024]; /* NUL-terminated, untrusted */
};

/*
 * Reads the blob from in_fd to its end and writes the image to out_fd (empty, read-write,
 * seekable). The results are valid on success only; what is in out_fd after a failure is garbage.
 * PROTOCOL: not a layer; EXHAUSTED: a limit, memory or disk; UNSUPPORTED: cannot be expressed.
 */
int convert_layer(int in_fd, int out_fd, const struct convert_options *options,
                  struct convert_result *ret_result, struct err *err);
