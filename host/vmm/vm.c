/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. Starting a machine: the daemon makes the listening sockets for QMP and for
 * the agent's port and opens every file itself; QEMU gets descriptors, a uid of its own, empty
 * network, IPC and UTS namespaces, a session of its own, and nothing else. Since the sockets listen
 * before QEMU runs, there is nothing to wait for: the daemon connects at once, and either the
 * greeting comes, or the connection breaks because QEMU ended, and its standard error says why.
 *
 * QEMU is not tied to the daemon's life. Its sockets stay in the machine's folder, and a later
 * daemon finds the process by pid and start time (vm_attach) and connects again.
 *
 * A vm is shared by reference and destroyed on the loop, where its sources and its QMP connection
 * live; work that is queued for the loop holds a reference of its own. Lock order: vm->lock, then
 * nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/base/spawn.h"
#include "common/base/text.h"
#include "common/loop/loop.h"
#include "host/vmm/base64.h"
#include "host/vmm/cmdline.h"
#include "host/vmm/deadend.h"
#include "host/vmm/internal.h"
#include "host/vmm/json.h"
#include "host/vmm/process.h"
#include "host/vmm/qmp_client.h"
#include "host/vmm/ramfd.h"
#include "host/vmm/sync.h"
#include "host/vmm/template.h"
#include "host/vmm/template_file.h"
#include "host/vmm/transport.h"
#include "host/vmm/tsc.h"
#include "host/vmm/vhostnet.h"

#define EXIT_WAIT_MS   10000 /* from SIGKILL to the process's end: only the kernel is waited for */
#define REFUSE_WAIT_MS 1000  /* from QEMU's hang-up to its end, to learn its exit status */
#define CID_TRIES      8

_Static_assert(VM_NIC_QUEUES == CMDLINE_QUEUES, "one limit, two headers");

/* Of an interface that leads nowhere: locally administered. */
static const uint8_t nowhere_mac[6] = {0x02, 0, 0, 0, 0, 0x01};

/* ---- the object ----------------------------------------------------------------------------- */

struct vm *vm_ref(struct vm *vm)
{
    atomic_fetch_add(&vm->refs, 1);
    return vm;
}

static void vm_destroy(void *arg)
{
    struct vm *vm = arg;

    if (atomic_fetch_sub(&vm->destroy_posted, 1) != 1 || atomic_load(&vm->refs) != 0)
        return;
    loop_source_free(vm->exit_source);
    loop_source_free(vm->kill_timer);
    qmp_client_free(vm->qmp);
    disk_forget_all(vm);
    close_fd(&vm->pidfd);
    close_fd(&vm->stderr_fd);
    pthread_cond_destroy(&vm->changed);
    pthread_mutex_destroy(&vm->lock);
    vmm_unref(vm->vmm);
    free(vm);
}

void vm_unref(struct vm *vm)
{
    struct err err;

    if (vm == NULL || atomic_fetch_sub(&vm->refs, 1) != 1)
        return;
    /*
     * Never at once, not even on the loop: the caller may be a callback of what would be freed.
     * Until it runs, events of QEMU may still start work on the loop that takes and drops a
     * reference, and so comes by here again.
     */
    atomic_fetch_add(&vm->destroy_posted, 1);
    if (loop_post(vm->loop, vm_destroy, vm, &err) < 0)
        log_event(LOG_ERROR, NULL, &err, "machine object leaked, ignoring");
}

/* Takes over the descriptors, also on failure. */
static int vm_new(struct vmm *vmm, const struct vm_record *record, int pidfd, int stderr_fd,
                  struct vm **ret_vm, struct err *err)
{
    struct vm *vm = calloc(1, sizeof(*vm));

    if (vm == NULL) {
        close_fd(&pidfd);
        close_fd(&stderr_fd);
        return err_no_memory(err);
    }
    atomic_init(&vm->refs, 1);
    vm->vmm = vmm_ref(vmm);
    vm->loop = vmm->loop;
    vm->record = *record;
    vm->pidfd = pidfd;
    vm->stderr_fd = stderr_fd;
    vm->state = VM_STARTING;
    pthread_mutex_init(&vm->lock, NULL);
    sync_cond_init(&vm->changed);
    *ret_vm = vm;
    return 0;
}

