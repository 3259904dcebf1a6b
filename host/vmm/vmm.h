/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtual machines for the rest of the host: started, found again after a restart, given disks,
 * spoken to, stopped. Only this room knows that the machine monitor is QEMU. A struct vmm is what a
 * node has once (binary, accelerator, uids); a struct vm is one running machine, shared by
 * reference. Threads: functions that take a deadline block and belong on worker threads, never on
 * the loop's; handlers are called on the loop's thread. Deadlines as in common/base/clock.h.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/base/cleanup.h"
#include "common/base/err.h"
#include "host/vmm/record.h"

struct loop;
struct vmm;
struct vm;
struct vm_spec;

struct vmm_config {
    /* Absolute path; NULL: qemu-system-x86_64 in the usual folders. */
    const char *qemu;
    /* AUTO decides by running a guest. */
    enum vmm_accel accel;
    /* Under TCG too, guests keep mitigations of processor bugs, address space randomisation, SMAP
     * and the kernel's checks of itself. */
    bool tcg_hardening;
    /* AUTO: vsock where /dev/vhost-vsock can be opened, else virtio-serial. */
    enum vmm_transport transport;
    /* The host's kernel moves packets where this device can be used; NULL: /dev/vhost-net; "": QEMU
     * moves them. */
    const char *vhost_net;
    /* Existing, root-only folder for the room's own files. */
    const char *run_dir;
    /* File that remembers the verdict on KVM; NULL: "<run_dir>/accel.json". */
    const char *accel_cache;
    /* Existing, root-only folder that is for nothing else, where templates outlive the daemon;
     * NULL: machines are not cloned. */
    const char *template_dir;
    /* What all templates together may occupy of the host's memory; 0: no bound. A template beyond
     * it is given up: its machines boot. */
    uint64_t templates_max_bytes;
    /* The guest that the verdict is found with; NULL: AUTO takes TCG, saying why. */
    const char *probe_kernel;
    const char *probe_initrd;
    int probe_timeout_ms; /* 0: 15000 */
    /*
     * Each QEMU gets a uid (and gid) of its own from this range; uid_count 0: QEMU runs as the
     * caller (an unprivileged daemon, tests).
     */
    uid_t uid_base;
    uint32_t uid_count;
};

/*
 * The node's machine monitor. Starts no process: what is wrong with QEMU shows in vmm_prepare and
 * vm_start, so that a daemon can serve while it says what is missing. config is copied. The loop
 * must outlive the vmm.
 */
int vmm_new(const struct vmm_config *config, struct loop *loop, struct vmm **ret_vmm,
            struct err *err);
/* After every vm of it was unreferenced. NULL is fine. Running machines go on running. */
void vmm_free(struct vmm *vmm);

static inline void vmm_cleanup_fn_(struct vmm **p)
{
    vmm_free(*p);
}
#define cleanup_vmm CLEANUP(vmm_cleanup_fn_)

/*
 * Asks QEMU for its version and decides on the accelerator (for AUTO by running a guest, unless a
 * verdict for this boot, QEMU and /dev/kvm is remembered). Once done it returns at once; vm_start
 * calls it. Safe from several threads.
 */
int vmm_prepare(struct vmm *vmm, int64_t deadline_ms, struct err *err);

/*
 * Whether a guest (probe_kernel, probe_initrd) comes up to its agent's echo under this accelerator
 * (not AUTO). 0: it does.
 */
int vmm_probe(struct vmm *vmm, enum vmm_accel accel, int64_t deadline_ms, struct err *err);

/*
 * Called for each machine that becomes a template, when its agent has answered: do in it what every
 * clone would have to do, and leave nothing of any pod. Connections to its agent must be closed
 * again. Its disk is first_disk. UNSUPPORTED: the template does without it; other errors fail it.
 * Set before the first template is wanted; called on a thread of the vmm's. NULL ends the making of
 * templates, for good: when it returns, no call is under way.
 */
typedef int (*vmm_template_fn)(void *arg, struct vm *vm, int64_t deadline_ms, struct err *err);
/* A template can be cloned from now on; called on a thread of the vmm's, must not wait. */
typedef void (*vmm_template_ready_fn)(void *arg);
/* As said at the types; ready may be NULL. */
void vmm_set_template_hook(struct vmm *vmm, vmm_template_fn fn, vmm_template_ready_fn ready,
                           void *arg);

