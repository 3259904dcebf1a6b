/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PID 1 of the guest that tests/integration/test_guest_image.sh boots, in the place of the agent.
 *
 * It does what the agent does first, and reports it: loads the modules that /modules.list names, in
 * order, and looks whether the drivers that they hold found their devices. Reports are lines on the
 * console that start with "GUEST "; the script compares them with what it expects. Devices appear
 * some time after their driver was loaded: kernel events (netlink uevents) say when to look again,
 * until a deadline. The last line is "GUEST done"; then the machine is powered off, which ends
 * QEMU.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#ifndef AF_VSOCK
#define AF_VSOCK 40
#endif

#define DEADLINE_MS 20000

static long now_us(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_BOOTTIME, &ts);
    return ts.tv_sec * 1000000L + ts.tv_nsec / 1000;
}

/* Loads one module. ENODEV is a driver which says that this machine has nothing for it, and is
 * fine. */
static void load_module(const char *path)
{
    long start = now_us();
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int error = 0;

    if (fd < 0 || syscall(SYS_finit_module, fd, "", 0) != 0)
        error = errno;
    if (fd >= 0)
        close(fd);
    printf("GUEST module %s %s %ld us\n", path, error ? strerrorname_np(error) : "ok",
           now_us() - start);
}

static void load_modules(void)
{
    char line[256];
    FILE *list = fopen("/modules.list", "re");
    long start = now_us();

    if (!list) {
        printf("GUEST no modules.list\n");
        return;
    }
    while (fgets(line, sizeof(line), list)) {
        line[strcspn(line, "\n")] = '\0';
        load_module(line);
    }
    fclose(list);
    printf("GUEST modules took %ld us\n", now_us() - start);
}

/* Prints "GUEST LABEL <first line of the file>". */
static void report_file(const char *label, const char *path)
{
    char line[256] = "";
    FILE *file = fopen(path, "re");

    if (file && fgets(line, sizeof(line), file))
        line[strcspn(line, "\n")] = '\0';
    if (file)
        fclose(file);
    printf("GUEST %s %s\n", label, line);
}

static void report_filesystems(void)
{
    char line[256];
    FILE *file = fopen("/proc/filesystems", "re");

    while (file && fgets(line, sizeof(line), file)) {
        char *name = strrchr(line, '\t');

        if (!name)
            continue;
        name[strcspn(name, "\n")] = '\0';
        printf("GUEST filesystem %s\n", name + 1);
    }
    if (file)
        fclose(file);
}

/* Waits until the path exists; kernel events say when to look. */
static void report_device(int events, const char *label, const char *path, long deadline_us)
{
    char event[8192];

    while (access(path, F_OK) != 0) {
        long left_ms = (deadline_us - now_us()) / 1000;
        struct pollfd pfd = {.fd = events, .events = POLLIN};

        if (left_ms <= 0) {
            printf("GUEST no %s\n", label);
            return;
        }
        if (poll(&pfd, 1, (int)left_ms) > 0 && recv(events, event, sizeof(event), 0) < 0 &&
            errno != ENOBUFS)
            break;
    }
    printf("GUEST %s\n", label);
}

static int open_events(void)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = 1};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);

    if (fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

int main(void)
{
    long started_us = now_us();
    long deadline_us = started_us + DEADLINE_MS * 1000L;
    struct utsname name;
    int vsock;
    int events;

    /* vm-images/build.sh asks for a version, on the host: nothing may be mounted there. */
    if (getpid() != 1) {
        puts("a test's init");
        return 0;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    mkdir("/proc", 0755);
    mkdir("/sys", 0755);
    if (mount("proc", "/proc", "proc", 0, NULL) != 0 ||
        mount("sysfs", "/sys", "sysfs", 0, NULL) != 0)
        printf("GUEST mount failed: %s\n", strerror(errno));
    uname(&name);
    printf("\nGUEST kernel %s\n", name.release);
    printf("GUEST init after %ld us\n", started_us);
    events = open_events();
    load_modules();
    report_filesystems();
    vsock = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
    printf("GUEST %svsock\n", vsock < 0 ? "no " : "");
    report_device(events, "port", "/sys/class/virtio-ports/vport1p1", deadline_us);
    report_device(events, "disk", "/sys/block/sda", deadline_us);
    report_device(events, "nic", "/sys/class/net/eth0", deadline_us);
    report_device(events, "balloon", "/sys/bus/virtio/drivers/virtio_balloon/virtio0", deadline_us);
    report_device(events, "mem", "/sys/bus/virtio/drivers/virtio_mem/virtio4", deadline_us);
    report_file("rng", "/sys/class/misc/hw_random/rng_current");
    report_file("cpu-possible", "/sys/devices/system/cpu/possible");
    report_file("pressure", "/proc/pressure/memory");
    report_file("cmdline", "/proc/cmdline");
    printf("GUEST done after %ld us\n", now_us());
    sync();
    reboot(RB_POWER_OFF);
    return 1;
}
