/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model for the tests of host/cri: the functions of host/sandbox/sandbox.h and host/image/image.h
 * that it calls, which note what they were given and answer what the test has put into `model`. The
 * real ones stay in their archive: the linker takes these first (Makefile, tests/unit/host/cri).
 */
#pragma once

#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <setjmp.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/text.h"
#include "host/image/image.h"
#include "host/sandbox/sandbox.h"

#define POD_ID    "1111111111111111111111111111111111111111111111111111111111111111"
#define OTHER_POD "2222222222222222222222222222222222222222222222222222222222222222"
#define CTR_ID    "3333333333333333333333333333333333333333333333333333333333333333"
#define IMAGE_ID  "sha256:4444444444444444444444444444444444444444444444444444444444444444"

static struct {
    /* What comes back. */
    enum err_code failure; /* of every call, unless NONE */
    const char *words;
    bool wait_for_deadline; /* a call returns only when its deadline has passed */
    struct sandbox_info pods[2];
    size_t n_pods;
    struct sandbox_container_info container;
    struct image image;
    bool image_missing;
    struct sandbox_exec_output output;

    /* What was asked. */
    int calls;
    const char *name; /* of the last function */
    char id[128];
    char text[128]; /* a second text: handler, reference, path */
    int64_t deadline_ms;
    int64_t seconds;
    int64_t bytes;
    struct image_auth auth;
    bool has_auth;

    /* What was given out and taken back. */
    int given;
    int released;
} model;

static void model_events_reset(void);

static inline void model_reset(void)
{
    memset(&model, 0, sizeof(model));
    model.words = "the model says so";
    model_events_reset();
}

static inline int model_called(const char *name, const char *id, struct err *err)
{
    model.calls++;
    model.name = name;
    (void)snprintf(model.id, sizeof(model.id), "%s", text_or_empty(id));
    if (model.failure != ERR_NONE)
        return err_set(err, model.failure, "%s", model.words);
    return 0;
}

static inline void model_text(const char *text)
{
    (void)snprintf(model.text, sizeof(model.text), "%s", text_or_empty(text));
}

static inline void model_deadline(int64_t deadline_ms)
{
    model.deadline_ms = deadline_ms;
    while (model.wait_for_deadline && clock_monotonic_ms() <= deadline_ms)
        ;
}

/* ---- pods ---- */

int sandbox_run(struct sandbox_manager *mgr, const Runtime__V1__PodSandboxConfig *config,
                const char *runtime_handler, int64_t deadline_ms, char ret_id[SANDBOX_ID_SIZE],
                struct err *err)
{
    (void)mgr;
    model_deadline(deadline_ms);
    model_text(runtime_handler);
    if (model_called("sandbox_run", config->metadata->name, err) < 0)
        return -1;
    memcpy(ret_id, POD_ID, SANDBOX_ID_SIZE);
    return 0;
}

int sandbox_stop(struct sandbox_manager *mgr, const char *id, int64_t deadline_ms, struct err *err)
{
    (void)mgr;
    model_deadline(deadline_ms);
    return model_called("sandbox_stop", id, err);
}

int sandbox_remove(struct sandbox_manager *mgr, const char *id, int64_t deadline_ms,
                   struct err *err)
{
    (void)mgr;
    model_deadline(deadline_ms);
    return model_called("sandbox_remove", id, err);
}

int sandbox_update(struct sandbox_manager *mgr, const char *id,
                   const Runtime__V1__LinuxContainerResources *overhead,
                   const Runtime__V1__LinuxContainerResources *resources, int64_t deadline_ms,
                   struct err *err)
{
    (void)mgr;
    (void)overhead;
    model_deadline(deadline_ms);
    model.bytes = resources == NULL ? -1 : resources->memory_limit_in_bytes;
    return model_called("sandbox_update", id, err);
}

int sandbox_timeline(struct sandbox_manager *mgr, const char *id,
                     struct timeline_step ret_steps[TIMELINE_STEPS], unsigned *ret_n,
                     struct err *err)
{
    (void)mgr;
    (void)id;
    (void)err;
    ret_steps[0] =
        (struct timeline_step){.name = "machine", .from_us = 10, .to_us = 250, .cpu_us = -1};
    *ret_n = 1;
    return 0;
}

void sandbox_phases(struct sandbox_manager *mgr, struct phase_histogram ret_histograms[PHASES])
{
    (void)mgr;
    memset(ret_histograms, 0, PHASES * sizeof(ret_histograms[0]));
    for (size_t i = 0; i < PHASES; i++) {
        ret_histograms[i].name = i == PHASE_POD ? "pod" : "other";
        ret_histograms[i].bounds_us[0] = 1000;
    }
    ret_histograms[PHASE_POD].counts[PHASE_BUCKETS] = 5;
}

int sandbox_status(struct sandbox_manager *mgr, const char *id, struct sandbox_info *ret_info,
                   struct err *err)
{
    (void)mgr;
    if (model_called("sandbox_status", id, err) < 0)
        return -1;
    *ret_info = model.pods[0];
    ret_info->owner_ = &model;
    model.given++;
    return 0;
}