struct watch_call {
    struct vm *vm;
    int result;
    struct err err;
};

static void run_watch(void *arg)
{
    struct watch_call *call = arg;

    call->result = vm_watch(call->vm, &call->err);
}

/* Watches the process and connects QMP; then every end of QEMU is noticed. */
static int vm_open(struct vm *vm, struct err *err)
{
    const struct qmp_client_handlers handlers = {
        .event = vm_on_event, .closed = vm_on_qmp_closed, .arg = vm};
    cleanup_free char *path = text_printf("%s/" VM_QMP_SOCKET, vm->record.dir);
    struct watch_call call = {.vm = vm};
    cleanup_fd int fd = -1;

    if (path == NULL)
        return err_no_memory(err);
    if (fd_connect_unix(path, &fd, err) < 0 ||
        qmp_client_new(vm->loop, fd, &handlers, &vm->qmp, err) < 0)
        return -1;
    (void)steal_fd(&fd);
    if (sync_run_on_loop(vm->loop, run_watch, &call, err) < 0)
        return -1;
    if (call.result < 0) {
        if (err != NULL)
            *err = call.err;
        return -1;
    }
    return 0;
}

/* ---- starting ------------------------------------------------------------------------------- */

/* What is made for one attempt to start QEMU; everything here is the daemon's and closed in any
 * case. */
struct attempt {
    const struct vm_spec *spec;
    const struct vmm_choice *choice;
    const struct vm_memory *memory;
    bool misfit; /* QEMU opened its memory under another number than was expected */
    uint32_t cid;
    uid_t uid;
    int fds[FD_END]; /* index: the number in QEMU; -1: none */
    struct cmdline cmdline;
    char deadend[DEADEND_NAME_SIZE]; /* the tap's name; "": it is the caller's */
};

static void attempt_fini(struct attempt *a)
{
    for (size_t i = 0; i < ARRAY_SIZE(a->fds); i++)
        close_fd(&a->fds[i]);
    cmdline_fini(&a->cmdline);
}
#define cleanup_attempt CLEANUP(attempt_fini)

static int listen_in(const char *dir, const char *name, int *ret_fd, struct err *err)
{
    cleanup_free char *path = text_printf("%s/%s", dir, name);

    if (path == NULL)
        return err_no_memory(err);
    return fd_listen_unix(path, 0600, ret_fd, err);
}

static int open_guest_file(const char *what, const char *path, int *ret_fd, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return err_set_errno(err, errno, "%s '%s'", what, path);
    *ret_fd = fd;
    return 0;
}

static int copy_fd(const char *what, int fd, int *ret_fd, struct err *err)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);

    if (copy < 0)
        return err_set_errno(err, errno, "%s", what);
    *ret_fd = copy;
    return 0;
}

/* What the interface that every machine has is connected to. */
static int open_network(struct vmm *vmm, struct attempt *a, struct err *err)
{
    const struct vm_nic *nic = a->spec->nic;
    const uint32_t n = vm_nic_queues(a->spec->vcpus);
    struct err why;

    if (nic == NULL && deadend_open(vmm, n, &a->fds[FD_TAP], a->deadend, &why) < 0) {
        log_event(LOG_DEBUG, &(struct log_ctx){.sandbox = a->spec->id}, &why,
                  "no tap that leads nowhere: the interface has no peer and no offloads");
        return 0;
    }
    for (uint32_t i = 0; nic != NULL && i < n; i++)
        if (copy_fd("tap", nic->tap_fds[i], &a->fds[FD_TAP + i], err) < 0)
            return -1;
    if (!a->choice->vhost_net)
        return 0;
    return vhostnet_open(vmm->config.vhost_net, n, &a->fds[FD_VHOST_NET], err);
}

uint32_t vm_nic_queues(uint32_t vcpus)
{
    return vcpus < 2 ? 1 : vcpus < VM_NIC_QUEUES ? vcpus : VM_NIC_QUEUES;
}

