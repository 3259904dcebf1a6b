/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. Create, start, update and remove take the container's job slot (`busy`), one
 * after the other: who finds it taken waits and then judges the state. Stop and exec do not take
 * it: a signal does no harm to anything, and a second stop with a shorter grace must not wait for
 * the first.
 *
 * The record is stored before the guest is asked (CREATING), and after each step that a client is
 * told of. A start stores nothing before it: a record CREATED whose process runs in the guest says
 * enough. Nor does a removal: until the record is deleted the container is EXITED, and removing may
 * be repeated.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "host/sandbox/crispec.h"
#include "host/sandbox/criuserns.h"
#include "host/sandbox/crivalid.h"
#include "host/sandbox/model.h"
#include "host/sandbox/podsize.h"
#include "host/sandbox/spares.h"

#define START_FAILED_EXIT 128
#define KILL_MS           15000  /* SIGKILL until the agent says that it has ended */
#define USERNS_MS         600000 /* the guest may have to change every file's owner */
#define FOREVER_S         (INT64_MAX / 2000)

int container_await_slot(struct container *c, int64_t deadline_ms, struct err *err)
{
    while (c->busy) {
        if (!pod_wait(c->pod, deadline_ms))
            return err_set(err, ERR_DEADLINE, "another operation on container %s is under way",
                           c->facts->id);
    }
    return 0;
}

/* ---- create ---- */

/* What the image makes of the facts. */
static int complete_facts(struct container_facts *facts, const struct pod *pod,
                          const struct image *image, struct err *err)
{
    char serial[VM_DISK_SERIAL_SIZE];

    facts->image_id = strdup(image->id);
    facts->image_ref = strdup(image->repo_digests.n > 0 ? image->repo_digests.items[0] : image->id);
    facts->stop_signal = crispec_stop_signal(facts->config, image->stop_signal);
    facts->disks = calloc(image->n_layers + 1, sizeof(char *));
    if (facts->image_id == NULL || facts->image_ref == NULL || facts->disks == NULL)
        return err_no_memory(err);
    for (size_t i = 0; i < image->n_layers; i++) {
        if (pod_disk_serial(image->layers[i].diff_id, serial, err) != 0)
            return -1;
        facts->disks[i] = strdup(serial);
        if (facts->disks[i] == NULL)
            return err_no_memory(err);
        facts->n_disks++;
    }
    return container_facts_set_log_path(facts, pod->facts->config, err);
}

/* Puts the container into its pod's list, unless its name is taken. */
static int insert(struct pod *pod, struct container *c, struct err *err)
{
    const Runtime__V1__ContainerMetadata *name = c->facts->config->metadata;
    struct container *other;
    int result = 0;

    pthread_mutex_lock(&pod->mutex);
    TAILQ_FOREACH (other, &pod->containers, entry) {
        const Runtime__V1__ContainerMetadata *taken = other->facts->config->metadata;
        if (taken->attempt != name->attempt || strcmp(taken->name, name->name) != 0)
            continue;
        result = err_set(err, ERR_EXISTS, "container '%s', attempt %u exists in the pod: %s",
                         name->name, name->attempt, other->facts->id);
        break;
    }
    if (result == 0) {
        c->busy = true;
        (void)container_ref(c); /* not in the macro's arguments: it names them more than once */
        TAILQ_INSERT_HEAD(&pod->containers, c, entry);
    }
    pthread_mutex_unlock(&pod->mutex);
    return result;
}

static void unlist(struct container *c)
{
    struct pod *pod = c->pod;

    pthread_mutex_lock(&pod->mutex);
    TAILQ_REMOVE(&pod->containers, c, entry);
    c->busy = false;
    pthread_cond_broadcast(&pod->cond);
    pthread_mutex_unlock(&pod->mutex);
    container_unref(c);
}