void sandbox_info_fini(struct sandbox_info *info)
{
    if (info->owner_ != NULL)
        model.released++;
}

int sandbox_list(struct sandbox_manager *mgr, const Runtime__V1__PodSandboxFilter *filter,
                 struct sandbox_list *ret_list, struct err *err)
{
    (void)mgr;
    if (model_called("sandbox_list", filter == NULL ? "" : filter->id, err) < 0)
        return -1;
    *ret_list = (struct sandbox_list){.items = model.pods, .n = model.n_pods};
    model.given++;
    return 0;
}

void sandbox_list_fini(struct sandbox_list *list)
{
    if (list->items != NULL)
        model.released++;
}

/* ---- containers ---- */

int sandbox_container_create(struct sandbox_manager *mgr, const char *pod_id,
                             const Runtime__V1__ContainerConfig *config,
                             const Runtime__V1__PodSandboxConfig *pod_config, int64_t deadline_ms,
                             char ret_id[SANDBOX_ID_SIZE], struct err *err)
{
    (void)mgr;
    (void)pod_config;
    model_deadline(deadline_ms);
    model_text(config->metadata->name);
    if (model_called("sandbox_container_create", pod_id, err) < 0)
        return -1;
    memcpy(ret_id, CTR_ID, SANDBOX_ID_SIZE);
    return 0;
}

int sandbox_container_start(struct sandbox_manager *mgr, const char *id, int64_t deadline_ms,
                            struct err *err)
{
    (void)mgr;
    model_deadline(deadline_ms);
    return model_called("sandbox_container_start", id, err);
}

int sandbox_container_stop(struct sandbox_manager *mgr, const char *id, int64_t grace_s,
                           int64_t deadline_ms, struct err *err)
{
    (void)mgr;
    model_deadline(deadline_ms);
    model.seconds = grace_s;
    return model_called("sandbox_container_stop", id, err);
}

int sandbox_container_remove(struct sandbox_manager *mgr, const char *id, int64_t deadline_ms,
                             struct err *err)
{
    (void)mgr;
    model_deadline(deadline_ms);
    return model_called("sandbox_container_remove", id, err);
}

int sandbox_container_status(struct sandbox_manager *mgr, const char *id,
                             struct sandbox_container_info *ret_info, struct err *err)
{
    (void)mgr;
    if (model_called("sandbox_container_status", id, err) < 0)
        return -1;
    *ret_info = model.container;
    ret_info->owner_ = &model;
    model.given++;
    return 0;
}

void sandbox_container_info_fini(struct sandbox_container_info *info)
{
    if (info->owner_ != NULL)
        model.released++;
}

int sandbox_container_list(struct sandbox_manager *mgr, const Runtime__V1__ContainerFilter *filter,
                           struct sandbox_container_list *ret_list, struct err *err)
{
    (void)mgr;
    if (model_called("sandbox_container_list", filter == NULL ? "" : filter->id, err) < 0)
        return -1;
    *ret_list = (struct sandbox_container_list){.items = &model.container, .n = 1};
    model.given++;
    return 0;
}

void sandbox_container_list_fini(struct sandbox_container_list *list)
{
    if (list->items != NULL)
        model.released++;
}

int sandbox_container_exec(struct sandbox_manager *mgr, const struct sandbox_exec *spec,
                           struct sandbox_exec_output *ret_output, struct err *err)
{
    (void)mgr;
    model_deadline(spec->deadline_ms);
    model.seconds = spec->timeout_s;
    model_text(spec->args[spec->n_args - 1]);
    if (model_called("sandbox_container_exec", spec->container_id, err) < 0)
        return -1;
    *ret_output = model.output;
    model.given++;
    return 0;
}

void sandbox_exec_output_fini(struct sandbox_exec_output *output)
{
    if (output->out != NULL)
        model.released++;
}

int sandbox_container_reopen_log(struct sandbox_manager *mgr, const char *id, struct err *err)
{
    (void)mgr;
    return model_called("sandbox_container_reopen_log", id, err);
}

int sandbox_fs_info(struct sandbox_manager *mgr, struct sandbox_fs_info *ret_info, struct err *err)
{
    (void)mgr;
    if (model_called("sandbox_fs_info", NULL, err) < 0)
        return -1;
    *ret_info =
        (struct sandbox_fs_info){.used_bytes = 111, .inodes = 11, .mountpoint = "/state/pods"};
    return 0;
}

/* ---- events: of the first pod, with the container ---- */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    unsigned queued; /* events that wait */
    bool lost, watched, stopped;
} events = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};

static void model_events_reset(void)
{
    events.queued = 0;
    events.lost = events.watched = events.stopped = false;
}

static inline void model_happen(unsigned n, bool lost)
{
    pthread_mutex_lock(&events.lock);
    assert_true(events.watched);
    events.queued += n;
    events.lost = lost;
    pthread_cond_broadcast(&events.cond);
    pthread_mutex_unlock(&events.lock);
}

