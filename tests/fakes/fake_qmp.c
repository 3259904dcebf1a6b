/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread reads line by line and answers at once. The rules that the daemon's code must respect
 * are enforced with QEMU's own refusals: no command before qmp_capabilities, add-fd only with a
 * descriptor, blockdev-add only over a set that exists, device_add only over a node that exists,
 * blockdev-del not while a device or a bay uses the node.
 */
#include "tests/fakes/fake_qmp.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>

#define MAX_ITEMS 4096
#define LINE_MAX_ 65536

struct fake_qmp {
    pthread_t thread;
    int fd;
    bool listening;
    pthread_mutex_t lock; /* for what follows */
    pthread_cond_t changed;
    int conn;
    struct fake_qmp_options options;
    bool negotiated;
    bool fdset[MAX_ITEMS];
    char opaque[MAX_ITEMS][64]; /* of the descriptor in it */
    json_t *bays;               /* object: a bay's name → the name of the node in it */
    json_t *nodes;              /* object: node-name → arguments */
    json_t *devices;            /* object: id → arguments */
    json_t *named;              /* object: name of a descriptor → true */
    json_t *netdevs;            /* object: id → arguments */
    json_t *held;               /* array of ids */
    json_t *seen;               /* object: command → count */
};

static void send_all(int fd, const char *bytes, size_t n)
{
    while (n > 0) {
        ssize_t sent = send(fd, bytes, n, MSG_NOSIGNAL);
        if (sent <= 0)
            return;
        bytes += sent;
        n -= (size_t)sent;
    }
}

static void send_json(struct fake_qmp *f, json_t *msg)
{
    char *text = json_dumps(msg, JSON_COMPACT);

    if (text == NULL)
        abort();
    send_all(f->conn, text, strlen(text));
    send_all(f->conn, "\r\n", 2);
    free(text);
    json_decref(msg);
}

static void reply(struct fake_qmp *f, const json_t *id, json_t *value)
{
    send_json(f, json_pack("{s:o, s:O}", "return", value, "id", id));
}

static void refuse(struct fake_qmp *f, const json_t *id, const char *class, const char *desc)
{
    send_json(f, json_pack("{s:{s:s, s:s}, s:O}", "error", "class", class, "desc", desc, "id", id));
}

static void send_deleted(struct fake_qmp *f, const char *device)
{
    json_object_del(f->devices, device);
    send_json(f, json_pack("{s:s, s:{s:s, s:s}, s:{s:i, s:i}}", "event", "DEVICE_DELETED", "data",
                           "device", device, "path", "/machine/peripheral/x", "timestamp",
                           "seconds", 1, "microseconds", 2));
}

static const char *text_of(const json_t *args, const char *name)
{
    const char *text = json_string_value(json_object_get(args, name));

    return text == NULL ? "" : text;
}

/* Each command: NULL when it was done with *ret_value, else the refusal. */
static const char *cmd_add_fd(struct fake_qmp *f, const json_t *args, int fd)
{
    json_int_t set = json_integer_value(json_object_get(args, "fdset-id"));

    if (fd < 0)
        return "No file descriptor supplied via SCM_RIGHTS";
    if (set < 0 || set >= MAX_ITEMS)
        return "Parameter 'fdset-id' expects a non-negative value";
    f->fdset[set] = true;
    (void)snprintf(f->opaque[set], sizeof(f->opaque[set]), "%s", text_of(args, "opaque"));
    return NULL;
}

static const char *cmd_remove_fd(struct fake_qmp *f, const json_t *args)
{
    json_int_t set = json_integer_value(json_object_get(args, "fdset-id"));

    if (set < 0 || set >= MAX_ITEMS || !f->fdset[set])
        return "File descriptor named 'fdset-id' not found";
    f->fdset[set] = false;
    return NULL;
}

