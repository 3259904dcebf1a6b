/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. One table per message: a field, a test that says whether the client asked
 * for something that cannot be had, and why it cannot. What is not in a table is honoured
 * (docs/CRI.md lists where) or means nothing where there is no process it could apply to: a pod has
 * no pause container here, so its run_as_user, seccomp and readonly_rootfs apply to nobody.
 */
#include <arpa/inet.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "common/base/cleanup.h"
#include "common/base/numset.h"
#include "common/base/text.h"
#include "host/sandbox/criseccomp.h"
#include "host/sandbox/criuserns.h"
#include "host/sandbox/crivalid.h"
#include "host/sandbox/podfiles.h"

#define MAX_ID          ((int64_t)UINT32_MAX - 1)
#define MAX_DEVICES     64u  /* of a container, in the agent's protocol */
#define MAX_DEVICE_PATH 256u /* likewise */
#define MAX_PAGE_SIZES  8u
#define UNIFIED_CHARS   "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

typedef Runtime__V1__PodSandboxConfig pod_config;
typedef Runtime__V1__ContainerConfig container_config;
typedef Runtime__V1__LinuxContainerResources resources;
typedef Runtime__V1__LinuxSandboxSecurityContext pod_security;
typedef Runtime__V1__LinuxContainerSecurityContext container_security;

/* ---- values that both have ---- */

static bool selinux_asked(const Runtime__V1__SELinuxOption *option)
{
    return option != NULL && (*option->user != '\0' || *option->role != '\0' ||
                              *option->type != '\0' || *option->level != '\0');
}

static int check_namespaces(const Runtime__V1__NamespaceOption *option, const char *where,
                            struct err *err)
{
    if (option == NULL)
        return 0;
    if (option->network == RUNTIME__V1__NAMESPACE_MODE__NODE)
        return err_set(
            err, ERR_UNSUPPORTED,
            "%s.network: NODE: a pod in a virtual machine cannot have the host's network; "
            "run it under another RuntimeClass",
            where);
    if (option->network != RUNTIME__V1__NAMESPACE_MODE__POD)
        return err_set(err, ERR_INVALID, "%s.network: must be POD or NODE", where);
    if (option->ipc == RUNTIME__V1__NAMESPACE_MODE__NODE)
        return err_set(err, ERR_UNSUPPORTED,
                       "%s.ipc: NODE: a pod in a virtual machine cannot have the host's IPC",
                       where);
    if (option->ipc != RUNTIME__V1__NAMESPACE_MODE__POD &&
        option->ipc != RUNTIME__V1__NAMESPACE_MODE__CONTAINER)
        return err_set(err, ERR_INVALID, "%s.ipc: must be POD or NODE", where);
    if (option->pid < RUNTIME__V1__NAMESPACE_MODE__POD ||
        option->pid > RUNTIME__V1__NAMESPACE_MODE__TARGET)
        return err_set(err, ERR_INVALID, "%s.pid: unknown mode %d", where, (int)option->pid);
    if (option->pid == RUNTIME__V1__NAMESPACE_MODE__TARGET && *option->target_id == '\0')
        return err_set(err, ERR_INVALID, "%s.target_id: missing for pid mode TARGET", where);
    return criuserns_check(option, where, err);
}

static int check_id(const Runtime__V1__Int64Value *value, const char *field, struct err *err)
{
    if (value != NULL && (value->value < 0 || value->value > MAX_ID))
        return err_set(err, ERR_INVALID, "%s: %lld is no id", field, (long long)value->value);
    return 0;
}

static int check_groups(const int64_t *groups, size_t n, const char *field, struct err *err)
{
    for (size_t i = 0; i < n; i++) {
        if (groups[i] < 0 || groups[i] > MAX_ID)
            return err_set(err, ERR_INVALID, "%s: %lld is no id", field, (long long)groups[i]);
    }
    return 0;
}

/* ---- resources ---- */

