/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. A record is built from the object's fields under its mutex and stored
 * outside of it; the save_mutex around both makes the record that is stored last the newest one,
 * whichever threads save at the same time. Disk writes take place with no lock but that.
 *
 * In-memory states that only exist while something is under way are stored as what a successor
 * should start from: STOPPING as READY (the VM may live), STARTING as CREATED (the guest knows).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/text.h"
#include "host/sandbox/records.h"

#define KIND_POD       "pod"
#define KIND_CONTAINER "container"
#define RECORD_VERSION 1

static char *unconst(const char *text)
{
    return (char *)(uintptr_t)text_or_empty(text);
}

static Casemate__State__V1__PodPhase pod_phase(enum pod_state state)
{
    switch (state) {
    case POD_CREATING:
        return CASEMATE__STATE__V1__POD_PHASE__POD_CREATING;
    case POD_READY:
    case POD_STOPPING:
        return CASEMATE__STATE__V1__POD_PHASE__POD_READY;
    case POD_STOPPED:
        return CASEMATE__STATE__V1__POD_PHASE__POD_STOPPED;
    case POD_REMOVING:
        return CASEMATE__STATE__V1__POD_PHASE__POD_REMOVING;
    }
    return CASEMATE__STATE__V1__POD_PHASE__POD_UNKNOWN;
}

static Casemate__State__V1__ContainerPhase container_phase(enum container_state state)
{
    switch (state) {
    case CTR_CREATING:
        return CASEMATE__STATE__V1__CONTAINER_PHASE__CONTAINER_CREATING;
    case CTR_CREATED:
    case CTR_STARTING:
        return CASEMATE__STATE__V1__CONTAINER_PHASE__CONTAINER_CREATED;
    case CTR_RUNNING:
        return CASEMATE__STATE__V1__CONTAINER_PHASE__CONTAINER_RUNNING;
    case CTR_EXITED:
        return CASEMATE__STATE__V1__CONTAINER_PHASE__CONTAINER_EXITED;
    case CTR_REMOVING:
        return CASEMATE__STATE__V1__CONTAINER_PHASE__CONTAINER_REMOVING;
    }
    return CASEMATE__STATE__V1__CONTAINER_PHASE__CONTAINER_UNKNOWN;
}

struct bytes {
    uint8_t *data;
    size_t n;
};

static int pack(const ProtobufCMessage *message, struct bytes *ret_bytes, struct err *err)
{
    size_t n = protobuf_c_message_get_packed_size(message);
    uint8_t *data = malloc(n + 1);

    if (data == NULL)
        return err_no_memory(err);
    protobuf_c_message_pack(message, data);
    *ret_bytes = (struct bytes){.data = data, .n = n};
    return 0;
}

/* The timeline as the record has it; the messages point into the steps. */
struct timeline_record {
    struct timeline_step steps[TIMELINE_STEPS];
    Casemate__State__V1__TimelineStep messages[TIMELINE_STEPS];
    Casemate__State__V1__TimelineStep *list[TIMELINE_STEPS];
};

static void take_timeline(struct pod *pod, struct timeline_record *t,
                          Casemate__State__V1__SandboxRecord *record)
{
    unsigned n;

    record->timeline_began_ns = timeline_copy(&pod->timeline, t->steps, &n);
    for (unsigned i = 0; i < n; i++) {
        casemate__state__v1__timeline_step__init(&t->messages[i]);
        t->messages[i].name = t->steps[i].name;
        t->messages[i].from_us = t->steps[i].from_us;
        t->messages[i].to_us = t->steps[i].to_us;
        t->messages[i].cpu_us = t->steps[i].cpu_us;
        t->list[i] = &t->messages[i];
    }
    record->timeline = t->list;
    record->n_timeline = n;
}

static void give_timeline(struct pod *pod, const Casemate__State__V1__SandboxRecord *record)
{
    struct timeline_step steps[TIMELINE_STEPS] = {0};
    unsigned n = 0;

    for (; n < record->n_timeline && n < TIMELINE_STEPS; n++) {
        const Casemate__State__V1__TimelineStep *from = record->timeline[n];
        (void)snprintf(steps[n].name, sizeof(steps[n].name), "%.*s", TIMELINE_NAME_SIZE - 1,
                       from->name);
        steps[n].from_us = from->from_us;
        steps[n].to_us = from->to_us;
        steps[n].cpu_us = from->cpu_us;
    }
    timeline_restore(&pod->timeline, record->timeline_began_ns, steps, n);
}

