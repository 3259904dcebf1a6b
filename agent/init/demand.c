/* SPDX-License-Identifier: Apache-2.0 */
/*
 * request_module() runs the program that /proc/sys/kernel/modprobe names, with "-q -- NAME", in the
 * namespaces and below the root of PID 1, and waits for it. /proc/1/exe is that program: no second
 * copy is needed.
 */
#include "agent/init/demand.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "agent/init/options.h"

#define LIST      DEMAND_DIR "/list"
#define MAX_LIST  (1u << 20)
#define MAX_NAME  256u
#define TUN_ALIAS "char-major-10-200" /* misc device 200, Documentation/admin-guide/devices.txt */

void demand_keep(const char *new_root)
{
    char path[256];
    struct err err;
    if (access(LIST, F_OK) < 0)
        return;
    (void)snprintf(path, sizeof(path), "%s" DEMAND_DIR, new_root);
    if (mkdir(path, 0700) < 0 || mount(DEMAND_DIR, path, NULL, MS_BIND, NULL) < 0) {
        (void)err_set_errno(&err, errno, "keep %s", DEMAND_DIR);
        log_event(LOG_WARN, NULL, &err, "no module can be loaded later");
    }
}

static int read_list(char **ret_text, struct err *err)
{
    return fd_read_file(AT_FDCWD, LIST, MAX_LIST, ret_text, NULL, err);
}

void demand_enable(void)
{
    cleanup_free char *text = NULL;
    struct err err;
    if (read_list(&text, &err) < 0)
        return;
    if (fd_write_text(AT_FDCWD, "/proc/sys/kernel/modprobe", "/proc/1/exe", &err) < 0)
        log_event(LOG_WARN, NULL, &err, "no module can be loaded later");
    else if (demand_match(text, TUN_ALIAS) != NULL &&
             ((mkdir("/dev/net", 0755) < 0 && errno != EEXIST) ||
              mknod("/dev/net/tun", S_IFCHR | 0666, makedev(10, 200)) < 0))
        log_warn("/dev/net/tun cannot be made");
}

bool demand_is_asked(int argc, char *const *argv)
{
    return argc == 4 && strcmp(argv[1], "-q") == 0 && strcmp(argv[2], "--") == 0;
}

char *demand_match(char *list, const char *name)
{
    char *line;
    if (strlen(name) > MAX_NAME)
        return NULL;
    while ((line = options_next_line(&list)) != NULL) {
        char *files = line + strcspn(line, " ");
        if (*files == '\0')
            continue;
        *files++ = '\0';
        if (fnmatch(line, name, FNM_NOESCAPE) == 0)
            return files;
    }
    return NULL;
}

int demand_main(const char *name)
{
    cleanup_free char *text = NULL;
    char *files, *save = NULL;
    struct err err;
    if (read_list(&text, &err) < 0 || (files = demand_match(text, name)) == NULL)
        return 1;
    for (char *path = strtok_r(files, " ", &save); path != NULL;
         path = strtok_r(NULL, " ", &save)) {
        cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
            return 1;
    }
    return 0;
}