static int check_sets(const resources *r, const char *where, struct err *err)
{
    struct numset set;

    if (numset_parse(r->cpuset_cpus, &set, err) != 0)
        return err_prefix(err, "%s.cpuset_cpus", where);
    if (numset_parse(r->cpuset_mems, &set, err) != 0)
        return err_prefix(err, "%s.cpuset_mems", where);
    return 0;
}

/* "2MB", "1GB": what the kernel calls its sizes. */
static bool is_page_size(const char *text)
{
    size_t digits = strspn(text, "0123456789");

    return digits > 0 && digits <= 4 && strchr("KMG", text[digits]) != NULL &&
           text[digits] != '\0' && strcmp(text + digits + 1, "B") == 0;
}

static int check_hugepages(const resources *r, const char *where, struct err *err)
{
    if (r->n_hugepage_limits > MAX_PAGE_SIZES)
        return err_set(err, ERR_INVALID, "%s.hugepage_limits: more than %u", where, MAX_PAGE_SIZES);
    for (size_t i = 0; i < r->n_hugepage_limits; i++) {
        const Runtime__V1__HugepageLimit *limit = r->hugepage_limits[i];
        if (!is_page_size(limit->page_size))
            return err_set(err, ERR_INVALID,
                           "%s.hugepage_limits[%zu].page_size: '%.32s' is no size such as 2MB",
                           where, i, limit->page_size);
    }
    return 0;
}

/* Which controllers there are, the guest knows. */
static int check_unified(const resources *r, const char *where, struct err *err)
{
    for (size_t i = 0; i < r->n_unified; i++) {
        const char *file = r->unified[i]->key;
        size_t controller = strspn(file, "abcdefghijklmnopqrstuvwxyz");
        if (controller == 0 || file[controller] != '.' || file[strspn(file, UNIFIED_CHARS)] != '\0')
            return err_set(err, ERR_INVALID, "%s.unified: '%.64s' is no file of a controller",
                           where, file);
        if (*r->unified[i]->value == '\0')
            return err_set(err, ERR_INVALID, "%s.unified: nothing for %.64s", where, file);
    }
    return 0;
}

static int check_swap(const resources *r, const char *where, struct err *err)
{
    int64_t both = r->memory_swap_limit_in_bytes;

    if (both < -1)
        return err_set(err, ERR_INVALID,
                       "%s.memory_swap_limit_in_bytes: negative, and not -1 for none", where);
    if (both > 0 && r->memory_limit_in_bytes <= 0)
        return err_set(err, ERR_INVALID,
                       "%s.memory_swap_limit_in_bytes: is that of memory and swap together, and "
                       "needs a memory_limit_in_bytes",
                       where);
    if (both > 0 && both < r->memory_limit_in_bytes)
        return err_set(err, ERR_INVALID,
                       "%s.memory_swap_limit_in_bytes: below memory_limit_in_bytes", where);
    return 0;
}

int crivalid_resources(const resources *r, const char *where, struct err *err)
{
    if (r == NULL)
        return 0;
    if (r->cpu_period < 0)
        return err_set(err, ERR_INVALID, "%s.cpu_period: negative", where);
    if (r->cpu_shares < 0)
        return err_set(err, ERR_INVALID, "%s.cpu_shares: negative", where);
    if (r->memory_limit_in_bytes < -1)
        return err_set(err, ERR_INVALID, "%s.memory_limit_in_bytes: negative, and not -1 for none",
                       where);
    if (r->oom_score_adj < -1000 || r->oom_score_adj > 1000)
        return err_set(err, ERR_INVALID, "%s.oom_score_adj: not -1000 to 1000", where);
    if (check_swap(r, where, err) != 0 || check_sets(r, where, err) != 0 ||
        check_unified(r, where, err) != 0)
        return -1;
    return check_hugepages(r, where, err);
}

/* ---- pods ---- */