struct vmm_status {
    bool prepared;                /* the fields below are decided */
    enum vmm_accel accel;         /* KVM or TCG; AUTO while undecided */
    bool accel_is_fallback;       /* AUTO wanted KVM and did not get it */
    char accel_reason[256];       /* why, for people */
    enum vmm_transport transport; /* for new machines: VSOCK or SERIAL */
    bool vhost_net;               /* new machines' packets are moved by the host's kernel */
    char qemu_version[64];        /* "7.2.22" */
    char problem[512];            /* why vmm_prepare failed last; "" if it did not */
    uint32_t templates;           /* that clones are made of */
    uint64_t template_bytes;      /* memory that they occupy */
    uint64_t template_max_bytes;  /* that they may occupy; 0: no bound */
    uint32_t templates_refused;   /* shapes whose machines boot because of that */
};
/*
 * Has a template of this machine made in the background, so that no pod waits for it (id and dir
 * are not looked at). After vmm_prepare; does not block. Copies in template_dir that are of nothing
 * that was ever asked for are removed when all that were have been made.
 */
int vmm_want_template(struct vmm *vmm, const struct vm_spec *spec, struct err *err);

/* What is known now. Never blocks. */
void vmm_get_status(struct vmm *vmm, struct vmm_status *ret_status);

/*
 * Kills machines called id that no record names: a daemon that died between starting QEMU and
 * storing the record leaves one. *ret_killed counts them. For start-up only: it looks through
 * /proc.
 */
int vmm_kill_stray(struct vmm *vmm, const char *id, unsigned int *ret_killed, struct err *err);

/* ---- one machine ---------------------------------------------------------------------------- */

#define VM_NIC_QUEUES     8
#define VM_NIC_FIRST_SLOT 16 /* PCI device number of the interface that every machine has */

/* How many queues the first interface of a machine that starts with this many vCPUs has: one for
 * each, at most VM_NIC_QUEUES. */
uint32_t vm_nic_queues(uint32_t vcpus);

/*
 * What a network interface of the guest is connected to. The tap is opened by the caller, with
 * IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, and IFF_MULTI_QUEUE when it has several queues; the
 * descriptors, one for each queue, stay his. A first interface has vm_nic_queues of them, one that
 * is plugged in uses the first only. The MAC address is the device's own: the guest may set
 * another, and the one of a clone's first interface is its template's until it does.
 */
struct vm_nic {
    int tap_fds[VM_NIC_QUEUES];
    uint32_t n_queues;
    uint8_t mac[6];
};

#define VM_DISK_SERIAL_SIZE 37   /* NUL included: virtio-scsi shows at most 36 bytes */
#define VM_DISK_LUNS        1024 /* for disks that are plugged in */
#define VM_DISK_BAYS        8
#define VM_FIRST_DISK_SERIAL                                                                       \
    "scratch" /* of a machine that becomes a template; clones' have it too */

struct vm_disk {
    int fd; /* raw image or block device, opened for what is asked; stays the caller's */
    bool read_only;
    bool scratch; /* need not outlive the host's uptime: the guest's flushes cost nothing */
    /* Unique in the machine, [A-Za-z0-9_.-]; the guest sees it in VPD page 0x80. */
    const char *serial;
};

enum vm_console {
    VM_CONSOLE_RING, /* the console goes to 64 KiB in QEMU's memory, for vm_console_text */
    VM_CONSOLE_OFF,  /* the guest has no serial port; its end is told without last words */
};