static const char *cmd_blockdev_add(struct fake_qmp *f, json_t *args)
{
    const char *path = text_of(args, "filename");
    int set;

    if (path[0] == '\0')
        path = text_of(json_object_get(args, "file"), "filename");

    if (sscanf(path, "/dev/fdset/%d", &set) != 1 || set >= MAX_ITEMS || !f->fdset[set])
        return "Could not open file: No such file or directory";
    if (json_object_get(f->nodes, text_of(args, "node-name")) != NULL)
        return "Duplicate nodes with node-name";
    json_object_set(f->nodes, text_of(args, "node-name"), args);
    return NULL;
}

static const char *cmd_blockdev_del(struct fake_qmp *f, const json_t *args)
{
    const char *node = text_of(args, "node-name"), *id;
    json_t *device;

    if (json_object_get(f->nodes, node) == NULL)
        return "Failed to find node with node-name";
    json_object_foreach(f->devices, id, device)
    {
        if (strcmp(text_of(device, "drive"), node) == 0)
            return "Node is in use";
    }
    json_object_foreach(f->bays, id, device)
    {
        if (strcmp(json_string_value(device), node) == 0)
            return "Node is in use";
    }
    json_object_del(f->nodes, node);
    return NULL;
}

static const char *cmd_blockdev_reopen(struct fake_qmp *f, const json_t *args)
{
    const json_t *options = json_array_get(json_object_get(args, "options"), 0);
    const char *bay = text_of(options, "node-name"), *file = text_of(options, "file");

    if (json_object_get(f->bays, bay) == NULL)
        return "Failed to find node with node-name";
    if (json_object_get(f->nodes, file) == NULL && strstr(file, "-empty") == NULL)
        return "Cannot find device='' nor node-name";
    json_object_set_new(f->bays, bay, json_string(file));
    return NULL;
}

static const char *cmd_getfd(struct fake_qmp *f, const json_t *args, int fd)
{
    if (fd < 0)
        return "No file descriptor supplied via SCM_RIGHTS";
    json_object_set_new(f->named, text_of(args, "fdname"), json_true());
    return NULL;
}

static const char *cmd_closefd(struct fake_qmp *f, const json_t *args)
{
    return json_object_del(f->named, text_of(args, "fdname")) == 0 ? NULL
                                                                   : "File descriptor not found";
}

static const char *cmd_netdev_add(struct fake_qmp *f, json_t *args)
{
    const char *vhost = text_of(args, "vhostfd");

    if (json_object_get(f->netdevs, text_of(args, "id")) != NULL)
        return "Duplicate ID for netdev";
    if (json_object_del(f->named, text_of(args, "fd")) < 0 ||
        (vhost[0] != '\0' && json_object_del(f->named, vhost) < 0))
        return "File descriptor named 'x' has not been found";
    json_object_set(f->netdevs, text_of(args, "id"), args);
    return NULL;
}

static const char *cmd_netdev_del(struct fake_qmp *f, const json_t *args)
{
    return json_object_del(f->netdevs, text_of(args, "id")) == 0 ? NULL : "Device not found";
}

static const char *cmd_device_add(struct fake_qmp *f, json_t *args)
{
    if (strcmp(text_of(args, "driver"), "virtio-net-pci") == 0) {
        if (json_object_get(f->netdevs, text_of(args, "netdev")) == NULL)
            return "Property 'virtio-net-pci.netdev' can't find value";
        json_object_set(f->devices, text_of(args, "id"), args);
        return NULL;
    }
    if (json_object_get(f->nodes, text_of(args, "drive")) == NULL)
        return "Property 'scsi-hd.drive' can't find value";
    if (strlen(text_of(args, "serial")) > 20 && json_object_get(args, "device_id") == NULL)
        return "The serial number can't be longer than 20 characters when it is also used as the "
               "default for device_id"; /* QEMU 10 */
    json_object_set(f->devices, text_of(args, "id"), args);
    return NULL;
}