static int attempt_open(struct vmm *vmm, struct attempt *a, struct err *err)
{
    const struct vm_spec *spec = a->spec;
    const bool boots = a->memory->kind != CMDLINE_MEMORY_CLONE;

    if ((boots && open_guest_file("guest kernel", spec->kernel, &a->fds[FD_KERNEL], err) < 0) ||
        (boots && spec->initrd != NULL &&
         open_guest_file("guest initrd", spec->initrd, &a->fds[FD_INITRD], err) < 0) ||
        (a->memory->kind != CMDLINE_MEMORY_OWN &&
         copy_fd("the template's memory", a->memory->memory_fd, &a->fds[FD_MEMORY], err) < 0) ||
        open_network(vmm, a, err) < 0 || process_stderr_new(&a->fds[FD_STDERR], err) < 0 ||
        listen_in(spec->dir, VM_QMP_SOCKET, &a->fds[FD_QMP], err) < 0)
        return -1;
    if (a->choice->transport == VMM_TRANSPORT_VSOCK) {
        a->cid = transport_random_cid();
        return transport_open_vhost(&a->fds[FD_VHOST], err);
    }
    return listen_in(spec->dir, TRANSPORT_AGENT_SOCKET, &a->fds[FD_AGENT], err);
}

void vm_describe(const struct vmm_choice *choice, const struct vm_spec *spec,
                 struct cmdline_spec *ret_line)
{
    *ret_line = (struct cmdline_spec){
        .qemu = choice->qemu,
        .qemu_major = choice->major,
        .qemu_minor = choice->minor,
        .name = spec->id,
        .machine = spec->machine != NULL ? spec->machine : "q35",
        .accel = choice->accel,
        .tcg_hardening = choice->tcg_hardening,
        .transport = choice->transport,
        .memory_mib = spec->memory_mib,
        .memory_max_mib = spec->memory_max_mib,
        .vcpus = spec->vcpus,
        .vcpus_max = spec->vcpus_max,
        .queues = vm_nic_queues(spec->vcpus),
        .console = spec->console == VM_CONSOLE_RING,
        .cmdline_extra = spec->cmdline_extra,
        .tsc_khz = choice->accel == VMM_ACCEL_TCG ? tsc_khz() : 0,
        .fds =
            {
                .qmp = FD_QMP,
                .agent = FD_AGENT,
                .vhost = FD_VHOST,
                .kernel = FD_KERNEL,
                .initrd = spec->initrd != NULL ? FD_INITRD : -1,
                .memory = -1,
                .tap = FD_TAP,
                .vhost_net = choice->vhost_net ? FD_VHOST_NET : -1,
            },
    };
    memcpy(ret_line->mac, nowhere_mac, sizeof(ret_line->mac));
}

static int attempt_cmdline(struct attempt *a, struct err *err)
{
    struct cmdline_spec line;

    vm_describe(a->choice, a->spec, &line);
    line.cid = a->cid;
    line.memory = a->memory->kind;
    line.fds.memory = a->fds[FD_MEMORY] >= 0 ? FD_MEMORY : -1;
    line.fds.tap = a->fds[FD_TAP] >= 0 ? FD_TAP : -1;
    line.fds.vhost_net = a->fds[FD_VHOST_NET] >= 0 ? FD_VHOST_NET : -1;
    if (a->spec->nic != NULL)
        memcpy(line.mac, a->spec->nic->mac, sizeof(line.mac));
    return cmdline_build(&line, &a->cmdline, err);
}

/* The group that may open /dev/kvm, unless everybody may or only root may. */
static size_t kvm_group(const struct attempt *a, gid_t *ret_gid)
{
    struct stat st;

    if (a->choice->accel != VMM_ACCEL_KVM || stat("/dev/kvm", &st) < 0 ||
        (st.st_mode & (S_IRGRP | S_IWGRP)) != (S_IRGRP | S_IWGRP) || st.st_gid == 0)
        return 0;
    *ret_gid = st.st_gid;
    return 1;
}

