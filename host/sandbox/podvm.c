/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. Bringing up reads top to bottom: network (which is attached beside all that
 * follows), folders, cgroup, scratch disk, VM, its disk (attached while the guest boots), agent,
 * configuration. The record was stored as CREATING before;
 * whatever is killed half way is found and undone by that record alone, so there is no second one
 * until READY.
 *
 * Ending a VM asks nobody: the process is killed, which makes every call on it fail at once; then
 * whoever was using it is waited for, containers are marked, the network and files go. It begins
 * for one of three reasons: a client stops the pod, the VM exits by itself (death certificate, from
 * the loop), or the agent's connection ends while the VM lives. `ending` makes one caller the one
 * who does it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/base/spawn.h"
#include "common/base/text.h"
#include "host/sandbox/criuserns.h"
#include "host/sandbox/handler.h"
#include "host/sandbox/model.h"
#include "host/sandbox/podnet.h"
#include "host/sandbox/podsize.h"
#include "host/sandbox/scratch.h"
#include "host/sandbox/spares.h"
#include "host/sandbox/vmcgroup.h"

#define SCRATCH_LUN   0 /* the first disk */
#define ENTROPY_BYTES 64
#define HOSTNAME_LEN  12                   /* of the id, for a pod that names none */
#define SHM_BYTES     (UINT64_C(64) << 20) /* of a pod, as container engines have it */
#define SETTLE_MS     1000                 /* a lost connection until a VM that lives is given up */
#define OPERATIONS_MS 60000 /* after the VM was killed; its calls have failed long before */
#define OOM_SCORE_ADJ 0
#define DETACH_MS                                                                                  \
    20000 /* for the network's plugins at the pod's end; later they are tried again                \
           */

char *pod_run_path(const struct pod *pod)
{
    return text_printf("%s/%s", pod->mgr->pods_run_dir, pod->short_id);
}

char *pod_state_path(const struct pod *pod)
{
    return text_printf("%s/%s", pod->mgr->pods_state_dir, pod->short_id);
}

void pod_hostname(const struct pod *pod, char ret_name[65])
{
    const char *name = pod->facts->config->hostname;
    size_t n = strlen(name);

    if (n == 0) {
        name = pod->facts->id;
        n = HOSTNAME_LEN;
    }
    if (n > 64)
        n = 64;
    memcpy(ret_name, name, n);
    ret_name[n] = '\0';
}

/* ---- bringing up ---- */

static int make_folder(const char *path, struct err *err)
{
    if (path == NULL)
        return err_no_memory(err);
    if (mkdir(path, 0700) != 0)
        return err_set_errno(err, errno, "folder '%s'", path);
    return 0;
}

static int make_log_folder(const struct pod *pod, struct err *err)
{
    const char *logs = pod->facts->config->log_directory;

    if (*logs != '\0' && fd_make_dirs(logs, 0755, err) != 0)
        return err_prefix(err, "log_directory");
    return 0;
}

static int make_folders(struct pod *pod, struct err *err)
{
    cleanup_free char *run = pod_run_path(pod);
    cleanup_free char *state = pod_state_path(pod);

    if (make_folder(run, err) != 0 || make_folder(state, err) != 0)
        return -1;
    return make_log_folder(pod, err);
}

static int make_cgroups(struct pod *pod, struct err *err)
{
    const Runtime__V1__LinuxPodSandboxConfig *linux_ = pod->facts->config->linux;

    if (linux_ == NULL || *linux_->cgroup_parent == '\0')
        return 0;
    return vmcgroup_make(linux_->cgroup_parent, pod->short_id, &pod->cgroups, &pod->n_cgroups, err);
}

/* The empty file system that every scratch disk is a copy of, made if need be. */
static int open_scratch_template(struct sandbox_manager *mgr, int64_t deadline_ms, int *ret_fd,
                                 struct err *err)
{
    int result, fd;

