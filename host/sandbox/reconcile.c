/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. Records say what was meant, VMs and guests say what is. Each pod is brought
 * together with its VM on a thread of its own, and has one deadline for all that is asked of QEMU
 * and of its guest. So those that do not answer cost the others nothing, and all of them together
 * the time of one, for which the daemon serves nobody:
 * - CREATING or REMOVING: nobody waits for it; its VM is killed, everything is cleared;
 * - READY with a VM that answers: reconnected; containers are compared with the agent's list, logs
 * go on where their checkpoints say; what the agent has and no record names is removed from it;
 * - READY otherwise: killed, STOPPED, containers EXITED;
 * - STOPPED: stays.
 * Then whatever lies in our folders without a record goes, VMs included, and networks of pods that
 * are gone.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "common/loop/workers.h"
#include "host/sandbox/spares.h"
#include "host/sandbox/podnet.h"
#include "host/sandbox/records.h"
#include "host/sandbox/vmcgroup.h"

#define MAX_AT_ONCE 128 /* pods; more than a node has by default */
#define MAX_UNKNOWN 256 /* of a guest's processes; what is left ends with the pod */
#define KILL_MS     10000
#define COLLECT_MS  30000 /* for networks that collect garbage */

/* ---- one pod's VM ---- */

static void kill_vm(struct pod *pod)
{
    struct log_ctx ctx = {.sandbox = pod->facts->id};
    struct vm_record record;
    unsigned int killed = 0;
    struct err err;

    if (pod->vm_record != NULL) {
        if (vm_record_decode(pod->vm_record, &record, &err) == 0 &&
            vm_kill_record(pod->mgr->deps.vmm, &record, clock_deadline(KILL_MS), &err) == 0)
            return;
        log_event(LOG_WARN, &ctx, &err, "the recorded virtual machine cannot be killed by record");
    }
    if (vmm_kill_stray(pod->mgr->deps.vmm, pod->short_id, &killed, &err) != 0)
        log_event(LOG_ERROR, &ctx, &err, "looking for a stray virtual machine");
    else if (killed > 0)
        log_event(LOG_WARN, &ctx, NULL, "killed a virtual machine that was being started");
}

static int attach_vm(struct pod *pod, int64_t deadline_ms, struct err *err)
{
    struct vm_record record;
    struct vm *vm = NULL;

    if (pod->vm_record == NULL)
        return err_set(err, ERR_NOT_FOUND, "the record names no virtual machine");
    if (vm_record_decode(pod->vm_record, &record, err) != 0 ||
        vm_attach(pod->mgr->deps.vmm, &record, deadline_ms, &vm, err) != 0)
        return -1;
    pthread_mutex_lock(&pod->mutex);
    pod->vm = vm;
    pod->vm_pid = record.pid;
    pod->cloned = record.cloned;
    pthread_mutex_unlock(&pod->mutex);
    return 0;
}

/* ---- one pod's containers ---- */

static const struct guest_process_info *find_process(const struct guest_process_info *list,
                                                     size_t n, const char *container_id)
{
    for (size_t i = 0; i < n; i++) {
        if (list[i].exec_id[0] == '\0' && strcmp(list[i].container_id, container_id) == 0)
            return &list[i];
    }
    return NULL;
}

/* Goes on with the log and waits for the exit; one that has ended already is reported the same way.
 */
static void resume(struct container *c, struct guest *guest, const struct guest_process_info *info)
{
    const uint64_t acked[LOGFILE_STREAMS] = {info->stdout_acked, info->stderr_acked};
    struct log_ctx ctx = {.sandbox = c->facts->pod_id, .container = c->facts->id};
    struct logpump *pump = NULL;
    struct err err;

    container_found_running(c);
    if (container_prepare_log(c, guest, acked, &pump, &err) == 0 &&
        container_follow(c, pump, &err) == 0)
        return;
    log_event(LOG_ERROR, &ctx, &err, "the log of a container does not go on");
    if (info->state == GUEST_EXITED)
        container_mark_exited(c, info->exit.exit_code, info->exit.finished_ns, "Error", err.msg);
}