static int attempt_spawn(struct attempt *a, struct spawn_child *ret_child, struct err *err)
{
    static const char *const env[] = {"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", NULL};
    const bool as_stranger = a->uid != geteuid();
    struct spawn_fd fds[FD_END];
    size_t n_fds = 0;
    gid_t kvm_gid = 0;
    struct sock_filter instructions[RAMFD_FILTER_SIZE];
    struct sock_fprog filter = {.filter = instructions};

    if (a->memory->kind == CMDLINE_MEMORY_CLONE && a->memory->ram_fd >= 0)
        filter.len = ramfd_filter(a->memory->ram_fd, instructions);
    for (int i = 0; i < FD_END; i++)
        if (a->fds[i] >= 0)
            fds[n_fds++] = (struct spawn_fd){.fd = a->fds[i], .as = i};
    struct spawn_spec spec = {
        .path = a->choice->qemu,
        .argv = (const char *const *)a->cmdline.argv,
        .envp = env,
        .fds = fds,
        .n_fds = n_fds,
        .set_ids = as_stranger,
        .uid = a->uid,
        .gid = (gid_t)a->uid,
        .groups = &kvm_gid,
        .n_groups = as_stranger ? kvm_group(a, &kvm_gid) : 0,
        .unshare_flags =
            geteuid() == 0 ? CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS : 0,
        .new_session = true,
        .no_new_privs = true,
        /* QEMU asks for huge pages wherever two MiB fit in: for the ACPI tables, of which a few
         * pages are used, and for half of each part of its translation cache. An emulated machine
         * weighs 4 MiB less without, and is as fast. */
        .small_pages = a->choice->accel == VMM_ACCEL_TCG,
        .idle = a->spec->idle,
        .filter = filter.len > 0 ? &filter : NULL,
        .cgroup_procs = a->spec->cgroup_procs,
    };
    return spawn_start(&spec, ret_child, err);
}

static void set_oom_score(const struct vm_spec *spec, pid_t pid)
{
    char path[64], value[16];
    struct err err;

    if (spec->oom_score_adj == 0)
        return;
    (void)snprintf(path, sizeof(path), "/proc/%d/oom_score_adj", (int)pid);
    (void)snprintf(value, sizeof(value), "%d", spec->oom_score_adj);
    if (fd_write_text(AT_FDCWD, path, value, &err) < 0)
        log_event(LOG_WARN, &(struct log_ctx){.sandbox = spec->id}, &err,
                  "oom_score_adj %s was refused, ignoring", value);
}

static void remove_sockets(const char *dir)
{
    static const char *const names[] = {VM_QMP_SOCKET, TRANSPORT_AGENT_SOCKET};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        cleanup_free char *path = text_printf("%s/%s", dir, names[i]);
        if (path != NULL)
            (void)unlink(path);
    }
}

/* Turns a started process into a vm, or kills it. Takes over the child. */
static int adopt_child(struct vmm *vmm, struct attempt *a, struct spawn_child *child,
                       struct vm **ret_vm, struct err *err)
{
    struct vm_record r = {
        .pid = child->pid,
        .uid = a->uid,
        .accel = a->choice->accel,
        .transport = a->choice->transport,
        .cid = a->cid,
        .cloned = a->memory->kind == CMDLINE_MEMORY_CLONE,
    };

    memcpy(r.id, a->spec->id, strlen(a->spec->id) + 1);
    memcpy(r.dir, a->spec->dir, strlen(a->spec->dir) + 1);
    memcpy(r.boot_id, vmm->boot_id, sizeof(r.boot_id));
    memcpy(r.qemu_version, a->choice->version, sizeof(r.qemu_version));
    set_oom_score(a->spec, child->pid);
    /* An unreaped child keeps its pid, so this is its start even when it has ended: then it is
     * unknown and unimportant. */
    if (process_start_ticks(child->pid, &r.start_ticks, NULL) < 0)
        r.start_ticks = 1;
    int pidfd = fcntl(child->pidfd, F_DUPFD_CLOEXEC, 3);
    if (pidfd < 0) {
        (void)err_set_errno(err, errno, "machine '%s'", a->spec->id);
        spawn_kill(child);
        return -1;
    }
    if (vm_new(vmm, &r, pidfd, steal_fd(&a->fds[FD_STDERR]), ret_vm, err) < 0) {
        spawn_kill(child);
        return -1;
    }
    memcpy((*ret_vm)->deadend, a->deadend, sizeof(a->deadend));
    (*ret_vm)->has_bays = true;
    close_fd(&child->pidfd);
    return 0;
}