static int check_ports(const pod_config *config, struct err *err)
{
    for (size_t i = 0; i < config->n_port_mappings; i++) {
        const Runtime__V1__PortMapping *port = config->port_mappings[i];
        unsigned char address[16];
        int family = strchr(port->host_ip, ':') == NULL ? AF_INET : AF_INET6;
        if (port->protocol < RUNTIME__V1__PROTOCOL__TCP ||
            port->protocol > RUNTIME__V1__PROTOCOL__SCTP)
            return err_set(err, ERR_INVALID, "port_mappings[%zu].protocol: unknown value %d", i,
                           (int)port->protocol);
        if (port->host_port < 0 || port->host_port > UINT16_MAX)
            return err_set(err, ERR_INVALID, "port_mappings[%zu].host_port: %d is no port", i,
                           (int)port->host_port);
        if (port->container_port < (port->host_port != 0) || port->container_port > UINT16_MAX)
            return err_set(err, ERR_INVALID, "port_mappings[%zu].container_port: %d is no port", i,
                           (int)port->container_port);
        if (*port->host_ip != '\0' && inet_pton(family, port->host_ip, address) != 1)
            return err_set(err, ERR_INVALID, "port_mappings[%zu].host_ip: '%s' is no address", i,
                           port->host_ip);
    }
    return 0;
}

static bool pod_windows(const pod_config *config)
{
    return config->windows != NULL;
}

static const pod_security *security_of_pod(const pod_config *config)
{
    return config->linux == NULL ? NULL : config->linux->security_context;
}

static bool pod_selinux(const pod_config *config)
{
    const pod_security *security = security_of_pod(config);

    return security != NULL && selinux_asked(security->selinux_options);
}

static bool pod_apparmor(const pod_config *config)
{
    const pod_security *security = security_of_pod(config);

    return security != NULL && security->apparmor != NULL &&
           security->apparmor->profile_type ==
               RUNTIME__V1__SECURITY_PROFILE__PROFILE_TYPE__Localhost;
}

static const struct {
    const char *field;
    bool (*asked)(const pod_config *config);
    const char *why;
} pod_refusals[] = {
    {"windows", pod_windows, "this is a Linux runtime"},
    {"linux.security_context.selinux_options", pod_selinux,
     "SELinux is not available in the guest"},
    {"linux.security_context.apparmor", pod_apparmor, "AppArmor is not available in the guest"},
};

int crivalid_pod(const pod_config *config, struct err *err)
{
    const Runtime__V1__PodSandboxMetadata *name = config->metadata;
    const pod_security *security = security_of_pod(config);

    if (name == NULL)
        return err_set(err, ERR_INVALID, "metadata is missing");
    if (*name->name == '\0')
        return err_set(err, ERR_INVALID, "metadata.name is missing");
    if (*config->log_directory != '\0' && config->log_directory[0] != '/')
        return err_set(err, ERR_INVALID, "log_directory: '%s' is not an absolute path",
                       config->log_directory);
    if (strlen(config->hostname) > 64)
        return err_set(err, ERR_INVALID, "hostname: longer than 64 bytes");
    if (podfiles_check_dns(config->dns_config, err) != 0)
        return -1;
    for (size_t i = 0; i < ARRAY_SIZE(pod_refusals); i++) {
        if (pod_refusals[i].asked(config))
            return err_set(err, ERR_UNSUPPORTED, "%s: %s", pod_refusals[i].field,
                           pod_refusals[i].why);
    }
    if (check_ports(config, err) != 0)
        return -1;
    if (config->linux != NULL &&
        (crivalid_resources(config->linux->resources, "linux.resources", err) != 0 ||
         crivalid_resources(config->linux->overhead, "linux.overhead", err) != 0))
        return -1;
    if (security == NULL)
        return 0;
    if (security->run_as_group != NULL && security->run_as_user == NULL)
        return err_set(err, ERR_INVALID,
                       "linux.security_context.run_as_group: needs run_as_user as well");
    return check_namespaces(security->namespace_options, "linux.security_context.namespace_options",
                            err);
}

