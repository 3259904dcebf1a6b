/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of host/sandbox: the objects and what may be done to them. A manager holds pods, a pod
 * holds containers; all are reference counted and freed with the last reference. Lock order:
 * manager's mutex, pod's save_mutex, pod's mutex. No mutex is held while a guest, a child or a VM
 * is waited for, and the loop's thread takes none of them for longer than a field access.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/queue.h>

#include "host/guest/guest.h"
#include "host/image/image.h"
#include "host/net/net.h"
#include "host/sandbox/events.h"
#include "host/sandbox/logpump.h"
#include "host/sandbox/phases.h"
#include "host/sandbox/sandbox.h"
#include "host/sandbox/timeline.h"
#include "host/store/store.h"
#include "host/vmm/vmm.h"
#include "proto/state/state.pb-c.h"

struct workers;

#define POD_SHORT_ID_LEN 16 /* of its id: name of its VM and of its folder below run_dir */

enum pod_state {
    POD_CREATING, /* being brought up by sandbox_run; hidden from clients */
    POD_READY,    /* VM runs, agent answers: containers may be created */
    POD_STOPPING, /* VM is being ended; no new operation begins */
    POD_STOPPED,  /* no VM; containers are EXITED; may be removed */
    POD_REMOVING, /* being forgotten; hidden from clients */
};

enum container_state {
    CTR_CREATING, /* being made; hidden from clients */
    CTR_CREATED,  /* exists in the guest, waits for its start */
    CTR_STARTING, /* start is under way in the guest */
    CTR_RUNNING,  /* log and exit are watched */
    CTR_EXITED,   /* exit is known, output is in the log; may be removed */
    CTR_REMOVING, /* being forgotten; hidden from clients */
};

/* Names for logs and messages. Never NULL. */
const char *pod_state_name(enum pod_state state);
/* Likewise. */
const char *container_state_name(enum container_state state);
/* Whether the model allows the step. */
bool pod_state_may_become(enum pod_state from, enum pod_state to);
/* Likewise. */
bool container_state_may_become(enum container_state from, enum container_state to);

/* What never changes of a pod, shared with snapshots. */
struct pod_facts {
    atomic_uint refs;
    char id[SANDBOX_ID_SIZE];
    int64_t created_ns;
    char *runtime_handler;
    Runtime__V1__PodSandboxConfig *config;
};
/* A deep copy with one reference. NULL: err says why. */
struct pod_facts *pod_facts_new(const char *id, int64_t created_ns, const char *runtime_handler,
                                const Runtime__V1__PodSandboxConfig *config, struct err *err);
/* Any thread, as for all references here. */
struct pod_facts *pod_facts_ref(struct pod_facts *facts);
/* NULL is fine. */
void pod_facts_unref(struct pod_facts *facts);

struct container_facts {
    atomic_uint refs;
    char id[SANDBOX_ID_SIZE];
    char pod_id[SANDBOX_ID_SIZE];
    int64_t created_ns;
    Runtime__V1__ContainerConfig *config;
    char *image_id;
    char *image_ref;
    char *log_path; /* absolute; "" without a log */
    unsigned stop_signal;
    bool has_user;
    int64_t uid;
    int64_t gid;
    char **disks; /* serials */
    size_t n_disks;
    Casemate__Agent__V1__Process *process; /* what exec inherits; NULL while CREATING */
};
/* With id, pod, time and config; the rest is completed by the caller. NULL: err says why. */
struct container_facts *container_facts_new(const char *id, const char *pod_id, int64_t created_ns,
                                            const Runtime__V1__ContainerConfig *config,
                                            struct err *err);
/* The absolute path that the pod's and the container's configuration make together. */
int container_facts_set_log_path(struct container_facts *facts,
                                 const Runtime__V1__PodSandboxConfig *pod, struct err *err);
/* A deep copy, freed with casemate__agent__v1__process__free_unpacked. */
int facts_copy_process(const Casemate__Agent__V1__Process *process,
                       Casemate__Agent__V1__Process **ret_copy, struct err *err);
/* As pod_facts_ref. */
struct container_facts *container_facts_ref(struct container_facts *facts);
/* NULL is fine. */
void container_facts_unref(struct container_facts *facts);

/* The resources of a container or pod as they are now, shared with snapshots; they never change. */
struct container_limits {
    atomic_uint refs;
    Runtime__V1__LinuxContainerResources *message;
};
/* A copy of a message. NULL: err says why. */
struct container_limits *container_limits_new(const Runtime__V1__LinuxContainerResources *message,
                                              struct err *err);
