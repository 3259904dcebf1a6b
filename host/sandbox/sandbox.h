/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pods and their containers: what exists, in which state, and every operation that changes it. Only
 * this room knows the durable records and the order in which VM, disks, guest and log are brought
 * up and taken down. Takes CRI's configuration messages, gives out snapshots that the caller frees.
 * Threads: every function is thread-safe and blocks, so call from worker threads while the loop
 * runs on its own thread; list and status never wait for a guest or for another operation.
 * Deadlines are absolute monotonic ms, times are ns of the host's realtime clock, sizes are bytes.
 *
 * Ids are 64 lowercase hexadecimal digits; wherever an id is taken, a unique prefix of it will do.
 * Errors: NOT_FOUND no such id; INVALID a malformed request or an ambiguous prefix; UNSUPPORTED a
 * field that is valid and not provided, named by its path in the message
 * ("linux.security_context…"); EXISTS; BAD_STATE; UNAVAILABLE the pod's VM is gone; DEADLINE;
 * EXHAUSTED; PROTOCOL the guest broke its protocol.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/base/cleanup.h"
#include "common/base/err.h"
#include "host/sandbox/phases.h"
#include "host/sandbox/timeline.h"
#include "host/vmm/record.h"
#include "proto/cri/cri.pb-c.h"

#define SANDBOX_ID_LEN  64 /* without the NUL */
#define SANDBOX_ID_SIZE (SANDBOX_ID_LEN + 1)
/* ExecSync keeps so much of stdout and of stderr, together; the rest is read and dropped. */
#define SANDBOX_EXEC_MAX_OUTPUT (15u << 20)

struct loop;
struct store;
struct vmm;
struct net;
struct image_service;
struct sandbox_manager;

/* What a runtime_handler stands for: the machines of its pods. */
struct sandbox_handler {
    const char *name;
    const char *kernel; /* the guest's; an absolute path */
    const char *initrd;
    const char *machine;     /* as in struct vm_spec */
    enum vmm_accel accel;    /* AUTO: the node's */
    uint64_t memory_bytes;   /* of a VM for a pod that asks for nothing */
    unsigned vcpus;          /* likewise */
    unsigned memory_max_mib; /* of a VM whatever its pod asks for; 0: the host's */
    unsigned vcpus_max;      /* likewise */
    bool clone;              /* VMs are clones of a template, where the vmm keeps templates */
};

struct sandbox_config {
    const char *state_dir;  /* durable: scratch disks, log checkpoints; made if missing (0700) */
    const char *run_dir;    /* sockets and whatever else a host reboot may lose; made if missing */
    unsigned spares;        /* machines that are made ahead for the first handler, if it clones */
    const char *warm_image; /* the disk that these warm up with (vm-images); NULL or "": none */
    uint64_t scratch_bytes; /* size of a pod's writable disk; 0: 10 GiB */
    /* The runtime_handler values that are accepted, the one called "" first; any other is refused
     * with INVALID. */
    const struct sandbox_handler *handlers;
    size_t n_handlers;
    int64_t boot_timeout_ms;      /* VM start until the agent has answered; 0: 60 s */
    int64_t call_timeout_ms;      /* one call of the agent that should be quick; 0: 20 s */
    int64_t reconnect_timeout_ms; /* all that it takes to find one pod again; 0: 30 s */
};

struct sandbox_deps {
    struct loop *loop; /* runs on a thread of its own; log streams live on it */
    struct store *store;
    struct vmm *vmm;
    struct net *net; /* NULL: pods have loopback alone */
    struct image_service *images;
};

/* A manager that has loaded nothing yet; config is copied, deps must outlive it. */
int sandbox_manager_new(const struct sandbox_config *config, const struct sandbox_deps *deps,
                        struct sandbox_manager **ret_mgr, struct err *err);

/*
 * Once, before anything else is asked: loads the records, finds the VMs again, reconnects to their
 * agents, resumes the logs, marks what died, clears what has no record, and registers the images
 * that containers use (call image_service_collect after it). Fails only when the records cannot be
 * read; a pod that cannot be brought back, or whose guest does not answer in time, becomes NOTREADY
 * and is logged.
 */
int sandbox_manager_reconcile(struct sandbox_manager *mgr, struct err *err);

/* Has the templates made that new pods' VMs are cloned from, in the background. After vmm_prepare.
 */
void sandbox_manager_prepare(struct sandbox_manager *mgr);

/*
 * Lets go of everything without stopping it: VMs and containers run on, logs are resumed by the
 * next manager. No call may be running. Not on the loop's thread. NULL is fine.
 */
void sandbox_manager_free(struct sandbox_manager *mgr);

/* ---- pods ---- */

/* Creates a pod, up to READY. EXISTS when name, namespace, uid and attempt are those of another. */
int sandbox_run(struct sandbox_manager *mgr, const Runtime__V1__PodSandboxConfig *config,
                const char *runtime_handler, int64_t deadline_ms, char ret_id[SANDBOX_ID_SIZE],
                struct err *err);

