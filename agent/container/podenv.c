/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clock and entropy come first: everything after them may depend on either. Both are what a clone
 * lacks most: it has its template's. What can block (the disk may still be on its way) is a task;
 * the rest writes to the kernel directly.
 *
 * A user namespace, with its network, UTS and IPC namespaces, comes before what is set in these:
 * the agent is in them from then on, and its children with it. What was made before (the pod's
 * /dev/shm, its files) is given to the namespace's root.
 *
 * The boot id is drawn again after the host's entropy was mixed in, since clones draw from equal
 * generators before.
 */
#include "agent/container/podenv.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <time.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/base/netlink.h"
#include "common/base/text.h"
#include "agent/container/validate.h"
#include "agent/mount/disk.h"
#include "agent/init/sysctl.h"
#include "agent/mount/podfiles.h"
#include "agent/mount/rootfs.h"
#include "agent/net/ifind.h"
#include "agent/net/network.h"
#include "agent/net/parking.h"
#include "agent/process/task.h"
#include "agent/process/userns.h"

#define DISK_TIMEOUT_MS 10000
#define NIC_TIMEOUT_MS  10000
#define MAX_ENTROPY     512u

enum podenv_state {
    PODENV_NEW,         /* nothing was asked yet, or it failed */
    PODENV_CONFIGURING, /* a task mounts, and makes the network if that is known already */
    PODENV_CONFIGURED,  /* containers may be made */
    PODENV_NETWORKING,  /* as before, while a task makes the network */
};

struct podenv {
    struct reaper *reaper;
    enum podenv_state state;
    char id[VALIDATE_MAX_ID + 1];
    char boot_id[PODENV_BOOT_ID_SIZE];
    struct network_card card; /* not ready any more once a network was asked for */
    bool has_rehearsed;       /* and no network was asked for since: the files are not the pod's */
    struct parking parking;   /* of the card, while the pod has no network */
    struct userns userns;     /* fd -1: none */
    bool has_arrived;         /* in its network namespace */
    /* The scratch disk that PreparePod mounted. */
    bool is_prepared;
    uint32_t scratch_lun;
    uint64_t scratch_bytes;
    void (*done)(void *arg, const struct err *err);
    void *done_arg;
};

int podenv_new(struct reaper *reaper, const struct network_card *card, struct podenv **ret_pod,
               struct err *err)
{
    struct podenv *pod = calloc(1, sizeof(*pod));
    struct err why;
    if (pod == NULL)
        return err_no_memory(err);
    pod->reaper = reaper;
    pod->card = *card;
    parking_init(&pod->parking);
    if (card->slot != 0 && parking_make(&pod->parking, &why) < 0)
        log_event(LOG_WARN, NULL, &why, "no place for a card out of sight yet, going on");
    pod->userns.fd = -1;
    text_random_hex((PODENV_BOOT_ID_SIZE - 1) / 2, pod->boot_id);
    *ret_pod = pod;
    return 0;
}

void podenv_free(struct podenv *pod)
{
    if (pod == NULL)
        return;
    parking_fini(&pod->parking);
    close_fd(&pod->userns.fd);
    close_fd(&pod->card.outside_ns);
    free(pod);
}

const struct userns *podenv_userns(const struct podenv *pod)
{
    return pod->userns.fd >= 0 ? &pod->userns : NULL;
}

bool podenv_is_configured(const struct podenv *pod)
{
    return pod->state == PODENV_CONFIGURED || pod->state == PODENV_NETWORKING;
}

const char *podenv_boot_id(const struct podenv *pod)
{
    return pod->boot_id;
}

static int set_clock(int64_t realtime_ns, struct err *err)
{
    struct timespec now = {
        .tv_sec = (time_t)(realtime_ns / NSEC_PER_SEC),
        .tv_nsec = (long)(realtime_ns % NSEC_PER_SEC),
    };
    if (clock_settime(CLOCK_REALTIME, &now) < 0)
        return err_set_errno(err, errno, "set the clock");
    return 0;
}