/* As pod_facts_ref. */
struct container_limits *container_limits_ref(struct container_limits *limits);
/* NULL is fine. */
void container_limits_unref(struct container_limits *limits);
/* What is there (NULL: nothing) after an update of it: what that leaves zero or empty stays. */
int resources_merge(const Runtime__V1__LinuxContainerResources *before,
                    const Runtime__V1__LinuxContainerResources *update,
                    struct container_limits **ret_limits, struct err *err);

/* A disk of the pod's VM that containers share. */
struct pod_disk {
    char serial[VM_DISK_SERIAL_SIZE];
    uint32_t lun;
    uint64_t size_bytes;
    unsigned refs;
    bool attaching; /* somebody is at it; wait for the pod's cond */
    LIST_ENTRY(pod_disk) entry;
};

/* The last two samples of a CPU clock, as one and the rate between them. */
struct cpu_sample {
    int64_t time_ns; /* monotonic; 0: none yet */
    uint64_t cpu_ns;
    bool has_rate;
    uint64_t nano_cores;
};

struct container {
    atomic_uint refs;
    struct pod *pod;               /* a reference */
    struct container_facts *facts; /* set at birth, completed before CREATED */
    bool forgotten;                /* its record is deleted for good. Of the pod's save_mutex */
    /* below: guarded by the pod's mutex */
    enum container_state state;
    bool busy; /* the job slot: create, start, update or remove is under way */
    int64_t started_ns;
    int64_t finished_ns;
    int exit_code;
    char *reason;  /* NULL: "" */
    char *message; /* NULL: "" */
    struct cpu_sample cpu;
    struct container_limits *limits;      /* after an update; NULL: the configuration's */
    struct container_limits *next_limits; /* of an update under way; else NULL */
    /* the loop's */
    struct logpump *pump; /* NULL: nothing is followed */
    TAILQ_ENTRY(container) entry;
};
TAILQ_HEAD(container_list, container);

struct pod {
    atomic_uint refs;
    struct sandbox_manager *mgr;
    struct pod_facts *facts;
    char short_id[POD_SHORT_ID_LEN + 1];
    struct timeline timeline;   /* of its start; its own lock */
    pthread_mutex_t save_mutex; /* held while a record is stored: the newest state is stored last */
    bool forgotten;             /* its records are deleted for good. Of save_mutex */
    pthread_mutex_t size_mutex; /* held while the machine is resized, comes before mutex */
    uint32_t told_mib;          /* what the machine was told to have; 0: unknown. Of size_mutex */
    uint32_t told_vcpus;        /* likewise */
    pthread_mutex_t mutex;      /* guards all that follows */
    pthread_cond_t cond;        /* any change of state, busy, exit, disks */
    enum pod_state state;
    bool announced;                /* clients have been told of it: events tell of its end */
    bool ending;                   /* pod_end_vm is at work */
    bool spare;                    /* made ahead (spares.h): has no record */
    struct pod_facts *spare_facts; /* those that it had as a spare, for whoever still reads them */
    unsigned operations;           /* calls under way that use vm or guest */
    char *reason;
    char *message;
    char *vm_record; /* text for the store; NULL: none */
    char boot_id[GUEST_TEXT_SIZE];
    char guest_kernel[GUEST_TEXT_SIZE];
    int64_t boot_ms;
    bool cloned;
    pid_t vm_pid;
    char **cgroups;
    size_t n_cgroups;
    struct vm *vm;       /* NULL: none */
    struct guest *guest; /* NULL: none */
    bool has_network;    /* host/net has something of it */
    bool network_failed; /* its plugins failed, and so did its start */
    char (*ips)[NET_ADDR_TEXT];
    size_t n_ips;
    bool gone; /* forgotten: whoever waits for its removal is done */
    struct cpu_sample cpu;
    struct container_limits *limits; /* after an update; NULL: the configuration's */
    LIST_HEAD(, pod_disk) disks;
    struct container_list containers; /* newest first; each a reference */
    TAILQ_ENTRY(pod) entry;
};
TAILQ_HEAD(pod_list, pod);

struct sandbox_manager {
    struct sandbox_config config;     /* strings are ours */
    struct sandbox_handler *handlers; /* config's; constant */
    struct sandbox_deps deps;
    struct workers *workers;
    struct phases phases;   /* its own lock */
    struct events events;   /* likewise */
    pthread_mutex_t mutex;  /* guards the list and makes names unique */
    struct pod_list pods;   /* newest first; each a reference */
    struct pod_list spares; /* likewise; not in the list above */
    unsigned n_spares;
    bool swept; /* what has no record is gone: what is made from now on has one, or is a spare */
    unsigned starting; /* pods that somebody waits for: no spare is begun meanwhile */
    bool making_spare;
    bool closing;                  /* no new spare */
    unsigned calls;                /* that bring pods and containers up and are under way */
    int64_t calls_ended_ms;        /* the last of them */
    int64_t pod_came_ms;           /* the last one that could take a spare */
    bool pods_in_a_row;            /* it came soon after the one before */
    pthread_cond_t calm_cond;      /* something of this has changed; on the monotonic clock */
    pthread_mutex_t scratch_mutex; /* one maker of the scratch template */
    char *pods_run_dir;            /* run_dir/vm: a folder per VM */
    char *logs_run_dir;            /* run_dir/log: checkpoints of logs */
    char *pods_state_dir;          /* state_dir/disk: a folder per pod, its scratch disk */
    char *scratch_template;
};

