/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ten small files a container, each read whole: fifty containers are read in a few milliseconds, so
 * it is done at once and not in a child. The writable layer is not walked: its files carry a
 * project id from birth (FS_XFLAG_PROJINHERIT), and ext4 keeps the sums.
 *
 * Working set is what the kubelet evicts by: usage less the file pages that nobody has used lately.
 */
#include "agent/container/stats.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/quota.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "common/base/fd.h"
#include "common/base/text.h"
#include "agent/container/cgroup.h"

#define MAX_FILE   16384u
#define QUOTA_TYPE 2 /* PRJQUOTA of linux/quota.h */
#define QUOTA_GET  0x800007u
#define QUOTA_CMD  ((QUOTA_GET << 8) | QUOTA_TYPE)

/* A file that holds one number; "max" and what cannot be read are 0. */
static uint64_t read_number(int cgroup_fd, const char *file)
{
    cleanup_free char *text = NULL;
    struct err err;
    uint64_t value = 0;
    if (fd_read_file(cgroup_fd, file, 64, &text, NULL, &err) < 0)
        return 0;
    text[strcspn(text, "\n")] = '\0';
    return text_parse_u64(text, UINT64_MAX, &value) == 0 ? value : 0;
}

/* The number behind `key` in a text of "key number" lines; 0 if there is none. */
static uint64_t find_number(const char *text, const char *key)
{
    size_t len = strlen(key);
    for (const char *at = text; at != NULL && *at != '\0'; at = strchr(at, '\n')) {
        at += *at == '\n';
        if (strncmp(at, key, len) == 0 && at[len] == ' ')
            return strtoull(at + len + 1, NULL, 10);
    }
    return 0;
}

/* "12.34" in hundredths. */
static bool parse_hundredths(const char *text, uint32_t *ret_value, const char **ret_end)
{
    char *end;
    unsigned long whole = strtoul(text, &end, 10);
    if (end == text || *end != '.' || whole > 100 || end[1] < '0' || end[1] > '9' || end[2] < '0' ||
        end[2] > '9')
        return false;
    *ret_value = (uint32_t)(whole * 100) + (uint32_t)(end[1] - '0') * 10 + (uint32_t)(end[2] - '0');
    *ret_end = end + 3;
    return true;
}

static bool parse_line(const char *line, uint32_t averages[3], uint64_t *ret_total)
{
    static const char *const keys[] = {" avg10=", " avg60=", " avg300="};
    for (size_t i = 0; i < 3; i++) {
        if (!text_has_prefix(line, keys[i]) ||
            !parse_hundredths(line + strlen(keys[i]), &averages[i], &line))
            return false;
    }
    if (!text_has_prefix(line, " total="))
        return false;
    *ret_total = strtoull(line + sizeof(" total=") - 1, NULL, 10);
    return true;
}

bool stats_parse_pressure(const char *text, Casemate__Agent__V1__Pressure *ret_pressure)
{
    uint32_t some[3], full[3] = {0, 0, 0};
    uint64_t some_total, full_total = 0;
    if (!text_has_prefix(text, "some") || !parse_line(text + 4, some, &some_total))
        return false;
    const char *second = strchr(text, '\n');
    /* Before Linux 5.13 there is no "full" of cpu. */
    if (second != NULL && text_has_prefix(second + 1, "full") &&
        !parse_line(second + 5, full, &full_total))
        return false;
    casemate__agent__v1__pressure__init(ret_pressure);
    ret_pressure->some_avg10 = some[0];
    ret_pressure->some_avg60 = some[1];
    ret_pressure->some_avg300 = some[2];
    ret_pressure->some_total = some_total;
    ret_pressure->full_avg10 = full[0];
    ret_pressure->full_avg60 = full[1];
    ret_pressure->full_avg300 = full[2];
    ret_pressure->full_total = full_total;
    return true;
}

static Casemate__Agent__V1__Pressure *read_pressure(int cgroup_fd, const char *file,
                                                    Casemate__Agent__V1__Pressure *pressure)
{
    cleanup_free char *text = NULL;
    struct err err;
    if (fd_read_file(cgroup_fd, file, 512, &text, NULL, &err) < 0 ||
        !stats_parse_pressure(text, pressure))
        return NULL;
    return pressure;
}

static void read_memory(int cgroup_fd, Casemate__Agent__V1__CgroupStats *stats)
{
    cleanup_free char *text = NULL;
    struct err err;
    stats->memory_usage_bytes = read_number(cgroup_fd, "memory.current");
    stats->memory_limit_bytes = read_number(cgroup_fd, "memory.max");
    stats->swap_usage_bytes = read_number(cgroup_fd, "memory.swap.current");
    stats->swap_limit_bytes = read_number(cgroup_fd, "memory.swap.max");
    stats->memory_working_set_bytes = stats->memory_usage_bytes;
    if (fd_read_file(cgroup_fd, "memory.stat", MAX_FILE, &text, NULL, &err) < 0)
        return;
    uint64_t inactive = find_number(text, "inactive_file");
    stats->memory_working_set_bytes -=
        inactive < stats->memory_usage_bytes ? inactive : stats->memory_usage_bytes;
    stats->memory_rss_bytes = find_number(text, "anon");
    stats->memory_page_faults = find_number(text, "pgfault");
    stats->memory_major_page_faults = find_number(text, "pgmajfault");
}

void stats_read_cgroup(int cgroup_fd, Casemate__Agent__V1__CgroupStats *stats,
                       struct stats_pressures *pressures)
{
    cleanup_free char *cpu = NULL;
    struct err err;
    casemate__agent__v1__cgroup_stats__init(stats);
    if (fd_read_file(cgroup_fd, "cpu.stat", MAX_FILE, &cpu, NULL, &err) == 0)
        stats->cpu_usage_ns = find_number(cpu, "usage_usec") * 1000;
    read_memory(cgroup_fd, stats);
    stats->processes = read_number(cgroup_fd, "pids.current");
    stats->cpu_pressure = read_pressure(cgroup_fd, "cpu.pressure", &pressures->cpu);
    stats->memory_pressure = read_pressure(cgroup_fd, "memory.pressure", &pressures->memory);
    stats->io_pressure = read_pressure(cgroup_fd, "io.pressure", &pressures->io);
    stats->oom_kills = cgroup_oom_kills(cgroup_fd);
}

int stats_set_project(int dir_fd, uint32_t project, struct err *err)
{
    struct fsxattr attributes;
    if (ioctl(dir_fd, FS_IOC_FSGETXATTR, &attributes) < 0)
        return errno == ENOTTY || errno == EOPNOTSUPP
                   ? 0
                   : err_set_errno(err, errno, "read the project of a directory");
    attributes.fsx_projid = project;
    attributes.fsx_xflags |= FS_XFLAG_PROJINHERIT;
    if (ioctl(dir_fd, FS_IOC_FSSETXATTR, &attributes) < 0 && errno != EOPNOTSUPP &&
        errno != ENOTTY && errno != EINVAL)
        return err_set_errno(err, errno, "set the project of a directory");
    return 0;
}

bool stats_read_project(const char *mount_point, uint32_t project, uint64_t *ret_bytes,
                        uint64_t *ret_inodes)
{
    struct if_dqblk quota = {0};
    cleanup_fd int fd = open(mount_point, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || syscall(SYS_quotactl_fd, fd, QUOTA_CMD, project, &quota) < 0)
        return false;
    *ret_bytes = quota.dqb_curspace;
    *ret_inodes = quota.dqb_curinodes;
    return true;
}
