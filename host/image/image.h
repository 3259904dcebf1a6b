/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The image service: pull, import, look up, remove, and the read-only filesystem image of every
 * layer. Only this room knows how a registry is spoken to and how layers lie on disk. All strings
 * handed in are copied; `struct image` is immutable and reference counted. Every function is
 * thread-safe and blocks: call from worker threads. Sizes in bytes, deadlines as in
 * common/base/clock.h. No byte of a tenant is parsed here but JSON: layers go through
 * casemate-convert.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/base/cleanup.h"
#include "common/base/err.h"

struct store;
struct image_service;

/* How the blocks of a layer's filesystem image are compressed; docs/images.md has the measurement.
 */
enum image_compression { IMAGE_COMPRESSION_ZSTD, IMAGE_COMPRESSION_LZ4, IMAGE_COMPRESSION_NONE };

/* Parses "zstd", "lz4" or "none". Returns 0, or -1 for any other text. */
int image_compression_parse(const char *text, enum image_compression *ret_compression);
/* The name that image_compression_parse takes. Never NULL. */
const char *image_compression_name(enum image_compression compression);

/* How to reach one registry. A registry without an entry is reached over HTTPS with the system's
 * CAs, no mirrors. */
struct image_registry {
    const char *host; /* as it stands in a reference: "docker.io", "127.0.0.1:5000" */
    const char *const
        *mirrors; /* base URLs ("http://127.0.0.1:5000"), tried in order before the origin */
    size_t n_mirrors;
    bool plain_http;              /* the origin is spoken to over http:// */
    const char *ca_file;          /* PEM; NULL: the system's */
    const char *client_cert_file; /* PEM; NULL: none */
    const char *client_key_file;
};

struct image_limits {
    uint64_t layer_bytes;   /* largest filesystem image of one layer; 0: 32 GiB */
    uint64_t layer_ratio;   /* largest decompressed : compressed ratio past 64 MiB; 0: 400 */
    uint64_t layer_entries; /* entries of one layer; 0: 2,000,000 */
    uint64_t memory_bytes;  /* address space of one converter; 0: 1 GiB */
    unsigned parallel;      /* layers of one pull fetched at the same time; 0: 3 */
    unsigned stall_s;       /* a transfer below 1 KiB/s for this long has stalled; 0: 30 */
};

struct image_config {
    const char *root;      /* folder of the service, made if missing; one service per folder */
    const char *converter; /* absolute path of casemate-convert */
    uid_t converter_uid;   /* identity of the converter; used when the daemon is root */
    gid_t converter_gid;
    enum image_compression compression;
    const struct image_registry *registries;
    size_t n_registries;
    const char *const
        *pinned; /* references that the kubelet must not collect (its sandbox image) */
    size_t n_pinned;
    const char *auth_file;      /* config.json as docker login writes it, used when a pull brings no
                                   auth; NULL: none */
    struct image_limits limits; /* zeros: defaults */
};

/*
 * Opens (and makes) the folder and loads the records. Nothing is deleted yet: register the
 * containers' uses with image_use, then call image_service_collect. `store` must outlive the
 * service.
 */
int image_service_open(const struct image_config *config, struct store *store,
                       struct image_service **ret_svc, struct err *err);
/* Releases the service; no call may be running. NULL is fine. Images still referenced stay valid.
 */
void image_service_free(struct image_service *svc);

/*
 * Start-up reconciliation: temporary files go, layer files without a record go (unless in use),
 * records whose files are missing are dropped with a log line. Also callable later: it collects
 * what failed removals left.
 */
int image_service_collect(struct image_service *svc, struct err *err);

/* Credentials of one pull, as CRI's AuthConfig has them; NULL members are absent. */
struct image_auth {
    const char *username;
    const char *password;
    const char *auth;           /* base64 of "username:password" */
    const char *identity_token; /* OAuth2 refresh token */
    const char *registry_token; /* bearer token sent as it is */
    const char *server_address; /* when set, the credentials go to that registry only */
};

/* What a pull has done so far; totals grow until the manifest is known. */
struct image_progress {
    const char *reference; /* normalised */
    uint64_t bytes_done; /* compressed bytes fetched, layers that were present counted as fetched */
    uint64_t bytes_total;
    unsigned layers_done;
    unsigned layers_total;
};

struct image_pull_spec {
    const char *reference;         /* as people write it */
    const struct image_auth *auth; /* NULL: anonymous, or auth_file */
    int64_t deadline_ms;           /* CLOCK_NO_DEADLINE: only stalls end it */
    bool (*cancelled)(void *arg);  /* may be NULL; asked every 100 ms or so, from any thread */
    void (*progress)(void *arg,
                     const struct image_progress *progress); /* may be NULL; one call at a time */
    void *arg;
};

/*
 * Makes the image present and its names point to it. *ret_id is heap ("sha256:<config digest>");
 * free it. Nothing stays visible after a failure. INVALID (reference), NOT_FOUND, DENIED,
 * UNAVAILABLE, DEADLINE, CANCELLED, PROTOCOL (what the registry sent cannot be used), UNSUPPORTED
 * (another architecture), EXHAUSTED (disk, limits).
 */
int image_pull(struct image_service *svc, const struct image_pull_spec *spec, char **ret_id,
               struct err *err);