/* ---- manager.c: tables, references, waiting ---- */

/* One reference more, for one pod_unref. */
struct pod *pod_ref(struct pod *pod);
/*
 * The last one also lets go of its machine and its agent; by then it has no containers. NULL is
 * fine.
 */
void pod_unref(struct pod *pod);
DEFINE_CLEANUP(pod, struct pod, pod_unref)
#define cleanup_pod CLEANUP(pod_cleanup_)

/* One reference more, for one container_unref. */
struct container *container_ref(struct container *c);
/* The last one also lets go of its pod; by then its log is not followed any more. NULL is fine. */
void container_unref(struct container *c);
DEFINE_CLEANUP(container, struct container, container_unref)
#define cleanup_container CLEANUP(container_cleanup_)

/* A pod that is in no table yet, CREATING. Takes a reference of facts. */
int pod_new(struct sandbox_manager *mgr, struct pod_facts *facts, struct pod **ret_pod,
            struct err *err);
/* A container that is in no list yet, CREATING; holds the pod. Takes a reference of facts. */
int container_new(struct pod *pod, struct container_facts *facts, struct container **ret_container,
                  struct err *err);

/* Puts the pod into the table, unless its name is taken (EXISTS). */
int manager_add_pod(struct sandbox_manager *mgr, struct pod *pod, struct err *err);
/* Takes it out of the table, where it must be, with the table's reference. */
void manager_drop_pod(struct sandbox_manager *mgr, struct pod *pod);

/* The pod or container of an id or unique prefix, with a reference. NOT_FOUND, INVALID. */
int manager_find_pod(struct sandbox_manager *mgr, const char *id, struct pod **ret_pod,
                     struct err *err);
/* As manager_find_pod, among the containers of all pods. */
int manager_find_container(struct sandbox_manager *mgr, const char *id,
                           struct container **ret_container, struct err *err);
/* All pods, each with a reference, newest first; a heap array to be freed by manager_free_pods. */
int manager_all_pods(struct sandbox_manager *mgr, struct pod ***ret_pods, size_t *ret_n,
                     struct err *err);
/* Lets go of each and frees the array. NULL with n 0 is fine. */
void manager_free_pods(struct pod **pods, size_t n);

/* The pod's containers now, each with a reference, *ret_n of them; heap, NULL when out of memory.
 */
struct container **pod_containers(struct pod *pod, size_t *ret_n);

/* Runs fn(arg) on a worker; where that is impossible, here and now. */
void manager_defer(struct sandbox_manager *mgr, void (*fn)(void *arg), void *arg);

/* Runs fn(arg) on the loop's thread and waits for it. */
void manager_on_loop(struct sandbox_manager *mgr, void (*fn)(void *arg), void *arg);

/* The one place where states change; under the pod's mutex. Asserts that the model allows it. */
void pod_set_state(struct pod *pod, enum pod_state state);
/* Likewise, under the mutex of the container's pod. */
void container_set_state(struct container *c, enum container_state state);
/* A successor learns from the guest that a container of a record CREATED or RUNNING runs, or has
 * run. */
void container_found_running(struct container *c);

/* Waits on the pod's cond (mutex held) until the deadline: false when it has passed. */
bool pod_wait(struct pod *pod, int64_t deadline_ms);

/* Sets a heap text that may be NULL; keeps the old one when out of memory. */
void set_text(char **text, const char *value);

/* What an operation needs of a READY pod; keeps it from being torn down half way. */
struct pod_use {
    struct pod *pod;
    struct vm *vm;
    struct guest *guest;
};
/* BAD_STATE unless READY. */
int pod_use_begin(struct pod *pod, struct pod_use *ret_use, struct err *err);
/* Lets a teardown go on that waits for it. A zeroed one is fine. */
void pod_use_end(struct pod_use *use);

/* The deadline of one call of the agent: the caller's, or the configured time from now. */
int64_t manager_call_deadline(const struct sandbox_manager *mgr, int64_t deadline_ms);

/* ---- records.c: what is durable ---- */

/*
 * Stores the pod as it is now; without the pod's mutex held. Returns when it is on disk. A pod
 * that was forgotten, or is a spare, has no record: 0.
 */
