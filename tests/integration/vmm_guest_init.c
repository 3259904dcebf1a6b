/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PID 1 of the guest that tests/integration/test_vmm.sh boots, in the place of the agent: it
 * answers the link handshake on the agent's port, and then obeys lines, so that a test can make a
 * guest do what an agent never would. The image's scripts put /modules.list into the initrd.
 *
 *   disks     answers with the addresses of the SCSI disks it sees
 *   lun N     answers with the text at the beginning of that disk, and the error at its second MiB
 *   poweroff  powers off         panic  crashes the kernel        die  ends PID 1
 *   flood     writes much to the console, then answers "done"
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PORT_NAME   "org.casemate.agent.0"
#define PREAMBLE    "CASEMATE-LINK/1 "
#define NONCE_SIZE  32
#define FLOOD_LINES 5000

static void load_module(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
        printf("%s: %s\n", path, strerror(errno));
    if (fd >= 0)
        close(fd);
}

static void load_modules(void)
{
    FILE *list = fopen("/modules.list", "re");
    char line[256];

    while (list != NULL && fgets(line, sizeof(line), list) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        load_module(line);
    }
    if (list != NULL)
        fclose(list);
}

/* The agent's port, or -1 when it is not there (yet). */
static int find_port(void)
{
    DIR *ports = opendir("/sys/class/virtio-ports");
    const struct dirent *entry;
    int port = -1;

    while (ports != NULL && port < 0 && (entry = readdir(ports)) != NULL) {
        char path[600], name[64] = "";
        (void)snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name", entry->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0 && read(fd, name, sizeof(name) - 1) > 0 &&
            strncmp(name, PORT_NAME, strlen(PORT_NAME)) == 0) {
            (void)snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
            port = open(path, O_RDWR | O_CLOEXEC);
        }
        if (fd >= 0)
            close(fd);
    }
    if (ports != NULL)
        closedir(ports);
    return port;
}

/* Devices appear some time after their driver: waits for changes in /dev. */
static int open_port(void)
{
    int watch = inotify_init1(IN_CLOEXEC), port;
    char events[4096];

    inotify_add_watch(watch, "/dev", IN_CREATE);
    while ((port = find_port()) < 0)
        if (read(watch, events, sizeof(events)) < 0)
            break;
    close(watch);
    return port;
}

static void say(int port, const char *text)
{
    size_t n = strlen(text);

    while (n > 0) {
        ssize_t sent = write(port, text, n);
        if (sent <= 0)
            return;
        text += sent;
        n -= (size_t)sent;
    }
}

static void say_disks(int port)
{
    DIR *disks = opendir("/sys/class/scsi_disk");
    const struct dirent *entry;

    while (disks != NULL && (entry = readdir(disks)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        say(port, entry->d_name);
        say(port, " ");
    }
    if (disks != NULL)
        closedir(disks);
    say(port, "\n");
}

/* The disk at a LUN of at least 256, as the kernel shows such; -1: none. */
static int open_lun(unsigned int lun)
{
    DIR *disks = opendir("/sys/class/scsi_disk");
    const struct dirent *entry;
    int fd = -1;

    while (disks != NULL && fd < 0 && (entry = readdir(disks)) != NULL) {
        char path[600];
        const char *last = strrchr(entry->d_name, ':');
        if (last == NULL || strtoul(last + 1, NULL, 10) != (lun | 0x4000u))
            continue;
        (void)snprintf(path, sizeof(path), "/sys/class/scsi_disk/%s/device/block", entry->d_name);
        DIR *names = opendir(path);
        const struct dirent *name;
        while (names != NULL && fd < 0 && (name = readdir(names)) != NULL) {
            (void)snprintf(path, sizeof(path), "/dev/%s", name->d_name);
            if (name->d_name[0] != '.')
                fd = open(path, O_RDONLY | O_CLOEXEC);
        }
        if (names != NULL)
            closedir(names);
    }
    if (disks != NULL)
        closedir(disks);
    return fd;
}

static void say_content(int port, unsigned int lun)
{
    char page[4096] = "", answer[128];
    int fd = open_lun(lun);
    ssize_t n = fd < 0 ? -1 : pread(fd, page, sizeof(page) - 1, 0);
    const char *text = n < 0 ? strerror(errno) : page;
    ssize_t beyond = fd < 0 ? -1 : pread(fd, page + 2048, 2048, 1 << 20);

    (void)snprintf(answer, sizeof(answer), "'%.32s' %s\n", text,
                   beyond < 0 ? strerror(errno) : "readable");
    say(port, answer);
    if (fd >= 0)
        close(fd);
}

static void crash(void)
{
    int fd = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, "c", 1) != 1)
        printf("no sysrq: %s\n", strerror(errno));
}

