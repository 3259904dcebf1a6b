/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file tree that a container sees: image disks as an overlay under a writable layer, and on top
 * the file systems that every container has. All of it is built in the container's own mount
 * namespace by its own first process (in a user namespace with a helper, which is the VM's root)
 * and dies with that namespace: the agent keeps no mounts and no
 * counts. A disk mounted by several containers is one file system to the kernel. Everything here
 * blocks: for the child only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/base/err.h"
#include "agent/process/userns.h"
#include "proto/agent/agent.pb-c.h"

/* Where the agent keeps what containers need; all below a tmpfs that only the agent sees. */
#define ROOTFS_WORK_DIR    "/run/casemate/work"
#define ROOTFS_SCRATCH_DIR "/run/casemate/scratch"
#define ROOTFS_SHM_DIR     "/run/casemate/shm"
#define ROOTFS_FILES_DIR   "/run/casemate/files" /* see podfiles.h */

/* The most image layers of one container. */
#define ROOTFS_MAX_LAYERS 128u

struct rootfs_spec {
    const Casemate__Agent__V1__RootFs *rootfs;
    const char *upper_dir; /* holds "upper" and "work", made already */
    const char *cwd;       /* made if missing, before the root may become read-only */
    char *const *masked_paths;
    size_t n_masked_paths;
    char *const *readonly_paths;
    size_t n_readonly_paths;
    char *const *volumes; /* directories, made if missing, that stay writable in a read-only root */
    size_t n_volumes;
    Casemate__Agent__V1__Device *const *devices;
    size_t n_devices;
    const struct userns *userns; /* NULL: the VM's */
    bool pod_shm;                /* /dev/shm is the pod's */
    bool privileged;             /* sysfs and cgroups writable, the guest's devices */
    int64_t deadline_ms;         /* for disks to appear */
};

/*
 * What needs the VM's root: builds the tree and makes it the "/" of everybody in the mount
 * namespace that the caller is in, which is new, and belongs to the user namespace if there is one.
 * The caller, with one, makes all its further files for that one's root.
 */
int rootfs_build(const struct rootfs_spec *spec, struct err *err);

/*
 * Then, in the same mount namespace, as root of the user namespace (the same process, if there is
 * none): mounts the kernel's file systems, and puts the old root out of reach. The caller is in the
 * cgroup, IPC and pid namespaces that they are to show. *ret_ptmx_fd: O_PATH, the new devpts' ptmx.
 */
int rootfs_finish(const struct rootfs_spec *spec, int *ret_ptmx_fd, struct err *err);
