/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every field of a pod's and a container's CRI configuration: honoured, harmless where there is
 * nothing to honour, or refused by name. Pure functions over decoded messages, thread-safe.
 * INVALID: contradicts CRI itself; UNSUPPORTED: valid, not provided here.
 */
#pragma once

#include "common/base/err.h"
#include "proto/cri/cri.pb-c.h"

int crivalid_pod(const Runtime__V1__PodSandboxConfig *config, struct err *err);

/* A container for a pod that was made from `pod`. */
int crivalid_container(const Runtime__V1__ContainerConfig *config,
                       const Runtime__V1__PodSandboxConfig *pod, struct err *err);