    pthread_mutex_lock(&mgr->scratch_mutex);
    result =
        scratch_make_template(mgr->scratch_template, mgr->config.scratch_bytes, deadline_ms, err);
    pthread_mutex_unlock(&mgr->scratch_mutex);
    if (result != 0)
        return -1;
    fd = open(mgr->scratch_template, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_set_errno(err, errno, "%s", mgr->scratch_template);
    *ret_fd = fd;
    return 0;
}

static int make_scratch(struct pod *pod, int64_t deadline_ms, int *ret_fd, struct err *err)
{
    struct sandbox_manager *mgr = pod->mgr;
    cleanup_free char *state = pod_state_path(pod);
    cleanup_free char *path = state == NULL ? NULL : text_printf("%s/scratch.ext4", state);
    cleanup_fd int template_fd = -1;

    if (path == NULL)
        return err_no_memory(err);
    if (open_scratch_template(mgr, deadline_ms, &template_fd, err) != 0)
        return -1;
    return scratch_copy(mgr->scratch_template, path, ret_fd, err);
}

/* cgroup.procs of each cgroup, NULL-terminated; free with free_paths. */
static char **procs_paths(const struct pod *pod)
{
    char **paths = calloc(pod->n_cgroups + 1, sizeof(char *));

    for (size_t i = 0; paths != NULL && i < pod->n_cgroups; i++)
        paths[i] = text_printf("%s/cgroup.procs", pod->cgroups[i]);
    return paths;
}

static void free_paths(char **paths)
{
    for (size_t i = 0; paths != NULL && paths[i] != NULL; i++)
        free(paths[i]);
    free(paths);
}

const struct sandbox_handler *pod_handler(const struct pod *pod)
{
    const struct sandbox_manager *mgr = pod->mgr;
    const struct sandbox_handler *h =
        handlers_find(mgr->handlers, mgr->config.n_handlers, pod->facts->runtime_handler);

    return h != NULL ? h : &mgr->handlers[0];
}

/* What all machines of a handler have in common. */
static struct vm_spec common_spec(const struct sandbox_handler *handler)
{
    return (struct vm_spec){
        .kernel = handler->kernel,
        .initrd = handler->initrd,
        .machine = handler->machine,
        .accel = handler->accel,
        .console = VM_CONSOLE_RING,
        .oom_score_adj = OOM_SCORE_ADJ,
    };
}

static void want_template(struct sandbox_manager *mgr, const struct sandbox_handler *handler,
                          int scratch_fd)
{
    const struct vm_disk scratch = {
        .fd = scratch_fd, .serial = VM_FIRST_DISK_SERIAL, .scratch = true};
    struct vm_spec spec = common_spec(handler);
    struct err err;

    spec.first_disk = &scratch;
    podsize_template(handler, &spec);
    if (vmm_want_template(mgr->deps.vmm, &spec, &err) != 0)
        log_event(LOG_ERROR, NULL, &err, "there will be no template for handler '%s'",
                  handler->name);
}

void sandbox_manager_prepare(struct sandbox_manager *mgr)
{
    int64_t deadline_ms = clock_deadline(mgr->config.boot_timeout_ms);
    cleanup_fd int fd = -1;
    struct err err;

    if (open_scratch_template(mgr, deadline_ms, &fd, &err) != 0) {
        log_event(LOG_ERROR, NULL, &err, "there is no empty disk for pods");
        return;
    }
    for (size_t i = 0; i < mgr->config.n_handlers; i++)
        if (mgr->handlers[i].clone)
            want_template(mgr, &mgr->handlers[i], fd);
}

/* A machine that becomes a template: its agent mounts the scratch disk. */
int machine_prepare(void *arg, struct vm *vm, int64_t deadline_ms, struct err *err)
{
    struct sandbox_manager *mgr = arg;
    const struct guest_config config = {.loop = mgr->deps.loop};
    Casemate__Agent__V1__PreparePodRequest request;
    Casemate__Agent__V1__Disk disk;
    cleanup_guest struct guest *guest = NULL;
    int fd = -1;

    if (vm_connect_agent(vm, deadline_ms, &fd, err) != 0 ||
        guest_connect(&config, fd, deadline_ms, &guest, err) != 0)
        return -1;
    casemate__agent__v1__prepare_pod_request__init(&request);
    casemate__agent__v1__disk__init(&disk);
    disk.lun = SCRATCH_LUN;
    disk.fs_type = (char *)(uintptr_t) "ext4";
    disk.size_bytes = mgr->config.scratch_bytes;
    request.scratch = &disk;
    int result = guest_prepare_pod(guest, &request, deadline_ms, err);
    guest_close(guest);
    return result;
}

/* What one bring-up hands from step to step. */
struct bringup {
    struct pod *pod;
    int64_t deadline_ms;
    struct podnet *net;
    int scratch_fd;
};

static int start_vm(const struct bringup *b, struct err *err)
{
    struct pod *pod = b->pod;
    const struct vm_disk scratch = {
        .fd = b->scratch_fd, .serial = VM_FIRST_DISK_SERIAL, .scratch = true};
    cleanup_free char *dir = pod_run_path(pod);
    char **procs = procs_paths(pod);
    struct vm *vm = NULL;
    struct vm_record record;
    struct vm_spec spec = common_spec(pod_handler(pod));
    char *text = NULL;
    int result = -1;

    spec.id = pod->short_id;
    spec.dir = dir;
    spec.idle = pod->spare;
    spec.nic = b->net == NULL ? NULL : podnet_nic(b->net);
    spec.cancelled = b->net == NULL ? NULL : podnet_failed(b->net);
    spec.first_disk = &scratch;
    spec.cgroup_procs = (const char *const *)procs;
    podsize_boot(pod, &spec);
    if (dir == NULL || procs == NULL)
        err_no_memory(err);
    else
        result = vm_start(pod->mgr->deps.vmm, &spec, b->deadline_ms, &vm, err);
    free_paths(procs);
    if (result != 0)
        return -1;
    vm_get_record(vm, &record);
    result = vm_record_encode(&record, &text, err);
    pthread_mutex_lock(&pod->mutex);
    pod->vm = vm;
    pod->vm_pid = record.pid;
    pod->cloned = record.cloned;
    pod->vm_record = text;
    pthread_mutex_unlock(&pod->mutex);
    return result;
}

/* The messages of a user namespace, which point at each other: not to be moved. */
struct userns_message {
    Casemate__Agent__V1__UserNamespace message;
    Casemate__Agent__V1__IdMapping uids, gids;
};

/* NULL: the pod has none. */
static Casemate__Agent__V1__UserNamespace *make_userns(const struct pod *pod,
                                                       struct userns_message *m)
{
    const Runtime__V1__LinuxPodSandboxConfig *linux_ = pod->facts->config->linux;
    const Runtime__V1__LinuxSandboxSecurityContext *security =
        linux_ == NULL ? NULL : linux_->security_context;
    const Runtime__V1__UserNamespace *from =
        criuserns_of(security == NULL ? NULL : security->namespace_options);