/*
 * Kills the pod's containers and its VM, without needing the guest's help, and interrupts what is
 * under way in it. An unknown or a stopped one succeeds.
 */
int sandbox_stop(struct sandbox_manager *mgr, const char *id, int64_t deadline_ms, struct err *err);

/* Stops the pod if need be, then forgets it, its containers and its disk. An unknown one succeeds.
 */
int sandbox_remove(struct sandbox_manager *mgr, const char *id, int64_t deadline_ms,
                   struct err *err);

/*
 * Changes what a READY pod asks for all its containers together (NULL: nothing; what is zero or
 * empty stays as it is): its machine grows, or gives back what its guest can free, never below the
 * size that it booted with; vCPUs are only added. The handler's bounds and the host's size bound
 * both. overhead is checked and not used: what a machine has for itself is configured. EXHAUSTED
 * when the machine cannot grow that far; then nothing has changed.
 */
int sandbox_update(struct sandbox_manager *mgr, const char *id,
                   const Runtime__V1__LinuxContainerResources *overhead,
                   const Runtime__V1__LinuxContainerResources *resources, int64_t deadline_ms,
                   struct err *err);

struct sandbox_info {
    const char *id;
    bool ready; /* SANDBOX_READY; else SANDBOX_NOTREADY */
    int64_t created_ns;
    const char *runtime_handler;
    const Runtime__V1__PodSandboxConfig *config;           /* as the client sent it */
    const Runtime__V1__LinuxContainerResources *resources; /* as updated; NULL: none */
    const char *reason;  /* why it is not ready: "Stopped", "VMExited", "StartFailed"…; else "" */
    const char *message; /* for people */
    const char *const *ips; /* the pod's addresses, primary one first */
    size_t n_ips;
    pid_t vm_pid;             /* 0: no VM */
    bool made_ahead;          /* the VM was there before the pod; false after a restart */
    bool cloned;              /* the VM is a clone of a template; else it booted */
    int64_t boot_ms;          /* VM start until the agent answered; 0: unknown */
    const char *guest_kernel; /* release of the guest's kernel, as the guest says; "" unknown */
    void *owner_;             /* what keeps the pointers alive */
};

/* Releases a snapshot; a zeroed one is fine. */
void sandbox_info_fini(struct sandbox_info *info);

/* The pod as it is now. Release with sandbox_info_fini. NOT_FOUND. */
int sandbox_status(struct sandbox_manager *mgr, const char *id, struct sandbox_info *ret_info,
                   struct err *err);

/* What its start consisted of, containers included: a copy; -> *ret_n steps. NOT_FOUND. */
int sandbox_timeline(struct sandbox_manager *mgr, const char *id,
                     struct timeline_step ret_steps[TIMELINE_STEPS], unsigned *ret_n,
                     struct err *err);

/* How long starts have taken since the manager was made. */
void sandbox_phases(struct sandbox_manager *mgr, struct phase_histogram ret_histograms[PHASES]);

struct sandbox_list {
    struct sandbox_info *items; /* newest first */
    size_t n;
};
/* The pods that the filter (NULL: all) lets through, its id a prefix. Release with
 * sandbox_list_fini. */
int sandbox_list(struct sandbox_manager *mgr, const Runtime__V1__PodSandboxFilter *filter,
                 struct sandbox_list *ret_list, struct err *err);
/* Frees and zeroes it. A zeroed one is fine. */
void sandbox_list_fini(struct sandbox_list *list);

/* ---- containers ---- */

/*
 * Creates a container in a READY pod; its image must be present (NOT_FOUND). EXISTS when name and
 * attempt are those of another container of the pod. pod_config, which CRI sends again, may be
 * NULL.
 */
int sandbox_container_create(struct sandbox_manager *mgr, const char *pod_id,
                             const Runtime__V1__ContainerConfig *config,
                             const Runtime__V1__PodSandboxConfig *pod_config, int64_t deadline_ms,
                             char ret_id[SANDBOX_ID_SIZE], struct err *err);

/* Runs a CREATED container. BAD_STATE in any other state; after a failure it is EXITED with 128,
 * for the reason StartError when its program cannot be executed, else ContainerCannotRun. */
int sandbox_container_start(struct sandbox_manager *mgr, const char *id, int64_t deadline_ms,
                            struct err *err);

/*
 * Sends the stop signal, and SIGKILL after grace_s seconds (0: SIGKILL at once), and waits until
 * the container is EXITED. An unknown or an exited one succeeds. DEADLINE when the call's own time
 * is over.
 */
int sandbox_container_stop(struct sandbox_manager *mgr, const char *id, int64_t grace_s,
                           int64_t deadline_ms, struct err *err);