/* The full id of the container whose processes this one is to see. */
static int resolve_target(struct pod *pod, const Runtime__V1__ContainerConfig *config,
                          char ret_id[SANDBOX_ID_SIZE], bool *ret_has, struct err *err)
{
    const Runtime__V1__NamespaceOption *option = NULL;
    cleanup_container struct container *target = NULL;

    *ret_has = false;
    if (config->linux != NULL && config->linux->security_context != NULL)
        option = config->linux->security_context->namespace_options;
    if (option == NULL || option->pid != RUNTIME__V1__NAMESPACE_MODE__TARGET)
        return 0;
    if (manager_find_container(pod->mgr, option->target_id, &target, err) != 0)
        return err_prefix(err, "linux.security_context.namespace_options.target_id");
    if (target->pod != pod)
        return err_set(err, ERR_INVALID,
                       "linux.security_context.namespace_options.target_id: not in this pod");
    memcpy(ret_id, target->facts->id, SANDBOX_ID_SIZE);
    *ret_has = true;
    return 0;
}

/* Attaches the image's layers: *ret_acquired counts those that are held, also on failure. */
static int acquire_layers(const struct pod_use *use, const struct image *image,
                          char *const *serials, int64_t deadline_ms, struct crispec_disk *ret_disks,
                          size_t *ret_acquired, struct err *err)
{
    int64_t began_ns = clock_monotonic_ns();
    struct pod *pod = use->pod;

    for (size_t i = 0; i < image->n_layers; i++) {
        struct crispec_disk *disk = &ret_disks[i];
        if (pod_disk_acquire(use, image, i, deadline_ms, &disk->lun, err) != 0)
            return -1;
        /* A bay is known by its own serial, and has a size of its own. */
        bool in_bay = vm_lun_is_bay(disk->lun);
        disk->serial = in_bay ? vm_bay_serial(disk->lun) : serials[i];
        disk->size_bytes = in_bay ? 0 : image->layers[i].size_bytes;
        ++*ret_acquired;
    }
    phases_add(&pod->mgr->phases, PHASE_DEVICES, clock_monotonic_ns() - began_ns);
    return 0;
}

/* What the guest has made of the request is what an exec takes over: names are numbers by now. */
static int keep_process(struct container_facts *facts, const Casemate__Agent__V1__Process *asked,
                        struct guest_user *user, struct err *err)
{
    Casemate__Agent__V1__Process process = *asked;
    Casemate__Agent__V1__User numbers = CASEMATE__AGENT__V1__USER__INIT;

    if (user->known) {
        numbers.uid = user->uid;
        numbers.gid = user->gid;
        numbers.additional_gids = user->groups;
        numbers.n_additional_gids = user->n_groups;
        process.user = &numbers;
        facts->has_user = true;
        facts->uid = user->uid;
        facts->gid = user->gid;
    }
    return facts_copy_process(&process, &facts->process, err);
}

/* The guest's part: the client's deadline bounds it, and usually a shorter one. */
static int64_t create_deadline(const struct pod *pod, int64_t deadline_ms)
{
    const Runtime__V1__LinuxPodSandboxConfig *linux_ = pod->facts->config->linux;

    if (linux_ == NULL || linux_->security_context == NULL ||
        criuserns_of(linux_->security_context->namespace_options) == NULL)
        return manager_call_deadline(pod->mgr, deadline_ms);
    return clock_earlier(deadline_ms, clock_deadline(USERNS_MS));
}

/* Were it refused, no container of a pod that is older than the daemon could be made again. */
static void warn_of_volumes(const struct pod *pod, const struct container *c)
{
    struct log_ctx ctx = {.sandbox = pod->facts->id, .container = c->facts->id};

    log_event(LOG_WARN, &ctx, NULL,
              "the pod's agent is older and makes no volumes, ignoring the image's");
}

static int create_in_guest(const struct pod_use *use, struct container *c,
                           const struct image *image, const struct crispec_disk *disks,
                           int64_t deadline_ms, struct err *err)
{
    char target[SANDBOX_ID_SIZE], hostname[65];
    cleanup_crispec struct crispec *spec = NULL;
    struct crispec_input input = {
        .id = c->facts->id,
        .config = c->facts->config,
        .pod = use->pod->facts->config,
        .image = image,
        .disks = disks,
        .hostname = hostname,
        .plain_cgroups = !guest_get_info(use->guest)->checks_cgroups,
        .no_volumes = !guest_get_info(use->guest)->makes_volumes,
    };
    const Runtime__V1__LinuxContainerConfig *linux_ = c->facts->config->linux;
    int64_t until_ms = clock_earlier(deadline_ms, clock_deadline(PODSIZE_ONLINE_MS));
    struct guest_user user;
    int result;
    bool has_target;

    pod_hostname(use->pod, hostname);
    if (resolve_target(use->pod, c->facts->config, target, &has_target, err) != 0)
        return -1;
    input.pid_target_id = has_target ? target : NULL;
    if (input.no_volumes && image->volumes.n > 0)
        warn_of_volumes(use->pod, c);
    if (crispec_new(&input, &spec, err) != 0)
        return -1;
    do
        result = guest_create_container(use->guest, crispec_request(spec),
                                        create_deadline(use->pod, deadline_ms), &user, err);
    while (result != 0 &&
           podsize_try_again(use->pod, linux_ == NULL ? NULL : linux_->resources, err, until_ms));
    if (result != 0)
        return -1;
    return keep_process(c->facts, crispec_request(spec)->process, &user, err);
}

