/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sysfs says which disk is at which address: /sys/bus/scsi/devices/H:0:0:L is a link to the device,
 * and its block/ folder names the disk. The host number H depends on which other adapters the
 * kernel found first (q35 always has an AHCI), so the device must lie below a virtio one. A LUN of
 * 256 and more is reported in the "flat space" form, 0x4000 | lun (SAM-5, logical unit addressing).
 *
 * To wait, the socket for the kernel's device events is opened first and sysfs is looked at then:
 * an event that comes in between is in the socket. A lost event costs POLL_MS, not the deadline.
 */
#include "agent/mount/disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/text.h"

#define FLAT_SPACE  0x4000u
#define POLL_MS     100
#define SECTOR_SIZE 512u
#define VPD_HEADER  4u /* SPC-4, 7.8.18: the serial number follows */

static void close_dir(DIR **dir)
{
    if (*dir != NULL)
        (void)closedir(*dir);
}
#define cleanup_dir CLEANUP(close_dir)

/* Whether a name in /sys/bus/scsi/devices is H:0:0:L with the wanted L. */
static bool is_address(const char *name, uint32_t lun)
{
    char copy[64];
    if (strlen(name) >= sizeof(copy))
        return false;
    memcpy(copy, name, strlen(name) + 1);
    char *part[4], *save = NULL;
    size_t n = 0;
    for (char *p = strtok_r(copy, ":", &save); p != NULL && n < 4; p = strtok_r(NULL, ":", &save))
        part[n++] = p;
    uint64_t found;
    return n == 4 && strcmp(part[1], "0") == 0 && strcmp(part[2], "0") == 0 &&
           text_parse_u64(part[3], UINT32_MAX, &found) == 0 &&
           (found == lun || found == (lun | FLAT_SPACE));
}