/* Kills the container if it runs and forgets it; its log file stays. An unknown one succeeds. */
int sandbox_container_remove(struct sandbox_manager *mgr, const char *id, int64_t deadline_ms,
                             struct err *err);

/*
 * Changes the resources of a container that has not ended: what is zero or empty stays as it is.
 * UNSUPPORTED and INVALID as for a new container; BAD_STATE for a limit that the container is
 * beyond already, or that can only be set at the start.
 */
int sandbox_container_update(struct sandbox_manager *mgr, const char *id,
                             const Runtime__V1__LinuxContainerResources *resources,
                             int64_t deadline_ms, struct err *err);

struct sandbox_container_info {
    const char *id;
    const char *pod_id;
    Runtime__V1__ContainerState state;
    int64_t created_ns;
    int64_t started_ns;  /* 0: not yet */
    int64_t finished_ns; /* 0: not yet */
    int exit_code;       /* when EXITED */
    const char *reason;  /* docs/CRI.md has them; else "" */
    const char *message;
    const Runtime__V1__ContainerConfig *config;            /* as the client sent it */
    const Runtime__V1__LinuxContainerResources *resources; /* as updated; NULL: none */
    const char *image_id;                                  /* "sha256:…" */
    const char *image_ref;           /* a repo digest where there is one, else the id */
    const char *log_path;            /* absolute; "" without a log */
    Runtime__V1__Signal stop_signal; /* the one that stop sends */
    bool has_user;                   /* these are known: what the guest made of it */
    int64_t uid;
    int64_t gid;
    const uint32_t *groups; /* supplementary */
    size_t n_groups;
    void *owner_;
};

/* Releases a snapshot; a zeroed one is fine. */
void sandbox_container_info_fini(struct sandbox_container_info *info);

/* The container as it is now. NOT_FOUND. */
int sandbox_container_status(struct sandbox_manager *mgr, const char *id,
                             struct sandbox_container_info *ret_info, struct err *err);

struct sandbox_container_list {
    struct sandbox_container_info *items; /* newest first */
    size_t n;
};
/* The containers that the filter (NULL: all) lets through; its ids are prefixes. */
int sandbox_container_list(struct sandbox_manager *mgr, const Runtime__V1__ContainerFilter *filter,
                           struct sandbox_container_list *ret_list, struct err *err);
/* Likewise. */
void sandbox_container_list_fini(struct sandbox_container_list *list);

struct sandbox_exec_output {
    uint8_t *out; /* heap */
    size_t out_len;
    uint8_t *err_out; /* heap */
    size_t err_len;
    bool truncated; /* more than SANDBOX_EXEC_MAX_OUTPUT was written */
    int exit_code;  /* 128+n after signal n */
};
/* Likewise. */
void sandbox_exec_output_fini(struct sandbox_exec_output *output);

/*
 * Runs argv (n_args strings) in a RUNNING container and waits for its end and its output. DEADLINE
 * after timeout_s seconds (0: no limit but the deadline): then the command has been killed.
 */
struct sandbox_exec {
    const char *container_id;
    char *const *args;
    size_t n_args;
    int64_t timeout_s;
    int64_t deadline_ms;
};
int sandbox_container_exec(struct sandbox_manager *mgr, const struct sandbox_exec *spec,
                           struct sandbox_exec_output *ret_output, struct err *err);

/* Goes on in a new file of the old name after the log was renamed. BAD_STATE unless RUNNING. */
int sandbox_container_reopen_log(struct sandbox_manager *mgr, const char *id, struct err *err);

/* ---- events ---- */

/* Something that has happened, and the pod after it. */
struct sandbox_event {
    Runtime__V1__ContainerEventType type;
    char id[SANDBOX_ID_SIZE]; /* of the container, or of the pod for an event of the pod itself */
    int64_t time_ns;
    bool lost; /* events around this one are missing, or its statuses: look for yourself */
    struct sandbox_info pod;
    struct sandbox_container_list containers;
};
/* Whether events are kept from now on; a bounded number of them waits to be taken. */
int sandbox_events_watch(struct sandbox_manager *mgr, bool watched, struct err *err);
/* The oldest event, waiting for it; to be released with sandbox_event_fini. False: stopped. One
 * thread takes them all. */
bool sandbox_events_next(struct sandbox_manager *mgr, struct sandbox_event *ret_event);
/* Releases its snapshots. A zeroed one is fine. */
void sandbox_event_fini(struct sandbox_event *event);
/* No event comes any more, for good; wakes the one who waits. Never blocks. */
void sandbox_events_stop(struct sandbox_manager *mgr);

/* What the pods' writable disks occupy. */
struct sandbox_fs_info {
    uint64_t used_bytes;
    uint64_t inodes;
    const char *mountpoint; /* valid as long as the manager */
};
/* Sums up the scratch disks as the host's file system counts them, one inode each. EXHAUSTED. */
int sandbox_fs_info(struct sandbox_manager *mgr, struct sandbox_fs_info *ret_info, struct err *err);
