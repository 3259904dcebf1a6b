/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How large a pod's machine is: what it boots with, what it may grow to, and what it should have
 * for the resources that the pod asks for. Only this file knows the rule. Any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "proto/cri/cri.pb-c.h"

struct container;
struct pod;
struct sandbox_handler;
struct vm;
struct vm_spec;

/* Fills in the size fields of spec for what the machines of the handler are cloned from. */
void podsize_template(const struct sandbox_handler *handler, struct vm_spec *spec);

/* Fills in the size fields of spec for the pod's machine. */
void podsize_boot(struct pod *pod, struct vm_spec *spec);

/* The vCPUs among them. */
uint32_t podsize_boot_vcpus(struct pod *pod);

/* Grows the pod's running machine to what the pod and its containers ask for now, or lets it
 * shrink. The CPUs that their sets name are the guest's own, from 0. Does not wait for the guest.
 */
int podsize_apply(struct pod *pod, struct vm *vm, int64_t deadline_ms, struct err *err);

/* Whether the update of the container that is under way may need a larger machine. */
bool podsize_asks_for_more(const struct container *c);

/* As podsize_apply, for a container that is about to be created: a machine that cannot grow that
 * far, as after a change of the configuration, is no reason to refuse it; that is logged. */
int podsize_make_room(struct pod *pod, struct vm *vm, int64_t deadline_ms, struct err *err);

#define PODSIZE_ONLINE_MS 5000 /* a vCPU that was plugged in is the guest's by then */
/* Whether a guest that has just refused these resources may not have seen its new vCPUs yet: true
 * after a pause, until until_ms. r may be NULL. */
bool podsize_try_again(struct pod *pod, const Runtime__V1__LinuxContainerResources *r,
                       const struct err *why, int64_t until_ms);

/* Changes the pod's own resources (what is zero stays as it is) and the machine with them. When the
 * machine cannot follow, or the whole is not valid, nothing has changed. Does not store the record.
 */
int podsize_update(struct pod *pod, struct vm *vm,
                   const Runtime__V1__LinuxContainerResources *update, int64_t deadline_ms,
                   struct err *err);
