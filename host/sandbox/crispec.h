/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a CRI container configuration and an image to what the agent is asked for, by the OCI rules
 * and with containerd's defaults. No guest is asked; the disk only for a seccomp profile. The spec
 * borrows from its input, which must outlive it. Thread-safe for different specs.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/cleanup.h"
#include "common/base/err.h"
#include "proto/agent/agent.pb-c.h"
#include "proto/cri/cri.pb-c.h"

struct image;
struct crispec;

/* The disk of an image's layer, as the guest is to find it. */
struct crispec_disk {
    uint32_t lun;
    const char *serial;  /* NULL: not checked in the guest. Borrowed by the request */
    uint64_t size_bytes; /* 0: not checked in the guest */
};

struct crispec_input {
    const char *id;                             /* of the container */
    const Runtime__V1__ContainerConfig *config; /* has passed crivalid_container */
    const Runtime__V1__PodSandboxConfig *pod;
    const struct image *image;
    const struct crispec_disk *disks; /* of the image's layers, one per layer, lowest first */
    const char *hostname;             /* of the pod, as the guest has it */
    const char *pid_target_id;        /* full id for pid mode TARGET; else NULL */
    bool plain_cgroups; /* the agent writes what the guest may not have: no huge pages of a size are
                           not asked for, since they are what there is */
    bool no_volumes;    /* the agent does not know what they are: the image's are not asked for */
};

/* Builds the request; INVALID when config and image together name no command, or for what is wrong
 * in a seccomp profile, which is read from this host's disk. disks may be NULL: then the request
 * has no root filesystem. */
int crispec_new(const struct crispec_input *input, struct crispec **ret_spec, struct err *err);
/* Only the request's resources, for a container that exists; plain_cgroups as above. */
int crispec_new_resources(const Runtime__V1__LinuxContainerResources *resources, bool plain_cgroups,
                          struct crispec **ret_spec, struct err *err);
/* With the request. NULL is fine. */
void crispec_free(struct crispec *spec);
DEFINE_CLEANUP(crispec, struct crispec, crispec_free)
#define cleanup_crispec CLEANUP(crispec_cleanup_)

/* The request; lives as long as the spec. */
const Casemate__Agent__V1__CreateContainerRequest *crispec_request(const struct crispec *spec);

/* What a StopContainer sends first: the field's signal, else the image's, else SIGTERM. */
unsigned crispec_stop_signal(const Runtime__V1__ContainerConfig *config, const char *image_signal);
/* The number as CRI's enumeration has it; RUNTIME_DEFAULT for one that it does not know. */
Runtime__V1__Signal crispec_cri_signal(unsigned signo);