/* ---- containers ---- */

static const container_security *security_of(const container_config *config)
{
    return config->linux == NULL ? NULL : config->linux->security_context;
}

static const resources *resources_of(const container_config *config)
{
    return config->linux == NULL ? NULL : config->linux->resources;
}

static bool has_mounts(const container_config *config)
{
    return config->n_mounts > 0;
}

static bool has_cdi(const container_config *config)
{
    return config->n_cdi_devices > 0;
}

static bool has_windows(const container_config *config)
{
    return config->windows != NULL;
}

static bool has_selinux(const container_config *config)
{
    const container_security *security = security_of(config);

    return security != NULL && selinux_asked(security->selinux_options);
}

/* A privileged container runs without a profile, whatever it asks for. */
static bool has_apparmor(const container_config *config)
{
    const container_security *security = security_of(config);

    if (security == NULL || security->privileged)
        return false;
    /* RuntimeDefault means "the default where AppArmor is enabled", and in the guest it is not. */
    if (security->apparmor != NULL)
        return security->apparmor->profile_type ==
               RUNTIME__V1__SECURITY_PROFILE__PROFILE_TYPE__Localhost;
    return text_has_prefix(security->apparmor_profile, "localhost/");
}

static const struct {
    const char *field;
    bool (*asked)(const container_config *config);
    const char *why;
} container_refusals[] = {
    {"mounts", has_mounts, "volumes are not provided yet"},
    {"CDI_devices", has_cdi, "host devices are not provided"},
    {"windows", has_windows, "this is a Linux runtime"},
    {"linux.security_context.selinux_options", has_selinux,
     "SELinux is not available in the guest"},
    {"linux.security_context.apparmor", has_apparmor, "AppArmor is not available in the guest"},
};

/* Devices that are software, the same in every kernel: the guest's own stands for the node's. */
static bool is_guest_device(const char *path)
{
    static const char *const known[] = {"/dev/null",    "/dev/zero", "/dev/full",   "/dev/random",
                                        "/dev/urandom", "/dev/fuse", "/dev/net/tun"};

    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        if (strcmp(path, known[i]) == 0)
            return true;
    }
    return false;
}

static bool is_below_dev(const char *path)
{
    size_t n = strlen(path);

    return text_has_prefix(path, "/dev/") && n > sizeof("/dev/") - 1 && n < MAX_DEVICE_PATH &&
           strstr(path, "//") == NULL && strstr(path, "/../") == NULL &&
           strcmp(path + n - 3, "/..") != 0;
}

/* Without a "." or a trailing "/": each path then names one place, and each place has one path. */
static bool is_plain_path(const char *path)
{
    size_t n = strlen(path);

    return path[n - 1] != '/' && strstr(path, "/./") == NULL && strcmp(path + n - 2, "/.") != 0;
}

/* What every container has below /dev, and where something else cannot be put. */
static bool is_standard_path(const char *path)
{
    static const char *const names[] = {"null",   "zero", "full", "random", "urandom",
                                        "tty",    "fd",   "core", "stdin",  "stdout",
                                        "stderr", "ptmx", "pts",  "shm",    "mqueue"};
    const char *name = path + sizeof("/dev/") - 1;
    size_t n = strcspn(name, "/");

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (strlen(names[i]) == n && strncmp(names[i], name, n) == 0)
            return true;
    }
    return false;
}

static const char *path_of(const Runtime__V1__Device *device)
{
    return *device->container_path == '\0' ? device->host_path : device->container_path;
}

/* Whether the i-th device is to be where an earlier one already is, and is another. */
static bool is_taken(const container_config *config, size_t i)
{
    const Runtime__V1__Device *device = config->devices[i];

    for (size_t j = 0; j < i; j++) {
        const Runtime__V1__Device *other = config->devices[j];
        if (strcmp(path_of(other), path_of(device)) == 0 &&
            strcmp(other->host_path, device->host_path) != 0)
            return true;
    }
    return false;
}