int pod_save(struct pod *pod, struct err *err);
/* Likewise, for a container. */
int container_save(struct container *c, struct err *err);
/* Its containers' too, all or nothing. Afterwards saving any of them does nothing. */
int pod_delete_records(struct pod *pod, struct err *err);
/* Afterwards saving it does nothing. */
int container_delete_record(struct container *c, struct err *err);

/* What the pod's runtime_handler stands for; the default one's when it is not configured any more.
 */
const struct sandbox_handler *pod_handler(const struct pod *pod);

/* ---- podvm.c: the pod's machine ---- */

/* A vmm_template_fn; arg is the manager. */
int machine_prepare(void *arg, struct vm *vm, int64_t deadline_ms, struct err *err);
/* Brings a CREATING pod up to READY. What a failure leaves is for pod_end_vm and pod_forget. */
int pod_bring_up(struct pod *pod, int64_t deadline_ms, struct err *err);
/*
 * Ends the VM, if there is one, and what lives in it: containers become EXITED with reason and
 * message, the pod STOPPED. Any number of callers; all return when it is done. Never on the loop.
 */
void pod_end_vm(struct pod *pod, const char *reason, const char *message);
/* Connects to the agent of pod->vm; the connection is the pod's. */
int pod_connect(struct pod *pod, int64_t deadline_ms, struct err *err);
/* Hears of the VM's end from now on; NULL: no more. */
void pod_watch_vm(struct pod *pod, struct vm *vm);
/* Folder of the pod's VM and of its durable files: heap text, NULL when out of memory. */
char *pod_run_path(const struct pod *pod);
/* Likewise, of its durable files. */
char *pod_state_path(const struct pod *pod);
/* What the guest is called. */
void pod_hostname(const struct pod *pod, char ret_name[65]);

/* ---- update.c ---- */

/* What the pod asks for all its containers together, after updates; NULL: nothing. Mutex held, or
 * size_mutex. */
const Runtime__V1__LinuxContainerResources *pod_resources(const struct pod *pod);

/* ---- sandbox.c: the pod's life ---- */

/* Removes files, cgroups and records of a pod that has no VM, and drops it from the table. */
int pod_forget(struct pod *pod, struct err *err);

/* ---- follow.c: a container's output and exit ---- */

/*
 * Opens the log of a container (acked: what the agent has been told, for one without a checkpoint)
 * and makes its pump, which container_follow starts. Blocks on the disk.
 */
int container_prepare_log(struct container *c, struct guest *guest, const uint64_t acked[2],
                          struct logpump **ret_pump, struct err *err);
/* Begins to follow output and exit (takes the pump, also on failure). Blocks. */
int container_follow(struct container *c, struct logpump *pump, struct err *err);
/* Stops following; with flush what came last without a newline is written to the log. Blocks. */
void container_unfollow(struct container *c, bool flush);
/* Marks it EXITED, once, also in its record. */
void container_mark_exited(struct container *c, int exit_code, int64_t finished_ns,
                           const char *reason, const char *message);
/* Path of its log's checkpoint: heap text or NULL. */
char *container_checkpoint_path(const struct container *c);

/* ---- container.c: its life ---- */

/* Waits until nobody has the container's job slot (busy): DEADLINE if it takes too long. Mutex
 * held, but not while it waits. */
int container_await_slot(struct container *c, int64_t deadline_ms, struct err *err);
/* Gives back what a container holds outside of its pod's list: log, image, disks, checkpoint. */
void container_let_go(struct container *c);
/* Deletes its record, takes it off the list and lets go. */
int container_forget(struct container *c, struct err *err);

/* ---- info.c ---- */

/* The pod and its containers as they are now, for an event; both to be released. */
int pod_snapshot(struct pod *pod, struct sandbox_info *ret_info,
                 struct sandbox_container_list *ret_list, struct err *err);

/* ---- disks.c ---- */

/* One more user of the layer's disk, attached if need be. */
int pod_disk_acquire(const struct pod_use *use, const struct image *image, size_t layer,
                     int64_t deadline_ms, uint32_t *ret_lun, struct err *err);
/* One user less of each of these. Disks stay attached for the next container until there are many.
 */
void pod_disks_release(struct pod *pod, char *const *serials, size_t n);
/* After a restart: the VM's disks, and who uses them. */
int pod_disks_reload(struct pod *pod, struct vm *vm, struct err *err);
/* Serial of a layer's disk: 36 hexadecimal digits of its diff id. INVALID for an odd diff id. */
int pod_disk_serial(const char *diff_id, char ret_serial[VM_DISK_SERIAL_SIZE], struct err *err);
/* Frees the table. */
void pod_disks_clear(struct pod *pod);
