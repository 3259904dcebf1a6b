/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pull, top to bottom: reference, manifest (through indexes), config, layers, commit. Nothing is
 * visible before the commit, and what was fetched for it goes with the last lease when there is
 * none.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "host/image/catalog.h"
#include "host/image/completion.h"
#include "host/image/layers.h"
#include "host/image/manifest.h"
#include "host/image/ref.h"
#include "host/image/registry.h"
#include "host/image/service.h"

enum { MAX_AUTH_FILE = 1 << 20 };

struct pull {
    struct image_service *svc;
    const struct image_pull_spec *spec;
    struct ref ref;
    char name[REF_TEXT_SIZE]; /* normalised reference */
    struct registry *registry;
    struct http_client *client;
    char top_digest[DIGEST_TEXT_SIZE]; /* of the manifest or index that the reference names */
    struct manifest manifest;
    char *config;
    char (*diff_ids)[DIGEST_TEXT_SIZE];
    struct layers_job *layers;
    char completion[DIGEST_TEXT_SIZE]; /* leased; "": none */
};

static void pull_fini(struct pull *p)
{
    if (p->completion[0] != '\0')
        catalog_unlease(p->svc->catalog, p->completion);
    layers_free(p->layers);
    free(p->diff_ids);
    free(p->config);
    manifest_fini(&p->manifest);
    http_client_free(p->client);
    registry_free(p->registry);
}
#define cleanup_pull CLEANUP(pull_fini)

static const struct image_registry *find_entry(const struct image_config *config, const char *host)
{
    for (size_t i = 0; i < config->n_registries; i++)
        if (strcmp(config->registries[i].host, host) == 0)
            return &config->registries[i];
    return NULL;
}

static struct http_limits limits_of(const struct pull *p)
{
    return (struct http_limits){.deadline_ms = p->spec->deadline_ms,
                                .stall_s = p->svc->config.limits.stall_s,
                                .cancelled = p->spec->cancelled,
                                .arg = p->spec->arg};
}

static int open_registry(struct pull *p, struct err *err)
{
    const struct image_config *config = &p->svc->config;
    char *auth_json = NULL;
    size_t n = 0;
    if (config->auth_file != NULL &&
        fd_read_file(AT_FDCWD, config->auth_file, MAX_AUTH_FILE, &auth_json, &n, err) < 0)
        return err_prefix(err, "registry credentials file '%s'", config->auth_file);
    struct registry_spec spec = {.ref = &p->ref,
                                 .entry = find_entry(config, p->ref.domain),
                                 .auth = p->spec->auth,
                                 .auth_json = auth_json,
                                 .auth_json_len = n,
                                 .limits = limits_of(p)};
    int rc = registry_new(&spec, &p->registry, err);
    if (auth_json != NULL)
        explicit_bzero(auth_json, n);
    free(auth_json);
    return rc < 0 ? -1 : http_client_new(&p->client, err);
}

/* The manifest for this machine, through at most MANIFEST_MAX_DEPTH indexes. */
static int resolve(struct pull *p, struct err *err)
{
    cleanup_buf struct buf body = BUF_INIT(MANIFEST_MAX_BYTES);
    char digest[DIGEST_TEXT_SIZE];
    char wanted[REF_MAX_TAG + DIGEST_TEXT_SIZE];
    struct manifest_doc doc;
    (void)snprintf(wanted, sizeof(wanted), "%s",
                   p->ref.digest[0] != '\0' ? p->ref.digest : p->ref.tag);
    for (unsigned depth = 0; depth <= MANIFEST_MAX_DEPTH; depth++) {
        if (registry_get_manifest(p->registry, p->client, wanted, &body, digest, err) < 0)
            return -1;
        if (depth == 0)
            memcpy(p->top_digest, digest, sizeof(digest));
        if (manifest_parse((const char *)buf_bytes(&body), body.len, &doc, err) < 0)
            return -1;
        if (!doc.is_index) {
            p->manifest = doc.manifest;
            return 0;
        }
        memcpy(wanted, doc.chosen.digest, DIGEST_TEXT_SIZE);
    }
    return err_set(err, ERR_PROTOCOL, "indexes are nested too deeply");
}