/* guest NULL: there is none to be told, and the deadline does not matter. */
static void discard_half_made(struct container *c, struct guest *guest, int64_t deadline_ms)
{
    struct guest_process process = {.container_id = c->facts->id, .exec_id = ""};
    struct log_ctx ctx = {.sandbox = c->facts->pod_id, .container = c->facts->id};
    struct err err;

    if (guest != NULL)
        (void)guest_remove(guest, &process, deadline_ms, NULL);
    if (container_forget(c, &err) != 0)
        log_event(LOG_ERROR, &ctx, &err, "a half-made container is not cleared");
}

static void compare_container(struct container *c, struct guest *guest,
                              const struct guest_process_info *info, int64_t deadline_ms)
{
    switch (c->state) {
    case CTR_CREATING:
    case CTR_REMOVING:
        discard_half_made(c, guest, deadline_ms);
        return;
    case CTR_EXITED:
        return;
    default:
        break;
    }
    if (info == NULL)
        container_mark_exited(c, 255, clock_realtime_ns(), "Unknown",
                              "the agent does not know the container");
    else if (info->state != GUEST_CREATED)
        resume(c, guest, info);
}

static bool is_recorded(struct pod *pod, const struct guest_process_info *info)
{
    struct container *c;
    bool found = false;

    pthread_mutex_lock(&pod->mutex);
    TAILQ_FOREACH (c, &pod->containers, entry)
        found = found || strcmp(c->facts->id, info->container_id) == 0;
    pthread_mutex_unlock(&pod->mutex);
    return found && info->exec_id[0] == '\0';
}

/* An agent that says this, or nothing, is not asked once more. */
static bool agent_is_lost(const struct err *err)
{
    return err->code == ERR_DEADLINE || err->code == ERR_UNAVAILABLE || err->code == ERR_PROTOCOL;
}

/* What the agent has and no record names: execs of a predecessor, containers whose creation was cut
 * off. The list is the guest's word, so its length must not decide how long this takes. */
static int remove_unknown(struct pod *pod, const struct guest_process_info *list, size_t n,
                          int64_t deadline_ms, struct err *err)
{
    struct log_ctx ctx = {.sandbox = pod->facts->id};
    size_t asked = 0;

    for (size_t i = 0; i < n; i++) {
        struct guest_process process = {.container_id = list[i].container_id,
                                        .exec_id = list[i].exec_id};
        struct err why;

        if (is_recorded(pod, &list[i]))
            continue;
        if (asked++ == MAX_UNKNOWN) {
            log_event(LOG_WARN, &ctx, NULL,
                      "the guest has more than %d processes that no record names, ignoring",
                      MAX_UNKNOWN);
            return 0;
        }
        if (guest_remove(pod->guest, &process, deadline_ms, &why) != 0 && agent_is_lost(&why)) {
            *err = why;
            return -1;
        }
    }
    return 0;
}

static int compare_containers(struct pod *pod, int64_t deadline_ms, struct err *err)
{
    cleanup_free struct guest_process_info *list = NULL;
    size_t n = 0, n_containers = 0;
    struct container **containers;

    if (guest_list(pod->guest, deadline_ms, &list, &n, err) != 0 ||
        remove_unknown(pod, list, n, deadline_ms, err) != 0)
        return -1;
    containers = pod_containers(pod, &n_containers);
    if (containers == NULL)
        return err_no_memory(err);
    for (size_t i = 0; i < n_containers; i++) {
        compare_container(containers[i], pod->guest,
                          find_process(list, n, containers[i]->facts->id), deadline_ms);
        container_unref(containers[i]);
    }
    free(containers);
    return 0;
}

/* ---- one pod ---- */