/* Everything between the record CREATING and the record CREATED. */
static int build(const struct pod_use *use, struct container *c, struct image *image,
                 int64_t deadline_ms, struct err *err)
{
    struct sandbox_manager *mgr = use->pod->mgr;
    struct guest_process process = {.container_id = c->facts->id, .exec_id = ""};
    cleanup_free struct crispec_disk *disks = calloc(image->n_layers + 1, sizeof(*disks));
    size_t acquired = 0;

    if (disks == NULL)
        return err_no_memory(err);
    if (image_use(mgr->deps.images, image->id, c->facts->id, err) != 0)
        return -1;
    /* The machine must have what the limits allow, whether or not the pod has said it. */
    if (podsize_make_room(use->pod, use->vm, manager_call_deadline(mgr, deadline_ms), err) != 0 ||
        acquire_layers(use, image, c->facts->disks, deadline_ms, disks, &acquired, err) != 0)
        goto release;
    if (create_in_guest(use, c, image, disks, deadline_ms, err) != 0)
        goto remove;
    pthread_mutex_lock(&use->pod->mutex);
    container_set_state(c, CTR_CREATED);
    pthread_mutex_unlock(&use->pod->mutex);
    if (container_save(c, err) == 0)
        return 0;
remove:
    /* After a deadline the agent may still make it. */
    (void)guest_remove(use->guest, &process, clock_deadline(mgr->config.call_timeout_ms), NULL);
release:
    pod_disks_release(use->pod, c->facts->disks, acquired);
    image_release(mgr->deps.images, image->id, c->facts->id);
    return -1;
}

static int create(const struct pod_use *use, const Runtime__V1__ContainerConfig *config,
                  struct image *image, int64_t deadline_ms, char ret_id[SANDBOX_ID_SIZE],
                  struct err *err)
{
    cleanup_container struct container *c = NULL;
    struct pod *pod = use->pod;
    struct container_facts *facts;
    char id[SANDBOX_ID_SIZE];
    struct err why;
    int result;

    text_random_hex(SANDBOX_ID_LEN / 2, id);
    facts = container_facts_new(id, pod->facts->id, clock_realtime_ns(), config, err);
    if (facts == NULL)
        return -1;
    result = complete_facts(facts, pod, image, err);
    if (result == 0)
        result = container_new(pod, facts, &c, err);
    container_facts_unref(facts);
    if (result != 0 || insert(pod, c, err) != 0)
        return -1;
    if (container_save(c, err) != 0) {
        unlist(c);
        return -1;
    }
    if (build(use, c, image, deadline_ms, err) != 0) {
        unlist(c);
        if (container_delete_record(c, &why) != 0) {
            struct log_ctx ctx = {.sandbox = pod->facts->id, .container = id};
            log_event(LOG_ERROR, &ctx, &why, "the record is cleared at the next start");
        }
        return -1;
    }
    pthread_mutex_lock(&pod->mutex);
    c->busy = false;
    pthread_cond_broadcast(&pod->cond);
    pthread_mutex_unlock(&pod->mutex);
    memcpy(ret_id, id, SANDBOX_ID_SIZE);
    return 0;
}

/* A step of the pod's timeline that carries the container's name. */
static unsigned begin_step(struct pod *pod, const char *what,
                           const Runtime__V1__ContainerConfig *config)
{
    char name[TIMELINE_NAME_SIZE];

    (void)snprintf(name, sizeof(name), "%s %.24s", what,
                   config->metadata == NULL ? "" : config->metadata->name);
    return timeline_begin(&pod->timeline, name);
}

