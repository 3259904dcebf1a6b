/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Endpoints are the configured mirrors in order, then the origin. A manifest is asked of each in
 * turn until one has it; blobs start at the endpoint that had the manifest and go on to the others
 * from the byte where the last one broke: a blob is named by its digest, so it does not matter
 * whose bytes these are.
 *
 * Authorization goes to the origin of the endpoint (scheme, host, port) and nowhere else: redirects
 * are followed by hand, and leave it out when they lead elsewhere. A step from https to http is
 * refused. Credentials of a pull are for the registry that the reference names, never for a mirror;
 * a mirror's come from the node's config.json.
 */
#include "host/image/registry.h"

#include <curl/curl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "host/image/credhelper.h"
#include "host/image/registry_token.h"

enum {
    MAX_REDIRECTS = 6,
    MAX_TRIES = 4, /* in a row without much progress */
    MUCH_BYTES = 1 << 20,
    BACKOFF_MS = 250,
    MAX_RETRY_AFTER_S = 60,
};

struct endpoint {
    char *base; /* "https://host[:port]", no slash at the end */
    bool mirror;
    struct http_tls tls;
    struct auth_credentials credentials;
    char *authorization; /* header value to send, guarded by lock */
};

struct registry {
    struct ref ref;
    struct http_limits limits;
    struct endpoint *endpoints;
    size_t n_endpoints;
    size_t preferred; /* endpoint that had the manifest; guarded by lock */
    pthread_mutex_t lock;
};

/* ---- endpoints ---- */

/* Length of "scheme://authority". */
static size_t origin_length(const char *url)
{
    const char *p = strstr(url, "://");
    return p == NULL ? strlen(url) : (size_t)(p + 3 - url) + strcspn(p + 3, "/?#");
}

static bool same_origin(const char *a, const char *b)
{
    size_t n = origin_length(a);
    return n == origin_length(b) && strncasecmp(a, b, n) == 0;
}

/* What the node's config.json says for a host: a helper's word first, then what the file itself
 * has.
 */
static int node_credentials(const struct registry_spec *spec, const char *host,
                            struct auth_credentials *ret_credentials, struct err *err)
{
    struct auth_credentials c = {0};
    char helper[CREDHELPER_MAX_NAME + 1];
    if (credhelper_find(spec->auth_json, spec->auth_json_len, host, helper, err) < 0)
        return -1;
    if (helper[0] != '\0' && credhelper_get(helper, host, spec->limits.deadline_ms, &c, err) < 0)
        return -1;
    if (c.username == NULL && c.identity_token == NULL &&
        auth_from_config(spec->auth_json, spec->auth_json_len, host, &c, err) < 0)
        return -1;
    *ret_credentials = c;
    return 0;
}

static int add_endpoint(struct registry *r, const struct registry_spec *spec, char *base,
                        bool mirror, struct err *err)
{
    struct endpoint *e = &r->endpoints[r->n_endpoints];
    if (base == NULL)
        return err_no_memory(err);
    size_t n = strlen(base);
    while (n > 0 && base[n - 1] == '/')
        base[--n] = '\0';
    e->base = base;
    e->mirror = mirror;
    r->n_endpoints++;
    if (spec->entry != NULL)
        e->tls = (struct http_tls){spec->entry->ca_file, spec->entry->client_cert_file,
                                   spec->entry->client_key_file};
    if (!mirror && auth_from_cri(spec->auth, spec->ref->domain, &e->credentials, err) < 0)
        return err_prefix(err, "auth config");
    const struct auth_credentials *c = &e->credentials;
    bool given = c->username != NULL || c->identity_token != NULL || c->registry_token != NULL;
    const char *host = mirror ? strstr(base, "://") + 3 : spec->ref->domain;
    if (!given && spec->auth_json != NULL && node_credentials(spec, host, &e->credentials, err) < 0)
        return err_prefix(err, "registry credentials file");
    if (c->registry_token != NULL) {
        e->authorization = text_printf("Bearer %s", c->registry_token);
        if (e->authorization == NULL)
            return err_no_memory(err);
    }
    return 0;
}