static int reconnect(struct pod *pod, struct err *err)
{
    const int64_t deadline_ms = clock_deadline(pod->mgr->config.reconnect_timeout_ms);
    char boot_id[GUEST_TEXT_SIZE];

    memcpy(boot_id, pod->boot_id, sizeof(boot_id));
    if (attach_vm(pod, deadline_ms, err) != 0)
        return err_prefix(err, "virtual machine");
    if (pod_connect(pod, deadline_ms, err) != 0)
        return -1;
    if (boot_id[0] != '\0' && strcmp(boot_id, pod->boot_id) != 0)
        return err_set(err, ERR_PROTOCOL, "the guest has been restarted");
    if (pod_disks_reload(pod, pod->vm, err) != 0)
        return err_prefix(err, "disks");
    pod_watch_vm(pod, pod->vm);
    return compare_containers(pod, deadline_ms, err);
}

/* A pod that says READY: again, or STOPPED. */
static void revive(struct pod *pod)
{
    struct log_ctx ctx = {.sandbox = pod->facts->id};
    struct err err;
    int result;

    podnet_reopen(pod);
    pthread_mutex_lock(&pod->mutex);
    pod->operations++;
    pthread_mutex_unlock(&pod->mutex);
    result = reconnect(pod, &err);
    pthread_mutex_lock(&pod->mutex);
    pod->operations--;
    pthread_cond_broadcast(&pod->cond);
    pthread_mutex_unlock(&pod->mutex);
    if (result == 0) {
        log_event(LOG_INFO, &ctx, NULL, "pod found again");
        podnet_check_later(pod);
        return;
    }
    log_event(LOG_WARN, &ctx, &err, "pod is lost");
    if (pod->vm == NULL)
        kill_vm(pod);
    pod_end_vm(pod, "VMExited", err.msg);
}

/* Nobody ever heard of it, or nobody wants it any more. */
static void clear(struct pod *pod)
{
    struct log_ctx ctx = {.sandbox = pod->facts->id};
    struct err err;

    kill_vm(pod);
    podnet_reopen(pod);
    if (pod->state == POD_CREATING)
        pod_end_vm(pod, "StartFailed", "the daemon was restarted");
    if (pod_forget(pod, &err) != 0)
        log_event(LOG_ERROR, &ctx, &err, "a half-made pod is not cleared");
}

/* Containers of a pod without a VM: whatever was under way is over. */
static void settle_stopped(struct pod *pod)
{
    size_t n = 0;
    struct container **list = pod_containers(pod, &n);

    for (size_t i = 0; i < n; i++) {
        if (list[i]->state == CTR_CREATING || list[i]->state == CTR_REMOVING)
            discard_half_made(list[i], NULL, CLOCK_NO_DEADLINE);
        else
            container_mark_exited(list[i], 137, clock_realtime_ns(), "VMExited", "");
        container_unref(list[i]);
    }
    free(list);
}

static void reconcile_pod(void *arg)
{
    struct pod *pod = arg;

    switch (pod->state) {
    case POD_CREATING:
    case POD_REMOVING:
        clear(pod);
        return;
    case POD_READY:
        revive(pod);
        return;
    case POD_STOPPED:
        settle_stopped(pod);
        return;
    case POD_STOPPING:
        return;
    }
}

/* ---- all pods ---- */

/* Not on the manager's workers, which are too few for every pod to wait at the same time. */
static int reconcile_pods(struct sandbox_manager *mgr, struct err *err)
{
    struct workers *workers = NULL;
    struct pod **pods = NULL;
    struct err why;
    size_t n = 0;

    if (manager_all_pods(mgr, &pods, &n, err) != 0)
        return -1;
    int result = workers_new(MAX_AT_ONCE, n, &workers, err);
    for (size_t i = 0; result == 0 && i < n; i++) {
        if (workers_run(workers, reconcile_pod, pods[i], &why) == 0)
            continue;
        log_event(LOG_WARN, NULL, &why, "no thread to find a pod again; doing it here");
        reconcile_pod(pods[i]);
    }
    workers_free(workers); /* waits for all */
    manager_free_pods(pods, n);
    return result;
}

