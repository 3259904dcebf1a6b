/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel multicasts an event for each new device on a netlink socket. Only messages from the
 * kernel itself (port 0) count: a process of a container that shares the network namespace could
 * send others, though not to this group without CAP_SYS_ADMIN.
 *
 * Memory is left to the kernel: "auto-movable" puts so much of it into the movable zone that it can
 * be taken away again, and no more than the rest can serve.
 */
#include "agent/init/hotplug.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "common/loop/loop.h"

#define MAX_EVENT 4096u

struct hotplug {
    int fd;
    struct loop_source *source;
};

bool hotplug_is_new_cpu(const char *event, size_t n, char *ret_path, size_t size)
{
    const char *path = NULL;
    bool added = false, cpu = false;
    if (n == 0 || event[n - 1] != '\0')
        return false;
    for (size_t at = 0; at < n; at += strlen(event + at) + 1) {
        const char *text = event + at;
        added = added || strcmp(text, "ACTION=add") == 0;
        cpu = cpu || strcmp(text, "SUBSYSTEM=cpu") == 0;
        if (text_has_prefix(text, "DEVPATH=/devices/system/cpu/cpu"))
            path = text + sizeof("DEVPATH=") - 1;
    }
    if (!added || !cpu || path == NULL || strstr(path, "..") != NULL || strlen(path) >= size)
        return false;
    memcpy(ret_path, path, strlen(path) + 1);
    return true;
}

static void put_online(const char *path)
{
    char file[128];
    struct err err;
    (void)snprintf(file, sizeof(file), "/sys%s/online", path);
    if (fd_write_text(AT_FDCWD, file, "1", &err) < 0)
        log_event(LOG_WARN, NULL, &err, "a new processor is not used");
    else
        log_info("processor %s is in use", path);
}

static void on_event(void *arg, uint32_t events)
{
    struct hotplug *h = arg;
    (void)events;
    for (;;) {
        char event[MAX_EVENT], path[96];
        struct sockaddr_nl sender;
        socklen_t len = sizeof(sender);
        ssize_t n = recvfrom(h->fd, event, sizeof(event), 0, (struct sockaddr *)&sender, &len);
        if (n < 0 && (errno == EINTR || errno == ENOBUFS))
            continue;
        if (n < 0)
            return;
        if (len == sizeof(sender) && sender.nl_pid == 0 &&
            hotplug_is_new_cpu(event, (size_t)n, path, sizeof(path)))
            put_online(path);
    }
}

static void use_new_memory(void)
{
    struct err err;
    if (fd_write_text(AT_FDCWD, "/sys/module/memory_hotplug/parameters/online_policy",
                      "auto-movable", &err) < 0 ||
        fd_write_text(AT_FDCWD, "/sys/devices/system/memory/auto_online_blocks", "online", &err) <
            0)
        log_event(LOG_DEBUG, NULL, &err, "the kernel cannot be given memory while it runs");
}

int hotplug_start(struct loop *loop, struct hotplug **ret_hotplug, struct err *err)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = 1};
    cleanup_fd int fd =
        socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return err_set_errno(err, errno, "listen to the kernel's device events");
    struct hotplug *h = calloc(1, sizeof(*h));
    if (h == NULL)
        return err_no_memory(err);
    if (loop_add_fd(loop, fd, EPOLLIN, on_event, h, &h->source, err) < 0) {
        free(h);
        return -1;
    }
    h->fd = steal_fd(&fd);
    use_new_memory();
    *ret_hotplug = h;
    return 0;
}

void hotplug_free(struct hotplug *hotplug)
{
    if (hotplug == NULL)
        return;
    loop_source_free(hotplug->source);
    close_fd(&hotplug->fd);
    free(hotplug);
}