static json_t *list_nodes(struct fake_qmp *f)
{
    json_t *list = json_array(), *node;
    const char *name;

    json_object_foreach(f->nodes, name, node)
    {
        json_array_append_new(list, json_pack("{s:s, s:b}", "node-name", name, "ro",
                                              json_is_true(json_object_get(node, "read-only"))));
    }
    json_object_foreach(f->bays, name, node)
    {
        const json_t *file = json_object_get(f->nodes, json_string_value(node));
        json_array_append_new(list,
                              json_pack("{s:s, s:b, s:s}", "node-name", name, "ro", 1, "file",
                                        file == NULL ? "null-co://" : text_of(file, "filename")));
    }
    json_array_append_new(list, json_pack("{s:s, s:b}", "node-name", "#block123", "ro", 0));
    return list;
}

static json_t *list_devices(struct fake_qmp *f)
{
    json_t *list = json_array(), *device;
    const char *id;

    json_object_foreach(f->devices, id, device)
    {
        json_array_append_new(list, json_pack("{s:s, s:s}", "name", id, "type", "child<scsi-hd>"));
    }
    json_array_append_new(list, json_pack("{s:s, s:s}", "name", "type", "type", "string"));
    return list;
}

static json_t *list_fdsets(struct fake_qmp *f)
{
    json_t *list = json_array();

    for (int i = 0; i < MAX_ITEMS; i++)
        if (f->fdset[i])
            json_array_append_new(
                list, json_pack("{s:i, s:[{s:s}]}", "fdset-id", i, "fds", "opaque", f->opaque[i]));
    return list;
}

/* The answer of qom-list and all events at once, as if they had been queued together. */
static void vanish(struct fake_qmp *f, const json_t *id)
{
    const char *name;
    const json_t *node;
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);

    if (out == NULL)
        abort();
    (void)fprintf(out, "{\"return\": [], \"id\": %lld}\r\n", (long long)json_integer_value(id));
    json_object_foreach(f->nodes, name, node)
    {
        (void)fprintf(out, "{\"event\": \"DEVICE_DELETED\", \"data\": {\"device\": \"%s\"}}\r\n",
                      name);
    }
    (void)fclose(out);
    json_object_clear(f->devices);
    send_all(f->conn, text, n);
    free(text);
}

/* device_del answers by itself. */
static void device_del(struct fake_qmp *f, const json_t *args, const json_t *id, bool answer)
{
    const char *device = text_of(args, "id");

    if (json_object_get(f->devices, device) == NULL) {
        refuse(f, id, "DeviceNotFound", "Device not found");
        return;
    }
    if (f->options.hold_deletion) {
        size_t i;
        const json_t *held;
        json_array_foreach(f->held, i, held)
        {
            if (strcmp(json_string_value(held), device) == 0) {
                refuse(f, id, "GenericError", "Device is already in the process of unplug");
                return;
            }
        }
        json_array_append_new(f->held, json_string(device));
    }
    if (answer)
        reply(f, id, json_object());
    if (!f->options.hold_deletion)
        send_deleted(f, device);
}

