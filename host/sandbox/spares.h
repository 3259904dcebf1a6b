/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pods made ahead: machines of the ordinary size that run, are connected to and have warmed up, so
 * that a pod that comes only gives one its name. Only this file knows how many there are and what
 * warming up is. A spare is a pod in state CREATING that no table and no record names; what a
 * killed daemon leaves of one is swept at the next start. Its first network interface was made
 * without a peer: the pod's is plugged in (podnet.c). Any thread but the loop's.
 */
#pragma once

#include "common/base/err.h"

struct pod;
struct sandbox_manager;

/* Whether this kind of pod can be a spare, and there is one: the caller's reference. NULL: none. */
struct pod *spares_take(struct sandbox_manager *mgr);

/* Has spares made in the background until there are as many as configured. */
void spares_refill(struct sandbox_manager *mgr);
/* Likewise, for the first time: vmm_template_ready_fn with the manager. */
void spares_on_template(void *mgr);

/* A call begins, or ends, that somebody waits for to have a pod or a container: calls of one thread
 * in pairs. */
void spares_call_begins(struct sandbox_manager *mgr);
void spares_call_ends(struct sandbox_manager *mgr);

/* Ends all of them; the manager's workers have ended before. */
void spares_end(struct sandbox_manager *mgr);

/* A spare's machine has ended: it is none any more. */
void spares_lose(struct pod *pod);