/* Waits for QEMU's own word that the vCPUs run. */
static int bring_up(struct vm *vm, struct attempt *a, int64_t deadline_ms, struct err *err)
{
    const struct vm_disk *first_disk = a->spec->first_disk;
    const struct vm_memory *memory = a->memory;
    const bool clone = memory->kind == CMDLINE_MEMORY_CLONE;
    cleanup_json json_t *status = NULL;

    if (vm_open(vm, err) < 0)
        return -1;
    if (clone && memory->ram_fd >= 0) {
        /* It is there for certain once QMP answers, and before there is a disk. */
        if (qmp_client_call(vm->qmp, "query-status", NULL, -1, deadline_ms, NULL, err) < 0)
            return -1;
        a->misfit = !ramfd_is(vm->record.pid, memory->ram_fd, memory->memory_fd);
        if (a->misfit)
            return err_set(err, ERR_BAD_STATE, "QEMU opened its memory as another descriptor");
    }
    if ((first_disk != NULL && disk_add_first(vm, first_disk, deadline_ms, err) < 0) ||
        (clone && (snapshot_load(vm, memory->state_fd, deadline_ms, err) < 0 ||
                   snapshot_resume(vm, deadline_ms, err) < 0)) ||
        qmp_client_call(vm->qmp, "query-status", NULL, -1, deadline_ms, &status, err) < 0)
        return -1;
    const char *text = json_string_value(json_object_get(status, "status"));
    if (text == NULL)
        return err_set(err, ERR_PROTOCOL, "QMP query-status: no status in the answer");
    pthread_mutex_lock(&vm->lock);
    if (vm->state == VM_STARTING)
        vm_set_state(vm, VM_RUNNING);
    pthread_mutex_unlock(&vm->lock);
    vm_note_status(vm, text);
    return vm_check_running(vm, err);
}

/*
 * A QEMU that ends before QMP was connected leaves a connection refused and nobody who watches it.
 * The watch is set up now, so that its end goes through the one door and its own words are found.
 */
static void watch_late(struct vm *vm)
{
    struct watch_call call = {.vm = vm};

    if (!vm->watched)
        (void)sync_run_on_loop(vm->loop, run_watch, &call, NULL);
}

/* A start that failed: ends what is left, and lets QEMU's own words stand for the error if it ended
 * by itself. */
static void give_up(struct vm *vm, struct err *err)
{
    struct vm_exit how;

    if (err->code == ERR_UNAVAILABLE)
        (void)process_wait(vm->pidfd, clock_deadline(REFUSE_WAIT_MS), NULL);
    bool by_itself = process_wait(vm->pidfd, 0, NULL) == 0;
    watch_late(vm);
    if (!vm->watched) {
        /* No loop will reap it. */
        struct spawn_child child = {.pid = vm->record.pid,
                                    .pidfd = fcntl(vm->pidfd, F_DUPFD_CLOEXEC, 3)};
        spawn_kill(&child);
        remove_sockets(vm->record.dir);
        vmm_release_uid(vm->vmm, vm->record.uid);
        return;
    }
    if (!by_itself)
        (void)vm_kill(vm, NULL);
    else if (vm_wait_exited(vm, clock_deadline(EXIT_WAIT_MS), NULL) == 0 && vm_has_exited(vm, &how))
        (void)err_set(err, ERR_UNAVAILABLE, "%s", how.reason);
}

static int start_once(struct vmm *vmm, struct attempt *a, int64_t deadline_ms, struct vm **ret_vm,
                      struct err *err)
{
    struct spawn_child child = {.pidfd = -1};
    struct vm *vm = NULL;

