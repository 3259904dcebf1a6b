/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent of one VM as seen from the host: blocking calls for workers, and calls with callbacks
 * for the loop (exits, output, acknowledgements). Only this file knows how the agent's gRPC is
 * called; its messages (proto/agent) are used as they are. Everything an agent says is checked
 * against what was asked and against fixed limits; what fails that is ERR_PROTOCOL. A guest is
 * shared by reference. Deadlines absolute monotonic ms, times ns of the guest's realtime clock,
 * sizes bytes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/cleanup.h"
#include "common/base/err.h"
#include "proto/agent/agent.pb-c.h"

/* Versions of the agent's protocol that this host speaks. */
#define GUEST_VERSION_MIN 1
#define GUEST_VERSION_MAX 1

#define GUEST_ID_SIZE       65   /* container and exec ids, NUL included */
#define GUEST_TEXT_SIZE     65   /* version and boot id, NUL included; longer ones are refused */
#define GUEST_MAX_PROCESSES 8192 /* in one List reply */
#define GUEST_MAX_GROUPS    1025 /* supplementary groups of a process, its primary one among them */

struct loop;
struct guest;

struct guest_config {
    struct loop *loop;
    /* Once, on the loop, when the connection ended without guest_close; may be NULL. */
    void (*on_closed)(void *arg, const struct err *err);
    void *on_closed_arg;
};

/* What Hello said. */
struct guest_info {
    uint32_t version;
    char agent_version[GUEST_TEXT_SIZE];
    char kernel_release[GUEST_TEXT_SIZE];
    char boot_id[GUEST_TEXT_SIZE];
    bool configured;
    uint64_t memory_bytes;
    uint32_t cpus;
    bool checks_cgroups; /* refuses settings that its kernel would not do */
    bool makes_volumes;  /* knows what volumes of an image are */
};

/*
 * Says Hello over fd (taken, also on failure). UNSUPPORTED when no protocol version is common.
 * Blocks; not on the loop's thread.
 */
int guest_connect(const struct guest_config *config, int fd, int64_t deadline_ms,
                  struct guest **ret_guest, struct err *err);

/* One owner more, for one guest_unref. Any thread. */
struct guest *guest_ref(struct guest *guest);
/*
 * One owner less; the last closes the connection. Every guest_call of it must have been freed. Not
 * from a callback of this guest. NULL is fine.
 */
void guest_unref(struct guest *guest);
DEFINE_CLEANUP(guest, struct guest, guest_unref)
#define cleanup_guest CLEANUP(guest_cleanup_)

/* Ends the connection now: what is pending fails with UNAVAILABLE, on_closed is not called. */
void guest_close(struct guest *guest);

/* What Hello said; constant. */
const struct guest_info *guest_get_info(const struct guest *guest);

/* ---- blocking calls, from any thread but the loop's. The agent's own error otherwise. ---- */

/* For a VM that becomes a template. UNSUPPORTED by an older agent. */
int guest_prepare_pod(struct guest *guest, const Casemate__Agent__V1__PreparePodRequest *request,
                      int64_t deadline_ms, struct err *err);

/* ret_boot_id: what Hello will say from now on, also over other connections; "" from an agent that
 * does not tell. */
int guest_configure_pod(struct guest *guest,
                        const Casemate__Agent__V1__ConfigurePodRequest *request,
                        int64_t deadline_ms, char ret_boot_id[GUEST_TEXT_SIZE], struct err *err);

/*
 * Interfaces and the pod's /etc files, after guest_configure_pod; may be repeated with others.
 * UNSUPPORTED from an agent that cannot.
 */
int guest_configure_network(struct guest *guest, const Casemate__Agent__V1__Network *network,
                            int64_t deadline_ms, struct err *err);

/*
 * Makes the interface of the message and takes it back, before guest_configure_network was called;
 * the guest's first interface alone. UNSUPPORTED from an agent that cannot.
 */
int guest_rehearse_network(struct guest *guest, const Casemate__Agent__V1__Network *network,
                           int64_t deadline_ms, struct err *err);

/* Who a process runs as, in numbers. */
struct guest_user {
    bool known; /* false from an agent that does not tell */
    uint32_t uid;
    uint32_t gid;
    uint32_t groups[GUEST_MAX_GROUPS]; /* supplementary */
    size_t n_groups;
};

/*
 * UNSUPPORTED, by the feature's name, when the request holds what this agent would not know: an
 * older release of the daemon may have started it.
 */
int guest_create_container(struct guest *guest,
                           const Casemate__Agent__V1__CreateContainerRequest *request,
                           int64_t deadline_ms, struct guest_user *ret_user, struct err *err);

/*
 * Runs a container that was created; one that was started before succeeds, so that it may be asked
 * again. *ret_started_ns: the guest's realtime clock, unchecked. NOT_FOUND, and BAD_STATE while it
 * is still being created.
 */
int guest_start(struct guest *guest, const char *container_id, int64_t deadline_ms,
                int64_t *ret_started_ns, struct err *err);

/* UNSUPPORTED as above. */
int guest_exec(struct guest *guest, const Casemate__Agent__V1__ExecRequest *request,
               int64_t deadline_ms, struct err *err);

/* A process: exec_id "" is the container's first. */
struct guest_process {
    const char *container_id;
    const char *exec_id;
};