/* The disk's name, such as "sda", from the device's block folder. Returns whether there is one. */
static bool block_name(int devices_fd, const char *address, char *ret_name, size_t size)
{
    char target[512], folder[NAME_MAX + sizeof("/block")];
    ssize_t n = readlinkat(devices_fd, address, target, sizeof(target) - 1);
    if (n < 0)
        return false;
    target[n] = '\0';
    if (strstr(target, "/virtio") == NULL)
        return false;
    (void)snprintf(folder, sizeof(folder), "%s/block", address);
    int fd = openat(devices_fd, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return false;
    cleanup_dir DIR *dir = fdopendir(fd);
    if (dir == NULL) {
        (void)close(fd);
        return false;
    }
    struct dirent *e;
    while ((e = readdir(dir)) != NULL) {
        if (e->d_name[0] != '.' && strlen(e->d_name) < size) {
            memcpy(ret_name, e->d_name, strlen(e->d_name) + 1);
            return true;
        }
    }
    return false;
}

static int check_size(const char *sysfs, const char *name, uint64_t size_bytes, struct err *err)
{
    char path[256];
    cleanup_free char *text = NULL;
    uint64_t sectors;
    (void)snprintf(path, sizeof(path), "%s/class/block/%s/size", sysfs, name);
    if (fd_read_file(AT_FDCWD, path, 64, &text, NULL, err) < 0)
        return -1;
    text[strcspn(text, "\n")] = '\0';
    if (text_parse_u64(text, UINT64_MAX / SECTOR_SIZE, &sectors) < 0)
        return err_set(err, ERR_SYSTEM, "%s does not hold a number", path);
    if (sectors * SECTOR_SIZE != size_bytes)
        return err_set(err, ERR_INVALID, "disk %s has %llu bytes, not %llu", name,
                       (unsigned long long)(sectors * SECTOR_SIZE), (unsigned long long)size_bytes);
    return 0;
}

/* Whether the device at an address has the serial, as the kernel read it when it found the device.
 */
static bool has_serial(int devices_fd, const char *address, const char *serial)
{
    char path[NAME_MAX + sizeof("/vpd_pg80")];
    uint8_t page[VPD_HEADER + 256];
    size_t n = 0;
    size_t len = strlen(serial);
    (void)snprintf(path, sizeof(path), "%s/vpd_pg80", address);
    cleanup_fd int fd = openat(devices_fd, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fd_read_full(fd, page, sizeof(page), &n, NULL) < 0)
        return false;
    return n == VPD_HEADER + len && memcmp(page + VPD_HEADER, serial, len) == 0;
}

int disk_find_now(const char *sysfs, uint32_t lun, const char *serial, uint64_t size_bytes,
                  char ret_path[DISK_PATH_SIZE], struct err *err)
{
    char path[256], name[32];
    (void)snprintf(path, sizeof(path), "%s/bus/scsi/devices", sysfs);
    cleanup_dir DIR *dir = opendir(path);
    if (dir == NULL)
        return err_set_errno(err, errno, "no SCSI bus: open %s", path);
    struct dirent *e;
    while ((e = readdir(dir)) != NULL) {
        if (!is_address(e->d_name, lun) || !block_name(dirfd(dir), e->d_name, name, sizeof(name)))
            continue;
        if (serial != NULL && serial[0] != '\0' && !has_serial(dirfd(dir), e->d_name, serial))
            continue;
        if (size_bytes != 0 && check_size(sysfs, name, size_bytes, err) < 0)
            return err_prefix(err, "LUN %u", lun);
        (void)snprintf(ret_path, DISK_PATH_SIZE, "/dev/%s", name);
        return 0;
    }
    return err_set(err, ERR_NOT_FOUND, "there is no disk at LUN %u", lun);
}

void disk_drop_schedulers(const char *sysfs)
{
    char path[NAME_MAX + 256];
    (void)snprintf(path, sizeof(path), "%s/block", sysfs);
    cleanup_dir DIR *dir = opendir(path);
    struct dirent *e;
    while (dir != NULL && (e = readdir(dir)) != NULL) {
        if (!text_has_prefix(e->d_name, "sd"))
            continue;
        (void)snprintf(path, sizeof(path), "%s/block/%s/queue/scheduler", sysfs, e->d_name);
        (void)fd_write_text(AT_FDCWD, path, "none", NULL);
    }
}

static int open_events(void)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = 1};
    if (fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

/* Waits for an event, a while, or the deadline, and empties the socket. */
static void wait_for_event(int events_fd, int64_t deadline_ms)
{
    char discarded[4096];
    struct pollfd p = {.fd = events_fd, .events = POLLIN};
    int64_t until = clock_earlier(deadline_ms, clock_deadline(POLL_MS));
    (void)poll(&p, 1, clock_poll_timeout(until));
    while (events_fd >= 0 && recv(events_fd, discarded, sizeof(discarded), 0) > 0)
        continue;
}

bool disk_is_ready(const char *path)
{
    cleanup_fd int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    return fd >= 0 || (errno != ENOENT && errno != ENXIO && errno != ENODEV);
}

int disk_find(uint32_t lun, const char *serial, uint64_t size_bytes, int64_t deadline_ms,
              char ret_path[DISK_PATH_SIZE], struct err *err)
{
    struct err missing;
    (void)err_set(&missing, ERR_NOT_FOUND, "the disk at LUN %u has no device node", lun);
    if (disk_find_now("/sys", lun, serial, size_bytes, ret_path, &missing) == 0 &&
        disk_is_ready(ret_path))
        return 0;
    cleanup_fd int events_fd = open_events();
    for (;;) {
        if (disk_find_now("/sys", lun, serial, size_bytes, ret_path, &missing) == 0 &&
            disk_is_ready(ret_path))
            return 0;
        if (missing.code == ERR_INVALID || clock_poll_timeout(deadline_ms) == 0)
            break;
        wait_for_event(events_fd, deadline_ms);
    }
    if (err != NULL)
        *err = missing;
    return -1;
}
