/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two objects of this room, shared by its files and by nobody else: vmm.c keeps the node's
 * side, vm.c a machine's life, vm_exit.c its end, disk.c its disks. Which thread and which lock a
 * field belongs to is written beside it.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "common/base/cleanup.h"
#include "common/base/err.h"
#include "host/vmm/cmdline.h"
#include "host/vmm/deadend.h"
#include "host/vmm/vmm.h"

struct loop;
struct loop_source;
struct qmp_client;
struct templates;

#define VM_QMP_SOCKET "qmp.sock" /* in the machine's folder */

/* ---- the node ------------------------------------------------------------------------------- */

struct vmm {
    atomic_uint refs; /* the owner, and each machine */
    struct loop *loop;
    /* Constant after vmm_new. */
    struct vmm_config config; /* its strings are in `texts` */
    char *texts[7];
    char boot_id[37];
    /* For what follows; never held while waiting for anything but `changed`. */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool preparing; /* one thread is in vmm_prepare */
    struct vmm_status status;
    char qemu[PATH_MAX]; /* once prepared */
    int qemu_major, qemu_minor;
    uint8_t *uids_used;           /* one byte each of config.uid_count */
    pthread_mutex_t deadend_lock; /* for the next; held while a tap is made */
    int deadend_ns; /* network namespace of taps that lead nowhere; -1: not made yet */
    vmm_template_fn template_hook; /* constant once templates are made; NULL: none */
    vmm_template_ready_fn template_ready;
    void *template_hook_arg;
    struct templates *templates; /* constant; NULL: every machine boots */
};

/* The last one frees it. NULL is fine. */
void vmm_unref(struct vmm *vmm);
/* One reference more, for one vmm_unref: each machine has one. */
struct vmm *vmm_ref(struct vmm *vmm);

/* A uid that no machine uses; the daemon's own when none are configured. EXHAUSTED. */
int vmm_take_uid(struct vmm *vmm, uid_t *ret_uid, struct err *err);
/* Marks a uid found in a record as used. */
void vmm_keep_uid(struct vmm *vmm, uid_t uid);
/* It may be given out again; after the process has been reaped. */
void vmm_release_uid(struct vmm *vmm, uid_t uid);

/* What the version and the verdict say; after vmm_prepare. */
struct vmm_choice {
    const char *qemu; /* lives as long as the vmm */
    int major, minor;
    char version[64];
    enum vmm_accel accel;
    bool tcg_hardening;
    enum vmm_transport transport;
    bool vhost_net;
};
void vmm_get_choice(struct vmm *vmm, struct vmm_choice *ret_choice);
/* And what this machine insists on. */
void vmm_get_choice_for(struct vmm *vmm, const struct vm_spec *spec, struct vmm_choice *ret_choice);

/* Finds QEMU and asks it for its version, once; then decides on the transport. Does not decide on
 * the accelerator. */
int vmm_find_qemu(struct vmm *vmm, int64_t deadline_ms, struct err *err);

/* Where a machine's memory at boot comes from; the descriptors stay the caller's. */
struct vm_memory {
    enum cmdline_memory kind;
    int memory_fd; /* TEMPLATE, CLONE */
    int state_fd;  /* CLONE */
    int ram_fd;    /* CLONE: what QEMU will open memory_fd as (ramfd.h); -1: not known */
};

/* Where QEMU finds its descriptors. */
enum vm_fd {
    FD_STDERR = 2,
    FD_QMP,
    FD_AGENT,
    FD_VHOST,
    FD_KERNEL,
    FD_INITRD,
    FD_MEMORY,
    FD_TAP, /* one for each queue */
    FD_VHOST_NET = FD_TAP + VM_NIC_QUEUES,
    FD_END = FD_VHOST_NET + VM_NIC_QUEUES
};

/* vm_start with everything decided; for the probe and for templates too. memory NULL: its own. */
int vm_start_with(struct vmm *vmm, const struct vmm_choice *choice, const struct vm_spec *spec,
                  const struct vm_memory *memory, int64_t deadline_ms, struct vm **ret_vm,
                  struct err *err);
/* What QEMU's command line is made of, with descriptors where they always are; memory of its own,
 * no CID, an interface that leads nowhere. Points into choice and spec. */
void vm_describe(const struct vmm_choice *choice, const struct vm_spec *spec,
                 struct cmdline_spec *ret_line);

/* ---- a machine ------------------------------------------------------------------------------ */

enum vm_state {
    VM_STARTING, /* the process exists; QMP has not said that it runs. Only kill is possible. */
    VM_RUNNING,  /* everything is possible */
    VM_ENDING,   /* the guest ended itself, or the host asked QEMU to: its last words are collected;
                    no new work */
    VM_EXITED,   /* the process is gone, `exit` is complete, sockets are removed, everything pending
                    has failed */
};

enum disk_state {
    DISK_ADDING,   /* a worker is adding it */
    DISK_ATTACHED, /* the guest has it */
    DISK_REMOVING, /* device_del was asked for; the guest may still use it until DEVICE_DELETED */
    DISK_DROPPING, /* the device is gone; node and descriptor set are being given back */
    DISK_STUCK,    /* they could not be given back: the LUN is not used again */
};

#define DISK_TABLE (VM_DISK_LUNS + VM_DISK_BAYS)

struct disk {
    enum disk_state state;
    struct vm *vm;
    struct vm_disk_info info;
};

struct vm {
    atomic_uint refs;
    atomic_uint destroy_posted; /* calls of vm_destroy that are on their way to the loop */
    struct vmm *vmm;
    struct loop *loop;
    struct vm_record record; /* constant once started or attached */
    int pidfd;
    int stderr_fd;          /* -1 when it could not be opened */
    struct qmp_client *qmp; /* constant; NULL before the process exists */

