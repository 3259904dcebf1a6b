/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A child that becomes a container's process: forked into its cgroup and namespaces, made ready,
 * held at its exec until told, and heard about over one socket. Only this file knows that socket's
 * messages. The child is a copy of the agent: what the spec points to is read in the copy, so
 * nothing of it needs to live longer than launch_start; unless it may lodge (lodging.h), in which
 * case there is no socket either. One thread.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "common/base/err.h"
#include "agent/process/caps.h"
#include "agent/process/userdb.h"
#include "agent/process/userns.h"
#include "proto/agent/agent.pb-c.h"

/* The number that keep_fd has in the child. */
#define LAUNCH_KEEP_FD 4

struct launch_spec {
    const Casemate__Agent__V1__Process *process; /* checked by validate.h */
    const struct caps *caps; /* what it may do: what process says of that is not looked at */
    /*
     * Run in the child, as root (born_inside: of the user namespace), first of all: joins or builds
     * the namespaces and leaves the root directory that the process shall have as "/". *ret_ptmx_fd
     * (-1 from the start) may be set to an O_PATH descriptor of its devpts' ptmx, which is then
     * sent to the agent. Descriptors other than 0, 1, 2 and keep_fd are closed already.
     */
    int (*enter)(void *arg, int *ret_ptmx_fd, struct err *err);
    void *enter_arg;
    int keep_fd;                 /* stays open for enter; -1: none */
    uint64_t clone_flags;        /* CLONE_NEW* */
    const struct userns *userns; /* the process's user namespace; NULL: the VM's */
    bool
        born_inside; /* it begins in userns, to which its new namespaces belong; else enter joins */
    int cgroup_fd;   /* the cgroup's directory, -1: the agent's own */
    int pidns_fd;  /* pid namespace to be born in, -1: the agent's (or a new one by clone_flags) */
    int master_fd; /* with a tty: its master if there is one already, else -1: one is made in the
                      new root */
    struct userdb_memo *memo; /* the container's, NULL: none; written only when it lodges */
    int stdio[3];             /* the child's ends; -1: /dev/null, or the tty */
    bool gated;               /* waits for launch_go before it execs */
    /*
     * It may live in the agent's memory until it execs: `process`, `caps` and enter_arg then stay
     * as they are until LAUNCH_CLOSED or its death, and enter keeps to lodging.h. Neither gated nor
     * in a user namespace.
     */
    bool may_lodge;
};

struct launch {
    pid_t pid;
    int channel; /* non-blocking; readable when there is something for launch_receive. -1: lodges */
    bool lodges; /* launch_ask_lodger tells, and is asked until LAUNCH_CLOSED */
};

enum launch_event {
    LAUNCH_NOTHING, /* nothing more for now */
    LAUNCH_READY,   /* it waits at its exec (never when not gated) */
    LAUNCH_FAILED,  /* it could not, for the reason given; its end follows */
    LAUNCH_CLOSED,  /* it has executed the program, or died before */
};

/* What came with LAUNCH_READY. */
struct launch_ready {
    int ptmx;                /* O_PATH, -1: none; the caller's to close */
    int master;              /* of the tty, -1: none; the caller's to close */
    const struct user *user; /* until the next launch_receive */
};

/* Forks. The caller reaps the child and closes the channel. */
int launch_start(const struct launch_spec *spec, struct launch *ret_launch, struct err *err);

/*
 * A new terminal of the devpts that ptmx_fd (O_PATH) is from: its master, non-blocking and
 * unlocked, is the caller's. It belongs to root of the user namespace, if there is one (else NULL).
 * Never looks at a path of the container.
 */
int launch_open_terminal(int ptmx_fd, const struct userns *userns, int *ret_master,
                         struct err *err);

/* What the child has to say. *ret_ready is written for LAUNCH_READY, *ret_failure for
 * LAUNCH_FAILED.
 */
enum launch_event launch_receive(int channel, struct launch_ready *ret_ready,
                                 struct err *ret_failure);

/*
 * The same of the child that lodges, of which nothing tells when there is something to hear:
 * LAUNCH_NOTHING, LAUNCH_FAILED (once), LAUNCH_CLOSED. When it is dead, never LAUNCH_NOTHING. Not
 * asked again after LAUNCH_CLOSED: another child may lodge by then.
 */
enum launch_event launch_ask_lodger(struct err *ret_failure);

/* Lets a gated child exec. */
int launch_go(int channel, struct err *err);
