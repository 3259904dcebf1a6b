/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A container is a cgroup, a first process and a folder on the scratch disk; its mounts live and
 * die with its mount namespace (agent/mount/rootfs.h). States are its first process's, plus one:
 * removal.
 *
 * Removal: cgroup.kill; wait until every process that the agent started was reaped and the cgroup
 * is empty (orphans of a shared pid namespace take a moment more, hence the timer); by then the
 * last mount namespace is gone and with it the disks' last users; then the id is free, and a child
 * of low priority deletes the folder. The removal is called back when that is done, so that who has
 * removed what filled the disk finds room; or when it takes long: a large folder is deleted in any
 * case, and the caller's deadline must not count it.
 *
 * In a pod with a user namespace a container's first process is born in it, so that its mount, pid
 * and cgroup namespaces belong to that, and cannot do what the VM's root must: mount the disks,
 * make device nodes, give files their owners. A second child, the VM's root, does that in the first
 * one's mount namespace while the first waits, tells it the outcome through a socket, and ends. It
 * is in the container's cgroup, so it ends with it as well.
 *
 * Every step of a removal is taken from the timer, never from the call that asks for it: that may
 * come from a watch of the very process that is to go.
 *
 * When the first process ends, everything else in the container is killed: in a pid namespace of
 * its own the kernel does that, in a shared one cgroup.kill does.
 */
#include "agent/container/container.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>
#include <sys/queue.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/loop/loop.h"
#include "agent/container/cgroup.h"
#include "agent/container/devices.h"
#include "agent/container/pause.h"
#include "agent/container/podenv.h"
#include "agent/container/stats.h"
#include "agent/container/validate.h"
#include "agent/mount/rootfs.h"
#include "agent/process/caps.h"
#include "agent/process/launch.h"
#include "agent/process/process.h"
#include "agent/process/reaper.h"
#include "agent/process/userns.h"

#define DISK_TIMEOUT_MS 10000
#define EMPTY_POLL_MS   5 /* at first; twice as long each time */
#define LAST_POLL_MS    1000
#define DELETION_MS     3000 /* a removal waits so long for the folder */
#define UPPER_PATH_SIZE 64u

struct removal {
    STAILQ_ENTRY(removal) entry;
    void (*done)(void *arg);
    void *arg;
};

STAILQ_HEAD(removals, removal);

struct exec {
    LIST_ENTRY(exec) entry;
    char id[VALIDATE_MAX_ID + 1];
    struct process *process;
    struct caps caps;
    bool removing;
    struct removals waiting;
    struct container *container;
};

struct container {
    LIST_ENTRY(container) entry;
    struct containers *owner;
    char id[VALIDATE_MAX_ID + 1];
    uint64_t number; /* names its folder on the scratch disk; never used twice */
    int cgroup_fd;
    int filter_fd; /* which devices it may use; -1: all (privileged), or in force already */
    struct process *process;
    struct caps caps; /* of process */
    struct userdb_memo memo;
    int pidfd; /* of process, through which its namespaces are entered; -1: nobody has yet */
    LIST_HEAD(, exec) execs;
    size_t n_execs;
    bool removing; /* no new process; ends with the container being freed */
    struct removals waiting;
    struct loop_source *timer; /* polls for the empty cgroup while removing; then ends it */
    bool deleting;             /* off the list, the folder's deletion is under way */
    struct reaper_child deletion;
    int64_t poll_ms; /* until it looks again */
};

struct containers {
    struct loop *loop;
    struct reaper *reaper;
    int cgroup_base_fd;
    int standard_filter_fd; /* -1: not loaded yet */
    const struct podenv *pod;
    struct pause *pause;   /* the pod's pid namespace, made when first wanted */
    bool pause_has_userns; /* it belongs to the pod's user namespace */
    LIST_HEAD(container_list, container) list;
    struct container_list deleting;
    size_t count; /* of list */
    uint64_t next_number;
};

static void removal_step(struct container *c);
static void end_removal(struct container *c);
static void container_free(struct container *c);
static void exec_free(struct exec *e);