/* Images that containers use stay, whatever has been removed meanwhile. */
static void register_images(struct sandbox_manager *mgr)
{
    struct pod *pod;
    struct container *c;
    struct err err;

    TAILQ_FOREACH (pod, &mgr->pods, entry) {
        TAILQ_FOREACH (c, &pod->containers, entry) {
            struct log_ctx ctx = {.sandbox = pod->facts->id, .container = c->facts->id};
            if (image_use(mgr->deps.images, c->facts->image_id, c->facts->id, &err) != 0)
                log_event(LOG_WARN, &ctx, &err, "the image of a container is gone, ignoring");
        }
    }
}

/* ---- what has no record ---- */

static bool is_known(struct sandbox_manager *mgr, const char *name, bool is_pod)
{
    struct pod *pod;
    struct container *c;

    TAILQ_FOREACH (pod, &mgr->pods, entry) {
        if (is_pod && strcmp(pod->short_id, name) == 0)
            return true;
        TAILQ_FOREACH (c, &pod->containers, entry) {
            if (!is_pod && strcmp(c->facts->id, name) == 0)
                return true;
        }
    }
    return false;
}

/* Removes the entries of a folder that look like ours and belong to nothing; with_vm: a VM may live
 * in them. */
static void sweep(struct sandbox_manager *mgr, const char *path, bool pods, bool with_vm)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    unsigned int killed;
    struct err err;

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        const char *name = entry->d_name;
        if (!text_is_hex(name, pods ? POD_SHORT_ID_LEN : SANDBOX_ID_LEN) ||
            is_known(mgr, name, pods))
            continue;
        if (with_vm && vmm_kill_stray(mgr->deps.vmm, name, &killed, &err) != 0)
            log_event(LOG_ERROR, NULL, &err, "looking for a virtual machine of %s", name);
        log_warn("removing %s/%s, which no record names", path, name);
        if (fd_remove_tree(dirfd(dir), name, &err) != 0)
            log_event(LOG_WARN, NULL, &err, "%s/%s stays, ignoring", path, name);
    }
    if (dir != NULL)
        closedir(dir);
}

/* Networks of pods that are not there any more; those of pods that could not be stopped are tried
 * again. */
static int collect_networks(struct sandbox_manager *mgr, struct err *err)
{
    cleanup_free const char **ids = NULL;
    struct pod **pods = NULL;
    size_t n = 0, n_ids = 0;

    if (mgr->deps.net == NULL)
        return 0;
    if (manager_all_pods(mgr, &pods, &n, err) != 0)
        return -1;
    ids = calloc(n + 1, sizeof(char *));
    for (size_t i = 0; ids != NULL && i < n; i++) {
        pthread_mutex_lock(&pods[i]->mutex);
        if (pods[i]->state == POD_READY)
            ids[n_ids++] = pods[i]->facts->id;
        pthread_mutex_unlock(&pods[i]->mutex);
    }
    if (ids != NULL)
        net_collect(mgr->deps.net, ids, n_ids, clock_deadline(COLLECT_MS));
    manager_free_pods(pods, n);
    return ids == NULL ? err_no_memory(err) : 0;
}

int sandbox_manager_reconcile(struct sandbox_manager *mgr, struct err *err)
{
    if (records_load(mgr, err) != 0)
        return err_prefix(err, "loading the records");
    register_images(mgr);
    sweep(mgr, mgr->pods_run_dir, true, true);
    sweep(mgr, mgr->pods_state_dir, true, false);
    sweep(mgr, mgr->logs_run_dir, false, false);
    if (reconcile_pods(mgr, err) != 0 || collect_networks(mgr, err) != 0)
        return -1;
    pthread_mutex_lock(&mgr->mutex);
    mgr->swept = true;
    pthread_mutex_unlock(&mgr->mutex);
    spares_refill(mgr);
    return 0;
}
