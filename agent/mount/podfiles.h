/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /etc/resolv.conf, /etc/hosts and /etc/hostname: one of each in a pod, seen by all its containers.
 * One thread; podfiles_attach is for the container's child.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "common/base/err.h"
#include "proto/agent/agent.pb-c.h"

#define PODFILES_COUNT 3

/*
 * Writes what the message has of them, in place: containers that have them see the new text. A file
 * that the message has not stays as it is or, to take the place of a rehearsal's, goes.
 */
int podfiles_write(const Casemate__Agent__V1__Network *network, bool drop_others, struct err *err);

/* Gives the files that there are to a user: root of the pod's user namespace. */
int podfiles_own(uid_t uid, gid_t gid, struct err *err);

/* Copies of their mounts, detached: taken along into a container. -1: the pod has no such file. */
struct podfiles {
    int fds[PODFILES_COUNT];
};
#define PODFILES_NONE                                                                              \
    (struct podfiles)                                                                              \
    {                                                                                              \
        .fds = { -1, -1, -1 }                                                                      \
    }
/* Takes the copies; podfiles_close gives them back. */
int podfiles_open(struct podfiles *ret_files, struct err *err);
/* PODFILES_NONE is fine. */
void podfiles_close(struct podfiles *files);

/*
 * Attaches them below root, the container's, making files to attach them to where the image has
 * none. Links of the image are followed inside it.
 */
int podfiles_attach(const struct podfiles *files, int root, bool read_only, struct err *err);
