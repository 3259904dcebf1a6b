/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Version 2 takes a cpuset.cpus that its parent does not have and then uses the parent's as if
 * nothing had been asked for: cpuset.cpus.effective of the parent is what there is. A controller
 * that is missing shows as a missing file.
 */
#include "agent/container/cgcheck.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "common/base/fd.h"
#include "common/base/numset.h"
#include "common/base/text.h"

#define MAX_LIST 8192

static int check_set(int base_fd, const Casemate__Agent__V1__CgroupSetting *s, struct err *err)
{
    cleanup_free char *text = NULL;
    char file[64];
    struct numset asked, there;

    if (numset_parse(s->value, &asked, err) < 0)
        return err_prefix(err, "%s", s->file);
    (void)snprintf(file, sizeof(file), "%.40s.effective", s->file);
    if (faccessat(base_fd, file, F_OK, 0) < 0)
        return err_set(err, ERR_UNSUPPORTED, "%s: the guest's kernel has no such controller",
                       s->file);
    if (fd_read_file(base_fd, file, MAX_LIST, &text, NULL, err) < 0 ||
        numset_parse(text, &there, err) < 0)
        return err_prefix(err, "%s", file);
    if (numset_is_subset(&asked, &there))
        return 0;
    text[strcspn(text, "\n")] = '\0';
    return err_set(err, ERR_EXHAUSTED, "%s %.64s: the guest has %.64s", s->file, s->value, text);
}

/* "2MB 1GB": the sizes that the folder has limits for. */
static void list_sizes(int base_fd, char *ret_list, size_t size)
{
    int copy = openat(base_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    struct dirent *e;
    size_t n = 0;

    ret_list[0] = '\0';
    if (dir == NULL) {
        close_fd(&copy);
        return;
    }
    while ((e = readdir(dir)) != NULL) {
        char page[16], rest[8];
        if (sscanf(e->d_name, "hugetlb.%15[0-9A-Z].%7s", page, rest) != 2 ||
            strcmp(rest, "max") != 0 || n + strlen(page) + 2 > size)
            continue;
        n += (size_t)snprintf(ret_list + n, size - n, "%s%s", n > 0 ? " " : "", page);
    }
    (void)closedir(dir);
}

static bool is_huge_limit(const char *file)
{
    size_t n = strlen(file);
    return text_has_prefix(file, "hugetlb.") && n > 4 && strcmp(file + n - 4, ".max") == 0;
}

bool cgcheck_is_moot(int cgroup_fd, const Casemate__Agent__V1__CgroupSetting *s)
{
    return is_huge_limit(s->file) && strcmp(s->value, "0") == 0 &&
           faccessat(cgroup_fd, s->file, F_OK, 0) < 0 && errno == ENOENT;
}

static int check_huge(int base_fd, const Casemate__Agent__V1__CgroupSetting *s, struct err *err)
{
    char sizes[64];

    if (faccessat(base_fd, s->file, F_OK, 0) == 0 || cgcheck_is_moot(base_fd, s))
        return 0;
    list_sizes(base_fd, sizes, sizeof(sizes));
    return err_set(err, ERR_UNSUPPORTED, "%s %.32s: the guest has huge pages of %s", s->file,
                   s->value, sizes[0] == '\0' ? "no size" : sizes);
}

int cgcheck_settings(int base_fd, const Casemate__Agent__V1__Resources *settings, struct err *err)
{
    for (size_t i = 0; settings != NULL && i < settings->n_cgroup; i++) {
        const Casemate__Agent__V1__CgroupSetting *s = settings->cgroup[i];
        if (strcmp(s->file, "cpuset.cpus") == 0 || strcmp(s->file, "cpuset.mems") == 0) {
            if (check_set(base_fd, s, err) < 0)
                return -1;
        } else if (is_huge_limit(s->file) && check_huge(base_fd, s, err) < 0) {
            return -1;
        }
    }
    return 0;
}