struct vm_spec {
    const char *id;  /* [A-Za-z0-9_.-], at most VM_ID_SIZE - 1 bytes; QEMU shows it as its name */
    const char *dir; /* existing, root-only folder of this machine alone: sockets; absolute */
    const char *kernel;        /* uncompressed PVH vmlinux, or a bzImage */
    const char *initrd;        /* NULL: none */
    const char *cmdline_extra; /* appended to the kernel's command line; NULL: nothing */
    enum vmm_accel accel;      /* AUTO: the node's verdict; else this one or failure */
    const char *machine;       /* NULL: "q35"; nothing else is provided yet */
    uint32_t memory_mib;       /* at boot */
    uint32_t memory_max_mib;   /* what vm_resize may go up to; 0: memory_mib */
    uint32_t vcpus;            /* at boot */
    uint32_t vcpus_max;        /* what vm_resize may go up to; 0: vcpus */
    /*
     * Attached as LUN 0 before the machine runs; NULL: no disk yet. A regular file that may be
     * written. When the machine is a clone, its content is replaced by what the template's guest
     * has left on a disk with the content that the first spec of this kind had.
     */
    const struct vm_disk *first_disk;
    /*
     * Clone a template of this machine if the vmm keeps templates (all fields count that a machine
     * cannot change later: kernel, initrd, command line, machine, memory, vCPUs, console). Without
     * one, the machine boots, with a warning.
     */
    bool clone;
    enum vm_console console;
    /*
     * Every machine has one network interface, at VM_NIC_FIRST_SLOT. NULL: it leads nowhere.
     */
    const struct vm_nic *nic;
    /* NULL-terminated cgroup.procs paths that QEMU joins; NULL: none. */
    const char *const *cgroup_procs;
    bool idle;         /* QEMU's threads are SCHED_IDLE: nobody waits for this machine yet */
    int oom_score_adj; /* of QEMU; refusal by the kernel is logged and tolerated */
    /* NULL, or set (and vmm_look_again called) by whoever does not want the machine any more:
     * vm_start then fails with CANCELLED, at the latest when QEMU runs. */
    const atomic_bool *cancelled;
};

/*
 * Starts a machine and returns when its vCPUs run. The files of spec are opened by the caller's
 * rights and passed on as descriptors. A QEMU that is missing or refuses fails within seconds, with
 * QEMU's own words. On failure nothing is left: no process, no socket.
 */
int vm_start(struct vmm *vmm, const struct vm_spec *spec, int64_t deadline_ms, struct vm **ret_vm,
             struct err *err);

/*
 * Finds the machine of a record again: the process by pid and start time, then QMP, then what is
 * attached. NOT_FOUND when it is gone. DEADLINE or UNAVAILABLE when the process lives and QMP does
 * not answer: it can still be killed, with vm_kill_record. A guest that ended meanwhile, or ends
 * just now, is found: its exit handler is told why.
 */
int vm_attach(struct vmm *vmm, const struct vm_record *record, int64_t deadline_ms,
              struct vm **ret_vm, struct err *err);

/*
 * Kills the process of a record if it still lives, waits for its end, and removes its sockets. No
 * machine: success.
 */
int vm_kill_record(struct vmm *vmm, const struct vm_record *record, int64_t deadline_ms,
                   struct err *err);

/* Some vm_spec's `cancelled` was set: whoever waits for a template looks at his. */
void vmm_look_again(struct vmm *vmm);

/* One reference more, to be let go of with vm_unref; returns vm. */
struct vm *vm_ref(struct vm *vm);
/* Lets go: the last one closes the connections and leaves the machine running. NULL is fine. */
void vm_unref(struct vm *vm);

static inline void vm_cleanup_fn_(struct vm **p)
{
    vm_unref(*p);
}
#define cleanup_vm CLEANUP(vm_cleanup_fn_)

/* What vm_attach needs; constant for the life of the machine, so it is stored once. */
void vm_get_record(struct vm *vm, struct vm_record *ret_record);

/*
 * A new connected, blocking byte stream to the agent, after the link handshake (link.h); the
 * caller's. One at a time: a second one waits until the first is closed.
 */
int vm_connect_agent(struct vm *vm, int64_t deadline_ms, int *ret_fd, struct err *err);

/* ---- size ------------------------------------------------------------------------------------ */

/*
 * Makes the machine this large: memory_mib altogether (0: as it is), vcpus (0: as it is; fewer than
 * there are: no effect). Returns when QEMU was told: a guest takes new memory into use within a
 * fraction of a second, and gives back as much as it can free. EXHAUSTED beyond what the machine
 * was started for.
 */
int vm_resize(struct vm *vm, uint32_t memory_mib, uint32_t vcpus, int64_t deadline_ms,
              struct err *err);

struct vm_size {
    uint32_t memory_mib;    /* that the guest has now */
    uint32_t requested_mib; /* that it was told to have */
    uint32_t memory_max_mib;
    uint32_t vcpus;
    uint32_t vcpus_max;
};
/* Asks QEMU. */
int vm_get_size(struct vm *vm, int64_t deadline_ms, struct vm_size *ret_size, struct err *err);

/* ---- disks ---------------------------------------------------------------------------------- */