    /* The loop's. */
    bool watched; /* the process's end will be noticed; constant once vm_open has returned */
    struct loop_source *exit_source;
    struct loop_source *kill_timer;
    int64_t io_error_logged_ms; /* 0: never */

    pthread_mutex_t lock;   /* for what follows */
    pthread_cond_t changed; /* state, and the state of any disk */
    enum vm_state state;
    bool asked_for;       /* the host wants the end */
    char cause[512];      /* what QEMU's events said about the end; "" if nothing */
    char last_words[256]; /* of the guest's console */
    char migration[24];   /* what QEMU said last about saving or loading; "" if nothing */
    struct vm_exit exit;
    vm_exit_fn exit_fn;
    void *exit_arg;
    bool exit_told;
    struct disk *disks[DISK_TABLE]; /* NULL: free */
    bool has_bays;                  /* not when an older release has started it; constant */
    bool nics_used[CMDLINE_NICS];
    char deadend[DEADEND_NAME_SIZE]; /* the tap of a first interface that leads nowhere; "" */
};

/* ---- vm_exit.c */

/* On the loop: starts to watch the process. */
int vm_watch(struct vm *vm, struct err *err);
/* QMP client handlers, on the loop; arg is the vm. */
void vm_on_event(void *arg, const char *name, const json_t *data);
/*
 * QEMU is killed if it does not end by itself soon: a machine without its monitor cannot be
 * managed.
 */
void vm_on_qmp_closed(void *arg, const struct err *why);
/* The state that query-status tells, for a machine found again: one that has ended already is led
 * to its end. */
void vm_note_status(struct vm *vm, const char *status);
/* Moves to a later state; the only place where the state changes. Lock held. */
void vm_set_state(struct vm *vm, enum vm_state state);
/* Waits for VM_EXITED. */
int vm_wait_exited(struct vm *vm, int64_t deadline_ms, struct err *err);
/* BAD_STATE or UNAVAILABLE with the death certificate, unless the machine runs. */
int vm_check_running(struct vm *vm, struct err *err);

/* ---- snapshot.c: state of CPUs and devices, to and from a file */

/* Pauses the machine, which never runs again, and writes its state. Its memory is a shared file. */
int snapshot_save(struct vm *vm, int state_fd, int64_t deadline_ms, struct err *err);
/* Makes a machine that was started as a clone what was saved. It is paused. */
int snapshot_load(struct vm *vm, int state_fd, int64_t deadline_ms, struct err *err);
/* Lets it run. */
int snapshot_resume(struct vm *vm, int64_t deadline_ms, struct err *err);
/* On the loop: QEMU's event about it. */
void snapshot_on_event(struct vm *vm, const char *status);

/* ---- disk.c, disk_rebuild.c */

#define DISK_NAME_SIZE 16

/* "disk<lun>", and back: -1 when the name is none of ours. */
void disk_name(uint32_t lun, char ret_name[DISK_NAME_SIZE]);
/* Only for exactly what disk_name makes. */
int disk_lun_of_name(const char *name, uint32_t *ret_lun);
/* An entry for the table, which is given to nobody yet; NULL when out of memory. */
struct disk *disk_new(struct vm *vm, uint32_t lun, bool read_only, const char *serial,
                      enum disk_state state);
/* Gives back node and descriptors of an ATTACHED or REMOVING disk whose device is gone, unless that
 * is under way; any thread, does not wait. */
void disk_drop(struct vm *vm, uint32_t lun);
/* The device called device_id is gone; on the loop. */
void disk_on_device_deleted(struct vm *vm, const char *device_id);
/* vm_add_disk for a machine that does not run yet: LUN 0. */
int disk_add_first(struct vm *vm, const struct vm_disk *disk, int64_t deadline_ms, struct err *err);
/* Finds out what is attached, after the daemon came back. */
int disk_rebuild(struct vm *vm, int64_t deadline_ms, struct err *err);
/* Descriptor sets are numbered from 1. */
static inline json_int_t disk_fdset(uint32_t lun)
{
    return (json_int_t)lun + 1;
}
/* "/dev/fdset/<number>", as which QEMU opens what is in a set. */
#define DISK_PATH_SIZE 32
void disk_fdset_path(uint32_t lun, char ret_path[DISK_PATH_SIZE]);
/* Frees the bookkeeping. */
void disk_forget_all(struct vm *vm);

/* ---- bay.c: drives that are there from a machine's start */

/* The node that holds a bay's file while there is one. */
void bay_file_name(uint32_t lun, char ret_name[CMDLINE_BAY_NAME_SIZE]);
/* The arguments of blockdev-add for that node, and of blockdev-reopen that put it into the drive
 * and take it out; NULL: out of memory. */
json_t *bay_file_arguments(uint32_t lun);
json_t *bay_fill_arguments(uint32_t lun);
json_t *bay_empty_arguments(uint32_t lun);
/*
 * After the daemon came back, from what query-named-block-nodes has said: whether there are bays,
 * and an entry in the table for each that has a file, DISK_ATTACHED; one that was not put into its
 * drive, or not yet taken back, is DISK_REMOVING. Lock held.
 */
int bay_rebuild(struct vm *vm, const json_t *nodes, struct err *err);

/* ---- resize.c */

/*
 * Whether one more vCPU finds room for its code, from what x-query-jit says (QEMU 7.2, `info jit`):
 * `plugged` there are, `most` there may be. A text of another kind says nothing: true.
 */
bool resize_has_region(const char *jit, uint32_t plugged, uint32_t most);

/* ---- nic.c */

/* Finds out which interfaces were plugged in, after the daemon came back. */
int nic_rebuild(struct vm *vm, int64_t deadline_ms, struct err *err);