static void obey(int port, const char *line)
{
    static char answered[NONCE_SIZE + 1];
    const char *preamble = strstr(line, PREAMBLE);

    if (preamble != NULL && strlen(preamble) >= strlen(PREAMBLE) + NONCE_SIZE) {
        const char *nonce = preamble + strlen(PREAMBLE);
        if (strncmp(answered, nonce, NONCE_SIZE) == 0)
            return;
        memcpy(answered, nonce, NONCE_SIZE);
        say(port, "CASEMATE-AGENT/1 ");
        say(port, answered);
        say(port, "\n");
    } else if (strcmp(line, "disks") == 0) {
        say_disks(port);
    } else if (strncmp(line, "lun ", 4) == 0) {
        say_content(port, (unsigned int)strtoul(line + 4, NULL, 10));
    } else if (strcmp(line, "poweroff") == 0) {
        reboot(RB_POWER_OFF);
    } else if (strcmp(line, "panic") == 0) {
        crash();
    } else if (strcmp(line, "die") == 0) {
        exit(3);
    } else if (strcmp(line, "flood") == 0) {
        for (int i = 0; i < FLOOD_LINES; i++)
            printf("flood %d ........................................\n", i);
        say(port, "done\n");
    }
}

/* One connection of the host: until it hangs up. */
static void serve(int port)
{
    char text[4096];
    size_t n = 0;

    for (;;) {
        ssize_t got = read(port, text + n, sizeof(text) - 1 - n);
        if (got <= 0)
            return;
        n += (size_t)got;
        text[n] = '\0';
        char *line = text, *end;
        while ((end = strchr(line, '\n')) != NULL) {
            *end = '\0';
            obey(port, line);
            line = end + 1;
        }
        n = strlen(line);
        memmove(text, line, n + 1);
        if (n == sizeof(text) - 1)
            n = 0;
    }
}

int main(void)
{
    /* vm-images/build.sh asks for a version, on the host: nothing may be mounted there. */
    if (getpid() != 1) {
        puts("a test's init");
        return 0;
    }
    mkdir("/dev", 0755);
    mkdir("/proc", 0755);
    mkdir("/sys", 0755);
    if (mount("devtmpfs", "/dev", "devtmpfs", 0, NULL) < 0 && errno != EBUSY)
        return 1;
    mount("proc", "/proc", "proc", 0, NULL);
    mount("sysfs", "/sys", "sysfs", 0, NULL);
    int console = open("/dev/console", O_RDWR | O_CLOEXEC);
    for (int i = 0; console >= 0 && i < 3; i++)
        dup2(console, i);
    setvbuf(stdout, NULL, _IOLBF, 0);
    load_modules();
    int port = open_port();
    if (port < 0)
        return 1;
    for (;;) {
        /* With no host connected a read returns 0 at once, and poll says hang-up: waits for the
         * next host. */
        struct pollfd p = {.fd = port, .events = POLLIN};
        serve(port);
        while (poll(&p, 1, 10) == 1 && (p.revents & POLLIN) == 0)
            poll(NULL, 0, 10);
    }
}