static void execute(struct fake_qmp *f, const char *command, json_t *args, const json_t *id, int fd)
{
    const char *refusal = NULL;
    json_t *value = NULL;
    bool silent = f->options.silent != NULL && strcmp(f->options.silent, command) == 0;

    if (f->options.fail != NULL && strcmp(f->options.fail, command) == 0) {
        refuse(f, id, "GenericError", "told to fail");
        return;
    }
    if (!f->negotiated && strcmp(command, "qmp_capabilities") != 0) {
        refuse(f, id, "CommandNotFound", "Expecting capabilities negotiation");
        return;
    }
    if (strcmp(command, "qmp_capabilities") == 0)
        f->negotiated = true;
    else if (strcmp(command, "query-status") == 0)
        value = json_pack("{s:s, s:b}", "status",
                          f->options.status != NULL ? f->options.status : "running", "running", 1);
    else if (strcmp(command, "add-fd") == 0)
        refusal = cmd_add_fd(f, args, fd);
    else if (strcmp(command, "remove-fd") == 0)
        refusal = cmd_remove_fd(f, args);
    else if (strcmp(command, "blockdev-add") == 0)
        refusal = cmd_blockdev_add(f, args);
    else if (strcmp(command, "blockdev-reopen") == 0)
        refusal = cmd_blockdev_reopen(f, args);
    else if (strcmp(command, "blockdev-del") == 0)
        refusal = cmd_blockdev_del(f, args);
    else if (strcmp(command, "getfd") == 0)
        refusal = cmd_getfd(f, args, fd);
    else if (strcmp(command, "closefd") == 0)
        refusal = cmd_closefd(f, args);
    else if (strcmp(command, "netdev_add") == 0)
        refusal = cmd_netdev_add(f, args);
    else if (strcmp(command, "netdev_del") == 0)
        refusal = cmd_netdev_del(f, args);
    else if (strcmp(command, "device_add") == 0)
        refusal = cmd_device_add(f, args);
    else if (strcmp(command, "query-named-block-nodes") == 0)
        value = list_nodes(f);
    else if (strcmp(command, "qom-list") == 0 && f->options.vanishing) {
        vanish(f, id);
        return;
    } else if (strcmp(command, "qom-list") == 0)
        value = list_devices(f);
    else if (strcmp(command, "query-fdsets") == 0)
        value = list_fdsets(f);
    else if (strcmp(command, "qom-get") == 0)
        value = json_string(text_of(
            json_object_get(f->devices, strrchr(text_of(args, "path"), '/') + 1), "serial"));
    else if (strcmp(command, "ringbuf-read") == 0 && f->options.console != NULL)
        value = json_string(f->options.console);
    else if (strcmp(command, "quit") == 0)
        value = json_object();
    else if (strcmp(command, "device_del") == 0) {
        device_del(f, args, id, !silent);
        return;
    } else {
        refuse(f, id, "CommandNotFound", "The command has not been found");
        return;
    }
    if (silent)
        json_decref(value);
    else if (refusal != NULL)
        refuse(f, id, "GenericError", refusal);
    else
        reply(f, id, value != NULL ? value : json_object());
}

static void handle_line(struct fake_qmp *f, const char *line, int fd)
{
    json_t *msg = json_loads(line, 0, NULL);
    const char *command = json_string_value(json_object_get(msg, "execute"));

    if (command == NULL)
        abort();
    pthread_mutex_lock(&f->lock);
    json_int_t n = json_integer_value(json_object_get(f->seen, command));
    json_object_set_new(f->seen, command, json_integer(n + 1));
    execute(f, command, json_object_get(msg, "arguments"), json_object_get(msg, "id"), fd);
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    json_decref(msg);
}

static ssize_t receive(int conn, char *bytes, size_t n, int *fd)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = bytes, .iov_len = n};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.space,
                         .msg_controllen = sizeof(control.space)};
    ssize_t got = recvmsg(conn, &msg, MSG_CMSG_CLOEXEC);
    const struct cmsghdr *cmsg = got < 0 ? NULL : CMSG_FIRSTHDR(&msg);

    if (cmsg != NULL && cmsg->cmsg_type == SCM_RIGHTS) {
        /* As QEMU: what came before and was not used is dropped. */
        if (*fd >= 0)
            close(*fd);
        memcpy(fd, CMSG_DATA(cmsg), sizeof(*fd));
    }
    return got;
}