int containers_new(const struct containers_config *config, struct containers **ret_containers,
                   struct err *err)
{
    struct containers *cs = calloc(1, sizeof(*cs));
    struct err why;
    if (cs == NULL)
        return err_no_memory(err);
    cs->loop = config->loop;
    cs->reaper = config->reaper;
    cs->pod = config->pod;
    cs->cgroup_base_fd = config->cgroup_base_fd;
    /* Now, which for a clone was in its template: verifying and compiling it takes a first
     * container a tenth of its time. Where it cannot be, the container that wants it says why. */
    if (devices_load(NULL, 0, &cs->standard_filter_fd, &why) < 0)
        cs->standard_filter_fd = -1;
    LIST_INIT(&cs->list);
    LIST_INIT(&cs->deleting);
    *ret_containers = cs;
    return 0;
}

size_t containers_count(const struct containers *containers)
{
    return containers->count;
}

static const struct userns *userns_of(const struct containers *cs)
{
    return cs->pod != NULL ? podenv_userns(cs->pod) : NULL;
}

static struct container *find(struct containers *cs, const char *id)
{
    struct container *c;
    LIST_FOREACH (c, &cs->list, entry) {
        if (strcmp(c->id, id) == 0)
            return c;
    }
    return NULL;
}

static struct exec *find_exec(struct container *c, const char *id)
{
    struct exec *e;
    LIST_FOREACH (e, &c->execs, entry) {
        if (strcmp(e->id, id) == 0)
            return e;
    }
    return NULL;
}

int containers_find(struct containers *containers, const char *container_id, const char *exec_id,
                    struct process **ret_process, struct err *err)
{
    struct container *c = find(containers, container_id);
    if (c == NULL || c->process == NULL)
        return err_set(err, ERR_NOT_FOUND, "there is no container %s", container_id);
    if (exec_id[0] == '\0') {
        *ret_process = c->process;
        return 0;
    }
    struct exec *e = find_exec(c, exec_id);
    if (e == NULL)
        return err_set(err, ERR_NOT_FOUND, "container %s has no exec %s", container_id, exec_id);
    *ret_process = e->process;
    return 0;
}

void containers_each(struct containers *containers,
                     void (*fn)(void *arg, const char *container_id, const char *exec_id,
                                struct process *process),
                     void *arg)
{
    struct container *c;
    struct exec *e;
    LIST_FOREACH (c, &containers->list, entry) {
        if (c->process != NULL)
            fn(arg, c->id, "", c->process);
        LIST_FOREACH (e, &c->execs, entry)
            fn(arg, c->id, e->id, e->process);
    }
}

void containers_kill_all(struct containers *containers)
{
    struct container *c;
    LIST_FOREACH (c, &containers->list, entry)
        cgroup_kill(c->cgroup_fd);
}

static void free_all_waiting(struct removals *waiting)
{
    while (!STAILQ_EMPTY(waiting)) {
        struct removal *r = STAILQ_FIRST(waiting);
        STAILQ_REMOVE_HEAD(waiting, entry);
        free(r);
    }
}

/* Off the list of those whose folders are being deleted. The child, if it still runs, goes on. */
static void forget_deletion(struct container *c)
{
    LIST_REMOVE(c, entry);
    if (c->deletion.pid > 0)
        reaper_forget(&c->deletion);
}

void containers_free(struct containers *containers)
{
    if (containers == NULL)
        return;
    while (!LIST_EMPTY(&containers->list)) {
        struct container *c = LIST_FIRST(&containers->list);
        LIST_REMOVE(c, entry);
        while (!LIST_EMPTY(&c->execs)) {
            struct exec *e = LIST_FIRST(&c->execs);
            LIST_REMOVE(e, entry);
            free_all_waiting(&e->waiting);
            exec_free(e);
        }
        free_all_waiting(&c->waiting);
        container_free(c);
    }
    while (!LIST_EMPTY(&containers->deleting)) {
        struct container *c = LIST_FIRST(&containers->deleting);
        forget_deletion(c);
        free_all_waiting(&c->waiting);
        container_free(c);
    }
    close_fd(&containers->standard_filter_fd);
    pause_free(containers->pause);
    free(containers);
}

/* ---- creation
 * --------------------------------------------------------------------------------------------------------
 */

struct enter_new {
    const Casemate__Agent__V1__CreateContainerRequest *request;
    const struct userns *userns; /* NULL: none */
    uint32_t project;
    char upper[UPPER_PATH_SIZE];
};

static void upper_path(uint64_t number, char ret_path[UPPER_PATH_SIZE])
{
    (void)snprintf(ret_path, UPPER_PATH_SIZE, "%s/c%llu", ROOTFS_SCRATCH_DIR,
                   (unsigned long long)number);
}