static int pack_pod(struct pod *pod, struct bytes *ret_bytes, struct err *err)
{
    Casemate__State__V1__SandboxRecord record;
    struct timeline_record timeline;
    struct bytes config = {0}, resources = {0};
    struct container_limits *limits;
    int result = -1;

    pthread_mutex_lock(&pod->mutex);
    limits = container_limits_ref(pod->limits);
    pthread_mutex_unlock(&pod->mutex);
    casemate__state__v1__sandbox_record__init(&record);
    take_timeline(pod, &timeline, &record);
    if (pack(&pod->facts->config->base, &config, err) != 0 ||
        (limits != NULL && pack(&limits->message->base, &resources, err) != 0))
        goto out;
    pthread_mutex_lock(&pod->mutex);
    record.id = pod->facts->id;
    record.phase = pod_phase(pod->state);
    record.created_ns = pod->facts->created_ns;
    record.runtime_handler = pod->facts->runtime_handler;
    record.config.data = config.data;
    record.config.len = config.n;
    record.vm = unconst(pod->vm_record);
    record.reason = unconst(pod->reason);
    record.message = unconst(pod->message);
    record.boot_id = pod->boot_id;
    record.guest_kernel = pod->guest_kernel;
    record.boot_ms = pod->boot_ms;
    record.cgroups = pod->cgroups;
    record.n_cgroups = pod->n_cgroups;
    record.resources.data = resources.data;
    record.resources.len = resources.n;
    result = pack(&record.base, ret_bytes, err);
    pthread_mutex_unlock(&pod->mutex);
out:
    free(config.data);
    free(resources.data);
    container_limits_unref(limits);
    return result;
}

static bool is_spare(struct pod *pod)
{
    bool spare;

    pthread_mutex_lock(&pod->mutex);
    spare = pod->spare;
    pthread_mutex_unlock(&pod->mutex);
    return spare;
}

int pod_save(struct pod *pod, struct err *err)
{
    struct bytes bytes = {0};
    int result;

    if (is_spare(pod))
        return 0;

    pthread_mutex_lock(&pod->save_mutex);
    if (pod->forgotten) {
        pthread_mutex_unlock(&pod->save_mutex);
        return 0;
    }
    result = pack_pod(pod, &bytes, err);
    if (result == 0)
        result = store_put(pod->mgr->deps.store, KIND_POD, pod->facts->id, RECORD_VERSION,
                           bytes.data, bytes.n, err);
    pthread_mutex_unlock(&pod->save_mutex);
    free(bytes.data);
    return result == 0 ? 0 : err_prefix(err, "pod record");
}

static int pack_container(struct container *c, struct bytes *ret_bytes, struct err *err)
{
    const struct container_facts *facts = c->facts;
    Casemate__State__V1__ContainerRecord record;
    struct bytes config = {0}, process = {0}, resources = {0};
    struct container_limits *limits;
    int result = -1;

    pthread_mutex_lock(&c->pod->mutex);
    limits = container_limits_ref(c->next_limits != NULL ? c->next_limits : c->limits);
    pthread_mutex_unlock(&c->pod->mutex);

    casemate__state__v1__container_record__init(&record);
    if (pack(&facts->config->base, &config, err) != 0 ||
        (facts->process != NULL && pack(&facts->process->base, &process, err) != 0) ||
        (limits != NULL && pack(&limits->message->base, &resources, err) != 0))
        goto out;
    record.id = unconst(facts->id);
    record.pod_id = unconst(facts->pod_id);
    record.created_ns = facts->created_ns;
    record.config.data = config.data;
    record.config.len = config.n;
    record.process.data = process.data;
    record.process.len = process.n;
    record.resources.data = resources.data;
    record.resources.len = resources.n;
    record.image_id = unconst(facts->image_id);
    record.image_ref = unconst(facts->image_ref);
    record.stop_signal = facts->stop_signal;
    record.has_user = facts->has_user;
    record.uid = facts->uid;
    record.gid = facts->gid;
    record.disks = facts->disks;
    record.n_disks = facts->n_disks;
    pthread_mutex_lock(&c->pod->mutex);
    record.phase = container_phase(c->state);
    record.started_ns = c->started_ns;
    record.finished_ns = c->finished_ns;
    record.exit_code = c->exit_code;
    record.reason = unconst(c->reason);
    record.message = unconst(c->message);
    result = pack(&record.base, ret_bytes, err);
    pthread_mutex_unlock(&c->pod->mutex);
out:
    free(config.data);
    free(process.data);
    free(resources.data);
    container_limits_unref(limits);
    return result;
}