static int check_device_path(const container_config *config, size_t i, struct err *err)
{
    const char *path = path_of(config->devices[i]);

    if (!is_below_dev(path))
        return err_set(err, ERR_UNSUPPORTED, "devices[%zu].container_path: '%s' is not below /dev",
                       i, path);
    if (!is_plain_path(path))
        return err_set(err, ERR_INVALID, "devices[%zu].container_path: '%s' is no plain path", i,
                       path);
    if (is_standard_path(path) && strcmp(path, config->devices[i]->host_path) != 0)
        return err_set(err, ERR_INVALID,
                       "devices[%zu].container_path: '%s' is what every container has", i, path);
    if (is_taken(config, i))
        return err_set(err, ERR_INVALID,
                       "devices[%zu].container_path: '%s' is another device's already", i, path);
    return 0;
}

static int check_devices(const container_config *config, struct err *err)
{
    if (config->n_devices > MAX_DEVICES)
        return err_set(err, ERR_INVALID, "devices: more than %u", MAX_DEVICES);
    for (size_t i = 0; i < config->n_devices; i++) {
        const Runtime__V1__Device *device = config->devices[i];
        if (!is_guest_device(device->host_path))
            return err_set(err, ERR_UNSUPPORTED,
                           "devices[%zu].host_path: a pod in a virtual machine cannot have the "
                           "node's '%s'",
                           i, device->host_path);
        if (check_device_path(config, i, err) != 0)
            return -1;
        if (strspn(device->permissions, "rwm") != strlen(device->permissions))
            return err_set(err, ERR_INVALID, "devices[%zu].permissions: '%s' is not of \"rwm\"", i,
                           device->permissions);
    }
    return 0;
}

static int check_user(const container_security *security, struct err *err)
{
    bool user = security->run_as_user != NULL;
    bool username = *security->run_as_username != '\0';

    if (user && username)
        return err_set(
            err, ERR_INVALID,
            "linux.security_context: run_as_user and run_as_username exclude each other");
    if (security->run_as_group != NULL && !user && !username)
        return err_set(err, ERR_INVALID,
                       "linux.security_context.run_as_group: needs run_as_user or run_as_username");
    if (username && strchr(security->run_as_username, ':') != NULL)
        return err_set(err, ERR_INVALID, "linux.security_context.run_as_username: has a ':'");
    if (check_id(security->run_as_user, "linux.security_context.run_as_user", err) != 0 ||
        check_id(security->run_as_group, "linux.security_context.run_as_group", err) != 0)
        return -1;
    return check_groups(security->supplemental_groups, security->n_supplemental_groups,
                        "linux.security_context.supplemental_groups", err);
}

static int check_security(const container_security *security, const pod_config *pod,
                          struct err *err)
{
    const pod_security *of_pod = security_of_pod(pod);

    if (security == NULL)
        return criuserns_check_container(NULL, of_pod, err);
    if (security->privileged && (of_pod == NULL || !of_pod->privileged))
        return err_set(err, ERR_INVALID,
                       "linux.security_context.privileged: the pod is not privileged");
    if (security->privileged && security->no_new_privs)
        return err_set(err, ERR_INVALID,
                       "linux.security_context: privileged and no_new_privs exclude each other");
    if (security->supplemental_groups_policy != RUNTIME__V1__SUPPLEMENTAL_GROUPS_POLICY__Merge &&
        security->supplemental_groups_policy != RUNTIME__V1__SUPPLEMENTAL_GROUPS_POLICY__Strict)
        return err_set(err, ERR_INVALID,
                       "linux.security_context.supplemental_groups_policy: unknown value %d",
                       (int)security->supplemental_groups_policy);
    if (check_user(security, err) != 0 || criseccomp_check(security, err) != 0 ||
        check_namespaces(security->namespace_options, "linux.security_context.namespace_options",
                         err) != 0)
        return -1;
    return criuserns_check_container(security, of_pod, err);
}