static inline unsigned model_events_queued(void)
{
    pthread_mutex_lock(&events.lock);
    unsigned n = events.queued;
    pthread_mutex_unlock(&events.lock);
    return n;
}

static inline bool model_is_watched(void)
{
    pthread_mutex_lock(&events.lock);
    bool watched = events.watched;
    pthread_mutex_unlock(&events.lock);
    return watched;
}

int sandbox_events_watch(struct sandbox_manager *mgr, bool watched, struct err *err)
{
    (void)mgr;
    (void)err;
    pthread_mutex_lock(&events.lock);
    events.watched = watched;
    pthread_mutex_unlock(&events.lock);
    return 0;
}

bool sandbox_events_next(struct sandbox_manager *mgr, struct sandbox_event *ret_event)
{
    (void)mgr;
    pthread_mutex_lock(&events.lock);
    while (events.queued == 0 && !events.stopped)
        pthread_cond_wait(&events.cond, &events.lock);
    bool stopped = events.stopped;
    if (!stopped) {
        events.queued--;
        *ret_event = (struct sandbox_event){
            .type = RUNTIME__V1__CONTAINER_EVENT_TYPE__CONTAINER_STOPPED_EVENT,
            .id = CTR_ID,
            .time_ns = 77,
            .lost = events.lost,
            .pod = model.pods[0],
            .containers = {.items = &model.container, .n = 1},
        };
        model.given++;
    }
    pthread_mutex_unlock(&events.lock);
    return !stopped;
}

void sandbox_event_fini(struct sandbox_event *event)
{
    (void)event;
    model.released++;
}

void sandbox_events_stop(struct sandbox_manager *mgr)
{
    (void)mgr;
    pthread_mutex_lock(&events.lock);
    events.stopped = true;
    pthread_cond_broadcast(&events.cond);
    pthread_mutex_unlock(&events.lock);
}

/* ---- images ---- */

int image_pull(struct image_service *svc, const struct image_pull_spec *spec, char **ret_id,
               struct err *err)
{
    const struct image_progress progress = {.reference = "docker.io/library/x:1",
                                            .bytes_done = 5,
                                            .bytes_total = 10,
                                            .layers_done = 1,
                                            .layers_total = 2};
    (void)svc;
    model_deadline(spec->deadline_ms);
    model.has_auth = spec->auth != NULL;
    if (spec->auth != NULL)
        model.auth = *spec->auth;
    if (spec->progress != NULL)
        spec->progress(spec->arg, &progress);
    assert_false(spec->cancelled(spec->arg));
    if (model_called("image_pull", spec->reference, err) < 0)
        return -1;
    *ret_id = strdup(IMAGE_ID);
    return *ret_id == NULL ? err_no_memory(err) : 0;
}

int image_import(struct image_service *svc, const struct image_import_spec *spec, char ***ret_ids,
                 size_t *ret_n, struct err *err)
{
    const struct image_progress progress = {.reference = "docker.io/library/x:1", .bytes_done = 7};
    (void)svc;
    model_text(spec->reference);
    spec->progress(spec->arg, &progress);
    if (model_called("image_import", spec->path, err) < 0)
        return -1;
    *ret_ids = calloc(2, sizeof(char *));
    assert_non_null(*ret_ids);
    (*ret_ids)[0] = strdup(IMAGE_ID);
    (*ret_ids)[1] = strdup("sha256:other");
    *ret_n = 2;
    return 0;
}

void image_ids_free(char **ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(ids[i]);
    free(ids);
}

int image_get(struct image_service *svc, const char *name_or_id, struct image **ret_image,
              struct err *err)
{
    (void)svc;
    if (model_called("image_get", name_or_id, err) < 0)
        return -1;
    if (model.image_missing)
        return err_set(err, ERR_NOT_FOUND, "image '%s' not found", name_or_id);
    *ret_image = &model.image;
    model.given++;
    return 0;
}

void image_unref(struct image *image)
{
    if (image != NULL)
        model.released++;
}

int image_list(struct image_service *svc, struct image_list *ret_list, struct err *err)
{
    (void)svc;
    if (model_called("image_list", NULL, err) < 0)
        return -1;
    ret_list->items = calloc(2, sizeof(struct image *));
    assert_non_null(ret_list->items);
    ret_list->items[0] = ret_list->items[1] = &model.image;
    ret_list->n = 2;
    model.given++;
    return 0;
}

void image_list_fini(struct image_list *list)
{
    if (list->items != NULL)
        model.released++;
    free(list->items);
    list->items = NULL;
}

int image_remove(struct image_service *svc, const char *name_or_id, struct err *err)
{
    (void)svc;
    return model_called("image_remove", name_or_id, err);
}

int image_fs_info(struct image_service *svc, struct image_fs_info *ret_info, struct err *err)
{
    (void)svc;
    if (model_called("image_fs_info", NULL, err) < 0)
        return -1;
    *ret_info =
        (struct image_fs_info){.used_bytes = 222, .inodes = 22, .mountpoint = "/state/images"};
    return 0;
}