/* The project that the writable layer of a container counts as; 0 is everything else. */
static uint32_t project_of(uint64_t number)
{
    return (uint32_t)(number + 1);
}

static int make_upper(const char *path, uint32_t project, struct err *err)
{
    static const char *const names[] = {"upper", "work"};
    if (mkdir(path, 0700) < 0) {
        if (errno == EEXIST)
            return 0; /* prepare_upper was here before */
        return err_set_errno(err, errno, "make the writable layer");
    }
    cleanup_fd int top = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (top < 0)
        return err_set_errno(err, errno, "open the writable layer");
    if (stats_set_project(top, project, err) < 0)
        return -1;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        char folder[UPPER_PATH_SIZE + 8];
        (void)snprintf(folder, sizeof(folder), "%s/%s", path, names[i]);
        /* upper's mode is the mode of the container's "/". */
        if (mkdir(folder, 0755) < 0)
            return err_set_errno(err, errno, "make the writable layer");
    }
    return 0;
}

static struct rootfs_spec rootfs_of(const struct enter_new *e)
{
    const Casemate__Agent__V1__CreateContainerRequest *r = e->request;
    return (struct rootfs_spec){
        .rootfs = r->rootfs,
        .upper_dir = e->upper,
        .cwd = r->process->cwd[0] == '\0' ? "/" : r->process->cwd,
        .masked_paths = r->masked_paths,
        .n_masked_paths = r->n_masked_paths,
        .readonly_paths = r->readonly_paths,
        .n_readonly_paths = r->n_readonly_paths,
        .volumes = r->volumes,
        .n_volumes = r->n_volumes,
        .devices = r->devices,
        .n_devices = r->n_devices,
        .pod_shm = r->ipc_namespace != CASEMATE__AGENT__V1__NAMESPACE_SHARING__NAMESPACE_CONTAINER,
        .userns = e->userns,
        .privileged = r->privileged,
        .deadline_ms = clock_deadline(DISK_TIMEOUT_MS),
    };
}

/* As the VM's root. */
static int build_root(const struct enter_new *e, struct err *err)
{
    struct rootfs_spec spec = rootfs_of(e);
    if (make_upper(e->upper, e->project, err) < 0)
        return -1;
    return rootfs_build(&spec, err);
}

static int finish_root(const struct enter_new *e, int *ret_ptmx_fd, struct err *err)
{
    struct rootfs_spec spec = rootfs_of(e);
    /* Now, not at fork: the new namespace's root is the cgroup that the caller is in by now. */
    if (unshare(CLONE_NEWCGROUP) < 0)
        return err_set_errno(err, errno, "make a cgroup namespace");
    return rootfs_finish(&spec, ret_ptmx_fd, err);
}

/* In the child: a new root. */
static int enter_new(void *arg, int *ret_ptmx_fd, struct err *err)
{
    return build_root(arg, err) < 0 ? -1 : finish_root(arg, ret_ptmx_fd, err);
}

/* In the child that was born in the user namespace: the helper's outcome comes through the
 * descriptor kept. */
static int enter_inside(void *arg, int *ret_ptmx_fd, struct err *err)
{
    struct err outcome;
    ssize_t n;
    do {
        n = recv(LAUNCH_KEEP_FD, &outcome, sizeof(outcome), 0);
    } while (n < 0 && errno == EINTR);
    if (n != (ssize_t)sizeof(outcome))
        return err_set(err, ERR_SYSTEM, "a helper process ended unexpectedly");
    if (outcome.code != ERR_NONE) {
        *err = outcome;
        return -1;
    }
    return finish_root(arg, ret_ptmx_fd, err);
}

/* Keeps these two, at 3 and 4, of all that the agent has open. */
static int keep_only(int *a, int *b, struct err *err)
{
    int first = fcntl(*a, F_DUPFD_CLOEXEC, 5), second = fcntl(*b, F_DUPFD_CLOEXEC, 5);
    if (first < 0 || second < 0 || dup3(first, 3, O_CLOEXEC) < 0 || dup3(second, 4, O_CLOEXEC) < 0)
        return err_set_errno(err, errno, "duplicate a descriptor");
    *a = 3;
    *b = 4;
    return close_range(5, ~0u, 0) < 0 ? err_set_errno(err, errno, "close descriptors") : 0;
}

/* The helper. The user namespace's descriptor is needed, too: it comes in the place of the channel
 * once that is in a safe place. */