struct vm_disk_info {
    uint32_t lun;
    bool read_only;
    char serial[VM_DISK_SERIAL_SIZE];
};

/*
 * Machines have bays: drives that are there from the start, at LUNs VM_DISK_LUNS and up, and empty.
 * A read-only regular file of whole pages goes into one while there are any, which costs the guest
 * nothing: it has found the drive at its boot. What it sees of it then is the bay's own serial,
 * and a size beyond any file's; where the file ends, reading fails. A mounted file system knows
 * its size.
 */
static inline bool vm_lun_is_bay(uint32_t lun)
{
    return lun >= VM_DISK_LUNS;
}
/* What the guest sees as the serial of the drive in this bay. */
const char *vm_bay_serial(uint32_t lun);

/*
 * Attaches a disk, in a bay or by hotplug: SCSI host 0, channel 0, target 0, LUN *ret_lun. A
 * failure leaves nothing attached. EXISTS when the serial is attached already, EXHAUSTED when all
 * LUNs are used.
 */
int vm_add_disk(struct vm *vm, const struct vm_disk *disk, int64_t deadline_ms, uint32_t *ret_lun,
                struct err *err);

/*
 * Detaches: asks the guest, waits until it agreed, gives the descriptor back. DEADLINE when the
 * guest did not agree in time: the disk is still attached, and the call may be repeated. NOT_FOUND
 * when there is no such LUN. A bay is emptied without asking; the caller knows that nothing of it
 * is mounted.
 */
int vm_remove_disk(struct vm *vm, uint32_t lun, int64_t deadline_ms, struct err *err);

/* What is attached, in order of LUN (also after vm_attach): a heap array, freed by the caller. */
int vm_list_disks(struct vm *vm, struct vm_disk_info **ret_disks, size_t *ret_n, struct err *err);

/* ---- network interfaces --------------------------------------------------------------------- */

/*
 * Gives a machine that was started without a network one: the tap behind its first interface is
 * moved to a network namespace, under this name, down. Once, and by the daemon that started the
 * machine: BAD_STATE otherwise.
 */
int vm_join_namespace(struct vm *vm, int netns_fd, const char *name, struct err *err);

/*
 * Plugs in one more interface, of at most three, for as long as the machine lives. *ret_slot is
 * where the guest finds it: the device number, on PCI bus 0, of the bridge it is behind.
 * EXHAUSTED when all are used; a failure leaves nothing behind.
 */
int vm_add_nic(struct vm *vm, const struct vm_nic *nic, int64_t deadline_ms, uint32_t *ret_slot,
               struct err *err);

/* ---- the end -------------------------------------------------------------------------------- */

struct vm_exit {
    int64_t ended_at_ns; /* realtime */
    int exit_status;     /* exit code, or 128 + signal; -1: unknown, not this daemon's child */
    bool asked_for;      /* vm_stop or vm_kill came first */
    char reason[1024];   /* the death certificate: one line, for logs and CRI messages; escaped */
};
typedef void (*vm_exit_fn)(void *arg, const struct vm_exit *how);

/*
 * Calls fn(arg, how) once on the loop, when the machine has ended for whatever reason, or soon if
 * it has already. A later call replaces the handler; NULL takes it back, and then, called on the
 * loop's thread, it is not called any more.
 */
int vm_set_exit_handler(struct vm *vm, vm_exit_fn fn, void *arg, struct err *err);

/* Whether the machine has ended; if so *ret_exit (may be NULL) says how. Never blocks. */
bool vm_has_exited(struct vm *vm, struct vm_exit *ret_exit);

/*
 * Ends the machine: QMP quit, and SIGKILL at the deadline; then waits (briefly) for the process's
 * end and removes the sockets. Does not ask the guest: that is for whoever speaks with the agent.
 * Success if it has ended already.
 */
int vm_stop(struct vm *vm, int64_t deadline_ms, struct err *err);

/*
 * SIGKILL at once; every pending call on this machine fails. Waits for the process's end as vm_stop
 * does.
 */
int vm_kill(struct vm *vm, struct err *err);

/* The first half of vm_kill: the signal is sent, and nobody waits. vm_kill must follow. */
void vm_kill_begin(struct vm *vm);

/*
 * What the guest's console has said since the last call, at most 64 KiB, control bytes and all but
 * NUL; free it.
 */
int vm_console_text(struct vm *vm, int64_t deadline_ms, char **ret_text, struct err *err);
