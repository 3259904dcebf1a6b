/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making a template: a machine is booted until its agent answers and saved; and a clone of it is
 * tried out. For this room. Blocks for seconds; any thread but the loop's.
 */
#pragma once

#include <stdint.h>

#include "common/base/err.h"

struct vm;
struct vm_spec;
struct vmm;
struct vmm_choice;

struct template_job {
    struct vmm *vmm;
    const struct vmm_choice *choice;
    const struct vm_spec *spec; /* with id and dir for the machines made here */
    /* Told of each machine while it runs (vm), and after (NULL), so that it can be killed. */
    void (*running)(void *arg, struct vm *vm);
    void *arg;
};

/* Two sealed files; the caller's. EXHAUSTED when the host has too little memory left. */
int template_make(const struct template_job *job, int64_t deadline_ms, int *ret_memory_fd,
                  int *ret_state_fd, struct err *err);

/* Whether a clone comes up and its agent answers. */
int template_try(const struct template_job *job, int memory_fd, int state_fd, int64_t deadline_ms,
                 struct err *err);
