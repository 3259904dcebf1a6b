/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CRI's user namespaces: which of them can be had. A pod has one for all of its containers, or
 * none; its ids are the guest's, whatever the node has at the same numbers. Pure functions.
 */
#pragma once

#include "common/base/err.h"
#include "proto/cri/cri.pb-c.h"

/*
 * Checks what option (NULL: nothing) says about it, in itself: mode POD with one mapping of users
 * and one of groups, both from 0 on, or mode NODE with none. `where` is the path of option.
 */
int criuserns_check(const Runtime__V1__NamespaceOption *option, const char *where, struct err *err);

/* What was asked for; NULL: none. */
const Runtime__V1__UserNamespace *criuserns_of(const Runtime__V1__NamespaceOption *option);

/* Whether a container fits the user namespace of its pod (both checked, as above): the same one,
 * and only ids that are in it. */
int criuserns_check_container(const Runtime__V1__LinuxContainerSecurityContext *container,
                              const Runtime__V1__LinuxSandboxSecurityContext *pod, struct err *err);
