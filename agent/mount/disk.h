/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The block device behind a LUN of the VM's virtio-scsi bus. A disk that was just plugged in takes
 * some milliseconds to appear, so finding may block: for children only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

#define DISK_PATH_SIZE 64u

/*
 * Waits until the disk is there and writes its device's path, such as "/dev/sda". A disk of another
 * serial (unless that is NULL or "") is an earlier one that is about to go. size_bytes, unless 0,
 * must be its size: INVALID otherwise. NOT_FOUND at the deadline.
 */
int disk_find(uint32_t lun, const char *serial, uint64_t size_bytes, int64_t deadline_ms,
              char ret_path[DISK_PATH_SIZE], struct err *err);

/*
 * Whether a device's node can be used: the node and sysfs show a disk before the kernel lets
 * anybody open it (ENXIO meanwhile). Any other failure is left to whoever uses it.
 */
bool disk_is_ready(const char *path);

/*
 * Below this root of sysfs ("/sys"): lets requests go to the disks in the order and at the moment
 * they are made. What is behind them is the host's, which has a scheduler of its own. Best effort.
 */
void disk_drop_schedulers(const char *sysfs);

/* Like disk_find without waiting, below another root of sysfs than "/sys": for tests. */
int disk_find_now(const char *sysfs, uint32_t lun, const char *serial, uint64_t size_bytes,
                  char ret_path[DISK_PATH_SIZE], struct err *err);