static int fill(struct registry *r, const struct registry_spec *spec, struct err *err)
{
    const struct image_registry *entry = spec->entry;
    size_t n_mirrors = entry == NULL ? 0 : entry->n_mirrors;
    const char *scheme = entry != NULL && entry->plain_http ? "http" : "https";
    const char *host = spec->ref->domain;
    r->endpoints = calloc(n_mirrors + 1, sizeof(*r->endpoints));
    if (r->endpoints == NULL)
        return err_no_memory(err);
    for (size_t i = 0; i < n_mirrors; i++) {
        const char *base = entry->mirrors[i];
        if (!text_has_prefix(base, "http://") && !text_has_prefix(base, "https://"))
            return err_set(err, ERR_INVALID, "mirror '%s' is not an http(s) URL", base);
        if (add_endpoint(r, spec, strdup(base), true, err) < 0)
            return -1;
    }
    if (strcmp(host, "docker.io") == 0)
        host = "registry-1.docker.io";
    return add_endpoint(r, spec, text_printf("%s://%s", scheme, host), false, err);
}

int registry_new(const struct registry_spec *spec, struct registry **ret_registry, struct err *err)
{
    if (http_global_init(err) < 0)
        return -1;
    struct registry *r = calloc(1, sizeof(*r));
    if (r == NULL)
        return err_no_memory(err);
    (void)pthread_mutex_init(&r->lock, NULL);
    r->ref = *spec->ref;
    r->limits = spec->limits;
    if (fill(r, spec, err) < 0) {
        registry_free(r);
        return -1;
    }
    *ret_registry = r;
    return 0;
}

void registry_free(struct registry *r)
{
    if (r == NULL)
        return;
    for (size_t i = 0; i < r->n_endpoints; i++) {
        free(r->endpoints[i].base);
        auth_wipe_free(r->endpoints[i].authorization);
        auth_credentials_fini(&r->endpoints[i].credentials);
    }
    free(r->endpoints);
    (void)pthread_mutex_destroy(&r->lock);
    free(r);
}

/* ---- one request ---- */

struct request {
    const char *path;   /* behind "/v2/<repository>/" */
    const char *accept; /* header line, or NULL */
    uint64_t offset;    /* first byte wanted */
    http_body_fn on_body;
    void *on_body_arg;
    uint64_t max_body;
};

/* "Authorization: …" for an endpoint, heap, or NULL in *ret_line when there is none. */
static int authorization_line(struct registry *r, const struct endpoint *e, char **ret_line,
                              struct err *err)
{
    int rc = 0;
    *ret_line = NULL;
    (void)pthread_mutex_lock(&r->lock);
    if (e->authorization != NULL) {
        *ret_line = text_printf("Authorization: %s", e->authorization);
        rc = *ret_line == NULL ? -1 : 0;
    }
    (void)pthread_mutex_unlock(&r->lock);
    return rc == 0 ? 0 : err_no_memory(err);
}

/* GET url, following redirects by hand. */
static int follow(struct registry *r, struct http_client *client, const struct endpoint *e,
                  const struct request *q, char *url, char *auth_line, struct http_response *resp,
                  struct err *err)
{
    char range[64] = "";
    if (q->offset > 0)
        (void)snprintf(range, sizeof(range), "Range: bytes=%llu-", (unsigned long long)q->offset);
    for (unsigned hop = 0; hop <= MAX_REDIRECTS; hop++) {
        const char *headers[5] = {NULL};
        size_t n = 0;
        bool home = same_origin(url, e->base);
        if (q->accept != NULL)
            headers[n++] = q->accept;
        if (range[0] != '\0')
            headers[n++] = range;
        if (home && auth_line != NULL)
            headers[n++] = auth_line;
        struct http_request request = {.url = url,
                                       .headers = headers,
                                       .tls = home ? &e->tls : NULL,
                                       .on_body = q->on_body,
                                       .on_body_arg = q->on_body_arg,
                                       .max_body = q->max_body};
        if (http_perform(client, &r->limits, &request, resp, err) < 0)
            return -1;
        if (resp->status < 301 || resp->status > 308 || resp->status == 304)
            return home || resp->status != 401
                       ? 0
                       : err_set(err, ERR_DENIED, "the storage that %s redirects to refused",
                                 e->base);
        if (resp->location[0] == '\0')
            return err_set(err, ERR_PROTOCOL, "redirect to nowhere");
        if (text_has_prefix(url, "https://") && !text_has_prefix(resp->location, "https://"))
            return err_set(err, ERR_PROTOCOL, "redirect from https to something less is refused");
        (void)snprintf(url, HTTP_MAX_URL, "%s", resp->location);
    }
    return err_set(err, ERR_PROTOCOL, "more than %d redirects", MAX_REDIRECTS);
}

