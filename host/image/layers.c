/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Worker threads take the next layer from the top of a counter until none is left or one has
 * failed. Each has an HTTP client and, per layer, a converter: sink = hash (in the source) and
 * forward, nothing else. The first failure is the job's error; the others see it as a cancellation
 * within 100 ms.
 *
 * The file gets its name before its record exists, and the record before the lease can end: a crash
 * in between leaves a file that the next start deletes.
 */
#include "host/image/layers.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "host/image/converter.h"

enum { PROGRESS_MS = 100, CONVERTER_WORKERS = 1, THREAD_STACK = 512 * 1024 };

struct layers_job {
    struct layers_spec spec;
    struct http_limits limits; /* the spec's, and "another layer failed" */
    pthread_mutex_t lock;
    size_t next; /* guarded by lock, like all below */
    bool failed;
    struct err err;
    struct image_progress progress;
    int64_t progress_at_ms; /* of the last call */
    bool *leased;
};

/* One layer on its way. */
struct transfer {
    struct layers_job *job;
    struct converter *converter;
};

static bool job_cancelled(void *arg)
{
    struct layers_job *job = arg;
    (void)pthread_mutex_lock(&job->lock);
    bool failed = job->failed;
    (void)pthread_mutex_unlock(&job->lock);
    const struct http_limits *outer = &job->spec.limits;
    return failed || (outer->cancelled != NULL && outer->cancelled(outer->arg));
}

/* Adds to the progress and reports it, but not too often. */
static void advance(struct layers_job *job, uint64_t bytes, unsigned layers)
{
    (void)pthread_mutex_lock(&job->lock);
    int64_t now = clock_monotonic_ms();
    job->progress.bytes_done += bytes;
    job->progress.layers_done += layers;
    if (job->spec.progress != NULL && (layers > 0 || now - job->progress_at_ms >= PROGRESS_MS)) {
        job->progress_at_ms = now;
        job->spec.progress(job->spec.progress_arg, &job->progress);
    }
    (void)pthread_mutex_unlock(&job->lock);
}

static int forward(void *arg, const void *bytes, size_t n, struct err *err)
{
    struct transfer *t = arg;
    if (converter_feed(t->converter, bytes, n, err) < 0)
        return -1;
    advance(t->job, n, 0);
    return 0;
}

static int convert(struct layers_job *job, size_t i, int out_fd, struct http_client *client,
                   struct convert_result *ret_result, struct err *err)
{
    cleanup_converter struct converter *converter = NULL;
    char digest[DIGEST_TEXT_SIZE];
    struct converter_spec spec;
    converter_spec_init(&spec, &job->spec.svc->config, out_fd, &job->limits);
    spec.workers = CONVERTER_WORKERS;
    if (converter_start(&spec, &converter, err) < 0)
        return -1;
    struct transfer t = {.job = job, .converter = converter};
    if (job->spec.get_blob(job->spec.source, client, &job->spec.blobs[i], forward, &t, err) < 0 ||
        converter_finish(converter, ret_result, err) < 0)
        return -1;
    digest_format(ret_result->diff_id, digest);
    if (strcmp(digest, job->spec.diff_ids[i]) != 0)
        return err_set(err, ERR_PROTOCOL, "unpacks to %s instead of %s", digest,
                       job->spec.diff_ids[i]);
    return 0;
}

/* Brings a layer that is leased to be fetched. */
static int fetch_layer(struct layers_job *job, size_t i, struct http_client *client,
                       struct err *err)
{
    struct image_service *svc = job->spec.svc;
    const char *diff_id = job->spec.diff_ids[i];
    char name[CONTENT_NAME_SIZE];
    struct convert_result result;
    cleanup_fd int fd = -1;
    if (content_ingest(svc->content, name, &fd, err) < 0)
        return -1;
    if (convert(job, i, fd, client, &result, err) < 0 ||
        content_commit(svc->content, name, fd, diff_id, err) < 0) {
        content_discard(svc->content, name);
        return -1;
    }
    if (result.xattrs_dropped > 0)
        log_info("layer %s: %u extended attributes or ACLs cannot be carried, dropped", diff_id,
                 result.xattrs_dropped);
    if (catalog_layer_done(svc->catalog, diff_id, result.image_bytes, result.flags, err) < 0) {
        (void)content_remove_layer(svc->content, diff_id, NULL);
        return -1;
    }
    return 0;
}

