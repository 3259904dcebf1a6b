/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tells one template from another: cheap for every start, and by content for the copy on disk.
 * Pure but for reading files; texts are heap strings of the caller. Any thread.
 */
#pragma once

#include "common/base/err.h"
#include "host/vmm/template_file.h"

struct vm_spec;
struct vmm_choice;

/* What the machine is made of: QEMU's arguments and the paths of the files. */
int template_shape(const struct vmm_choice *choice, const struct vm_spec *spec, char **ret_shape,
                   struct err *err);

/* Which files are there now: device, inode, size, time of change of each. It is read before content
 * is, so that a file that is replaced meanwhile shows in the next stamp. */
int template_stamp(const struct vmm_choice *choice, const struct vm_spec *spec, char **ret_stamp,
                   struct err *err);

/* A digest over the shape and the contents of all files; under KVM also over this boot of the host,
 * since the CPU that a guest saw may be another after it. Reads some 100 MiB. */
int template_key(const struct vmm_choice *choice, const struct vm_spec *spec,
                 const char *host_boot_id, char ret_key[TEMPLATE_KEY_SIZE], struct err *err);
