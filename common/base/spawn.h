/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting another program: exactly the descriptors, the identity, the namespaces and the
 * environment that were asked for, and nothing inherited. Safe in a threaded process: the child
 * only makes system calls between fork and exec. A failure in the child, of exec too, is reported
 * to the caller as an error with its step. Thread-safe.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/base/err.h"

/* In the child, `fd` of the parent becomes descriptor `as`. */
struct spawn_fd {
    int fd;
    int as;
};

struct sock_fprog;

struct spawn_spec {
    const char *path;        /* absolute; no PATH search */
    const char *const *argv; /* NULL-terminated, argv[0] included */
    const char *const *envp; /* NULL-terminated; NULL: empty environment */
    const struct spawn_fd
        *fds; /* all descriptors the child gets; 0, 1, 2 not named here are /dev/null */
    size_t n_fds;
    const char *cwd; /* NULL: "/" */
    bool set_ids;    /* drop to uid/gid with no supplementary groups but `groups` */
    uid_t uid;
    gid_t gid;
    const gid_t *groups;
    size_t n_groups;
    int unshare_flags;    /* CLONE_NEW* to unshare in the child before ids are dropped (not NEWPID,
                             NEWUSER) */
    int netns_fd;         /* >= 0: setns(2) into this network namespace; 0 is taken as none */
    bool new_session;     /* setsid(2) */
    bool die_with_parent; /* PR_SET_PDEATHSIG SIGKILL: dies with the *thread* that spawned it */
    bool no_new_privs;
    bool small_pages; /* PR_SET_THP_DISABLE: no huge pages, not where it asks either */
    bool idle;        /* stands back behind everything else, until spawn_hurry */
    const struct sock_fprog *filter; /* seccomp(2) filter in force from before the program's first
                                        instruction; wants no_new_privs; NULL: none */
    uint64_t limit_file_size;        /* RLIMIT_FSIZE in bytes; 0: unlimited as inherited */
    uint64_t limit_memory;           /* RLIMIT_AS in bytes; 0: as inherited */
    uint64_t limit_files;            /* RLIMIT_NOFILE; 0: as inherited */
    const char *const *cgroup_procs; /* NULL-terminated paths of cgroup.procs files that the child
                                        joins; may be NULL */
};

struct spawn_child {
    pid_t pid;
    int pidfd; /* close-on-exec; readable when the child has ended; the caller's */
};

/* Starts the program. The caller reaps it (spawn_wait, or waitid on the pidfd). */
int spawn_start(const struct spawn_spec *spec, struct spawn_child *ret_child, struct err *err);

/*
 * A child that was started idle, its threads and what it leads are scheduled like everything else
 * from now on. With the rights that started it. What the kernel refuses stays as it is: the child
 * may have ended.
 */
void spawn_hurry(pid_t pid);

/*
 * Waits until the deadline for the child to end and reaps it. *ret_status is its exit code, or
 * 128+n when signal n killed it. DEADLINE leaves it running.
 */
int spawn_wait(const struct spawn_child *child, int64_t deadline_ms, int *ret_status,
               struct err *err);

/* Kills (SIGKILL) and reaps a child of which nothing more is wanted, with its process group if it
 * leads one (new_session), and closes its pidfd. */
void spawn_kill(struct spawn_child *child);

/*
 * Runs a program to its end: input (may be NULL) on its stdin, at most max_output bytes of its
 * stdout and of its stderr collected as NUL-terminated heap strings (free both; either ret_ may be
 * NULL). A program that writes more or is not done at the deadline is killed: EXHAUSTED, DEADLINE.
 * spec->fds must not name 0, 1 or 2. A non-zero exit status is not an error here: see *ret_status.
 */
struct spawn_output {
    char *out; /* heap, NUL-terminated, may hold NULs: out_len counts */
    size_t out_len;
    char *err_text;
    int status; /* as spawn_wait */
};
int spawn_run(const struct spawn_spec *spec, const char *input, size_t max_output,
              int64_t deadline_ms, struct spawn_output *ret_output, struct err *err);