static __attribute__((noreturn)) void help_main(struct enter_new *e, int channel, int pidfd)
{
    struct err outcome = {.code = ERR_NONE};
    struct userns userns = *e->userns;
    if (setns(pidfd, CLONE_NEWNS) < 0)
        (void)err_set_errno(&outcome, errno, "enter the container's mount namespace");
    log_set_fd(-1); /* its number may soon be something else's */
    e->userns = &userns;
    if (outcome.code == ERR_NONE && keep_only(&channel, &userns.fd, &outcome) == 0)
        (void)build_root(e, &outcome);
    (void)send(channel, &outcome, sizeof(outcome), MSG_NOSIGNAL);
    _exit(0);
}

/* Without it the process waits for nothing: its end of the socket says so, and it fails. */
static int start_helper(const struct container *c, struct enter_new *e, int channel,
                        struct err *err)
{
    struct clone_args args = {
        .flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = (__u64)c->cgroup_fd};
    int pidfd = (int)syscall(SYS_pidfd_open, c->process->pid, 0);
    if (pidfd < 0)
        return err_set_errno(err, errno, "open process %d", (int)c->process->pid);
    pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
    int e_fork = errno;
    if (pid == 0)
        help_main(e, channel, pidfd);
    (void)close(pidfd);
    return pid < 0 ? err_set_errno(err, e_fork, "fork") : 0;
}

/* A pidfd, through which the pid namespace of the process can be entered. */
static int open_pid(pid_t pid, int *ret_fd, struct err *err)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0)
        return err_set_errno(err, errno, "open process %d", (int)pid);
    *ret_fd = fd;
    return 0;
}

static bool is_alive(const struct process *p)
{
    return p != NULL && p->state != PROCESS_ENDED;
}

/* One that was made before the pod had its user namespace, for a container that is gone by now, is
 * replaced. */
static int prepare_pause(struct containers *cs, struct err *err)
{
    const struct userns *userns = userns_of(cs);
    if (cs->pause != NULL && cs->pause_has_userns == (userns != NULL))
        return 0;
    pause_stop(cs->pause);
    cs->pause = NULL;
    if (pause_start(cs->reaper, userns, &cs->pause, err) < 0)
        return -1;
    cs->pause_has_userns = userns != NULL;
    return 0;
}

/* Decides where the container's processes are numbered: a new namespace (*flags), or *ret_fd's (-1:
 * the agent's). */
static int choose_pid_namespace(struct containers *cs,
                                const Casemate__Agent__V1__CreateContainerRequest *r,
                                uint64_t *flags, int *ret_fd, struct err *err)
{
    struct container *target;
    switch (r->pid_namespace) {
    case CASEMATE__AGENT__V1__NAMESPACE_SHARING__NAMESPACE_CONTAINER:
        *flags |= CLONE_NEWPID;
        return 0;
    case CASEMATE__AGENT__V1__NAMESPACE_SHARING__NAMESPACE_POD:
        if (prepare_pause(cs, err) < 0)
            return err_prefix(err, "the pod's pid namespace");
        return open_pid(pause_pid(cs->pause), ret_fd, err);
    case CASEMATE__AGENT__V1__NAMESPACE_SHARING__NAMESPACE_TARGET:
        target = find(cs, r->pid_target_id);
        if (target == NULL || !is_alive(target->process))
            return err_set(err, ERR_NOT_FOUND, "pid_target_id: container %s is not running",
                           r->pid_target_id);
        return open_pid(target->process->pid, ret_fd, err);
    default:
        return 0;
    }
}

static void on_first_exit(void *arg, struct process *p)
{
    struct container *c = arg;
    p->status.oom_killed = cgroup_oom_kills(c->cgroup_fd) > 0;
    cgroup_kill(c->cgroup_fd);
    if (c->removing)
        loop_arm(c->timer, 0);
}

static void on_timer(void *arg)
{
    struct container *c = arg;
    if (c->deleting)
        end_removal(c);
    else
        removal_step(c);
}

static void container_free(struct container *c)
{
    process_unref(c->process);
    loop_source_free(c->timer);
    close_fd(&c->cgroup_fd);
    close_fd(&c->filter_fd);
    close_fd(&c->pidfd);
    free(c);
}
DEFINE_CLEANUP(container, struct container, container_free)