static int bring_layer(struct layers_job *job, size_t i, struct http_client *client,
                       struct err *err)
{
    enum catalog_lease lease;
    struct catalog *catalog = job->spec.svc->catalog;
    const char *diff_id = job->spec.diff_ids[i];
    if (catalog_lease_layer(catalog, diff_id, &job->limits, &lease, err) < 0)
        return -1;
    if (lease == CATALOG_FETCH && fetch_layer(job, i, client, err) < 0) {
        catalog_layer_failed(catalog, diff_id);
        catalog_unlease(catalog, diff_id);
        return err_prefix(err, "layer %zu of %zu", i + 1, job->spec.n);
    }
    (void)pthread_mutex_lock(&job->lock);
    job->leased[i] = true;
    (void)pthread_mutex_unlock(&job->lock);
    log_debug("%s: layer %zu of %zu, %s, %s", job->spec.reference, i + 1, job->spec.n, diff_id,
              lease == CATALOG_PRESENT ? "is here" : "was fetched");
    advance(job, lease == CATALOG_PRESENT ? job->spec.blobs[i].size : 0, 1);
    return 0;
}

static void fail_job(struct layers_job *job, const struct err *err)
{
    (void)pthread_mutex_lock(&job->lock);
    if (!job->failed) {
        job->failed = true;
        job->err = *err;
    }
    (void)pthread_mutex_unlock(&job->lock);
}

static bool take_next(struct layers_job *job, size_t *ret_index)
{
    (void)pthread_mutex_lock(&job->lock);
    bool some = !job->failed && job->next < job->spec.n;
    if (some)
        *ret_index = job->next++;
    (void)pthread_mutex_unlock(&job->lock);
    return some;
}

static void *work(void *arg)
{
    struct layers_job *job = arg;
    struct err err = {0};
    size_t i = 0;
    cleanup_http_client struct http_client *client = NULL;
    if (http_client_new(&client, &err) < 0) {
        fail_job(job, &err);
        return NULL;
    }
    while (take_next(job, &i))
        if (bring_layer(job, i, client, &err) < 0)
            fail_job(job, &err);
    return NULL;
}

static void run_workers(struct layers_job *job)
{
    pthread_t threads[16];
    size_t n = 0;
    size_t wanted = job->spec.svc->config.limits.parallel;
    pthread_attr_t attr;
    if (wanted > job->spec.n)
        wanted = job->spec.n;
    (void)pthread_attr_init(&attr);
    (void)pthread_attr_setstacksize(&attr, THREAD_STACK);
    while (n + 1 < wanted && n < ARRAY_SIZE(threads))
        if (pthread_create(&threads[n], &attr, work, job) == 0)
            n++;
        else
            break; /* fewer will do */
    (void)pthread_attr_destroy(&attr);
    (void)work(job);
    for (size_t i = 0; i < n; i++)
        (void)pthread_join(threads[i], NULL);
}

int layers_run(const struct layers_spec *spec, struct layers_job **ret_job, struct err *err)
{
    struct layers_job *job = calloc(1, sizeof(*job));
    if (job == NULL || (job->leased = calloc(spec->n + 1, sizeof(bool))) == NULL) {
        free(job);
        return err_no_memory(err);
    }
    (void)pthread_mutex_init(&job->lock, NULL);
    job->spec = *spec;
    job->limits = spec->limits;
    job->limits.cancelled = job_cancelled;
    job->limits.arg = job;
    job->progress.reference = spec->reference;
    job->progress.layers_total = (unsigned)spec->n;
    for (size_t i = 0; i < spec->n; i++)
        job->progress.bytes_total += spec->blobs[i].size;
    run_workers(job);
    if (job->failed) {
        if (err != NULL)
            *err = job->err;
        layers_free(job);
        return -1;
    }
    *ret_job = job;
    return 0;
}

void layers_free(struct layers_job *job)
{
    if (job == NULL)
        return;
    for (size_t i = 0; i < job->spec.n; i++)
        if (job->leased[i])
            catalog_unlease(job->spec.svc->catalog, job->spec.diff_ids[i]);
    (void)pthread_mutex_destroy(&job->lock);
    free(job->leased);
    free(job);
}