static void serve(struct fake_qmp *f)
{
    static const char greeting[] =
        "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, "
        "\"package\": \"fake\"}, \"capabilities\": [\"oob\"]}}\r\n";
    static const char other[] = "{\"hello\": \"I am not QEMU\"}\r\n";
    char *line = calloc(1, LINE_MAX_);
    size_t n = 0;
    int fd = -1;

    if (line == NULL)
        abort();
    if (f->options.no_greeting)
        send_all(f->conn, other, sizeof(other) - 1);
    else
        send_all(f->conn, greeting, sizeof(greeting) - 1);
    while (n + 1 < LINE_MAX_) {
        if (receive(f->conn, line + n, 1, &fd) != 1)
            break;
        if (line[n++] != '\n')
            continue;
        line[n] = '\0';
        handle_line(f, line, fd);
        if (fd >= 0)
            close(fd);
        fd = -1;
        n = 0;
    }
    if (fd >= 0)
        close(fd);
    free(line);
}

static void *run(void *arg)
{
    struct fake_qmp *f = arg;
    int conn = f->fd;

    if (f->listening)
        conn = accept4(f->fd, NULL, NULL, SOCK_CLOEXEC);
    pthread_mutex_lock(&f->lock);
    f->conn = conn;
    pthread_mutex_unlock(&f->lock);
    if (conn >= 0)
        serve(f);
    shutdown(conn, SHUT_RDWR);
    return NULL;
}

struct fake_qmp *fake_qmp_start(int fd, bool listening, const struct fake_qmp_options *options)
{
    struct fake_qmp *f = calloc(1, sizeof(*f));

    if (f == NULL)
        abort();
    f->fd = fd;
    f->conn = listening ? -1 : fd;
    f->listening = listening;
    if (options != NULL)
        f->options = *options;
    f->nodes = json_object();
    f->bays = json_object();
    f->devices = json_object();
    f->named = json_object();
    f->netdevs = json_object();
    f->held = json_array();
    f->seen = json_object();
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->changed, NULL);
    if (pthread_create(&f->thread, NULL, run, f) != 0)
        abort();
    return f;
}

void fake_qmp_hang_up(struct fake_qmp *f)
{
    pthread_mutex_lock(&f->lock);
    shutdown(f->fd, SHUT_RDWR);
    if (f->conn >= 0)
        shutdown(f->conn, SHUT_RDWR);
    pthread_mutex_unlock(&f->lock);
}

