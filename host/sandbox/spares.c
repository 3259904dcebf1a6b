/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. A spare goes the way of every pod (pod_bring_up) with an empty
 * configuration, and stops short of READY. Then it warms up: a container with a program that only
 * exits is made, started, joined by a command and removed. Under emulation that is most of what a
 * first container costs: its code paths in the guest's kernel and agent are translated once per
 * machine (some 12,000 blocks, a tenth of a second), whoever takes them first. Nothing of it is
 * left in the guest but a removed container's number.
 *
 * The disk for it holds nothing but that program, so that a pod never has a disk in its machine
 * that holds more than its own images and a public file.
 *
 * Making one is nobody's hurry: it is done one after another, by one worker, and the machine is
 * niced until it is taken, so that it stands back behind machines that pods wait for. A spare has
 * its pod's id from birth, since its machine's name, folder and disk are called by it.
 */
#include "host/sandbox/spares.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "host/sandbox/model.h"

#define WARM_SERIAL "warm"
#define WARM_NAME   "warm"
#define WARM_MS     20000

/* ---- warming up ---- */

static char *unconst(const char *text)
{
    return (char *)(uintptr_t)text;
}

static int attach_program(const struct pod *pod, int64_t deadline_ms,
                          Casemate__Agent__V1__Disk *ret_disk, struct err *err)
{
    cleanup_fd int fd = open(pod->mgr->config.warm_image, O_RDONLY | O_CLOEXEC);
    struct vm_disk disk = {.fd = fd, .read_only = true, .serial = WARM_SERIAL};
    struct stat st;
    uint32_t lun;

    if (fd < 0 || fstat(fd, &st) != 0)
        return err_set_errno(err, errno, "'%s'", pod->mgr->config.warm_image);
    if (vm_add_disk(pod->vm, &disk, deadline_ms, &lun, err) != 0)
        return -1;
    casemate__agent__v1__disk__init(ret_disk);
    ret_disk->lun = lun;
    ret_disk->read_only = true;
    ret_disk->fs_type = unconst("squashfs");
    ret_disk->size_bytes = (uint64_t)st.st_size;
    return 0;
}

static void on_output(void *arg, bool is_stderr, const uint8_t *bytes, size_t n)
{
    (void)arg;
    (void)is_stderr;
    (void)bytes;
    (void)n;
}

/* The life of one container; what is left after a failure goes with the machine. */
static int live(struct pod *pod, const Casemate__Agent__V1__CreateContainerRequest *request,
                int64_t deadline_ms, struct err *err)
{
    struct guest_process name = {.container_id = request->id, .exec_id = ""};
    Casemate__Agent__V1__Process command = *request->process;
    Casemate__Agent__V1__ExecRequest exec = CASEMATE__AGENT__V1__EXEC_REQUEST__INIT;
    struct guest_run run = {.request = &exec, .on_output = on_output};
    struct guest_user user;
    struct guest_exit exit;
    int64_t started_ns;

    command.n_args = 1;
    exec.container_id = request->id;
    exec.exec_id = unconst(WARM_NAME);
    exec.process = &command;
    if (guest_create_container(pod->guest, request, deadline_ms, &user, err) != 0 ||
        guest_start(pod->guest, request->id, deadline_ms, &started_ns, err) != 0 ||
        guest_run(pod->guest, &run, deadline_ms, &exit, err) != 0 ||
        guest_signal(pod->guest, &name, SIGKILL, true, deadline_ms, err) != 0 ||
        guest_wait(pod->guest, &name, deadline_ms, &exit, err) != 0 ||
        guest_remove(pod->guest, &name, deadline_ms, err) != 0)
        return -1;
    return 0;
}

static int warm_up(struct pod *pod, struct err *err)
{
    static const char *const masked[] = {"/proc/acpi", "/proc/kcore", "/proc/keys"};
    static const char *const read_only[] = {"/proc/bus", "/proc/sys"};
    char *args[] = {unconst("/warm"), unconst("wait")};
    int64_t deadline_ms = clock_deadline(WARM_MS);
    Casemate__Agent__V1__CreateContainerRequest request;
    Casemate__Agent__V1__Capabilities none = CASEMATE__AGENT__V1__CAPABILITIES__INIT;
    Casemate__Agent__V1__Process process = CASEMATE__AGENT__V1__PROCESS__INIT;
    Casemate__Agent__V1__RootFs rootfs = CASEMATE__AGENT__V1__ROOT_FS__INIT;
    Casemate__Agent__V1__User user = CASEMATE__AGENT__V1__USER__INIT;
    Casemate__Agent__V1__Disk disk, *layers[] = {&disk};

    if (attach_program(pod, deadline_ms, &disk, err) != 0)
        return -1;
    casemate__agent__v1__create_container_request__init(&request);
    process.args = args;
    process.n_args = ARRAY_SIZE(args);
    process.capabilities = &none;
    process.user = &user;
    rootfs.layers = layers;
    rootfs.n_layers = 1;
    request.id = unconst(WARM_NAME);
    request.process = &process;
    request.rootfs = &rootfs;
    request.masked_paths = (char **)(uintptr_t)masked;
    request.n_masked_paths = ARRAY_SIZE(masked);
    request.readonly_paths = (char **)(uintptr_t)read_only;
    request.n_readonly_paths = ARRAY_SIZE(read_only);
    return live(pod, &request, deadline_ms, err);
}

