/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What ConfigurePod sets for the whole VM: clock, entropy, hostname, sysctls, the scratch disk and
 * the pod's /dev/shm. Once per pod; repeating it for the same pod sets clock, entropy and hostname
 * again and leaves the mounts. One thread.
 */
#pragma once

#include <stdbool.h>

#include "common/base/err.h"
#include "proto/agent/agent.pb-c.h"

struct network_card;
struct podenv;
struct reaper;
struct userns;

#define PODENV_BOOT_ID_SIZE 33u /* 32 hexadecimal digits and a NUL */

/* Not configured yet. */
int podenv_new(struct reaper *reaper, const struct network_card *card, struct podenv **ret_pod,
               struct err *err);

/* Forgets it. NULL is fine. */
void podenv_free(struct podenv *pod);

/* Whether ConfigurePod has succeeded. */
bool podenv_is_configured(const struct podenv *pod);

/*
 * A random name of this agent process; a new one from configuration on, since clones of one
 * template have the same until then.
 */
const char *podenv_boot_id(const struct podenv *pod);

/* The user namespace of the pod's containers; NULL: the VM's. */
const struct userns *podenv_userns(const struct podenv *pod);

/*
 * Before a template of this VM is saved: mounts scratch (ext4, checked by validate.h), which
 * podenv_configure then finds mounted. done as below. BAD_STATE after either was called before.
 */
int podenv_prepare(struct podenv *pod, const Casemate__Agent__V1__Disk *scratch,
                   void (*done)(void *arg, const struct err *err), void *arg, struct err *err);

/*
 * Configures; done(arg, NULL or why not) is called later. BAD_STATE when another pod was
 * configured, or configuration is under way, or the pod has another user namespace. The request
 * (checked by validate.h) need not live on.
 */
int podenv_configure(struct podenv *pod, const Casemate__Agent__V1__ConfigurePodRequest *request,
                     void (*done)(void *arg, const struct err *err), void *arg, struct err *err);

/*
 * Makes the interface of the message and takes it back, as network_rehearse. The pod's files that
 * it writes stay until a network is configured, which takes away those that it has not. BAD_STATE
 * unless the pod is configured and not just being so.
 */
int podenv_rehearse_network(struct podenv *pod, const Casemate__Agent__V1__Network *network,
                            struct err *err);

/*
 * Makes the interfaces and the pod's files as the message (checked by netvalid.h) says; done is
 * called later, as above. BAD_STATE unless the pod is configured, and while another one is under
 * way.
 */
int podenv_configure_network(struct podenv *pod, const Casemate__Agent__V1__Network *network,
                             void (*done)(void *arg, const struct err *err), void *arg,
                             struct err *err);
