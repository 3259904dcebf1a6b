/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One repository at one registry, for the time of one pull: mirrors and origin, authentication,
 * redirects, retries, resuming. OCI distribution-spec 1.1, pull part. Every byte that is handed out
 * is hashed, and what does not fit its digest fails. Thread-safe; every thread brings an
 * http_client of its own.
 */
#pragma once

#include "common/base/buf.h"
#include "common/base/cleanup.h"
#include "common/base/err.h"
#include "host/image/auth.h"
#include "host/image/http.h"
#include "host/image/manifest.h"
#include "host/image/ref.h"

struct registry;

struct registry_spec {
    const struct ref *ref;
    const struct image_registry
        *entry; /* its configuration; NULL: defaults. Must outlive the registry */
    const struct image_auth *auth; /* of the request; may be NULL */
    const char *auth_json;         /* docker config.json; may be NULL */
    size_t auth_json_len;
    struct http_limits limits;
};

/* Copies what it needs but for `entry`. INVALID for credentials that cannot be read. */
int registry_new(const struct registry_spec *spec, struct registry **ret_registry, struct err *err);
/* NULL is fine. */
void registry_free(struct registry *r);
DEFINE_CLEANUP(registry, struct registry, registry_free)
#define cleanup_registry CLEANUP(registry_cleanup_)

/*
 * Fetches a manifest by tag or digest into *out (emptied first). ret_digest is that of the bytes.
 * Errors as image_pull's.
 */
int registry_get_manifest(struct registry *r, struct http_client *client, const char *tag_or_digest,
                          struct buf *out, char ret_digest[DIGEST_TEXT_SIZE], struct err *err);

/*
 * Streams a blob to sink, in order and each byte once, whatever had to be retried; the digest is
 * checked at the end, so that what the sink got counts only when this succeeds. A sink that fails
 * ends it with its error.
 */
int registry_get_blob(struct registry *r, struct http_client *client, const struct descriptor *blob,
                      http_body_fn sink, void *arg, struct err *err);