static int mix_entropy(const ProtobufCBinaryData *entropy, struct err *err)
{
    union {
        struct rand_pool_info info;
        unsigned char space[sizeof(struct rand_pool_info) + MAX_ENTROPY];
    } pool;
    cleanup_fd int fd = open("/dev/random", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return err_set_errno(err, errno, "open /dev/random");
    size_t n = entropy->len < MAX_ENTROPY ? entropy->len : MAX_ENTROPY;
    memset(&pool, 0, sizeof(pool));
    pool.info.entropy_count = (int)(n * 8);
    pool.info.buf_size = (int)n;
    memcpy(pool.info.buf, entropy->data, n);
    int rc = ioctl(fd, RNDADDENTROPY, &pool.info) < 0 || ioctl(fd, RNDRESEEDCRNG) < 0 ? -1 : 0;
    int e = errno;
    explicit_bzero(&pool, sizeof(pool));
    return rc < 0 ? err_set_errno(err, e, "mix in entropy") : 0;
}

/* What a task needs. */
struct work {
    const Casemate__Agent__V1__ConfigurePodRequest *request; /* NULL: the network alone */
    const Casemate__Agent__V1__Network *network;             /* NULL: none yet */
    const struct userns *userns;                             /* NULL: none */
    struct network_card card;
    bool after_rehearsal; /* whose files are there */
};

/* Every machine has a card; a pod without a network is not to see it. (One with a user namespace
 * has it in sight only after it was fetched.) */
static int place_card(struct podenv *pod, const Casemate__Agent__V1__Network *network,
                      struct err *err)
{
    struct ifind card;
    struct err why;
    cleanup_fd int fd = -1;

    if (network->n_interfaces > 0)
        return parking_take(&pod->parking, err);
    if (pod->parking.name[0] != '\0' || pod->card.slot == 0)
        return 0;
    if (pod->card.ready)
        return parking_put(&pod->parking, &pod->card.is, err);
    if (netlink_open(&fd, err) < 0)
        return -1;
    if (ifind_by_slot(fd, network_class_dir(&pod->card), pod->card.slot, &card, &why) == 0)
        return parking_put(&pod->parking, &card, err);
    if (why.code != ERR_NOT_FOUND && err != NULL)
        *err = why;
    return why.code == ERR_NOT_FOUND ? 0 : -1;
}

static int make_network(const struct work *work, struct err *err)
{
    if (podfiles_write(work->network, work->after_rehearsal, err) < 0)
        return -1;
    if (work->userns != NULL && podfiles_own(work->userns->uid, work->userns->gid, err) < 0)
        return -1;
    return network_apply(work->network, &work->card, clock_deadline(NIC_TIMEOUT_MS), err);
}

/* In a task. */
static int network_task(void *arg, struct err *err)
{
    return make_network(arg, err);
}

static int own_shm(const struct userns *userns, struct err *err)
{
    if (userns != NULL && chown(ROOTFS_SHM_DIR, userns->uid, userns->gid) < 0)
        return err_set_errno(err, errno, "own /dev/shm");
    return 0;
}

/* In a task: the scratch disk, or memory in its place, and the pod's /dev/shm. */
static int mount_all(void *arg, struct err *err)
{
    const struct work *work = arg;
    const Casemate__Agent__V1__ConfigurePodRequest *r = work->request;
    if (r->scratch != NULL) {
        char device[DISK_PATH_SIZE];
        if (disk_find(r->scratch->lun, r->scratch->serial, r->scratch->size_bytes,
                      clock_deadline(DISK_TIMEOUT_MS), device, err) < 0)
            return err_prefix(err, "scratch disk");
        /* A file system made with project quotas keeps the sums without being told to. */
        if (mount(device, ROOTFS_SCRATCH_DIR, "ext4", MS_NODEV | MS_NOATIME, "discard") < 0)
            return err_set_errno(err, errno, "mount the scratch disk (LUN %u)", r->scratch->lun);
    } else if (mount("scratch", ROOTFS_SCRATCH_DIR, "tmpfs", MS_NODEV, "mode=0700") < 0) {
        return err_set_errno(err, errno, "mount scratch memory");
    }
    char options[64] = "mode=1777";
    if (r->shm_bytes > 0)
        (void)snprintf(options, sizeof(options), "mode=1777,size=%llu",
                       (unsigned long long)r->shm_bytes);
    if (mount("shm", ROOTFS_SHM_DIR, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options) < 0) {
        int e = errno;
        (void)umount2(ROOTFS_SCRATCH_DIR, MNT_DETACH);
        return err_set_errno(err, e, "mount /dev/shm");
    }
    if (own_shm(work->userns, err) < 0 || (work->network != NULL && make_network(work, err) < 0)) {
        (void)umount2(ROOTFS_SHM_DIR, MNT_DETACH);
        (void)umount2(ROOTFS_SCRATCH_DIR, MNT_DETACH);
        return -1;
    }
    return 0;
}

/*
 * In a task, for the template and all its clones. With a scheduler each read of a layer's metadata,
 * and a mount is a dozen of them, goes round by a kernel thread.
 */
static int prepare_all(void *arg, struct err *err)
{
    if (mount_all(arg, err) < 0)
        return -1;
    disk_drop_schedulers("/sys");
    return 0;
}

static void on_mounted(void *arg, const struct err *err)
{
    struct podenv *pod = arg;
    pod->state = err == NULL ? PODENV_CONFIGURED : PODENV_NEW;
    pod->done(pod->done_arg, err);
}

static void on_prepared(void *arg, const struct err *err)
{
    struct podenv *pod = arg;
    pod->state = PODENV_NEW;
    pod->is_prepared = err == NULL;
    pod->done(pod->done_arg, err);
}

int podenv_prepare(struct podenv *pod, const Casemate__Agent__V1__Disk *scratch,
                   void (*done)(void *arg, const struct err *err), void *arg, struct err *err)
{
    Casemate__Agent__V1__ConfigurePodRequest mounts =
        CASEMATE__AGENT__V1__CONFIGURE_POD_REQUEST__INIT;
    union {
        const Casemate__Agent__V1__Disk *in;
        Casemate__Agent__V1__Disk *out;
    } unconst = {.in = scratch};
    if (pod->state != PODENV_NEW || pod->is_prepared)
        return err_set(err, ERR_BAD_STATE, "it is too late to prepare for a pod");
    mounts.scratch = unconst.out;
    struct work work = {.request = &mounts};
    pod->scratch_lun = scratch->lun;
    pod->scratch_bytes = scratch->size_bytes;
    pod->done = done;
    pod->done_arg = arg;
    if (task_run(pod->reaper, prepare_all, &work, on_prepared, pod, err) < 0)
        return -1;
    pod->state = PODENV_CONFIGURING;
    return 0;
}

/* What is left to be done of the mounts in a VM that was prepared. */
static int adopt_mounts(const struct podenv *pod, const Casemate__Agent__V1__ConfigurePodRequest *r,
                        struct err *err)
{
    char options[64];
    if (r->scratch == NULL || r->scratch->lun != pod->scratch_lun ||
        r->scratch->size_bytes != pod->scratch_bytes)
        return err_set(err, ERR_BAD_STATE, "this VM was prepared with another scratch disk");
    if (r->shm_bytes == 0)
        return 0;
    (void)snprintf(options, sizeof(options), "mode=1777,size=%llu",
                   (unsigned long long)r->shm_bytes);
    if (mount("shm", ROOTFS_SHM_DIR, "tmpfs", MS_REMOUNT | MS_NOSUID | MS_NODEV | MS_NOEXEC,
              options) < 0)
        return err_set_errno(err, errno, "size /dev/shm");
    return 0;
}

/* The pod's user namespace, once. */
static int make_userns(struct podenv *pod, const Casemate__Agent__V1__UserNamespace *mapping,
                       struct err *err)
{
    if (mapping == NULL || (pod->has_arrived && userns_has_mapping(&pod->userns, mapping)))
        return 0;
    if (pod->userns.fd >= 0 && !userns_has_mapping(&pod->userns, mapping))
        return err_set(err, ERR_BAD_STATE, "this pod has another user namespace");
    if (pod->userns.fd < 0 &&
        (network_leave(&pod->card, err) < 0 || userns_make(mapping, &pod->userns, err) < 0))
        return -1;
    if (network_arrive(&pod->card, err) < 0)
        return -1;
    pod->has_arrived = true;
    return 0;
}

int podenv_configure(struct podenv *pod, const Casemate__Agent__V1__ConfigurePodRequest *request,
                     void (*done)(void *arg, const struct err *err), void *arg, struct err *err)
{
    if (pod->state == PODENV_CONFIGURING || pod->state == PODENV_NETWORKING)
        return err_set(err, ERR_BAD_STATE, "configuration is under way");
    if (pod->state == PODENV_CONFIGURED && strcmp(pod->id, request->pod_id) != 0)
        return err_set(err, ERR_BAD_STATE, "this VM is pod %s", pod->id);
    if (set_clock(request->realtime_ns, err) < 0 || mix_entropy(&request->entropy, err) < 0 ||
        make_userns(pod, request->user_namespace, err) < 0)
        return -1;
    if (request->hostname[0] != '\0' &&
        sethostname(request->hostname, strlen(request->hostname)) < 0)
        return err_set_errno(err, errno, "set the hostname");
    const uid_t ns_root = pod->userns.fd >= 0 ? pod->userns.uid : 0;
    if (sysctl_set(request->sysctls, request->n_sysctls, ns_root, err) < 0)
        return -1;
    if (pod->state == PODENV_CONFIGURED) {
        if (own_shm(podenv_userns(pod), err) < 0)
            return -1;
        if (request->network != NULL)
            return podenv_configure_network(pod, request->network, done, arg, err);
        done(arg, NULL);
        return 0;
    }
    struct work work = {.request = request,
                        .network = request->network,
                        .userns = podenv_userns(pod),
                        .card = pod->card};
    if (request->network != NULL && place_card(pod, request->network, err) < 0)
        return -1;
    (void)snprintf(pod->id, sizeof(pod->id), "%s", request->pod_id);
    text_random_hex((PODENV_BOOT_ID_SIZE - 1) / 2, pod->boot_id);
    if (pod->is_prepared &&
        (adopt_mounts(pod, request, err) < 0 || own_shm(podenv_userns(pod), err) < 0))
        return -1;
    if (pod->is_prepared && request->network == NULL) {
        pod->state = PODENV_CONFIGURED;
        done(arg, NULL);
        return 0;
    }
    pod->done = done;
    pod->done_arg = arg;
    if (task_run(pod->reaper, pod->is_prepared ? network_task : mount_all, &work, on_mounted, pod,
                 err) < 0)
        return -1;
    pod->card.ready = pod->card.ready && request->network == NULL;
    pod->state = PODENV_CONFIGURING;
    return 0;
}

static void on_networked(void *arg, const struct err *err)
{
    struct podenv *pod = arg;
    pod->state = PODENV_CONFIGURED;
    pod->done(pod->done_arg, err);
}

int podenv_rehearse_network(struct podenv *pod, const Casemate__Agent__V1__Network *network,
                            struct err *err)
{
    if (pod->state != PODENV_CONFIGURED)
        return err_set(err, ERR_BAD_STATE, "the pod is not configured, or just being so");
    if (network_rehearse(network, &pod->card, err) < 0)
        return -1;
    pod->has_rehearsed = true;
    return podfiles_write(network, true, err);
}

int podenv_configure_network(struct podenv *pod, const Casemate__Agent__V1__Network *network,
                             void (*done)(void *arg, const struct err *err), void *arg,
                             struct err *err)
{
    struct work work = {.network = network,
                        .userns = podenv_userns(pod),
                        .card = pod->card,
                        .after_rehearsal = pod->has_rehearsed};
    if (pod->state != PODENV_CONFIGURED)
        return err_set(err, ERR_BAD_STATE, "the pod is not configured, or just being so");
    if (place_card(pod, network, err) < 0)
        return -1;
    pod->card.ready = false;
    pod->has_rehearsed = false;
    /* A child is only for waiting: without one it is quicker. */
    if (network_is_ready(network, &work.card)) {
        if (make_network(&work, err) < 0)
            return -1;
        done(arg, NULL);
        return 0;
    }
    pod->done = done;
    pod->done_arg = arg;
    if (task_run(pod->reaper, network_task, &work, on_networked, pod, err) < 0)
        return -1;
    pod->state = PODENV_NETWORKING;
    return 0;
}
