/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pod's network as the pod sees it: attached while its machine starts, told to its guest, kept
 * over restarts, taken back at its end. Only this file joins host/net to machines and guests. A
 * struct podnet lives for one start of one pod and belongs to the thread that starts it.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

#include "common/base/cleanup.h"
#include "common/base/err.h"

struct pod;
struct podnet;
struct vm_nic;

/* Decides on the pod's network and begins to attach it, in the background. */
int podnet_begin(struct pod *pod, int64_t deadline_ms, struct podnet **ret_podnet, struct err *err);
/*
 * Set when the plugins have failed, for vm_spec.cancelled: then a machine that boots (pod->vm, if
 * it is set already) has been killed, and podnet_failure says why. As long as the podnet.
 */
const atomic_bool *podnet_failed(const struct podnet *podnet);
/* Waits for the plugins; if they failed, *err becomes what they said, and the result is true. */
bool podnet_failure(struct podnet *podnet, struct err *err);
/* What the machine's first interface is connected to; NULL: nothing. As long as the podnet. */
const struct vm_nic *podnet_nic(const struct podnet *podnet);
/*
 * Waits until the network is attached, plugs further interfaces into pod->vm, and tells pod->guest
 * all of it. From then on the pod has its addresses.
 */
int podnet_finish(struct podnet *podnet, int64_t deadline_ms, struct err *err);
/* Waits for what is still under way; the pod's network stays. NULL is fine. */
void podnet_free(struct podnet *podnet);
DEFINE_CLEANUP(podnet, struct podnet, podnet_free)
#define cleanup_podnet CLEANUP(podnet_cleanup_)

/* For a pod whose machine was found again: its addresses. */
void podnet_reopen(struct pod *pod);
/* Has its network checked by its plugins (CHECK), in the background: what is wrong is logged. */
void podnet_check_later(struct pod *pod);

/*
 * Takes the pod's network back, if it has one; its machine is gone. After a failure it may be
 * called again, and host/net repeats it by itself.
 */
int podnet_detach(struct pod *pod, int64_t deadline_ms, struct err *err);