    if (attempt_open(vmm, a, err) < 0 || attempt_cmdline(a, err) < 0 ||
        vmm_take_uid(vmm, &a->uid, err) < 0) {
        remove_sockets(a->spec->dir);
        return -1;
    }
    if (attempt_spawn(a, &child, err) < 0 || adopt_child(vmm, a, &child, &vm, err) < 0) {
        vmm_release_uid(vmm, a->uid);
        remove_sockets(a->spec->dir);
        return -1;
    }
    /* QEMU has its copies. With ours closed, a QEMU that ends takes the listening ends with it. */
    for (int i = FD_QMP; i < FD_END; i++)
        close_fd(&a->fds[i]);
    if (bring_up(vm, a, deadline_ms, err) < 0) {
        give_up(vm, err);
        vm_unref(vm);
        return -1;
    }
    *ret_vm = vm;
    return 0;
}

static int check_spec(const struct vm_spec *spec, struct err *err)
{
    if (spec->id == NULL || !vm_id_is_valid(spec->id))
        return err_set(err, ERR_INVALID, "'%s' does not do as a machine's name",
                       text_or_empty(spec->id));
    if (spec->dir == NULL || spec->dir[0] != '/' ||
        strlen(spec->dir) >= sizeof(((struct vm_record *)NULL)->dir))
        return err_set(err, ERR_INVALID, "machine '%s': its folder must be an absolute path",
                       spec->id);
    if (spec->kernel == NULL)
        return err_set(err, ERR_INVALID, "machine '%s': no kernel", spec->id);
    if (spec->nic != NULL && spec->nic->n_queues != vm_nic_queues(spec->vcpus))
        return err_set(err, ERR_INVALID, "machine '%s': its interface has %u queues, not %u",
                       spec->id, spec->nic->n_queues, vm_nic_queues(spec->vcpus));
    return 0;
}

int vm_start_with(struct vmm *vmm, const struct vmm_choice *choice, const struct vm_spec *spec,
                  const struct vm_memory *memory, int64_t deadline_ms, struct vm **ret_vm,
                  struct err *err)
{
    struct vm_memory from = {.memory_fd = -1, .state_fd = -1, .ram_fd = -1};
    struct err why;

    if (memory != NULL)
        from = *memory;

    if (check_spec(spec, err) < 0)
        return -1;
    for (int try = 1;; try++) {
        cleanup_attempt struct attempt a = {.spec = spec, .choice = choice, .memory = &from};
        for (size_t i = 0; i < ARRAY_SIZE(a.fds); i++)
            a.fds[i] = -1;
        if (start_once(vmm, &a, deadline_ms, ret_vm, &why) == 0)
            return 0;
        if (a.misfit) {
            from.ram_fd = -1;
            continue;
        }
        /* The context id was somebody else's: QEMU ends with EADDRINUSE in words. */
        if (try == CID_TRIES || a.cid == 0 || strstr(why.msg, "Address already in use") == NULL)
            break;
    }
    if (err != NULL)
        *err = why;
    return err_prefix(err, "machine '%s'", spec->id);
}

/*
 * 0: cloned. 1: there is no template, or none that does: the machine has to boot, which was logged.
 * -1: it cannot be started either way, or there is no time left.
 */
static int start_clone(struct vmm *vmm, const struct vmm_choice *choice, const struct vm_spec *spec,
                       int64_t deadline_ms, struct vm **ret_vm, struct err *err)
{
    const struct log_ctx ctx = {.sandbox = spec->id};
    cleanup_template struct template *template = NULL;
    struct vm_memory memory = {.kind = CMDLINE_MEMORY_CLONE};
    struct err why;

    if (templates_get(vmm->templates, choice, spec, deadline_ms, &template, &why) < 0) {
        if (why.code == ERR_CANCELLED) {
            if (err != NULL)
                *err = why;
            return -1;
        }
        log_event(LOG_WARN, &ctx, &why, "no template: the machine boots instead of being cloned");
        return 1;
    }
    const struct template_files *files = template_get_files(template);
    memory.memory_fd = files->fds[TEMPLATE_MEMORY];
    memory.state_fd = files->fds[TEMPLATE_STATE];
    memory.ram_fd = template_ram_fd(template);
    if (spec->first_disk != NULL &&
        template_file_copy(files->fds[TEMPLATE_DISK], spec->first_disk->fd, err) < 0)
        return err_prefix(err, "machine '%s': its first disk", spec->id);
    if (vm_start_with(vmm, choice, spec, &memory, deadline_ms, ret_vm, &why) == 0) {
        templates_worked(vmm->templates, template);
        return 0;
    }
    if (why.code == ERR_DEADLINE || why.code == ERR_EXHAUSTED || why.code == ERR_INVALID) {
        if (err != NULL)
            *err = why;
        return -1;
    }
    log_event(LOG_ERROR, &ctx, &why,
              "the template does not work: the machine boots, and a new template is made");
    templates_reject(vmm->templates, template);
    return 1;
}