int sandbox_container_create(struct sandbox_manager *mgr, const char *pod_id,
                             const Runtime__V1__ContainerConfig *config,
                             const Runtime__V1__PodSandboxConfig *pod_config, int64_t deadline_ms,
                             char ret_id[SANDBOX_ID_SIZE], struct err *err)
{
    cleanup_pod struct pod *pod = NULL;
    cleanup_image struct image *image = NULL;
    struct pod_use use = {0};
    char unknown[80];
    int result;

    /* CRI sends the pod's configuration again for convenience; the one it was made from counts. */
    (void)pod_config;
    if (manager_find_pod(mgr, pod_id, &pod, err) != 0)
        return -1;
    if (crivalid_container(config, pod->facts->config, err) != 0)
        return -1;
    if (crivalid_has_unknown(&config->base, unknown, sizeof(unknown))) {
        struct log_ctx ctx = {.sandbox = pod->facts->id};
        log_event(LOG_WARN, &ctx, NULL, "the client is newer: %s is not known here, ignoring",
                  unknown);
    }
    if (image_get(mgr->deps.images, config->image->image, &image, err) != 0)
        return err_prefix(err, "image");
    if (pod_use_begin(pod, &use, err) != 0)
        return -1;
    int64_t began_ns = clock_monotonic_ns();
    unsigned step = begin_step(pod, "create", config);
    spares_call_begins(mgr);
    result = create(&use, config, image, deadline_ms, ret_id, err);
    spares_call_ends(mgr);
    timeline_end(&pod->timeline, step);
    if (result == 0)
        phases_add(&mgr->phases, PHASE_CREATE, clock_monotonic_ns() - began_ns);
    pod_use_end(&use);
    return result;
}

/* ---- start ---- */

/* Takes the job slot of a CREATED container for its start. */
static int begin_start(struct container *c, int64_t deadline_ms, struct err *err)
{
    int result;

    pthread_mutex_lock(&c->pod->mutex);
    result = container_await_slot(c, deadline_ms, err);
    if (result == 0 && c->state != CTR_CREATED) {
        result = err_set(err, ERR_BAD_STATE, "container %s is %s, not CREATED", c->facts->id,
                         container_state_name(c->state));
    } else if (result == 0) {
        c->busy = true;
        container_set_state(c, CTR_STARTING);
    }
    pthread_mutex_unlock(&c->pod->mutex);
    return result;
}

static void end_job(struct container *c)
{
    pthread_mutex_lock(&c->pod->mutex);
    c->busy = false;
    pthread_cond_broadcast(&c->pod->cond);
    pthread_mutex_unlock(&c->pod->mutex);
}

static int start(const struct pod_use *use, struct container *c, int64_t deadline_ms,
                 struct err *err)
{
    static const uint64_t from_the_start[LOGFILE_STREAMS] = {0};
    struct guest_process process = {.container_id = c->facts->id, .exec_id = ""};
    struct logpump *pump = NULL;
    int64_t guest_ns;

    if (container_prepare_log(c, use->guest, from_the_start, &pump, err) != 0)
        return -1;
    if (guest_start(use->guest, c->facts->id, manager_call_deadline(use->pod->mgr, deadline_ms),
                    &guest_ns, err) != 0) {
        logpump_free(pump, false);
        goto kill;
    }
    pthread_mutex_lock(&use->pod->mutex);
    c->started_ns = clock_realtime_ns();
    container_set_state(c, CTR_RUNNING);
    pthread_mutex_unlock(&use->pod->mutex);
    if (container_follow(c, pump, err) == 0 && container_save(c, err) == 0)
        return 0;
kill:
    (void)guest_signal(use->guest, &process, SIGKILL, true,
                       manager_call_deadline(use->pod->mgr, CLOCK_NO_DEADLINE), NULL);
    return -1;
}

/* The program is at fault, as the agent begins to say then (PROTOCOL.md), or what should have run
 * it. */
static const char *reason_of_failure(const struct err *err)
{
    return text_has_prefix(err->msg, "exec ") ? "StartError" : "ContainerCannotRun";
}

