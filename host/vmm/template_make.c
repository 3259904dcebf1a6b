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
#include "common/base/log.h"
#include "common/base/text.h"
#include "host/vmm/internal.h"
#include "host/vmm/ramfd.h"
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

/* The first disk of a machine made here; NULL: it has none. */
static const struct vm_disk *disk_of(int fd, struct vm_disk *disk)
{
    *disk = (struct vm_disk){.fd = fd, .scratch = true, .serial = VM_FIRST_DISK_SERIAL};
    return fd < 0 ? NULL : disk;
}

/* Lets whoever knows the guest do in it what every clone would have to. */
static int prepare(const struct template_job *job, struct vm *vm, int64_t deadline_ms,
                   struct err *err)
{
    const struct vmm *vmm = job->vmm;
    struct err why;

    if (vmm->template_hook == NULL ||
        vmm->template_hook(vmm->template_hook_arg, vm, deadline_ms, &why) == 0)
        return 0;
    if (why.code == ERR_UNSUPPORTED) {
        log_event(LOG_WARN, NULL, &why, "clones have more to do at their start");
        return 0;
    }
    if (err != NULL)
        *err = why;
    return -1;
}

static int boot_and_save(const struct template_job *job, const struct template_files *files,
                         int64_t deadline_ms, struct err *err)
{
    const struct vm_memory memory = {
        .kind = CMDLINE_MEMORY_TEMPLATE, .memory_fd = files->fds[TEMPLATE_MEMORY], .state_fd = -1};
    struct vm_spec spec = *job->spec;
    struct vm_disk disk;
    cleanup_vm struct vm *vm = NULL;

    spec.first_disk = disk_of(job->disk_fd < 0 ? -1 : files->fds[TEMPLATE_DISK], &disk);
    if (vm_start_with(job->vmm, job->choice, &spec, &memory, deadline_ms, &vm, err) < 0)
        return -1;
    job->running(job->arg, vm);
    int result = greet(vm, deadline_ms, err);
    /* The second greeting waits until the agent has seen the end of the session before it. */
    if (result == 0)
        result = prepare(job, vm, deadline_ms, err);
    if (result == 0)
        result = greet(vm, deadline_ms, err);
    if (result == 0)
        result = snapshot_save(vm, files->fds[TEMPLATE_STATE], deadline_ms, err);
    job->running(job->arg, NULL);
    /* Until it has ended it maps the memory for writing. */
    if (vm_kill(vm, result == 0 ? err : NULL) < 0)
        result = -1;
    return result;
}

static int make_files(const struct template_job *job, struct template_files *files, struct err *err)
{
    if (template_file_new("memory", (uint64_t)job->spec->memory_mib << 20,
                          &files->fds[TEMPLATE_MEMORY], err) < 0 ||
        template_file_new("state", 0, &files->fds[TEMPLATE_STATE], err) < 0 ||
        template_file_new("disk", 0, &files->fds[TEMPLATE_DISK], err) < 0)
        return -1;
    return job->disk_fd < 0 ? 0 : template_file_copy(job->disk_fd, files->fds[TEMPLATE_DISK], err);
}

int template_make(const struct template_job *job, int64_t deadline_ms,
                  struct template_files *ret_files, struct err *err)
{
    cleanup_template_files struct template_files files = TEMPLATE_NO_FILES;

    if (check_room(job->spec, err) < 0 || make_files(job, &files, err) < 0 ||
        boot_and_save(job, &files, deadline_ms, err) < 0 ||
        template_file_trim(files.fds[TEMPLATE_MEMORY], err) < 0)
        return err_prefix(err, "make a template");
    for (size_t i = 0; i < TEMPLATE_PARTS; i++)
        if (template_file_seal(files.fds[i], err) < 0)
            return err_prefix(err, "make a template");
    *ret_files = files;
    files = (struct template_files)TEMPLATE_NO_FILES;
    return 0;
}

int template_try(const struct template_job *job, const struct template_files *files,
                 int64_t deadline_ms, int *ret_ram_fd, struct err *err)
{
    const struct vm_memory memory = {.kind = CMDLINE_MEMORY_CLONE,
                                     .memory_fd = files->fds[TEMPLATE_MEMORY],
                                     .state_fd = files->fds[TEMPLATE_STATE],
                                     .ram_fd = -1};
    cleanup_fd int disk_fd = -1;
    struct vm_spec spec = *job->spec;
    struct vm_disk disk;
    cleanup_vm struct vm *vm = NULL;

    deadline_ms = clock_earlier(deadline_ms, clock_deadline(TRIAL_MS));
    if (job->disk_fd >= 0 && (template_file_new("disk", 0, &disk_fd, err) < 0 ||
                              template_file_copy(files->fds[TEMPLATE_DISK], disk_fd, err) < 0))
        return -1;
    spec.first_disk = disk_of(disk_fd, &disk);
    if (vm_start_with(job->vmm, job->choice, &spec, &memory, deadline_ms, &vm, err) < 0)
        return err_prefix(err, "try out a template");
    job->running(job->arg, vm);
    int result = greet(vm, deadline_ms, err);
    if (result == 0)
        *ret_ram_fd = ramfd_find(vm->record.pid, memory.memory_fd, FD_MEMORY);
    job->running(job->arg, NULL);
    (void)vm_kill(vm, NULL);
    return result < 0 ? err_prefix(err, "try out a template") : 0;
}
