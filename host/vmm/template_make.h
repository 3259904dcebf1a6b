/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making a template: a machine is booted until its agent answers and saved; and a clone of it is
 * tried out. For this room. Blocks for seconds; any thread but the loop's.
 */
#pragma once

#include <stdint.h>

#include "common/base/err.h"
#include "host/vmm/template_file.h"

struct vm;
struct vm_spec;
struct vmm;
struct vmm_choice;

struct template_job {
    struct vmm *vmm;
    const struct vmm_choice *choice;
    const struct vm_spec *spec; /* with id and dir for the machines made here; no disk */
    int disk_fd;                /* what is on the first disk before; -1: the machine has none */
    /* Told of each machine while it runs (vm), and after (NULL), so that it can be killed. */
    void (*running)(void *arg, struct vm *vm);
    void *arg;
};

/* Sealed files; the caller's. EXHAUSTED when the host has too little memory left. */
int template_make(const struct template_job *job, int64_t deadline_ms,
                  struct template_files *ret_files, struct err *err);

/* Whether a clone comes up and its agent answers. *ret_ram_fd: as in struct vm_memory. */
int template_try(const struct template_job *job, const struct template_files *files,
                 int64_t deadline_ms, int *ret_ram_fd, struct err *err);
