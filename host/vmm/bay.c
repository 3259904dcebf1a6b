/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. A bay is a drive that the machine was started with (cmdline.c): the device
 * "bayN", the node "bayN" under it, and under that "bayN-empty", which reads as zeros. Filling it
 * is two steps: the node "bayN-file" over the file's descriptor set, and a reopening of "bayN" with
 * it in the place of "bayN-empty". The guest takes no part: to it the drive is as large as ever,
 * and it keeps nothing of what was read before, since the kernel forgets a block device's pages
 * when the last one closes it.
 *
 * Emptying goes the same way back, and also undoes a filling of which it is not known how far it
 * came: reopening with what is there already is no error.
 *
 * What is in which drive is asked from QEMU after a restart: a node's "file" is the name that its
 * file was opened by, and that is the descriptor set's.
 */
#include <stdio.h>
#include <string.h>

#include "common/base/text.h"
#include "host/vmm/internal.h"
#include "host/vmm/json.h"

#define FILE_SUFFIX "-file"

static void bay_name(uint32_t lun, const char *suffix, char ret_name[CMDLINE_BAY_NAME_SIZE])
{
    cmdline_bay_name(lun - VM_DISK_LUNS, suffix, ret_name);
}

const char *vm_bay_serial(uint32_t lun)
{
    static const char *const serials[] = {"bay0", "bay1", "bay2", "bay3",
                                          "bay4", "bay5", "bay6", "bay7"};

    _Static_assert(ARRAY_SIZE(serials) == VM_DISK_BAYS, "a serial for each bay");
    return serials[lun - VM_DISK_LUNS];
}

void bay_file_name(uint32_t lun, char ret_name[CMDLINE_BAY_NAME_SIZE])
{
    bay_name(lun, FILE_SUFFIX, ret_name);
}

static json_t *reopen_arguments(uint32_t lun, const char *suffix)
{
    char drive[CMDLINE_BAY_NAME_SIZE], file[CMDLINE_BAY_NAME_SIZE];

    bay_name(lun, "", drive);
    bay_name(lun, suffix, file);
    return json_pack("{s:[{s:s, s:s, s:b, s:s}]}", "options", "driver", "raw", "node-name", drive,
                     "read-only", 1, "file", file);
}

json_t *bay_fill_arguments(uint32_t lun)
{
    return reopen_arguments(lun, FILE_SUFFIX);
}

json_t *bay_empty_arguments(uint32_t lun)
{
    return reopen_arguments(lun, CMDLINE_BAY_EMPTY);
}

json_t *bay_file_arguments(uint32_t lun)
{
    char file[CMDLINE_BAY_NAME_SIZE], path[DISK_PATH_SIZE];

    bay_file_name(lun, file);
    disk_fdset_path(lun, path);
    /* As for a layer that is plugged in (disk.c). */
    return json_pack("{s:s, s:s, s:s, s:b, s:b, s:s, s:s}", "driver", "file", "node-name", file,
                     "filename", path, "read-only", 1, "auto-read-only", 0, "locking", "off", "aio",
                     "threads");
}

/* The node of that name; NULL: there is none. */
static const json_t *find_node(const json_t *nodes, const char *name)
{
    const json_t *node;
    size_t i;

    json_array_foreach(nodes, i, node)
    {
        const char *found = json_string_value(json_object_get(node, "node-name"));
        if (found != NULL && strcmp(found, name) == 0)
            return node;
    }
    return NULL;
}

static bool is_filled(const json_t *drive, uint32_t lun)
{
    char path[DISK_PATH_SIZE];
    const char *file = json_string_value(json_object_get(drive, "file"));

    disk_fdset_path(lun, path);
    return file != NULL && strcmp(file, path) == 0;
}

int bay_rebuild(struct vm *vm, const json_t *nodes, struct err *err)
{
    for (uint32_t lun = VM_DISK_LUNS; lun < DISK_TABLE; lun++) {
        char name[CMDLINE_BAY_NAME_SIZE];
        bay_name(lun, "", name);
        const json_t *drive = find_node(nodes, name);
        vm->has_bays = vm->has_bays || drive != NULL;
        bay_file_name(lun, name);
        if (drive == NULL || find_node(nodes, name) == NULL || vm->disks[lun] != NULL)
            continue;
        vm->disks[lun] =
            disk_new(vm, lun, true, "", is_filled(drive, lun) ? DISK_ATTACHED : DISK_REMOVING);
        if (vm->disks[lun] == NULL)
            return err_no_memory(err);
    }
    return 0;
}