/* Answers a 401: obtains an Authorization value for the endpoint. */
static int authenticate(struct registry *r, struct http_client *client, struct endpoint *e,
                        const struct http_response *resp, struct err *err)
{
    char *value = NULL;
    struct token_spec spec = {.credentials = &e->credentials,
                              .repository = r->ref.path,
                              .tls = &e->tls,
                              .endpoint = e->base,
                              .limits = &r->limits};
    if (token_obtain(client, &spec, resp, &value, err) < 0)
        return -1;
    (void)pthread_mutex_lock(&r->lock);
    auth_wipe_free(e->authorization);
    e->authorization = value;
    (void)pthread_mutex_unlock(&r->lock);
    return 0;
}

/* One request to one endpoint, logging in when it asks for it. 0: *resp is the answer, whatever its
 * status. */
static int ask(struct registry *r, struct http_client *client, struct endpoint *e,
               const struct request *q, struct http_response *resp, struct err *err)
{
    cleanup_free char *url = malloc(HTTP_MAX_URL);
    if (url == NULL)
        return err_no_memory(err);
    for (int attempt = 0;; attempt++) {
        char *line = NULL;
        if (authorization_line(r, e, &line, err) < 0)
            return -1;
        (void)snprintf(url, HTTP_MAX_URL, "%s/v2/%s/%s%s%s", e->base, r->ref.path, q->path,
                       e->mirror ? "?ns=" : "", e->mirror ? r->ref.domain : "");
        int rc = follow(r, client, e, q, url, line, resp, err);
        auth_wipe_free(line);
        if (rc < 0 || resp->status != 401 || attempt > 0)
            return rc;
        if (authenticate(r, client, e, resp, err) < 0)
            return -1;
    }
}

/* An answer that is no success as an error. Returns -1. */
static int status_error(const struct http_response *resp, struct err *err)
{
    char text[256];
    enum err_code code = ERR_PROTOCOL;
    if (resp->status == 401 || resp->status == 403)
        code = ERR_DENIED;
    else if (resp->status == 404 || resp->status == 410)
        code = ERR_NOT_FOUND;
    else if (resp->status == 429 || resp->status == 408 || resp->status >= 500)
        code = ERR_UNAVAILABLE;
    token_error_text(resp->body, resp->body_len, text, sizeof(text));
    return err_set(err, code, "HTTP status %d%s%s", resp->status, text[0] == '\0' ? "" : ": ",
                   text);
}

/* Waits before a retry; fails when the pull is over meanwhile. */
static int back_off(struct registry *r, unsigned attempt, unsigned retry_after_s, struct err *err)
{
    int64_t wait_ms = (int64_t)BACKOFF_MS << attempt;
    if (retry_after_s > 0)
        wait_ms =
            1000 * (int64_t)(retry_after_s < MAX_RETRY_AFTER_S ? retry_after_s : MAX_RETRY_AFTER_S);
    int64_t until = clock_earlier(clock_deadline(wait_ms), r->limits.deadline_ms);
    while (clock_poll_timeout(until) != 0) {
        if (r->limits.cancelled != NULL && r->limits.cancelled(r->limits.arg))
            return err_set(err, ERR_CANCELLED, "cancelled");
        int left = clock_poll_timeout(until);
        (void)poll(NULL, 0, left < 0 || left > 100 ? 100 : left);
    }
    return clock_poll_timeout(r->limits.deadline_ms) == 0
               ? err_set(err, ERR_DEADLINE, "deadline exceeded")
               : 0;
}

