/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every field of a pod's and a container's CRI configuration: honoured, harmless where there is
 * nothing to honour, or refused by name. Pure functions over decoded messages, thread-safe.
 * INVALID: contradicts CRI itself; UNSUPPORTED: valid, not provided here.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/base/err.h"
#include "proto/cri/cri.pb-c.h"

/*
 * All of a pod's configuration but what only its network can tell. The first field that does not
 * do is named in err by its path: "linux.security_context.privileged: ...".
 */
int crivalid_pod(const Runtime__V1__PodSandboxConfig *config, struct err *err);

/* A container for a pod that was made from `pod`. */
int crivalid_container(const Runtime__V1__ContainerConfig *config,
                       const Runtime__V1__PodSandboxConfig *pod, struct err *err);

/* The resources (may be NULL) of a pod or a container, whole, as after an update. `where` is their
 * path. Which files `unified` may name is for the guest to say, but not in which characters. */
int crivalid_resources(const Runtime__V1__LinuxContainerResources *resources, const char *where,
                       struct err *err);

/*
 * A newer client may set fields that this release has never heard of, and by protobuf's rules they
 * are skipped. Whether there is one, in the message or in any inside it; the first goes to
 * ret_text, such as "field 23 of LinuxContainerSecurityContext".
 */
bool crivalid_has_unknown(const ProtobufCMessage *message, char *ret_text, size_t size);