void fake_qmp_stop(struct fake_qmp *f)
{
    fake_qmp_hang_up(f);
    pthread_join(f->thread, NULL);
    if (f->conn != f->fd && f->conn >= 0)
        close(f->conn);
    close(f->fd);
    json_decref(f->nodes);
    json_decref(f->bays);
    json_decref(f->devices);
    json_decref(f->named);
    json_decref(f->netdevs);
    json_decref(f->held);
    json_decref(f->seen);
    pthread_cond_destroy(&f->changed);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

void fake_qmp_plant(struct fake_qmp *f, unsigned int lun, int depth, const char *serial)
{
    char name[16];

    (void)snprintf(name, sizeof(name), "disk%u", lun);
    pthread_mutex_lock(&f->lock);
    f->fdset[lun + 1] = true;
    if (depth > 1)
        json_object_set_new(f->nodes, name, json_pack("{s:b}", "read-only", 1));
    if (depth > 2)
        json_object_set_new(f->devices, name,
                            json_pack("{s:s, s:s}", "drive", name, "serial", serial));
    pthread_mutex_unlock(&f->lock);
}

void fake_qmp_plant_bays(struct fake_qmp *f, unsigned int n)
{
    char bay[16], empty[24];

    pthread_mutex_lock(&f->lock);
    for (unsigned int i = 0; i < n; i++) {
        (void)snprintf(bay, sizeof(bay), "bay%u", i);
        (void)snprintf(empty, sizeof(empty), "%s-empty", bay);
        json_object_set_new(f->bays, bay, json_string(empty));
    }
    pthread_mutex_unlock(&f->lock);
}

void fake_qmp_plant_in_bay(struct fake_qmp *f, unsigned int index, unsigned int set, int depth,
                           const char *serial)
{
    char bay[16], file[24], path[32];

    (void)snprintf(bay, sizeof(bay), "bay%u", index);
    (void)snprintf(file, sizeof(file), "%s-file", bay);
    (void)snprintf(path, sizeof(path), "/dev/fdset/%u", set);
    pthread_mutex_lock(&f->lock);
    f->fdset[set] = true;
    (void)snprintf(f->opaque[set], sizeof(f->opaque[set]), "%s", serial);
    if (depth > 1)
        json_object_set_new(f->nodes, file,
                            json_pack("{s:b, s:s}", "read-only", 1, "filename", path));
    if (depth > 2)
        json_object_set_new(f->bays, bay, json_string(file));
    pthread_mutex_unlock(&f->lock);
}

void fake_qmp_plant_nic(struct fake_qmp *f, unsigned int index, bool device)
{
    char nic[16], net[16];

    (void)snprintf(nic, sizeof(nic), "nic%u", index);
    (void)snprintf(net, sizeof(net), "net%u", index);
    pthread_mutex_lock(&f->lock);
    json_object_set_new(f->netdevs, net, json_object());
    if (device)
        json_object_set_new(f->devices, nic, json_pack("{s:s}", "netdev", net));
    pthread_mutex_unlock(&f->lock);
}

void fake_qmp_set(struct fake_qmp *f, const struct fake_qmp_options *options)
{
    pthread_mutex_lock(&f->lock);
    f->options = *options;
    pthread_mutex_unlock(&f->lock);
}

void fake_qmp_release(struct fake_qmp *f)
{
    size_t i;
    const json_t *held;

    pthread_mutex_lock(&f->lock);
    json_array_foreach(f->held, i, held)
    {
        send_deleted(f, json_string_value(held));
    }
    json_array_clear(f->held);
    pthread_mutex_unlock(&f->lock);
}

void fake_qmp_say(struct fake_qmp *f, const char *bytes, size_t n)
{
    pthread_mutex_lock(&f->lock);
    send_all(f->conn, bytes, n);
    pthread_mutex_unlock(&f->lock);
}

size_t fake_qmp_fdsets(struct fake_qmp *f)
{
    size_t n = 0;

    pthread_mutex_lock(&f->lock);
    for (int i = 0; i < MAX_ITEMS; i++)
        n += f->fdset[i];
    pthread_mutex_unlock(&f->lock);
    return n;
}

static size_t size_of(struct fake_qmp *f, const json_t *object)
{
    pthread_mutex_lock(&f->lock);
    size_t n = json_object_size(object);
    pthread_mutex_unlock(&f->lock);
    return n;
}

size_t fake_qmp_nodes(struct fake_qmp *f)
{
    return size_of(f, f->nodes);
}

size_t fake_qmp_devices(struct fake_qmp *f)
{
    return size_of(f, f->devices);
}

size_t fake_qmp_netdevs(struct fake_qmp *f)
{
    return size_of(f, f->netdevs);
}

size_t fake_qmp_named_fds(struct fake_qmp *f)
{
    return size_of(f, f->named);
}

size_t fake_qmp_count(struct fake_qmp *f, const char *command)
{
    pthread_mutex_lock(&f->lock);
    size_t n = (size_t)json_integer_value(json_object_get(f->seen, command));
    pthread_mutex_unlock(&f->lock);
    return n;
}

void fake_qmp_wait_for(struct fake_qmp *f, const char *command, size_t n)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 20;
    pthread_mutex_lock(&f->lock);
    while ((size_t)json_integer_value(json_object_get(f->seen, command)) < n) {
        if (pthread_cond_timedwait(&f->changed, &f->lock, &until) != 0) {
            fprintf(stderr, "fake QEMU: %s did not come %zu times\n", command, n);
            abort();
        }
    }
    pthread_mutex_unlock(&f->lock);
}