void spares_set_nice(const struct pod *pod, int nice)
{
    cleanup_free char *path = text_printf("/proc/%d/task", (int)pod->vm_pid);
    DIR *dir = path == NULL || pod->vm_pid <= 0 ? NULL : opendir(path);
    struct dirent *entry;
    uint64_t tid;

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        if (text_parse_u64(entry->d_name, INT32_MAX, &tid) == 0)
            (void)setpriority(PRIO_PROCESS, (id_t)tid, nice);
    }
    if (dir != NULL)
        closedir(dir);
}

/* ---- making ---- */

static int make(struct sandbox_manager *mgr, struct pod **ret_pod, struct err *err)
{
    Runtime__V1__PodSandboxConfig nothing = RUNTIME__V1__POD_SANDBOX_CONFIG__INIT;
    struct pod_facts *facts;
    struct pod *pod = NULL;
    char id[SANDBOX_ID_SIZE];
    int result;

    text_random_hex(SANDBOX_ID_LEN / 2, id);
    facts = pod_facts_new(id, clock_realtime_ns(), "", &nothing, err);
    if (facts == NULL)
        return -1;
    result = pod_new(mgr, facts, &pod, err);
    pod_facts_unref(facts);
    if (result != 0)
        return -1;
    pod->spare = true;
    if (pod_bring_up(pod, clock_deadline(mgr->config.boot_timeout_ms), err) != 0 ||
        (*mgr->config.warm_image != '\0' && warm_up(pod, err) != 0)) {
        pod_end_vm(pod, "StartFailed", err->msg);
        pod_unref(pod);
        return -1;
    }
    *ret_pod = pod;
    return 0;
}

/* Whether another one is to be made by the caller, who says so when it is done. */
static bool begin(struct sandbox_manager *mgr)
{
    struct vmm_status status;
    bool wanted;

    /* What is not cloned would boot, for seconds of all that a processor has. */
    vmm_get_status(mgr->deps.vmm, &status);
    pthread_mutex_lock(&mgr->mutex);
    wanted = !mgr->closing && !mgr->making_spare && status.templates > 0 &&
             mgr->n_spares < mgr->config.spares;
    if (wanted)
        mgr->making_spare = true;
    pthread_mutex_unlock(&mgr->mutex);
    return wanted;
}

/* Takes the new one into the list, unless it has ended meanwhile. NULL: none was made. */
static void end(struct sandbox_manager *mgr, struct pod *pod)
{
    bool lives;

    pthread_mutex_lock(&mgr->mutex);
    mgr->making_spare = false;
    if (pod != NULL) {
        pthread_mutex_lock(&pod->mutex);
        lives = pod->state == POD_CREATING && !pod->ending;
        pthread_mutex_unlock(&pod->mutex);
        if (lives) {
            TAILQ_INSERT_TAIL(&mgr->spares, pod, entry);
            mgr->n_spares++;
            pod = NULL;
        }
    }
    pthread_mutex_unlock(&mgr->mutex);
    pod_unref(pod);
}

static void refill(void *arg)
{
    struct sandbox_manager *mgr = arg;
    struct pod *pod;
    struct err err;

    while (begin(mgr)) {
        pod = NULL;
        if (make(mgr, &pod, &err) != 0)
            log_event(LOG_WARN, NULL, &err, "no machine is made ahead, going on without");
        end(mgr, pod);
        if (pod == NULL)
            return; /* tried again with the next pod */
        log_info("a machine was made ahead");
    }
}

void spares_refill(struct sandbox_manager *mgr)
{
    if (mgr->config.spares > 0 && mgr->handlers[0].clone)
        manager_defer(mgr, refill, mgr);
}

/* ---- taking and losing ---- */

struct pod *spares_take(struct sandbox_manager *mgr)
{
    struct pod *pod;

    pthread_mutex_lock(&mgr->mutex);
    pod = TAILQ_FIRST(&mgr->spares);
    if (pod != NULL) {
        TAILQ_REMOVE(&mgr->spares, pod, entry);
        mgr->n_spares--;
    }
    pthread_mutex_unlock(&mgr->mutex);
    return pod;
}

void spares_lose(struct pod *pod)
{
    struct sandbox_manager *mgr = pod->mgr;
    struct pod *other;
    bool listed = false;

    pthread_mutex_lock(&mgr->mutex);
    TAILQ_FOREACH (other, &mgr->spares, entry)
        listed = listed || other == pod;
    if (listed) {
        TAILQ_REMOVE(&mgr->spares, pod, entry);
        mgr->n_spares--;
    }
    pthread_mutex_unlock(&mgr->mutex);
    if (listed)
        pod_unref(pod);
}

void spares_end(struct sandbox_manager *mgr)
{
    struct pod *pod;

    while ((pod = spares_take(mgr)) != NULL) {
        pod_end_vm(pod, "Stopped", "the daemon ends");
        pod_unref(pod);
    }
}