/* A relative path that stays where it begins. */
static bool stays_below(const char *path)
{
    size_t n = strlen(path);

    return path[0] != '/' && strncmp(path, "../", 3) != 0 && strcmp(path, "..") != 0 &&
           strstr(path, "/../") == NULL && (n < 3 || strcmp(path + n - 3, "/..") != 0) &&
           path[n - 1] != '/';
}

int crivalid_container(const container_config *config, const pod_config *pod, struct err *err)
{
    if (config->metadata == NULL || *config->metadata->name == '\0')
        return err_set(err, ERR_INVALID, "metadata.name is missing");
    if (config->image == NULL || *config->image->image == '\0')
        return err_set(err, ERR_INVALID, "image is missing");
    if (*config->log_path != '\0' && !stays_below(config->log_path))
        return err_set(err, ERR_INVALID, "log_path: '%s' leads out of the pod's log_directory",
                       config->log_path);
    if (config->stop_signal < RUNTIME__V1__SIGNAL__RUNTIME_DEFAULT ||
        config->stop_signal > RUNTIME__V1__SIGNAL__SIGRTMAX)
        return err_set(err, ERR_INVALID, "stop_signal: unknown value %d", (int)config->stop_signal);
    for (size_t i = 0; i < config->n_envs; i++) {
        if (*config->envs[i]->key == '\0' || strchr(config->envs[i]->key, '=') != NULL)
            return err_set(err, ERR_INVALID, "envs[%zu].key: empty or with a '='", i);
    }
    if (*config->working_dir != '\0' && config->working_dir[0] != '/')
        return err_set(err, ERR_INVALID, "working_dir: '%s' is not an absolute path",
                       config->working_dir);
    for (size_t i = 0; i < ARRAY_SIZE(container_refusals); i++) {
        if (container_refusals[i].asked(config))
            return err_set(err, ERR_UNSUPPORTED, "%s: %s", container_refusals[i].field,
                           container_refusals[i].why);
    }
    if (check_devices(config, err) != 0 ||
        crivalid_resources(resources_of(config), "linux.resources", err) != 0)
        return -1;
    return check_security(security_of(config), pod, err);
}

/* ---- what nobody here has heard of ---- */

/* The i-th message that the field holds, or NULL. */
static const ProtobufCMessage *inner_message(const ProtobufCMessage *message,
                                             const ProtobufCFieldDescriptor *field, size_t i)
{
    const void *at = (const char *)message + field->offset;
    size_t n;

    if (field->label != PROTOBUF_C_LABEL_REPEATED)
        return i == 0 ? *(const ProtobufCMessage *const *)at : NULL;
    n = *(const size_t *)(const void *)((const char *)message + field->quantifier_offset);
    return i < n ? (*(const ProtobufCMessage *const *const *)at)[i] : NULL;
}

bool crivalid_has_unknown(const ProtobufCMessage *message, char *ret_text, size_t size)
{
    const ProtobufCMessageDescriptor *descriptor = message->descriptor;
    const ProtobufCMessage *inner;

    if (message->n_unknown_fields > 0) {
        (void)snprintf(ret_text, size, "field %u of %s", message->unknown_fields[0].tag,
                       descriptor->short_name);
        return true;
    }
    for (unsigned f = 0; f < descriptor->n_fields; f++) {
        const ProtobufCFieldDescriptor *field = &descriptor->fields[f];
        if (field->type != PROTOBUF_C_TYPE_MESSAGE)
            continue;
        for (size_t i = 0; (inner = inner_message(message, field, i)) != NULL; i++) {
            if (crivalid_has_unknown(inner, ret_text, size))
                return true;
        }
    }
    return false;
}