static int collect(void *arg, const void *bytes, size_t n, struct err *err)
{
    return buf_append(arg, bytes, n, err);
}

static int fetch_config(struct pull *p, struct err *err)
{
    cleanup_buf struct buf body = BUF_INIT(MANIFEST_MAX_BYTES);
    size_t n = 0;
    if (p->manifest.config.size > MANIFEST_MAX_BYTES)
        return err_set(err, ERR_PROTOCOL, "image config is larger than %u bytes",
                       MANIFEST_MAX_BYTES);
    if (registry_get_blob(p->registry, p->client, &p->manifest.config, collect, &body, err) < 0)
        return err_prefix(err, "image config");
    if (manifest_parse_diff_ids((const char *)buf_bytes(&body), body.len, &p->diff_ids, &n, err) <
        0)
        return -1;
    if (n != p->manifest.n_layers)
        return err_set(err, ERR_PROTOCOL, "manifest has %zu layers, image config has %zu",
                       p->manifest.n_layers, n);
    return buf_take_string(&body, &p->config, err);
}

static int get_blob(void *source, struct http_client *client, const struct descriptor *blob,
                    http_body_fn sink, void *arg, struct err *err)
{
    return registry_get_blob(source, client, blob, sink, arg, err);
}

static int fetch_layers(struct pull *p, struct err *err)
{
    struct layers_spec spec = {.svc = p->svc,
                               .diff_ids = (const char(*)[DIGEST_TEXT_SIZE])p->diff_ids,
                               .blobs = p->manifest.layers,
                               .n = p->manifest.n_layers,
                               .get_blob = get_blob,
                               .source = p->registry,
                               .reference = p->name,
                               .limits = limits_of(p),
                               .progress = p->spec->progress,
                               .progress_arg = p->spec->arg};
    return layers_run(&spec, &p->layers, err);
}

static int complete(struct pull *p, struct err *err)
{
    struct http_limits limits = limits_of(p);
    return completion_bring(p->svc, p->manifest.config.digest,
                            (const char(*)[DIGEST_TEXT_SIZE])p->diff_ids, p->manifest.n_layers,
                            &limits, p->completion, err);
}

static int commit(struct pull *p, struct err *err)
{
    char digest_name[REF_TEXT_SIZE];
    const char *tags[] = {p->name};
    const char *digests[] = {digest_name};
    ref_format_digest(&p->ref, p->top_digest, digest_name);
    struct catalog_image image = {.id = p->manifest.config.digest,
                                  .config_json = p->config,
                                  .tags = tags,
                                  .n_tags = p->ref.digest[0] == '\0' ? 1 : 0,
                                  .digests = digests,
                                  .n_digests = 1,
                                  .completion = p->completion};
    return catalog_commit(p->svc->catalog, &image, err);
}

static int run(struct pull *p, struct err *err)
{
    if (open_registry(p, err) < 0 || resolve(p, err) < 0 || fetch_config(p, err) < 0 ||
        fetch_layers(p, err) < 0 || complete(p, err) < 0)
        return -1;
    return commit(p, err);
}

int image_pull(struct image_service *svc, const struct image_pull_spec *spec, char **ret_id,
               struct err *err)
{
    struct err local = {0};
    cleanup_pull struct pull p = {.svc = svc, .spec = spec};
    err = err == NULL ? &local : err;
    int64_t start = clock_monotonic_ms();
    if (ref_parse(spec->reference, &p.ref, err) < 0)
        return -1;
    ref_format(&p.ref, p.name);
    log_debug("pulling %s", p.name);
    if (run(&p, err) < 0)
        return err_prefix(err, "pull '%s'", p.name);
    char *id = strdup(p.manifest.config.digest);
    if (id == NULL)
        return err_no_memory(err);
    uint64_t bytes = 0;
    for (size_t i = 0; i < p.manifest.n_layers; i++)
        bytes += p.manifest.layers[i].size;
    log_info("pulled %s as %s in %lld ms: %zu layers, %llu bytes", p.name, id,
             (long long)(clock_monotonic_ms() - start), p.manifest.n_layers,
             (unsigned long long)bytes);
    *ret_id = id;
    return 0;
}