int sandbox_container_start(struct sandbox_manager *mgr, const char *id, int64_t deadline_ms,
                            struct err *err)
{
    cleanup_container struct container *c = NULL;
    struct pod_use use = {0};
    int result;

    if (manager_find_container(mgr, id, &c, err) != 0 || pod_use_begin(c->pod, &use, err) != 0)
        return -1;
    result = begin_start(c, deadline_ms, err);
    if (result == 0) {
        int64_t began_ns = clock_monotonic_ns();
        unsigned step = begin_step(c->pod, "start", c->facts->config);
        spares_call_begins(mgr);
        result = start(&use, c, deadline_ms, err);
        spares_call_ends(mgr);
        if (result != 0)
            container_mark_exited(c, START_FAILED_EXIT, clock_realtime_ns(), reason_of_failure(err),
                                  err->msg);
        else
            phases_add(&mgr->phases, PHASE_START, clock_monotonic_ns() - began_ns);
        timeline_end(&c->pod->timeline, step);
        end_job(c);
    }
    pod_use_end(&use);
    return result;
}

/* ---- stop ---- */

/* Whether it has ended, or never ran. Mutex held. */
static bool is_over(const struct container *c)
{
    return c->state == CTR_EXITED || c->state == CTR_REMOVING;
}

/* Waits for the end until the deadline. */
static bool await_exit(struct container *c, int64_t deadline_ms)
{
    bool over;

    pthread_mutex_lock(&c->pod->mutex);
    while (!is_over(c) && pod_wait(c->pod, deadline_ms))
        ;
    over = is_over(c);
    pthread_mutex_unlock(&c->pod->mutex);
    return over;
}

/* Waits until a start that is under way is over; false: there is nothing to stop. */
static bool needs_stop(struct container *c, int64_t deadline_ms)
{
    bool needed;

    pthread_mutex_lock(&c->pod->mutex);
    while (c->state == CTR_STARTING && pod_wait(c->pod, deadline_ms))
        ;
    needed = c->state == CTR_RUNNING || c->state == CTR_STARTING;
    pthread_mutex_unlock(&c->pod->mutex);
    return needed;
}

/* Sends a signal; a process that has ended meanwhile is as good. */
static int send_signal(const struct pod_use *use, struct container *c, unsigned signo, bool all,
                       int64_t deadline_ms, struct err *err)
{
    struct guest_process process = {.container_id = c->facts->id, .exec_id = ""};

    if (guest_signal(use->guest, &process, signo, all,
                     manager_call_deadline(use->pod->mgr, deadline_ms), err) != 0 &&
        err->code != ERR_NOT_FOUND)
        return -1;
    return 0;
}

static int stop(const struct pod_use *use, struct container *c, int64_t grace_s,
                int64_t deadline_ms, struct err *err)
{
    if (grace_s > 0) {
        int64_t grace_ms = grace_s > FOREVER_S ? CLOCK_NO_DEADLINE : grace_s * 1000;
        int64_t until_ms = clock_earlier(
            deadline_ms, grace_ms == CLOCK_NO_DEADLINE ? grace_ms : clock_deadline(grace_ms));
        if (send_signal(use, c, c->facts->stop_signal, false, deadline_ms, err) != 0)
            return -1;
        if (await_exit(c, until_ms))
            return 0;
        if (deadline_ms <= clock_monotonic_ms())
            return err_set(err, ERR_DEADLINE, "container %s still runs within its grace period",
                           c->facts->id);
    }
    if (send_signal(use, c, SIGKILL, true, deadline_ms, err) != 0)
        return -1;
    if (!await_exit(c, clock_earlier(deadline_ms, clock_deadline(KILL_MS))))
        return err_set(err, ERR_DEADLINE, "container %s was killed and has not ended",
                       c->facts->id);
    return 0;
}

/* Stops it if it runs. */
static int stop_container(struct container *c, int64_t grace_s, int64_t deadline_ms,
                          struct err *err)
{
    struct pod_use use = {0};
    int result;