int vm_start(struct vmm *vmm, const struct vm_spec *spec, int64_t deadline_ms, struct vm **ret_vm,
             struct err *err)
{
    struct vmm_choice choice;

    if (loop_is_current(vmm->loop))
        return err_set(err, ERR_BAD_STATE, "a machine cannot be started on the loop's thread");
    if (vmm_prepare(vmm, deadline_ms, err) < 0)
        return -1;
    vmm_get_choice_for(vmm, spec, &choice);
    if (check_spec(spec, err) < 0)
        return -1;
    if (spec->clone && vmm->templates != NULL) {
        int result = start_clone(vmm, &choice, spec, deadline_ms, ret_vm, err);
        if (result <= 0)
            return result;
    }
    return vm_start_with(vmm, &choice, spec, NULL, deadline_ms, ret_vm, err);
}

/* ---- finding it again
 * -------------------------------------------------------------------------------------------- */

static int open_record(struct vmm *vmm, const struct vm_record *record, int *ret_pidfd,
                       struct err *err)
{
    if (strcmp(record->boot_id, vmm->boot_id) != 0)
        return err_set(err, ERR_NOT_FOUND, "machine '%s': the host was booted since", record->id);
    if (process_open(record->pid, record->start_ticks, ret_pidfd, err) < 0)
        return err_prefix(err, "machine '%s'", record->id);
    return 0;
}

static int reconnect(struct vm *vm, int64_t deadline_ms, struct err *err)
{
    cleanup_json json_t *status = NULL;

    if (vm_open(vm, err) < 0 ||
        qmp_client_call(vm->qmp, "query-status", NULL, -1, deadline_ms, &status, err) < 0 ||
        disk_rebuild(vm, deadline_ms, err) < 0 || nic_rebuild(vm, deadline_ms, err) < 0)
        return -1;
    pthread_mutex_lock(&vm->lock);
    if (vm->state == VM_STARTING)
        vm_set_state(vm, VM_RUNNING);
    pthread_mutex_unlock(&vm->lock);
    vm_note_status(vm, text_or_empty(json_string_value(json_object_get(status, "status"))));
    return 0;
}

/* The guest or QEMU ended it while it was being looked at, and said so. */
static bool ends_by_itself(struct vm *vm)
{
    pthread_mutex_lock(&vm->lock);
    bool ends = vm->state >= VM_ENDING && vm->cause[0] != '\0';
    pthread_mutex_unlock(&vm->lock);
    return ends;
}

int vm_attach(struct vmm *vmm, const struct vm_record *record, int64_t deadline_ms,
              struct vm **ret_vm, struct err *err)
{
    cleanup_fd int pidfd = -1, stderr_fd = -1;
    cleanup_vm struct vm *vm = NULL;
    struct err why;

    if (loop_is_current(vmm->loop))
        return err_set(err, ERR_BAD_STATE, "a machine cannot be found on the loop's thread");
    if (open_record(vmm, record, &pidfd, err) < 0)
        return -1;
    if (process_stderr_open(record->pid, &stderr_fd, &why) < 0)
        log_event(LOG_WARN, &(struct log_ctx){.sandbox = record->id}, &why,
                  "QEMU's standard error cannot be read, ignoring");
    if (vm_new(vmm, record, steal_fd(&pidfd), steal_fd(&stderr_fd), &vm, err) < 0)
        return -1;
    vmm_keep_uid(vmm, record->uid);
    if (reconnect(vm, deadline_ms, err) < 0 && !ends_by_itself(vm)) {
        if (process_wait(vm->pidfd, 0, NULL) == 0)
            return err_set(err, ERR_NOT_FOUND, "machine '%s' has just ended", record->id);
        return err_prefix(err, "machine '%s'", record->id);
    }
    *ret_vm = steal_ptr(&vm);
    return 0;
}

