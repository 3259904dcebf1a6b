/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pod's user namespace: made once, kept by a descriptor, and processes born in it. Only this
 * file knows how ids of the VM and ids inside of it belong together. Whoever enters a user
 * namespace cannot come back, so the agent never does: what has to be done inside is done by
 * children. The functions that make something wait for a child that only makes system calls. One
 * thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/base/err.h"
#include "proto/agent/agent.pb-c.h"

struct userns {
    int fd;                  /* the namespace */
    uint32_t uid, gid;       /* of the VM: what root inside is */
    uint32_t n_uids, n_gids; /* how many follow, that one included */
};

/*
 * Makes a user namespace, and network, UTS and IPC namespaces that belong to it; the calling
 * process then is in these three. *ret_userns->fd is the caller's. The message is checked by
 * validate.h.
 */
int userns_make(const Casemate__Agent__V1__UserNamespace *mapping, struct userns *ret_userns,
                struct err *err);

/* Whether it has this mapping. */
bool userns_has_mapping(const struct userns *userns,
                        const Casemate__Agent__V1__UserNamespace *mapping);

/* INVALID when the user or group, ids inside, are not in it. */
int userns_check_ids(const struct userns *userns, uid_t uid, gid_t gid, struct err *err);

/* In a child that has entered it: become root there. */
int userns_become_root(struct err *err);

/*
 * From now on the calling process, root of the VM, makes files that belong to the namespace's root.
 * It keeps its capabilities.
 */
int userns_own_files(const struct userns *userns, struct err *err);

struct userns_birth {
    const struct userns *userns;
    uint64_t new_namespaces; /* CLONE_NEW* that shall belong to the user namespace */
    int cgroup_fd;           /* the cgroup's directory; -1: the agent's own */
    int pidns_fd;            /* pid namespace to be born in; -1: the agent's, or a new one */
    int32_t oom_score_adj;
};

/* Like fork(2): 0 in the child, which is root in the user namespace; its pid, or -1, in the agent,
 * whose child it is. */
pid_t userns_fork(const struct userns_birth *birth, struct err *err);
