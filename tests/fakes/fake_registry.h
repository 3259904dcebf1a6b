/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An HTTP server on 127.0.0.1 that answers by a script: a registry that misbehaves on demand.
 * Threads of its own; the script is written before the first request. Also makes images in memory
 * to serve. For tests only: what cannot happen ends the process.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fake_registry;

enum fake_mode {
    FAKE_WHOLE,    /* the body, with Content-Length; honours Range */
    FAKE_NO_RANGE, /* like FAKE_WHOLE, but ignores Range */
    FAKE_CUT,      /* Content-Length of the whole body, half of what was asked for, close */
    FAKE_SHORT,    /* half the body with the Content-Length of that half */
    FAKE_ENDLESS,  /* no Content-Length, zeros until the peer closes */
    FAKE_STALL,    /* headers and half the body, then silence until the peer closes */
    FAKE_TRICKLE,  /* headers, then the body byte by byte, twenty a second: slow loris */
    FAKE_HANG,     /* silence from the beginning */
    FAKE_DROP,     /* close without an answer */
};

struct fake_answer {
    const char *path;    /* without query */
    int status;          /* 0: 200 */
    const char *headers; /* further lines, each with "\r\n"; NULL: none */
    const void *body;
    size_t n;
    enum fake_mode mode;
    unsigned times; /* answer only that often, then the next one in the script applies; 0: always */
    const char *want_authorization; /* applies only to requests with this header value */
};

/* Starts the server. */
struct fake_registry *fake_registry_start(void);
/* Ends it and its threads. */
void fake_registry_stop(struct fake_registry *r);
/* "127.0.0.1:port". */
const char *fake_registry_host(const struct fake_registry *r);

/* Appends to the script; the first answer that applies is given, 404 without one. Strings and body
 * are copied. */
void fake_registry_add(struct fake_registry *r, const struct fake_answer *answer);

/* How many requests for a path have come; NULL: all. */
unsigned fake_registry_count(struct fake_registry *r, const char *path);
/* Whether any request carried this exact Authorization value. */
bool fake_registry_saw_authorization(struct fake_registry *r, const char *value);
/* Waits up to 10 s until a path was asked for that often. */
void fake_registry_wait(struct fake_registry *r, const char *path, unsigned count);

/* ---- images in memory ---- */

struct fake_entry {
    const char *path;
    char type; /* 'f' 'd' 'l' symlink 'h' hard link 'c' 'b' 'p' fifo 's' socket */
    unsigned mode;
    const char *data; /* content, or target */
    int64_t uid;
    int64_t gid;
    unsigned major;
    unsigned minor;
    const char *xattr; /* name of one extended attribute, value "v"; NULL: none */
};

struct fake_bytes {
    uint8_t *bytes; /* free() */
    size_t n;
};

/* A pax tar of entries; `path` NULL ends them. */
struct fake_bytes fake_tar(const struct fake_entry *entries);
struct fake_bytes fake_gzip(const void *bytes, size_t n);
/* "sha256:…"; free() it. */
char *fake_digest(const void *bytes, size_t n);

struct fake_image {
    struct fake_bytes layers[4]; /* as served */
    char *layer_digests[4];
    char *diff_ids[4];
    size_t n_layers;
    char *config;
    char *config_digest;
    char *manifest;
    char *manifest_digest;
};

/* An image of up to four tars (gzip on the wire), for linux and `architecture`. */
struct fake_image fake_image_make(const struct fake_bytes *tars, size_t n,
                                  const char *architecture);
void fake_image_fini(struct fake_image *image);
/* Serves the image's blobs and manifest at a repository and tag, all well-behaved. */
void fake_registry_serve(struct fake_registry *r, const char *repository, const char *tag,
                         const struct fake_image *image);