int container_save(struct container *c, struct err *err)
{
    struct bytes bytes = {0};
    int result;

    pthread_mutex_lock(&c->pod->save_mutex);
    if (c->forgotten || c->pod->forgotten) {
        pthread_mutex_unlock(&c->pod->save_mutex);
        return 0;
    }
    result = pack_container(c, &bytes, err);
    if (result == 0)
        result = store_put(c->pod->mgr->deps.store, KIND_CONTAINER, c->facts->id, RECORD_VERSION,
                           bytes.data, bytes.n, err);
    pthread_mutex_unlock(&c->pod->save_mutex);
    free(bytes.data);
    return result == 0 ? 0 : err_prefix(err, "container record");
}

/*
 * Whoever saw the end of a pod or a container first may still be about to store it when another
 * already forgets it: what is forgotten is not stored again. Marked before the deletion and outside
 * of its transaction, which a save that waits for the store would otherwise wait for in turn.
 */
static void mark_forgotten(pthread_mutex_t *save_mutex, bool *mark, bool forgotten)
{
    pthread_mutex_lock(save_mutex);
    *mark = forgotten;
    pthread_mutex_unlock(save_mutex);
}

static int delete_pod_records(struct pod *pod, struct err *err)
{
    struct store *store = pod->mgr->deps.store;
    struct container *c;
    int result = 0;

    if (store_begin(store, err) != 0)
        return -1;
    /* REMOVING and no operation under way: the list does not change any more. */
    TAILQ_FOREACH (c, &pod->containers, entry) {
        if (result == 0)
            result = store_delete(store, KIND_CONTAINER, c->facts->id, err);
    }
    if (result == 0)
        result = store_delete(store, KIND_POD, pod->facts->id, err);
    if (result != 0) {
        store_rollback(store);
        return -1;
    }
    return store_commit(store, err);
}

int pod_delete_records(struct pod *pod, struct err *err)
{
    mark_forgotten(&pod->save_mutex, &pod->forgotten, true);
    if (delete_pod_records(pod, err) == 0)
        return 0;
    mark_forgotten(&pod->save_mutex, &pod->forgotten, false);
    return -1;
}

int container_delete_record(struct container *c, struct err *err)
{
    mark_forgotten(&c->pod->save_mutex, &c->forgotten, true);
    if (store_delete(c->pod->mgr->deps.store, KIND_CONTAINER, c->facts->id, err) == 0)
        return 0;
    mark_forgotten(&c->pod->save_mutex, &c->forgotten, false);
    return -1;
}

/* ---- loading ---- */

static int check_version(const char *kind, const char *id, uint32_t version, struct err *err)
{
    if (version > RECORD_VERSION)
        return err_set(err, ERR_UNSUPPORTED,
                       "record %s '%s' has format %u, this release knows up to %d", kind, id,
                       version, RECORD_VERSION);
    return 0;
}

static char **take_strings(char *const *from, size_t n)
{
    char **to = calloc(n + 1, sizeof(char *));

    for (size_t i = 0; to != NULL && i < n; i++)
        to[i] = strdup(from[i]);
    return to;
}

static bool pod_state_of(Casemate__State__V1__PodPhase phase, enum pod_state *ret_state)
{
    switch (phase) {
    case CASEMATE__STATE__V1__POD_PHASE__POD_CREATING:
        *ret_state = POD_CREATING;
        return true;
    case CASEMATE__STATE__V1__POD_PHASE__POD_READY:
        *ret_state = POD_READY;
        return true;
    case CASEMATE__STATE__V1__POD_PHASE__POD_STOPPED:
        *ret_state = POD_STOPPED;
        return true;
    case CASEMATE__STATE__V1__POD_PHASE__POD_REMOVING:
        *ret_state = POD_REMOVING;
        return true;
    default:
        return false;
    }
}