    if (!needs_stop(c, deadline_ms))
        return 0;
    if (pod_use_begin(c->pod, &use, err) != 0) {
        /* Its VM is being ended, which ends it too. */
        if (await_exit(c, deadline_ms))
            return 0;
        return err_set(err, ERR_DEADLINE, "the pod of container %s is being stopped", c->facts->id);
    }
    result = stop(&use, c, grace_s, deadline_ms, err);
    pod_use_end(&use);
    /* When the VM ended under the call, that was a stop as well. */
    if (result != 0 && err->code == ERR_UNAVAILABLE &&
        await_exit(c, clock_earlier(deadline_ms, clock_deadline(KILL_MS))))
        return 0;
    return result;
}

int sandbox_container_stop(struct sandbox_manager *mgr, const char *id, int64_t grace_s,
                           int64_t deadline_ms, struct err *err)
{
    cleanup_container struct container *c = NULL;

    if (grace_s < 0)
        return err_set(err, ERR_INVALID, "timeout: negative");
    if (manager_find_container(mgr, id, &c, err) != 0)
        return err->code == ERR_NOT_FOUND ? 0 : -1;
    return stop_container(c, grace_s, deadline_ms, err);
}

/* ---- remove ---- */

/* Takes the job slot and makes it REMOVING; *ret_mine false: somebody else removes it. */
static int begin_remove(struct container *c, int64_t deadline_ms, bool *ret_mine, struct err *err)
{
    struct pod *pod = c->pod;
    int result;

    *ret_mine = false;
    pthread_mutex_lock(&pod->mutex);
    result = container_await_slot(c, deadline_ms, err);
    if (result == 0 && c->state != CTR_REMOVING) {
        if (c->state != CTR_CREATED && c->state != CTR_EXITED) {
            result = err_set(err, ERR_BAD_STATE, "container %s is %s", c->facts->id,
                             container_state_name(c->state));
        } else {
            c->busy = true;
            container_set_state(c, CTR_REMOVING);
            *ret_mine = true;
        }
    }
    pthread_mutex_unlock(&pod->mutex);
    return result;
}

/* Back to EXITED: the removal may be tried again. */
static void abandon_remove(struct container *c)
{
    pthread_mutex_lock(&c->pod->mutex);
    c->busy = false;
    container_set_state(c, CTR_EXITED);
    pthread_mutex_unlock(&c->pod->mutex);
}

static int remove_in_guest(struct container *c, int64_t deadline_ms, struct err *err)
{
    struct guest_process process = {.container_id = c->facts->id, .exec_id = ""};
    struct pod_use use = {0};
    int result;

    if (pod_use_begin(c->pod, &use, err) != 0)
        return 0; /* no VM, nothing to remove */
    result =
        guest_remove(use.guest, &process, manager_call_deadline(c->pod->mgr, deadline_ms), err);
    pod_use_end(&use);
    if (result != 0 && err->code == ERR_UNAVAILABLE)
        return 0; /* the VM has ended */
    return result;
}

void container_let_go(struct container *c)
{
    struct sandbox_manager *mgr = c->pod->mgr;
    cleanup_free char *checkpoint = container_checkpoint_path(c);

    container_unfollow(c, true);
    pod_disks_release(c->pod, c->facts->disks, c->facts->n_disks);
    image_release(mgr->deps.images, c->facts->image_id, c->facts->id);
    if (checkpoint != NULL)
        (void)unlink(checkpoint);
}

int container_forget(struct container *c, struct err *err)
{
    if (container_delete_record(c, err) != 0)
        return -1;
    container_let_go(c);
    unlist(c);
    events_add(&c->pod->mgr->events, c->pod, c->facts->id,
               RUNTIME__V1__CONTAINER_EVENT_TYPE__CONTAINER_DELETED_EVENT);
    return 0;
}

int sandbox_container_remove(struct sandbox_manager *mgr, const char *id, int64_t deadline_ms,
                             struct err *err)
{
    cleanup_container struct container *c = NULL;
    bool mine;

    if (manager_find_container(mgr, id, &c, err) != 0)
        return err->code == ERR_NOT_FOUND ? 0 : -1;
    if (stop_container(c, 0, deadline_ms, err) != 0 ||
        begin_remove(c, deadline_ms, &mine, err) != 0)
        return -1;
    if (!mine)
        return 0;
    if (remove_in_guest(c, deadline_ms, err) != 0 || container_forget(c, err) != 0) {
        abandon_remove(c);
        return -1;
    }
    return 0;
}