int vm_kill_record(struct vmm *vmm, const struct vm_record *record, int64_t deadline_ms,
                   struct err *err)
{
    cleanup_fd int pidfd = -1;
    struct err why;

    if (open_record(vmm, record, &pidfd, &why) == 0) {
        process_kill(pidfd);
        if (process_wait(pidfd, deadline_ms, err) < 0)
            return err_prefix(err, "machine '%s'", record->id);
    } else if (why.code != ERR_NOT_FOUND) {
        if (err != NULL)
            *err = why;
        return -1;
    }
    remove_sockets(record->dir);
    return 0;
}

void vm_get_record(struct vm *vm, struct vm_record *ret_record)
{
    *ret_record = vm->record;
}

/* ---- speaking with it
 * -------------------------------------------------------------------------------------------- */

int vm_connect_agent(struct vm *vm, int64_t deadline_ms, int *ret_fd, struct err *err)
{
    const struct transport_target target = {
        .kind = vm->record.transport,
        .dir = vm->record.dir,
        .cid = vm->record.cid,
    };

    if (vm_check_running(vm, err) < 0)
        return -1;
    if (transport_connect(&target, vm->pidfd, deadline_ms, ret_fd, err) == 0)
        return 0;
    /* If the machine ended, its death certificate says more than a broken connection. */
    if (process_wait(vm->pidfd, 0, NULL) == 0) {
        (void)vm_wait_exited(vm, clock_deadline(REFUSE_WAIT_MS), NULL);
        (void)vm_check_running(vm, err);
    }
    return err_prefix(err, "machine '%s'", vm->record.id);
}

int vm_console_text(struct vm *vm, int64_t deadline_ms, char **ret_text, struct err *err)
{
    cleanup_json json_t *value = NULL;

    if (vm_check_running(vm, err) < 0 ||
        qmp_client_call(vm->qmp, "ringbuf-read",
                        json_pack("{s:s, s:i, s:s}", "device", "console", "size",
                                  CMDLINE_CONSOLE_BYTES, "format", "base64"),
                        -1, deadline_ms, &value, err) < 0)
        return -1;
    return base64_decode_text(text_or_empty(json_string_value(value)), ret_text, err);
}

/* ---- the end -------------------------------------------------------------------------------- */

int vm_stop(struct vm *vm, int64_t deadline_ms, struct err *err)
{
    pthread_mutex_lock(&vm->lock);
    vm->asked_for = true;
    bool ended = vm->state == VM_EXITED;
    if (!ended && vm->state != VM_ENDING)
        vm_set_state(vm, VM_ENDING);
    pthread_mutex_unlock(&vm->lock);
    if (ended)
        return 0;
    if (vm->qmp != NULL)
        (void)qmp_client_send(vm->qmp, "quit", NULL, NULL, NULL, NULL);
    if (vm_wait_exited(vm, deadline_ms, NULL) == 0)
        return 0;
    return vm_kill(vm, err);
}

/* False: it has ended already. */
static bool begin_kill(struct vm *vm)
{
    pthread_mutex_lock(&vm->lock);
    bool lives = vm->state != VM_EXITED;
    if (lives) {
        vm->asked_for = true;
        if (vm->state != VM_ENDING)
            vm_set_state(vm, VM_ENDING);
    }
    pthread_mutex_unlock(&vm->lock);
    if (lives)
        process_kill(vm->pidfd);
    return lives;
}

void vm_kill_begin(struct vm *vm)
{
    (void)begin_kill(vm);
}

int vm_kill(struct vm *vm, struct err *err)
{
    struct err why;

    if (!begin_kill(vm))
        return 0;
    (void)err_set(&why, ERR_UNAVAILABLE, "machine '%s' was killed", vm->record.id);
    if (vm->qmp != NULL)
        qmp_client_close(vm->qmp, &why);
    return vm_wait_exited(vm, clock_deadline(EXIT_WAIT_MS), err);
}