static bool container_state_of(Casemate__State__V1__ContainerPhase phase,
                               enum container_state *ret_state)
{
    switch (phase) {
    case CASEMATE__STATE__V1__CONTAINER_PHASE__CONTAINER_CREATING:
        *ret_state = CTR_CREATING;
        return true;
    case CASEMATE__STATE__V1__CONTAINER_PHASE__CONTAINER_CREATED:
        *ret_state = CTR_CREATED;
        return true;
    case CASEMATE__STATE__V1__CONTAINER_PHASE__CONTAINER_RUNNING:
        *ret_state = CTR_RUNNING;
        return true;
    case CASEMATE__STATE__V1__CONTAINER_PHASE__CONTAINER_EXITED:
        *ret_state = CTR_EXITED;
        return true;
    case CASEMATE__STATE__V1__CONTAINER_PHASE__CONTAINER_REMOVING:
        *ret_state = CTR_REMOVING;
        return true;
    default:
        return false;
    }
}

/* What cannot be read is as before the update, the configuration's: NULL. */
static struct container_limits *load_limits(const ProtobufCBinaryData *bytes)
{
    Runtime__V1__LinuxContainerResources *resources;
    struct container_limits *limits;
    struct err ignored;

    if (bytes->len == 0)
        return NULL;
    resources = runtime__v1__linux_container_resources__unpack(NULL, bytes->len, bytes->data);
    if (resources == NULL)
        return NULL;
    limits = container_limits_new(resources, &ignored);
    runtime__v1__linux_container_resources__free_unpacked(resources, NULL);
    return limits;
}

static int build_pod(struct sandbox_manager *mgr, const Casemate__State__V1__SandboxRecord *record,
                     const Runtime__V1__PodSandboxConfig *config, struct err *err)
{
    struct pod_facts *facts;
    struct pod *pod = NULL;
    enum pod_state state;

    if (!text_is_hex(record->id, SANDBOX_ID_LEN) || config->metadata == NULL ||
        !pod_state_of(record->phase, &state))
        return err_set(err, ERR_PROTOCOL, "id, phase or metadata is not valid");
    facts = pod_facts_new(record->id, record->created_ns, record->runtime_handler, config, err);
    if (facts == NULL)
        return -1;
    if (pod_new(mgr, facts, &pod, err) == 0) {
        pod->state = state;
        pod->announced = state != POD_CREATING;
        set_text(&pod->reason, record->reason);
        set_text(&pod->message, record->message);
        if (*record->vm != '\0')
            set_text(&pod->vm_record, record->vm);
        (void)memccpy(pod->boot_id, record->boot_id, '\0', sizeof(pod->boot_id) - 1);
        (void)memccpy(pod->guest_kernel, record->guest_kernel, '\0', sizeof(pod->guest_kernel) - 1);
        pod->boot_ms = record->boot_ms;
        pod->limits = load_limits(&record->resources);
        give_timeline(pod, record);
        pod->cgroups = take_strings(record->cgroups, record->n_cgroups);
        pod->n_cgroups = pod->cgroups == NULL ? 0 : record->n_cgroups;
    }
    pod_facts_unref(facts);
    if (pod == NULL)
        return -1;
    int result = manager_add_pod(mgr, pod, err);
    pod_unref(pod);
    return result;
}

static int load_pod(void *arg, const char *id, uint32_t version, const void *bytes, size_t n,
                    struct err *err)
{
    Casemate__State__V1__SandboxRecord *record;
    Runtime__V1__PodSandboxConfig *config = NULL;
    struct err why;

    if (check_version(KIND_POD, id, version, err) != 0)
        return -1;
    err_set(&why, ERR_PROTOCOL, "not a record");
    record = casemate__state__v1__sandbox_record__unpack(NULL, n, bytes);
    if (record != NULL)
        config =
            runtime__v1__pod_sandbox_config__unpack(NULL, record->config.len, record->config.data);
    if (config == NULL || strcmp(record->id, id) != 0 ||
        build_pod(arg, record, config, &why) != 0) {
        struct log_ctx ctx = {.sandbox = id};
        log_event(LOG_ERROR, &ctx, &why, "the record of a pod cannot be used, ignoring");
    }
    if (config != NULL)
        runtime__v1__pod_sandbox_config__free_unpacked(config, NULL);
    if (record != NULL)
        casemate__state__v1__sandbox_record__free_unpacked(record, NULL);
    return 0;
}

