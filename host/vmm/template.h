/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The templates of a node: which there are, making them, giving them up. For this room. A struct
 * template is shared by reference and never changes; clones do not need it once they run. Threads:
 * any but the loop's; one thread of its own makes templates, one after another.
 */
#pragma once

#include <stdint.h>

#include "common/base/cleanup.h"
#include "common/base/err.h"

struct vm_spec;
struct vmm;
struct vmm_choice;
struct vmm_status;
struct template;
struct template_files;
struct templates;

#define TEMPLATES_MAX 16 /* shapes of machine that are kept at a time */

/*
 * The store in dir (existing, root-only, the store's own); kills the machine that a predecessor was
 * making a template of. vmm outlives it and is not referenced.
 */
int templates_new(struct vmm *vmm, const char *dir, struct templates **ret_store, struct err *err);
/* Ends what is being made; nothing is made any more. Any number of times. */
void templates_stop(struct templates *store);
/* Stops it first. NULL is fine. */
void templates_free(struct templates *store);

/*
 * The template of this machine: at hand, or read from disk, or made now, which takes as long as a
 * boot. Waits for half of the time left at most. An error has been logged in detail where it arose,
 * and comes again at once for a minute: machines should boot meanwhile. CANCELLED: spec says so.
 */
int templates_get(struct templates *store, const struct vmm_choice *choice,
                  const struct vm_spec *spec, int64_t deadline_ms, struct template **ret_template,
                  struct err *err);
/* Wakes those who wait in templates_get: a spec's `cancelled` was set. */
void templates_look_again(struct templates *store);
/* Has it made, without waiting for it. */
int templates_want(struct templates *store, const struct vmm_choice *choice,
                   const struct vm_spec *spec, struct err *err);
/* It made a machine. */
void templates_worked(struct templates *store, const struct template *template);
/* It did not: it is removed from disk too, and a new one is made. */
void templates_reject(struct templates *store, const struct template *template);

/* Fills in the fields on templates. */
void templates_get_status(struct templates *store, struct vmm_status *status);

/* Sealed files; they live as long as the reference. */
const struct template_files *template_get_files(const struct template *template);
/* As in struct vm_memory. */
int template_ram_fd(const struct template *template);
/* Closes the files with the last reference. NULL is fine. */
void template_unref(struct template *template);
DEFINE_CLEANUP(template, struct template, template_unref)
#define cleanup_template CLEANUP(template_cleanup_)