/*
 * Sends signo (the kernel's number) to the process, with `all` to every process of its container.
 * NOT_FOUND when nothing of it runs.
 */
int guest_signal(struct guest *guest, const struct guest_process *process, unsigned signo, bool all,
                 int64_t deadline_ms, struct err *err);

/* Writes cgroup settings of a container. BAD_STATE when it cannot have them now. */
int guest_update_resources(struct guest *guest, const char *container_id,
                           const Casemate__Agent__V1__Resources *resources, int64_t deadline_ms,
                           struct err *err);

/* Kills what is left of it and forgets it. An unknown one succeeds. */
int guest_remove(struct guest *guest, const struct guest_process *process, int64_t deadline_ms,
                 struct err *err);

/* How a process ended. */
struct guest_exit {
    int exit_code; /* 0..255; 128+n after signal n */
    unsigned signo;
    bool oom_killed;
    int64_t started_ns;
    int64_t finished_ns;
    uint64_t stdout_end;
    uint64_t stderr_end;
};

/*
 * Runs one more process in a container to its end. on_output is called on the loop, for bytes in
 * their order, and not any more once this has returned. A process that has ended before the
 * deadline has not failed, though others may hold its output open until then. A failure after the
 * start (DEADLINE, a lost connection) makes the agent kill the process, which guest_remove waits
 * for. UNSUPPORTED with an agent of an older release.
 */
struct guest_run {
    const Casemate__Agent__V1__ExecRequest *request;
    void (*on_output)(void *arg, bool is_stderr, const uint8_t *bytes, size_t n);
    void *arg;
};
int guest_run(struct guest *guest, const struct guest_run *run, int64_t deadline_ms,
              struct guest_exit *ret_exit, struct err *err);

/* Waits for the end of a process. DEADLINE leaves it running. */
int guest_wait(struct guest *guest, const struct guest_process *process, int64_t deadline_ms,
               struct guest_exit *ret_exit, struct err *err);

enum guest_process_state { GUEST_CREATED, GUEST_RUNNING, GUEST_EXITED };

struct guest_process_info {
    char container_id[GUEST_ID_SIZE];
    char exec_id[GUEST_ID_SIZE];
    enum guest_process_state state;
    struct guest_exit exit; /* when EXITED */
    uint64_t stdout_acked;
    uint64_t stderr_acked;
};

/* Everything that the agent has: a heap array, freed by the caller (NULL when n is 0). */
int guest_list(struct guest *guest, int64_t deadline_ms, struct guest_process_info **ret_items,
               size_t *ret_n, struct err *err);

/* Sends up to n bytes for stdin at `offset`; *ret_offset: of the next byte wanted. */
struct guest_stdin {
    struct guest_process process;
    uint64_t offset;
    const void *bytes;
    size_t n;
    bool eof;
};
int guest_write_stdin(struct guest *guest, const struct guest_stdin *input, int64_t deadline_ms,
                      uint64_t *ret_offset, struct err *err);

/* Asks the agent to sync and power off; an answer is not waited for beyond the deadline. */
int guest_shutdown(struct guest *guest, int64_t deadline_ms, struct err *err);

/* ---- calls with callbacks: started, freed and called back on the loop's thread ---- */

struct guest_call;

/* Gives the call up if it has not ended. Also allowed inside its own callbacks. NULL is fine. */
void guest_call_free(struct guest_call *call);

/* Calls fn once: with the exit, or with NULL and why none is known. */
typedef void (*guest_exit_fn)(void *arg, const struct guest_exit *exit, const struct err *err);
/* Has no deadline: guest_call_free gives up. The process is copied. NOT_FOUND comes to fn. */
int guest_watch_exit(struct guest *guest, const struct guest_process *process, guest_exit_fn fn,
                     void *arg, struct guest_call **ret_call, struct err *err);

struct guest_chunk {
    uint64_t offset; /* contiguous: checked */
    const uint8_t *bytes;
    size_t n;
    int64_t time_ns;
    bool eof; /* no byte follows */
};
struct guest_output {
    struct guest_process process;
    bool is_stderr;
    uint64_t offset; /* first byte wanted */
    void (*on_chunk)(void *arg, const struct guest_chunk *chunk);
    /* Once, after the last chunk; err is NULL when that chunk said eof. */
    void (*on_end)(void *arg, const struct err *err);
    void *arg;
};
/* The output of a process from an offset on. INVALID or NOT_FOUND come by on_end. */
int guest_read_output(struct guest *guest, const struct guest_output *output,
                      struct guest_call **ret_call, struct err *err);

/* Stops taking chunks (the agent keeps them, and blocks the process when its ring is full), or goes
 * on. Only for guest_read_output. */
void guest_call_pause(struct guest_call *call, bool paused);

/* Output that is safe here: bytes before these offsets, which the agent may forget. */
struct guest_ack {
    struct guest_process process;
    uint64_t stdout_offset;
    uint64_t stderr_offset;
    void (*fn)(void *arg, const struct err *err); /* called once; err NULL when it was done */
    void *arg;
};
/* ack is copied. */
int guest_ack_output(struct guest *guest, const struct guest_ack *ack, struct guest_call **ret_call,
                     struct err *err);