static struct pod *find_loaded_pod(struct sandbox_manager *mgr, const char *id)
{
    struct pod *pod;

    TAILQ_FOREACH (pod, &mgr->pods, entry) {
        if (strcmp(pod->facts->id, id) == 0)
            return pod;
    }
    return NULL;
}

/* The facts that a record holds beside the configuration. */
static int complete_facts(struct container_facts *facts, const struct pod *pod,
                          const Casemate__State__V1__ContainerRecord *record, struct err *err)
{
    facts->image_id = strdup(record->image_id);
    facts->image_ref = strdup(record->image_ref);
    facts->stop_signal = record->stop_signal;
    facts->has_user = record->has_user;
    facts->uid = record->uid;
    facts->gid = record->gid;
    facts->disks = take_strings(record->disks, record->n_disks);
    facts->n_disks = facts->disks == NULL ? 0 : record->n_disks;
    if (record->process.len > 0)
        facts->process =
            casemate__agent__v1__process__unpack(NULL, record->process.len, record->process.data);
    if (facts->image_id == NULL || facts->image_ref == NULL || facts->disks == NULL)
        return err_no_memory(err);
    return container_facts_set_log_path(facts, pod->facts->config, err);
}

static int build_container(struct sandbox_manager *mgr,
                           const Casemate__State__V1__ContainerRecord *record,
                           const Runtime__V1__ContainerConfig *config, struct err *err)
{
    struct pod *pod = find_loaded_pod(mgr, record->pod_id);
    struct container_facts *facts;
    struct container *c = NULL;
    enum container_state state;

    if (pod == NULL)
        return err_set(err, ERR_NOT_FOUND, "its pod has no record");
    if (!text_is_hex(record->id, SANDBOX_ID_LEN) || config->metadata == NULL ||
        !container_state_of(record->phase, &state))
        return err_set(err, ERR_PROTOCOL, "id, phase or metadata is not valid");
    facts = container_facts_new(record->id, record->pod_id, record->created_ns, config, err);
    if (facts == NULL)
        return -1;
    if (complete_facts(facts, pod, record, err) == 0 && container_new(pod, facts, &c, err) == 0) {
        c->state = state;
        c->started_ns = record->started_ns;
        c->finished_ns = record->finished_ns;
        c->exit_code = record->exit_code;
        set_text(&c->reason, record->reason);
        set_text(&c->message, record->message);
        c->limits = load_limits(&record->resources);
        TAILQ_INSERT_TAIL(&pod->containers, c, entry);
    }
    container_facts_unref(facts);
    return c == NULL ? -1 : 0;
}

static int load_container(void *arg, const char *id, uint32_t version, const void *bytes, size_t n,
                          struct err *err)
{
    struct sandbox_manager *mgr = arg;
    Casemate__State__V1__ContainerRecord *record;
    Runtime__V1__ContainerConfig *config = NULL;
    bool orphan = false;
    struct err why;

    if (check_version(KIND_CONTAINER, id, version, err) != 0)
        return -1;
    err_set(&why, ERR_PROTOCOL, "not a record");
    record = casemate__state__v1__container_record__unpack(NULL, n, bytes);
    if (record != NULL)
        config =
            runtime__v1__container_config__unpack(NULL, record->config.len, record->config.data);
    if (config == NULL || strcmp(record->id, id) != 0 ||
        build_container(mgr, record, config, &why) != 0) {
        struct log_ctx ctx = {.container = id};
        orphan = why.code == ERR_NOT_FOUND;
        log_event(orphan ? LOG_WARN : LOG_ERROR, &ctx, &why,
                  "the record of a container cannot be used, %s", orphan ? "removing" : "ignoring");
    }
    if (config != NULL)
        runtime__v1__container_config__free_unpacked(config, NULL);
    if (record != NULL)
        casemate__state__v1__container_record__free_unpacked(record, NULL);
    return orphan ? store_delete(mgr->deps.store, KIND_CONTAINER, id, err) : 0;
}

int records_load(struct sandbox_manager *mgr, struct err *err)
{
    if (store_each(mgr->deps.store, KIND_POD, load_pod, mgr, err) != 0)
        return -1;
    return store_each(mgr->deps.store, KIND_CONTAINER, load_container, mgr, err);
}