struct image_import_spec {
    const char *path; /* OCI layout directory, or a tar of one, or a `docker save` tar */
    const char
        *reference; /* name for the image; NULL: the names in the archive; needs a single image */
    int64_t deadline_ms;
    bool (*cancelled)(void *arg);
    void (*progress)(void *arg, const struct image_progress *progress);
    void *arg;
};

/* Imports every linux image of this architecture that the layout holds. *ret_ids: free with
 * image_ids_free. */
int image_import(struct image_service *svc, const struct image_import_spec *spec, char ***ret_ids,
                 size_t *ret_n, struct err *err);
/* Frees what image_import gave. */
void image_ids_free(char **ids, size_t n);

struct image_export_spec {
    const char *image; /* as image_get takes it */
    const char *path;  /* of the layout, which must not exist; its folder must */
    int64_t deadline_ms;
    bool (*cancelled)(void *arg);
    void (*progress)(void *arg, const struct image_progress *progress); /* bytes of layer files */
    void *arg;
};

/*
 * Writes an OCI layout of the image, with all its tags. The layers are tars made anew, with digests
 * of their own, so the image in the layout has another id: *ret_id, heap. Nothing is left at the
 * path after a failure. NOT_FOUND, EXISTS (the path), EXHAUSTED, CANCELLED, DEADLINE.
 */
int image_export(struct image_service *svc, const struct image_export_spec *spec, char **ret_id,
                 struct err *err);

struct image_layer {
    const char *diff_id; /* "sha256:…" of the uncompressed tar */
    const char *path;    /* file of the filesystem image */
    uint64_t size_bytes; /* of that file */
    const char *fs_type; /* for mount(2) in the guest: "squashfs" */
};

struct image_label {
    const char *key;
    const char *value;
};

struct image_strings {
    const char *const *items; /* n strings, then NULL: usable as an argv */
    size_t n;
};

/* One image. Strings that are absent are "". Get it from image_get or image_list; give it back with
 * image_unref. */
struct image {
    const char *id;                    /* "sha256:…" of the config */
    struct image_strings repo_tags;    /* "docker.io/library/busybox:1.36" */
    struct image_strings repo_digests; /* "docker.io/library/busybox@sha256:…" */
    uint64_t size_bytes;               /* layer files, each once, + config */
    bool pinned;
    bool has_uid; /* config User begins with a number: uid is it; else username may be set */
    int64_t uid;
    const char *username;
    const char *architecture;
    const char *variant;
    const char *os;
    const char *created;      /* RFC3339 as in the config */
    struct image_strings env; /* "NAME=value" */
    struct image_strings entrypoint;
    struct image_strings cmd;
    const char *working_dir;
    const char *user; /* "user[:group]", unparsed */
    const char *stop_signal;
    const struct image_label *labels;
    size_t n_labels;
    struct image_strings volumes;     /* mount points of anonymous volumes */
    const char *config_json;          /* the config as the registry sent it */
    const struct image_layer *layers; /* lowest first; the same diff id may be there twice; the
                                         uppermost may be one that completes the others and is not
                                         in the config */
    size_t n_layers;
};

/*
 * Finds an image by tag or digest reference (normalised first), by full id with or without
 * "sha256:", or by a unique prefix of the id in hexadecimal. NOT_FOUND; INVALID for an empty name.
 * Also finds an image that was removed while in use only when asked by its full id. The caller
 * unrefs.
 */
int image_get(struct image_service *svc, const char *name_or_id, struct image **ret_image,
              struct err *err);

struct image_list {
    struct image **items; /* sorted by id */
    size_t n;
};
/* All images. Free with image_list_fini. */
int image_list(struct image_service *svc, struct image_list *ret_list, struct err *err);
/* Unrefs all and empties the list. */
void image_list_fini(struct image_list *list);

/* One more owner of an image. Returns it. */
struct image *image_ref(struct image *image);
/* One owner less; frees with the last. NULL is fine. Does not touch the disk. */
void image_unref(struct image *image);
DEFINE_CLEANUP(image, struct image, image_unref)
#define cleanup_image CLEANUP(image_cleanup_)

/*
 * Container `user` uses the image `id` (full id) from now on: its layer files stay until
 * image_release, whatever is removed. In memory only: at start, the owner of the containers
 * registers its uses again before image_service_collect. Repeating is fine. NOT_FOUND when neither
 * the record nor the files exist.
 */
int image_use(struct image_service *svc, const char *id, const char *user, struct err *err);
/* The container is gone. Layer files that nobody needs any more are deleted. Unknown pairs are
 * fine. */
void image_release(struct image_service *svc, const char *id, const char *user);

/* A read-only descriptor of the filesystem image of layer `index`, for the VMM; the caller's to
 * close. */
int image_open_layer(struct image_service *svc, const struct image *image, size_t index,
                     int *ret_fd, uint64_t *ret_size, struct err *err);

/* Removes the image that the name or id stands for, all its names included. Removing what is not
 * there succeeds. */
int image_remove(struct image_service *svc, const char *name_or_id, struct err *err);

struct image_fs_info {
    uint64_t used_bytes;
    uint64_t inodes;
    const char *mountpoint; /* the service's root; valid as long as the service */
};
/* What the images occupy. */
int image_fs_info(struct image_service *svc, struct image_fs_info *ret_info, struct err *err);