static int launch_first(struct containers *cs, struct container *c,
                        const Casemate__Agent__V1__CreateContainerRequest *r, struct err *err)
{
    const struct userns *userns = userns_of(cs);
    cleanup_fd int pidns = -1;
    int pair[2] = {-1, -1};
    struct enter_new enter = {.request = r, .userns = userns, .project = project_of(c->number)};
    struct process_config config = {
        .loop = cs->loop,
        .reaper = cs->reaper,
        .ring_bytes = (size_t)r->process->output_ring_bytes,
        .on_exit = on_first_exit,
        .on_exit_arg = c,
    };
    struct launch_spec spec = {
        .process = r->process,
        .caps = &c->caps,
        .enter = userns != NULL ? enter_inside : enter_new,
        .enter_arg = &enter,
        .clone_flags = CLONE_NEWNS,
        .userns = userns,
        .born_inside = userns != NULL,
        .cgroup_fd = c->cgroup_fd,
        .master_fd = -1,
        .gated = true,
    };
    upper_path(c->number, enter.upper);
    if (choose_pid_namespace(cs, r, &spec.clone_flags, &pidns, err) < 0)
        return -1;
    spec.pidns_fd = pidns;
    if (r->ipc_namespace == CASEMATE__AGENT__V1__NAMESPACE_SHARING__NAMESPACE_CONTAINER)
        spec.clone_flags |= CLONE_NEWIPC;
    if (userns != NULL && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return err_set_errno(err, errno, "make a socket pair");
    spec.keep_fd = pair[0];
    int rc = process_launch(&config, &spec, &c->process, err);
    close_fd(&pair[0]);
    struct err why;
    if (rc == 0 && userns != NULL && start_helper(c, &enter, pair[1], &why) < 0)
        log_event(LOG_ERROR, NULL, &why, "no helper for container %s, which fails", c->id);
    close_fd(&pair[1]);
    return rc;
}

/* Most containers have the standard devices only: their program is loaded once. */
static int load_filter(struct containers *cs, struct container *c,
                       const Casemate__Agent__V1__CreateContainerRequest *r, struct err *err)
{
    if (r->privileged)
        return 0;
    if (r->n_devices > 0)
        return devices_load(r->devices, r->n_devices, &c->filter_fd, err);
    if (cs->standard_filter_fd < 0 && devices_load(NULL, 0, &cs->standard_filter_fd, err) < 0)
        return -1;
    c->filter_fd = fcntl(cs->standard_filter_fd, F_DUPFD_CLOEXEC, 0);
    return c->filter_fd < 0 ? err_set_errno(err, errno, "duplicate the device filter") : 0;
}

int container_create(struct containers *containers,
                     const Casemate__Agent__V1__CreateContainerRequest *request,
                     struct process **ret_process, struct err *err)
{
    if (find(containers, request->id) != NULL)
        return err_set(err, ERR_EXISTS, "container %s exists", request->id);
    if (containers->count >= CONTAINERS_MAX)
        return err_set(err, ERR_EXHAUSTED, "there are %u containers already", CONTAINERS_MAX);
    CLEANUP(container_cleanup_) struct container *c = calloc(1, sizeof(*c));
    if (c == NULL)
        return err_no_memory(err);
    c->owner = containers;
    c->cgroup_fd = -1;
    c->filter_fd = -1;
    c->pidfd = -1;
    c->poll_ms = EMPTY_POLL_MS;
    c->number = containers->next_number++;
    LIST_INIT(&c->execs);
    STAILQ_INIT(&c->waiting);
    (void)snprintf(c->id, sizeof(c->id), "%s", request->id);
    if (caps_read(request->process->capabilities, &c->caps, err) < 0 ||
        loop_add_timer(containers->loop, on_timer, c, &c->timer, err) < 0 ||
        load_filter(containers, c, request, err) < 0)
        return -1;
    if (cgroup_create(containers->cgroup_base_fd, c->id, request->resources, &c->cgroup_fd, err) <
        0)
        return -1;
    const struct userns *userns = userns_of(containers);
    if ((request->privileged && userns != NULL &&
         cgroup_delegate(c->cgroup_fd, userns->uid, userns->gid, err) < 0) ||
        launch_first(containers, c, request, err) < 0) {
        struct err ignored;
        (void)cgroup_remove(containers->cgroup_base_fd, c->id, &ignored);
        return -1;
    }
    LIST_INSERT_HEAD(&containers->list, c, entry);
    containers->count++;
    *ret_process = c->process;
    c = NULL;
    return 0;
}

/* The filter comes into force only now: the child has opened its disks itself to mount them. */
int container_start(struct containers *containers, const char *container_id,
                    struct process **ret_process, struct err *err)
{
    struct container *c = find(containers, container_id);
    if (c == NULL || c->process == NULL)
        return err_set(err, ERR_NOT_FOUND, "there is no container %s", container_id);
    if (c->process->state == PROCESS_HELD) {
        if (c->filter_fd >= 0 && devices_attach(c->filter_fd, c->cgroup_fd, err) < 0)
            return -1;
        close_fd(&c->filter_fd);
        if (process_start(c->process, err) < 0)
            return -1;
    } else if (c->process->state == PROCESS_PREPARING) {
        return err_set(err, ERR_BAD_STATE, "container %s is not made yet", container_id);
    }
    *ret_process = c->process;
    return 0;
}

/* ---- exec
 * -------------------------------------------------------------------------------------------------------------
 */

/* In the child: the root and namespaces of the container's first process, whose pidfd is the
 * descriptor kept. */
static int enter_join(void *arg, int *ret_ptmx_fd, struct err *err)
{
    const struct userns *userns = arg;
    int namespaces = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET | CLONE_NEWCGROUP;
    (void)ret_ptmx_fd;
    if (userns != NULL)
        namespaces |= CLONE_NEWUSER;
    if (setns(LAUNCH_KEEP_FD, namespaces) < 0)
        return err_set_errno(err, errno, "enter the container's namespaces");
    return userns != NULL ? userns_become_root(err) : 0;
}

static void on_exec_exit(void *arg, struct process *p)
{
    struct exec *e = arg;
    (void)p;
    if (e->removing || e->container->removing)
        loop_arm(e->container->timer, 0);
}

static void exec_free(struct exec *e)
{
    process_unref(e->process);
    free(e);
}
DEFINE_CLEANUP(exec, struct exec, exec_free)

static int launch_exec(struct container *c, struct exec *e,
                       const Casemate__Agent__V1__ExecRequest *request, bool outcome_only,
                       struct err *err)
{
    const struct userns *userns = userns_of(c->owner);
    cleanup_fd int master = -1;
    struct process_config config = {
        .loop = c->owner->loop,
        .reaper = c->owner->reaper,
        .ring_bytes = (size_t)request->process->output_ring_bytes,
        .outcome_only = outcome_only,
        .on_exit = on_exec_exit,
        .on_exit_arg = e,
    };
    if (c->pidfd < 0 && open_pid(c->process->pid, &c->pidfd, err) < 0)
        return -1;
    if (request->process->tty &&
        launch_open_terminal(c->process->ptmx_fd, userns, &master, err) < 0)
        return -1;
    if (request->same_capabilities)
        e->caps = c->caps;
    else if (caps_read(request->process->capabilities, &e->caps, err) < 0)
        return -1;
    struct launch_spec spec = {
        .process = request->process,
        .caps = &e->caps,
        .enter = enter_join,
        .enter_arg = (void *)(uintptr_t)userns,
        .userns = userns,
        .memo = &c->memo,
        .keep_fd = c->pidfd,
        .cgroup_fd = c->cgroup_fd,
        .pidns_fd = c->pidfd,
        .master_fd = master,
        .may_lodge = outcome_only && !request->process->tty && userns == NULL,
    };
    cleanup_fd int part = -1;
    if (process_launch(&config, &spec, &e->process, err) < 0) {
        if (err->sys_errno != EBUSY ||
            cgroup_open_of(c->cgroup_fd, c->id, c->process->pid, &part, err) < 0)
            return -1;
        spec.cgroup_fd = part;
        if (process_launch(&config, &spec, &e->process, err) < 0)
            return -1;
    }
    (void)steal_fd(&master);
    return 0;
}

int container_exec(struct containers *containers, const Casemate__Agent__V1__ExecRequest *request,
                   bool outcome_only, struct process **ret_process, struct err *err)
{
    struct container *c = find(containers, request->container_id);
    if (c == NULL)
        return err_set(err, ERR_NOT_FOUND, "there is no container %s", request->container_id);
    if (c->removing || c->process->state != PROCESS_RUNNING)
        return err_set(err, ERR_BAD_STATE, "container %s is %s, not running", c->id,
                       c->removing ? "being removed" : process_state_name(c->process->state));
    if (find_exec(c, request->exec_id) != NULL)
        return err_set(err, ERR_EXISTS, "container %s has an exec %s", c->id, request->exec_id);
    if (c->n_execs >= CONTAINERS_MAX_EXECS)
        return err_set(err, ERR_EXHAUSTED, "container %s has %u execs already", c->id,
                       CONTAINERS_MAX_EXECS);
    CLEANUP(exec_cleanup_) struct exec *e = calloc(1, sizeof(*e));
    if (e == NULL)
        return err_no_memory(err);
    e->container = c;
    STAILQ_INIT(&e->waiting);
    memcpy(e->id, request->exec_id, strnlen(request->exec_id, VALIDATE_MAX_ID));
    if (launch_exec(c, e, request, outcome_only, err) < 0)
        return -1;
    LIST_INSERT_HEAD(&c->execs, e, entry);
    c->n_execs++;
    *ret_process = e->process;
    e = NULL;
    return 0;
}

/* ---- signals
 * ------------------------------------------------------------------------------------------------------------
 */

int container_signal_all(struct containers *containers, const char *container_id, int signo,
                         struct err *err)
{
    struct container *c = find(containers, container_id);
    if (c == NULL)
        return err_set(err, ERR_NOT_FOUND, "there is no container %s", container_id);
    if (!cgroup_is_populated(c->cgroup_fd))
        return err_set(err, ERR_NOT_FOUND, "container %s has no process", container_id);
    if (signo == SIGKILL)
        cgroup_kill(c->cgroup_fd);
    else
        (void)cgroup_signal(c->cgroup_fd, signo);
    return 0;
}

int container_update(struct containers *containers, const char *container_id,
                     const Casemate__Agent__V1__Resources *settings, struct err *err)
{
    struct container *c = find(containers, container_id);
    if (c == NULL)
        return err_set(err, ERR_NOT_FOUND, "there is no container %s", container_id);
    return cgroup_update(containers->cgroup_base_fd, c->cgroup_fd, settings, err);
}

/* ---- stats ---- */

int container_read_stats(struct containers *containers, const char *container_id,
                         struct container_stats *stats, struct err *err)
{
    struct container *c = find(containers, container_id);
    if (c == NULL)
        return err_set(err, ERR_NOT_FOUND, "there is no container %s", container_id);
    casemate__agent__v1__container_stats__init(&stats->message);
    stats->message.container_id = c->id;
    stats->message.time_ns = clock_realtime_ns();
    stats->message.cgroup = &stats->cgroup;
    stats_read_cgroup(c->cgroup_fd, &stats->cgroup, &stats->pressures);
    stats->message.has_layer =
        stats_read_project(ROOTFS_SCRATCH_DIR, project_of(c->number), &stats->message.layer_bytes,
                           &stats->message.layer_inodes);
    return 0;
}

void containers_read_stats(struct containers *containers, Casemate__Agent__V1__CgroupStats *stats,
                           struct stats_pressures *pressures)
{
    stats_read_cgroup(containers->cgroup_base_fd, stats, pressures);
}

/* ---- removal
 * ----------------------------------------------------------------------------------------------------------
 */

static void call_done(struct removals *waiting)
{
    while (!STAILQ_EMPTY(waiting)) {
        struct removal *r = STAILQ_FIRST(waiting);
        STAILQ_REMOVE_HEAD(waiting, entry);
        r->done(r->arg);
        free(r);
    }
}

static int add_removal(struct removals *waiting, void (*done)(void *arg), void *arg,
                       struct err *err)
{
    struct removal *r = calloc(1, sizeof(*r));
    if (r == NULL)
        return err_no_memory(err);
    r->done = done;
    r->arg = arg;
    STAILQ_INSERT_TAIL(waiting, r, entry);
    return 0;
}

static void forget_exec(struct exec *e)
{
    LIST_REMOVE(e, entry);
    e->container->n_execs--;
    process_mark_gone(e->process);
    call_done(&e->waiting);
    exec_free(e);
}

/* Makes the writable layer of a container to come, if nobody has yet: it is there whole or not at
 * all, and who creates the container meanwhile makes its own. */
static void prepare_upper(uint64_t number)
{
    static const char next[] = ROOTFS_SCRATCH_DIR "/next";
    char path[UPPER_PATH_SIZE];
    struct err err;
    upper_path(number, path);
    /* Another child that has got as far as this does the same. */
    if (access(path, F_OK) == 0 || access(next, F_OK) == 0)
        return;
    if (make_upper(next, project_of(number), &err) < 0 ||
        renameat2(AT_FDCWD, next, AT_FDCWD, path, RENAME_NOREPLACE) < 0)
        (void)fd_remove_tree(AT_FDCWD, next, &err);
}

/* In a child, which deletes the container's folder. There is time in it for the next one's, too. */
static __attribute__((noreturn)) void delete_main(uint64_t number, uint64_t next_number)
{
    char path[UPPER_PATH_SIZE];
    struct err err;
    (void)setpriority(PRIO_PROCESS, 0, 10);
    prepare_upper(next_number);
    upper_path(number, path);
    int rc = fd_remove_tree(AT_FDCWD, path, &err);
    if (rc < 0)
        log_event(LOG_WARN, NULL, &err, "cannot delete the writable layer %s", path);
    _exit(rc < 0 ? 1 : 0);
}

static void on_deleted(void *arg, pid_t pid, int status)
{
    struct container *c = arg;
    (void)pid;
    (void)status;
    c->deletion.pid = 0;
    loop_arm(c->timer, 0);
}

/* The folder is gone, or takes long. */
static void end_removal(struct container *c)
{
    forget_deletion(c);
    call_done(&c->waiting);
    container_free(c);
}

/* The number is never used again, so neither is the folder if it cannot be deleted. */
static void begin_deletion(struct container *c)
{
    pid_t pid = fork();
    if (pid == 0)
        delete_main(c->number, c->owner->next_number);
    c->deleting = true;
    LIST_INSERT_HEAD(&c->owner->deleting, c, entry);
    if (pid < 0)
        log_warn("cannot fork to delete the writable layer of %s, leaving it", c->id);
    else
        reaper_add(c->owner->reaper, &c->deletion, pid, on_deleted, c);
    loop_arm(c->timer, pid < 0 ? 0 : DELETION_MS);
}

/* Looks again in a moment. What is not gone after many is not going to be soon. */
static void poll_later(struct container *c)
{
    loop_arm(c->timer, c->poll_ms);
    c->poll_ms = MIN(c->poll_ms * 2, LAST_POLL_MS);
}

static void forget_container(struct container *c)
{
    struct containers *cs = c->owner;
    struct err err;
    if (cgroup_remove(cs->cgroup_base_fd, c->id, &err) < 0) {
        /* Exiting tasks leave a moment after they were reaped. */
        log_event(LOG_DEBUG, NULL, &err, "cgroup of %s is still busy", c->id);
        poll_later(c);
        return;
    }
    LIST_REMOVE(c, entry);
    cs->count--;
    while (!LIST_EMPTY(&c->execs))
        forget_exec(LIST_FIRST(&c->execs));
    process_mark_gone(c->process);
    begin_deletion(c);
}

/* Goes on with what is to be removed, execs or the whole container, as far as it goes now. */
static void removal_step(struct container *c)
{
    bool alive = is_alive(c->process);
    struct exec *next;
    for (struct exec *e = LIST_FIRST(&c->execs); e != NULL; e = next) {
        next = LIST_NEXT(e, entry);
        if (is_alive(e->process))
            alive = true;
        else if (e->removing)
            forget_exec(e);
    }
    if (!c->removing || alive)
        return; /* each exit comes back here */
    if (cgroup_is_populated(c->cgroup_fd)) {
        poll_later(c);
        return;
    }
    forget_container(c);
}

static int remove_exec(struct container *c, const char *exec_id, void (*done)(void *arg), void *arg,
                       struct err *err)
{
    struct exec *e = find_exec(c, exec_id);
    if (e == NULL) {
        done(arg);
        return 0;
    }
    if (add_removal(&e->waiting, done, arg, err) < 0)
        return -1;
    e->removing = true;
    if (is_alive(e->process)) {
        process_kill(e->process);
    } else {
        loop_arm(c->timer, 0);
    }
    return 0;
}

int container_remove(struct containers *containers, const char *container_id, const char *exec_id,
                     void (*done)(void *arg), void *arg, struct err *err)
{
    struct container *c = find(containers, container_id);
    if (c == NULL) {
        done(arg);
        return 0;
    }
    if (exec_id[0] != '\0')
        return remove_exec(c, exec_id, done, arg, err);
    if (add_removal(&c->waiting, done, arg, err) < 0)
        return -1;
    c->removing = true;
    cgroup_kill(c->cgroup_fd);
    loop_arm(c->timer, 0);
    return 0;
}