    if (from == NULL)
        return NULL;
    casemate__agent__v1__user_namespace__init(&m->message);
    casemate__agent__v1__id_mapping__init(&m->uids);
    casemate__agent__v1__id_mapping__init(&m->gids);
    m->uids.host_id = from->uids[0]->host_id;
    m->uids.length = from->uids[0]->length;
    m->gids.host_id = from->gids[0]->host_id;
    m->gids.length = from->gids[0]->length;
    m->message.uids = &m->uids;
    m->message.gids = &m->gids;
    return &m->message;
}

static int configure(struct pod *pod, int64_t deadline_ms, struct err *err)
{
    const Runtime__V1__LinuxPodSandboxConfig *linux_ = pod->facts->config->linux;
    size_t n = linux_ == NULL ? 0 : linux_->n_sysctls;
    cleanup_free Casemate__Agent__V1__Sysctl *sysctls = calloc(n + 1, sizeof(*sysctls));
    cleanup_free Casemate__Agent__V1__Sysctl **list =
        calloc(n + 1, sizeof(Casemate__Agent__V1__Sysctl *));
    Casemate__Agent__V1__ConfigurePodRequest request;
    Casemate__Agent__V1__Disk disk;
    struct userns_message userns;
    uint8_t entropy[ENTROPY_BYTES];
    char boot_id[GUEST_TEXT_SIZE];
    char hostname[65];

    if (sysctls == NULL || list == NULL)
        return err_no_memory(err);
    if (getrandom(entropy, sizeof(entropy), 0) != (ssize_t)sizeof(entropy))
        return err_set_errno(err, errno, "getrandom");
    casemate__agent__v1__configure_pod_request__init(&request);
    casemate__agent__v1__disk__init(&disk);
    disk.lun = SCRATCH_LUN;
    disk.fs_type = (char *)(uintptr_t) "ext4";
    disk.size_bytes = pod->mgr->config.scratch_bytes;
    for (size_t i = 0; i < n; i++) {
        casemate__agent__v1__sysctl__init(&sysctls[i]);
        sysctls[i].name = linux_->sysctls[i]->key;
        sysctls[i].value = linux_->sysctls[i]->value;
        list[i] = &sysctls[i];
    }
    pod_hostname(pod, hostname);
    request.pod_id = pod->facts->id;
    request.hostname = hostname;
    request.entropy.data = entropy;
    request.entropy.len = sizeof(entropy);
    request.scratch = &disk;
    request.sysctls = list;
    request.n_sysctls = n;
    request.shm_bytes = SHM_BYTES;
    request.user_namespace = make_userns(pod, &userns);
    request.realtime_ns = clock_realtime_ns();
    /* With many machines starting at once this takes what the start as a whole may take. */
    if (guest_configure_pod(pod->guest, &request, deadline_ms, boot_id, err) != 0)
        return -1;
    pthread_mutex_lock(&pod->mutex);
    memcpy(pod->boot_id, boot_id, sizeof(boot_id));
    pthread_mutex_unlock(&pod->mutex);
    return 0;
}

/* When the VM is dead, what it died of is the better message. */
static void explain(struct pod *pod, struct err *err)
{
    struct vm_exit how;

    if (pod->vm != NULL && vm_has_exited(pod->vm, &how) && strstr(err->msg, how.reason) == NULL)
        (void)err_prefix(err, "the virtual machine has ended: %s", how.reason);
}

/* One step, shown in the timeline. */
static int step(struct bringup *b, const char *name, int (*fn)(struct bringup *b, struct err *err),
                struct err *err)
{
    /* The thread that sets it kills the machine that it sees; one that came since is ours to end.
     */
    if (b->net != NULL && atomic_load(podnet_failed(b->net)))
        return err_set(err, ERR_CANCELLED, "the pod's network has failed");
    unsigned number = timeline_begin(&b->pod->timeline, name);
    int result = fn(b, err);