static bool is_final(const struct err *err)
{
    return err->code == ERR_CANCELLED || err->code == ERR_DEADLINE || err->code == ERR_EXHAUSTED;
}

/*
 * Whether another request makes sense, after waiting; counts tries without much progress, so that a
 * peer that stalls again and again does not keep a pull for ever. A mirror that cannot be
 * reached is not tried twice in a row, the next endpoint is; the origin may be starting anew.
 */
static bool try_again(struct registry *r, const struct endpoint *e,
                      const struct http_response *resp, unsigned *tries, bool progress,
                      struct err *err)
{
    struct err wait = {0};
    *tries = progress ? 1 : *tries + 1;
    if (err->code != ERR_UNAVAILABLE || *tries >= MAX_TRIES || (resp->status == 0 && e->mirror))
        return false;
    if (back_off(r, *tries - 1, resp->retry_after_s, &wait) < 0) {
        *err = wait;
        return false;
    }
    return true;
}

/* ---- manifests ---- */

static int collect(void *arg, const void *bytes, size_t n, struct err *err)
{
    return buf_append(arg, bytes, n, err);
}

static int get_manifest_from(struct registry *r, struct http_client *client, struct endpoint *e,
                             const char *path, struct buf *out, struct http_response *resp,
                             struct err *err)
{
    for (unsigned tries = 0;;) {
        buf_consume(out, out->len);
        struct request q = {.path = path,
                            .accept = MANIFEST_ACCEPT,
                            .on_body = collect,
                            .on_body_arg = out,
                            .max_body = MANIFEST_MAX_BYTES};
        if (ask(r, client, e, &q, resp, err) == 0) {
            if (resp->status == 200)
                return 0;
            (void)status_error(resp, err);
        }
        if (!try_again(r, e, resp, &tries, false, err))
            return -1;
    }
}

static int check_manifest_digest(const struct buf *out, const char *wanted,
                                 const struct http_response *resp,
                                 char ret_digest[DIGEST_TEXT_SIZE], struct err *err)
{
    if (digest_of(buf_bytes(out), out->len, ret_digest, err) < 0)
        return -1;
    if (digest_is_valid(wanted) && strcmp(wanted, ret_digest) != 0)
        return err_set(err, ERR_PROTOCOL, "manifest has digest %s instead of %s", ret_digest,
                       wanted);
    if (digest_is_valid(resp->content_digest) && strcmp(resp->content_digest, ret_digest) != 0)
        return err_set(err, ERR_PROTOCOL, "manifest does not fit the digest %s in its header",
                       resp->content_digest);
    return 0;
}

int registry_get_manifest(struct registry *r, struct http_client *client, const char *tag_or_digest,
                          struct buf *out, char ret_digest[DIGEST_TEXT_SIZE], struct err *err)
{
    struct err local = {0};
    cleanup_free struct http_response *resp = malloc(sizeof(*resp));
    cleanup_free char *path = text_printf("manifests/%s", tag_or_digest);
    err = err == NULL ? &local : err;
    if (resp == NULL || path == NULL)
        return err_no_memory(err);
    for (size_t i = 0; i < r->n_endpoints; i++) {
        struct endpoint *e = &r->endpoints[i];
        if (get_manifest_from(r, client, e, path, out, resp, err) == 0 &&
            check_manifest_digest(out, tag_or_digest, resp, ret_digest, err) == 0) {
            (void)pthread_mutex_lock(&r->lock);
            r->preferred = i;
            (void)pthread_mutex_unlock(&r->lock);
            return 0;
        }
        (void)err_prefix(err, "%s", e->base);
        if (is_final(err))
            break;
        if (i + 1 < r->n_endpoints)
            log_event(LOG_INFO, NULL, err, "mirror cannot serve %s/%s, trying the next one",
                      r->ref.domain, r->ref.path);
    }
    return -1;
}

/* ---- blobs ---- */

struct blob_stream {
    const struct descriptor *blob;
    http_body_fn sink;
    void *arg;
    struct hasher *hasher;
    uint64_t delivered;
    uint64_t skip; /* bytes of the answer at hand that were delivered before */
    bool started;  /* the answer at hand has begun */
    bool sink_failed;
    const struct http_response *resp;
};

