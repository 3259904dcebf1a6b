/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The template is saved in the moment in which its agent has answered a greeting and the link was
 * hung up again: nothing of a pod is in it, and no session.
 *
 * The trial costs the time of one clone and answers the one question that matters before a pod
 * depends on it; a template that was read from disk is tried out like one that was just made.
 */
#include "host/vmm/template_make.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/text.h"
#include "host/vmm/internal.h"
#include "host/vmm/template_file.h"

#define MEMINFO_MAX 65536
#define SPARE_MIB   128 /* of the host's memory that a template must leave */
#define TRIAL_MS    15000

static uint64_t available_mib(void)
{
    cleanup_free char *text = NULL;
    unsigned long long kib = 0;

    if (fd_read_file(AT_FDCWD, "/proc/meminfo", MEMINFO_MAX, &text, NULL, NULL) < 0)
        return UINT64_MAX;
    const char *line = strstr(text, "\nMemAvailable:");
    if (line == NULL || sscanf(line, "\nMemAvailable: %llu kB", &kib) != 1)
        return UINT64_MAX;
    return kib / 1024;
}

static int check_room(const struct vm_spec *spec, struct err *err)
{
    uint64_t room = available_mib();

    if (room < (uint64_t)spec->memory_mib + SPARE_MIB)
        return err_set(err, ERR_EXHAUSTED,
                       "the host has %llu MiB of memory left, a template takes up to %u",
                       (unsigned long long)room, spec->memory_mib);
    return 0;
}

/* The agent answers a greeting; then the link is hung up. */
static int greet(struct vm *vm, int64_t deadline_ms, struct err *err)
{
    cleanup_fd int fd = -1;

    return vm_connect_agent(vm, deadline_ms, &fd, err);
}

static int boot_and_save(const struct template_job *job, int memory_fd, int state_fd,
                         int64_t deadline_ms, struct err *err)
{
    const struct vm_memory memory = {
        .kind = CMDLINE_MEMORY_TEMPLATE, .memory_fd = memory_fd, .state_fd = -1};
    cleanup_vm struct vm *vm = NULL;

    if (vm_start_with(job->vmm, job->choice, job->spec, &memory, deadline_ms, &vm, err) < 0)
        return -1;
    job->running(job->arg, vm);
    int result = greet(vm, deadline_ms, err);
    if (result == 0)
        result = snapshot_save(vm, state_fd, deadline_ms, err);
    job->running(job->arg, NULL);
    /* Until it has ended it maps the memory for writing. */
    if (vm_kill(vm, result == 0 ? err : NULL) < 0)
        result = -1;
    return result;
}

int template_make(const struct template_job *job, int64_t deadline_ms, int *ret_memory_fd,
                  int *ret_state_fd, struct err *err)
{
    cleanup_fd int memory = -1, state = -1;

    if (check_room(job->spec, err) < 0 ||
        template_file_new("memory", (uint64_t)job->spec->memory_mib << 20, &memory, err) < 0 ||
        template_file_new("state", 0, &state, err) < 0 ||
        boot_and_save(job, memory, state, deadline_ms, err) < 0 ||
        template_file_trim(memory, err) < 0 || template_file_seal(memory, err) < 0 ||
        template_file_seal(state, err) < 0)
        return err_prefix(err, "make a template");
    *ret_memory_fd = steal_fd(&memory);
    *ret_state_fd = steal_fd(&state);
    return 0;
}

int template_try(const struct template_job *job, int memory_fd, int state_fd, int64_t deadline_ms,
                 struct err *err)
{
    const struct vm_memory memory = {
        .kind = CMDLINE_MEMORY_CLONE, .memory_fd = memory_fd, .state_fd = state_fd};
    cleanup_vm struct vm *vm = NULL;

    deadline_ms = clock_earlier(deadline_ms, clock_deadline(TRIAL_MS));
    if (vm_start_with(job->vmm, job->choice, job->spec, &memory, deadline_ms, &vm, err) < 0)
        return err_prefix(err, "try out a template");
    job->running(job->arg, vm);
    int result = greet(vm, deadline_ms, err);
    job->running(job->arg, NULL);
    (void)vm_kill(vm, NULL);
    return result < 0 ? err_prefix(err, "try out a template") : 0;
}