    timeline_end(&b->pod->timeline, number);
    return result;
}

/* Likewise, and counted. */
static int phase_step(struct bringup *b, enum phase phase, const char *name,
                      int (*fn)(struct bringup *b, struct err *err), struct err *err)
{
    int64_t began_ns = clock_monotonic_ns();
    int result = step(b, name, fn, err);

    if (result == 0 && !b->pod->spare)
        phases_add(&b->pod->mgr->phases, phase, clock_monotonic_ns() - began_ns);
    return result;
}

static int step_network(struct bringup *b, struct err *err)
{
    return b->pod->spare ? 0 : podnet_begin(b->pod, b->deadline_ms, &b->net, err);
}

static int step_network_end(struct bringup *b, struct err *err)
{
    return b->net == NULL ? 0 : podnet_finish(b->net, b->deadline_ms, err);
}

static int step_folders(struct bringup *b, struct err *err)
{
    return make_folders(b->pod, err) != 0 || make_cgroups(b->pod, err) != 0 ? -1 : 0;
}

static int step_scratch(struct bringup *b, struct err *err)
{
    return make_scratch(b->pod, b->deadline_ms, &b->scratch_fd, err);
}

static int step_machine(struct bringup *b, struct err *err)
{
    if (start_vm(b, err) != 0)
        return err_prefix(err, "virtual machine");
    timeline_set_pid(&b->pod->timeline, b->pod->vm_pid);
    return 0;
}

static int step_size(struct bringup *b, struct err *err)
{
    return podsize_apply(b->pod, b->pod->vm, b->deadline_ms, err);
}

static int step_agent(struct bringup *b, struct err *err)
{
    return pod_connect(b->pod, b->deadline_ms, err);
}

static int step_configure(struct bringup *b, struct err *err)
{
    return configure(b->pod, b->deadline_ms, err);
}

static int step_adopt(struct bringup *b, struct err *err)
{
    struct pod *pod = b->pod;

    timeline_set_pid(&pod->timeline, pod->vm_pid);
    spawn_hurry(pod->vm_pid);
    if (make_log_folder(pod, err) != 0 || make_cgroups(pod, err) != 0 ||
        vmcgroup_enter(pod->cgroups, pod->n_cgroups, pod->vm_pid, err) != 0)
        return -1;
    return podsize_apply(pod, pod->vm, b->deadline_ms, err);
}

/* What a start has failed of: when it was the network, the rest is only what came of it. */
static void blame(const struct bringup *b, struct err *err)
{
    if (b->net == NULL || !atomic_load(podnet_failed(b->net)) || !podnet_failure(b->net, err))
        explain(b->pod, err);
}

/* A machine that was made ahead becomes the pod's: it has its disk, its agent answers. */
static int adopt(struct pod *pod, int64_t deadline_ms, struct err *err)
{
    struct bringup b = {.pod = pod, .deadline_ms = deadline_ms, .scratch_fd = -1};
    int64_t began_ms = clock_monotonic_ms();
    int result = -1;

    if (step(&b, "network begun", step_network, err) == 0) {
        if (phase_step(&b, PHASE_MACHINE, "machine adopted", step_adopt, err) != 0 ||
            phase_step(&b, PHASE_CONFIGURATION, "configuration", step_configure, err) != 0 ||
            step(&b, "network awaited", step_network_end, err) != 0)
            blame(&b, err);
        else
            result = 0;
        pod->boot_ms = clock_monotonic_ms() - began_ms;
    }
    podnet_free(b.net);
    return result;
}

static int boot(struct pod *pod, int64_t deadline_ms, struct err *err)
{
    struct bringup b = {.pod = pod, .deadline_ms = deadline_ms, .scratch_fd = -1};
    int64_t began_ms;
    int result = -1;

    if (step(&b, "network begun", step_network, err) == 0 &&
        step(&b, "folders", step_folders, err) == 0 &&
        step(&b, "scratch disk", step_scratch, err) == 0) {
        began_ms = clock_monotonic_ms();
        if (phase_step(&b, PHASE_MACHINE, "machine", step_machine, err) == 0 &&
            step(&b, "size", step_size, err) == 0 &&
            phase_step(&b, PHASE_AGENT, "agent", step_agent, err) == 0)
            result = 0;
        pod->boot_ms = clock_monotonic_ms() - began_ms;
        if (result == 0 &&
            (phase_step(&b, PHASE_CONFIGURATION, "configuration", step_configure, err) != 0 ||
             step(&b, "network awaited", step_network_end, err) != 0))
            result = -1;
    }
    if (result != 0)
        blame(&b, err);
    close_fd(&b.scratch_fd);
    podnet_free(b.net);
    return result;
}

static int become_ready(struct pod *pod, int64_t deadline_ms, struct err *err)
{
    struct vm_exit how;
    bool stopped;

    if ((pod->vm != NULL ? adopt(pod, deadline_ms, err) : boot(pod, deadline_ms, err)) != 0)
        return -1;
    pod_watch_vm(pod, pod->vm);
    pthread_mutex_lock(&pod->mutex);
    stopped = pod->state != POD_CREATING;
    if (!stopped && !pod->spare)
        pod_set_state(pod, POD_READY);
    pthread_mutex_unlock(&pod->mutex);
    if (stopped)
        return err_set(err, ERR_UNAVAILABLE, "the virtual machine has ended: %s",
                       text_or_empty(pod->message));
    if (vm_has_exited(pod->vm, &how))
        return err_set(err, ERR_UNAVAILABLE, "the virtual machine has ended: %s", how.reason);
    unsigned number = timeline_begin(&pod->timeline, "record");
    int result = pod_save(pod, err);
    timeline_end(&pod->timeline, number);
    return result;
}

int pod_bring_up(struct pod *pod, int64_t deadline_ms, struct err *err)
{
    int result;

    /* An operation like any other: an end of the VM waits for it before it takes vm and guest away.
     */
    pthread_mutex_lock(&pod->mutex);
    pod->operations++;
    pthread_mutex_unlock(&pod->mutex);
    result = become_ready(pod, deadline_ms, err);
    pthread_mutex_lock(&pod->mutex);
    pod->operations--;
    pthread_cond_broadcast(&pod->cond);
    pthread_mutex_unlock(&pod->mutex);
    return result;
}

/* ---- hearing of the end ---- */

struct end_job {
    struct pod *pod;
    bool agent_lost;
    char message[1024];
};

/* A lost connection is most often the first sign of a VM that ends: lets that be the reason. */
static bool ends_by_itself(struct pod *pod)
{
    int64_t deadline_ms = clock_deadline(SETTLE_MS);
    bool ending;

    pthread_mutex_lock(&pod->mutex);
    while (pod->state == POD_READY || pod->state == POD_CREATING) {
        if (!pod_wait(pod, deadline_ms))
            break;
    }
    ending = pod->state != POD_READY && pod->state != POD_CREATING;
    pthread_mutex_unlock(&pod->mutex);
    return ending;
}

static void end_job_run(void *arg)
{
    struct end_job *job = arg;
    struct pod *pod = job->pod;
    bool is_spare;

    pthread_mutex_lock(&pod->mutex);
    is_spare = pod->spare;
    pthread_mutex_unlock(&pod->mutex);
    if (!job->agent_lost || !ends_by_itself(pod)) {
        struct log_ctx ctx = {.sandbox = pod->facts->id};
        log_event(LOG_WARN, &ctx, NULL, "%s: %s",
                  job->agent_lost ? "agent lost" : "virtual machine ended", job->message);
        pod_end_vm(pod, job->agent_lost ? "AgentLost" : "VMExited", job->message);
    }
    if (is_spare)
        spares_lose(pod);
    pod_unref(pod);
    free(job);
}

static void end_later(struct pod *pod, bool agent_lost, const char *message)
{
    struct end_job *job = calloc(1, sizeof(*job));

    if (job == NULL) {
        struct log_ctx ctx = {.sandbox = pod->facts->id};
        log_event(LOG_ERROR, &ctx, NULL, "no memory to record the end of the virtual machine");
        return;
    }
    job->pod = pod_ref(pod);
    job->agent_lost = agent_lost;
    (void)memccpy(job->message, message, '\0', sizeof(job->message) - 1);
    manager_defer(pod->mgr, end_job_run, job);
}

static void on_vm_exit(void *arg, const struct vm_exit *how)
{
    end_later(arg, false, how->reason);
}

static void on_agent_closed(void *arg, const struct err *err)
{
    end_later(arg, true, err->msg);
}

struct watch_errand {
    struct pod *pod;
    struct vm *vm;
    bool watch;
};

static void set_watch(void *arg)
{
    struct watch_errand *errand = arg;
    struct err err;

    if (vm_set_exit_handler(errand->vm, errand->watch ? on_vm_exit : NULL, errand->pod, &err) !=
        0) {
        struct log_ctx ctx = {.sandbox = errand->pod->facts->id};
        log_event(LOG_WARN, &ctx, &err, "the virtual machine's end will not be heard of at once");
    }
}

void pod_watch_vm(struct pod *pod, struct vm *vm)
{
    struct watch_errand errand = {.pod = pod, .vm = vm == NULL ? pod->vm : vm, .watch = vm != NULL};

    manager_on_loop(pod->mgr, set_watch, &errand);
}

int pod_connect(struct pod *pod, int64_t deadline_ms, struct err *err)
{
    struct guest_config config = {
        .loop = pod->mgr->deps.loop,
        .on_closed = on_agent_closed,
        .on_closed_arg = pod,
    };
    const struct guest_info *info;
    struct guest *guest = NULL;
    int fd = -1;

    if (vm_connect_agent(pod->vm, deadline_ms, &fd, err) != 0)
        return err_prefix(err, "agent");
    if (guest_connect(&config, fd, deadline_ms, &guest, err) != 0)
        return -1;
    info = guest_get_info(guest);
    pthread_mutex_lock(&pod->mutex);
    pod->guest = guest;
    memcpy(pod->boot_id, info->boot_id, sizeof(pod->boot_id));
    memcpy(pod->guest_kernel, info->kernel_release, sizeof(pod->guest_kernel));
    pthread_mutex_unlock(&pod->mutex);
    return 0;
}

/* ---- ending ---- */

/* Becomes the one who ends the VM; false: it has ended (waited for, if need be). */
static bool begin_end(struct pod *pod, const char *reason, const char *message)
{
    bool mine = false;

    pthread_mutex_lock(&pod->mutex);
    while (pod->ending)
        (void)pod_wait(pod, CLOCK_NO_DEADLINE);
    if (pod->state != POD_STOPPED && pod->state != POD_REMOVING) {
        if (pod->state != POD_STOPPING)
            pod_set_state(pod, POD_STOPPING);
        set_text(&pod->reason, reason);
        set_text(&pod->message, message);
        pod->ending = mine = true;
    }
    pthread_mutex_unlock(&pod->mutex);
    return mine;
}

static void await_operations(struct pod *pod)
{
    int64_t deadline_ms = clock_deadline(OPERATIONS_MS);

    pthread_mutex_lock(&pod->mutex);
    while (pod->operations > 0 && pod_wait(pod, deadline_ms))
        ;
    if (pod->operations > 0) {
        struct log_ctx ctx = {.sandbox = pod->facts->id};
        log_event(LOG_ERROR, &ctx, NULL, "%u operations still run after the end of the VM",
                  pod->operations);
    }
    pthread_mutex_unlock(&pod->mutex);
}

static void end_containers(struct pod *pod, const char *reason, const char *message)
{
    size_t n = 0;
    struct container **list = pod_containers(pod, &n);

    for (size_t i = 0; i < n; i++) {
        container_unfollow(list[i], true);
        container_mark_exited(list[i], 137, clock_realtime_ns(), reason, message);
        container_unref(list[i]);
    }
    free(list);
}

/* What only the VM needed. */
static void remove_files(struct pod *pod)
{
    cleanup_free char *run = pod_run_path(pod);
    cleanup_free char *state = pod_state_path(pod);
    struct err err;

    if ((run != NULL && fd_remove_tree(AT_FDCWD, run, &err) != 0) ||
        (state != NULL && fd_remove_tree(AT_FDCWD, state, &err) != 0)) {
        struct log_ctx ctx = {.sandbox = pod->facts->id};
        log_event(LOG_WARN, &ctx, &err, "files of the pod stay, ignoring");
    }
    vmcgroup_remove(pod->cgroups, pod->n_cgroups);
}

static void detach(struct pod *pod)
{
    struct log_ctx ctx = {.sandbox = pod->facts->id};
    struct err err;

    if (podnet_detach(pod, clock_deadline(DETACH_MS), &err) != 0)
        log_event(LOG_WARN, &ctx, &err, "the pod has ended");
}

static void *detach_main(void *arg)
{
    detach(arg);
    return NULL;
}

/*
 * The plugins run while the kernel takes QEMU apart, whose guest sends nothing any more. Not while
 * a network may be on its way to the pod: then it is taken off after everything else has ended.
 */
static bool begin_detach(struct pod *pod, pthread_t *ret_thread)
{
    bool attached;

    pthread_mutex_lock(&pod->mutex);
    attached = pod->n_ips > 0;
    pthread_mutex_unlock(&pod->mutex);
    return attached && pthread_create(ret_thread, NULL, detach_main, pod) == 0;
}

void pod_end_vm(struct pod *pod, const char *reason, const char *message)
{
    struct log_ctx ctx = {.sandbox = pod->facts->id};
    struct guest *guest;
    struct err err;
    struct vm *vm;
    pthread_t thread;
    bool detaching;

    if (!begin_end(pod, reason, message))
        return;
    vm = pod->vm;
    guest = pod->guest;
    if (vm != NULL) {
        pod_watch_vm(pod, NULL);
        vm_kill_begin(vm);
    }
    detaching = begin_detach(pod, &thread);
    if (vm != NULL) {
        if (vm_kill(vm, &err) != 0)
            log_event(LOG_ERROR, &ctx, &err, "the virtual machine cannot be killed");
    }
    if (guest != NULL)
        guest_close(guest);
    await_operations(pod);
    /* A stopped pod's containers were killed: kubelets know that as Error, with 137. */
    end_containers(pod, strcmp(reason, "Stopped") == 0 ? "Error" : reason, message);
    if (detaching)
        (void)pthread_join(thread, NULL);
    else
        detach(pod);
    remove_files(pod);
    pthread_mutex_lock(&pod->mutex);
    pod->vm = NULL;
    pod->guest = NULL;
    pod->vm_pid = 0;
    free(steal_ptr(&pod->vm_record));
    pod_disks_clear(pod);
    pod->ending = false;
    pod_set_state(pod, POD_STOPPED);
    pthread_mutex_unlock(&pod->mutex);
    guest_unref(guest);
    vm_unref(vm);
    if (pod_save(pod, &err) != 0)
        log_event(LOG_ERROR, &ctx, &err, "the end of the pod is not recorded");
}