static int on_blob(void *arg, const void *bytes, size_t n, struct err *err)
{
    struct blob_stream *s = arg;
    const uint8_t *p = bytes;
    if (!s->started) {
        s->started = true;
        s->skip = s->resp->status == 206 ? 0 : s->delivered;
        if (s->resp->status == 206 && s->resp->range_start != s->delivered)
            return err_set(err, ERR_PROTOCOL, "answer begins at another byte than asked for");
    }
    if (s->skip > 0) {
        size_t drop = s->skip < n ? (size_t)s->skip : n;
        s->skip -= drop;
        p += drop;
        n -= drop;
    }
    if (n > s->blob->size - s->delivered)
        return err_set(err, ERR_PROTOCOL, "blob is longer than the %llu bytes of its descriptor",
                       (unsigned long long)s->blob->size);
    if (n == 0)
        return 0;
    hasher_update(s->hasher, p, n);
    s->delivered += n;
    if (s->sink(s->arg, p, n, err) != 0) {
        s->sink_failed = true;
        return -1;
    }
    return 0;
}

/* One request for the rest of the blob. 0 when it is complete. */
static int get_rest(struct registry *r, struct http_client *client, struct endpoint *e,
                    struct blob_stream *s, struct http_response *resp, struct err *err)
{
    char path[DIGEST_TEXT_SIZE + 16];
    (void)snprintf(path, sizeof(path), "blobs/%s", s->blob->digest);
    struct request q = {.path = path,
                        .offset = s->delivered,
                        .on_body = on_blob,
                        .on_body_arg = s,
                        .max_body = UINT64_MAX};
    s->started = false;
    s->resp = resp;
    if (ask(r, client, e, &q, resp, err) < 0)
        return -1;
    if (resp->status != 200 && resp->status != 206)
        return status_error(resp, err);
    if (s->delivered != s->blob->size)
        return err_set(err, ERR_UNAVAILABLE, "blob ends after %llu of %llu bytes",
                       (unsigned long long)s->delivered, (unsigned long long)s->blob->size);
    return 0;
}

static int stream_blob(struct registry *r, struct http_client *client, struct blob_stream *s,
                       struct http_response *resp, struct err *err)
{
    (void)pthread_mutex_lock(&r->lock);
    size_t first = r->preferred;
    (void)pthread_mutex_unlock(&r->lock);
    for (size_t i = 0; i < r->n_endpoints; i++) {
        struct endpoint *e = &r->endpoints[(first + i) % r->n_endpoints];
        unsigned tries = 0;
        for (;;) {
            uint64_t before = s->delivered;
            if (get_rest(r, client, e, s, resp, err) == 0)
                return 0;
            if (s->sink_failed || is_final(err))
                return -1;
            if (!try_again(r, e, resp, &tries, s->delivered - before >= MUCH_BYTES, err))
                break;
        }
        (void)err_prefix(err, "%s", e->base);
        if (is_final(err))
            return -1;
    }
    return -1;
}

int registry_get_blob(struct registry *r, struct http_client *client, const struct descriptor *blob,
                      http_body_fn sink, void *arg, struct err *err)
{
    struct err local = {0};
    uint8_t raw[DIGEST_BYTES];
    char digest[DIGEST_TEXT_SIZE];
    cleanup_hasher struct hasher *hasher = NULL;
    cleanup_free struct http_response *resp = calloc(1, sizeof(*resp));
    err = err == NULL ? &local : err;
    if (resp == NULL)
        return err_no_memory(err);
    if (hasher_new(&hasher, err) < 0)
        return -1;
    struct blob_stream s = {.blob = blob, .sink = sink, .arg = arg, .hasher = hasher};
    if (blob->size > 0 && stream_blob(r, client, &s, resp, err) < 0)
        return s.sink_failed ? -1 : err_prefix(err, "blob %s", blob->digest);
    hasher_final(hasher, raw);
    digest_format(raw, digest);
    if (strcmp(digest, blob->digest) != 0)
        return err_set(err, ERR_PROTOCOL, "blob %s: what was sent has digest %s", blob->digest,
                       digest);
    return 0;
}
