/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which fields are refused, with which code, and by which name; and that everything clients send as
 * a matter of course is accepted. One row a field: a function that asks for it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "common/base/cleanup.h"
#include "host/sandbox/crivalid.h"

/* A pod and a container with every message in place and nothing asked for. */
struct setup {
    Runtime__V1__PodSandboxConfig pod;
    Runtime__V1__PodSandboxMetadata pod_name;
    Runtime__V1__LinuxPodSandboxConfig pod_linux;
    Runtime__V1__LinuxSandboxSecurityContext pod_security;
    Runtime__V1__ContainerConfig config;
    Runtime__V1__ContainerMetadata name;
    Runtime__V1__ImageSpec image;
    Runtime__V1__LinuxContainerConfig linux_;
    Runtime__V1__LinuxContainerSecurityContext security;
    Runtime__V1__LinuxContainerResources resources;
    Runtime__V1__NamespaceOption namespaces;
    Runtime__V1__UserNamespace userns;
    Runtime__V1__IDMapping uids, gids;
    Runtime__V1__IDMapping *uid_list[2], *gid_list[2];
    Runtime__V1__NamespaceOption pod_namespaces;
    Runtime__V1__UserNamespace pod_userns;
    Runtime__V1__SELinuxOption selinux;
    Runtime__V1__SecurityProfile profile;
    Runtime__V1__Int64Value id;
    Runtime__V1__DNSConfig dns;
    Runtime__V1__PortMapping port;
    Runtime__V1__PortMapping *ports[1];
    Runtime__V1__Mount mount;
    Runtime__V1__Mount *mounts[1];
    Runtime__V1__Device device, device_two;
    Runtime__V1__Device *devices[2];
    Runtime__V1__CDIDevice cdi;
    Runtime__V1__CDIDevice *cdis[1];
    Runtime__V1__HugepageLimit hugepages;
    Runtime__V1__HugepageLimit *hugepage_list[1];
    Runtime__V1__LinuxContainerResources__UnifiedEntry unified;
    Runtime__V1__LinuxContainerResources__UnifiedEntry *unified_list[1];
    Runtime__V1__LinuxContainerResources pod_resources;
    Runtime__V1__KeyValue env;
    Runtime__V1__KeyValue *envs[1];
    Runtime__V1__WindowsContainerConfig windows;
    Runtime__V1__WindowsPodSandboxConfig pod_windows;
    int64_t groups[1];
    char text[80];
    char *list[1];
    char climbing[24];
    char cpus[8];
    char size[8];
};

static void set_up(struct setup *s)
{
    memset(s, 0, sizeof(*s));
    runtime__v1__pod_sandbox_config__init(&s->pod);
    runtime__v1__pod_sandbox_metadata__init(&s->pod_name);
    runtime__v1__linux_pod_sandbox_config__init(&s->pod_linux);
    runtime__v1__linux_container_resources__init(&s->pod_resources);
    runtime__v1__linux_container_resources__unified_entry__init(&s->unified);
    runtime__v1__linux_sandbox_security_context__init(&s->pod_security);
    runtime__v1__container_config__init(&s->config);
    runtime__v1__container_metadata__init(&s->name);
    runtime__v1__image_spec__init(&s->image);
    runtime__v1__linux_container_config__init(&s->linux_);
    runtime__v1__linux_container_security_context__init(&s->security);
    runtime__v1__linux_container_resources__init(&s->resources);
    runtime__v1__namespace_option__init(&s->namespaces);
    runtime__v1__user_namespace__init(&s->userns);
    runtime__v1__idmapping__init(&s->uids);
    runtime__v1__idmapping__init(&s->gids);
    runtime__v1__namespace_option__init(&s->pod_namespaces);
    runtime__v1__user_namespace__init(&s->pod_userns);
    s->uids = s->gids = (Runtime__V1__IDMapping){
        .base = s->uids.base, .host_id = 100000, .container_id = 0, .length = 65536};
    s->gids.base = s->uids.base;
    s->uid_list[0] = s->uid_list[1] = &s->uids;
    s->gid_list[0] = s->gid_list[1] = &s->gids;
    runtime__v1__selinux_option__init(&s->selinux);
    runtime__v1__security_profile__init(&s->profile);
    runtime__v1__int64_value__init(&s->id);
    runtime__v1__dnsconfig__init(&s->dns);
    runtime__v1__port_mapping__init(&s->port);
    runtime__v1__mount__init(&s->mount);
    runtime__v1__device__init(&s->device);
    runtime__v1__device__init(&s->device_two);
    runtime__v1__cdidevice__init(&s->cdi);
    runtime__v1__hugepage_limit__init(&s->hugepages);
    runtime__v1__key_value__init(&s->env);
    runtime__v1__windows_container_config__init(&s->windows);
    runtime__v1__windows_pod_sandbox_config__init(&s->pod_windows);
    (void)snprintf(s->text, sizeof(s->text), "text");
    (void)snprintf(s->climbing, sizeof(s->climbing), "/dev/../etc/passwd");
    (void)snprintf(s->cpus, sizeof(s->cpus), "0-1,5");
    (void)snprintf(s->size, sizeof(s->size), "2MB");
    s->hugepages.page_size = s->size;
    s->list[0] = s->text;
    s->ports[0] = &s->port;
    s->mounts[0] = &s->mount;
    s->devices[0] = &s->device;
    s->devices[1] = &s->device_two;
    s->cdis[0] = &s->cdi;
    s->hugepage_list[0] = &s->hugepages;
    s->envs[0] = &s->env;
    s->pod_name.name = s->pod_name.uid = s->pod_name.namespace_ = s->text;
    s->pod.metadata = &s->pod_name;
    s->pod.linux = &s->pod_linux;
    s->pod_linux.security_context = &s->pod_security;
    s->name.name = s->image.image = s->text;
    s->config.metadata = &s->name;
    s->config.image = &s->image;
    s->config.linux = &s->linux_;
    s->linux_.security_context = &s->security;
    s->linux_.resources = &s->resources;
}

struct row {
    const char *field; /* what the message must begin with or contain; NULL: accepted */
    enum err_code code;
    void (*ask)(struct setup *s);
};

#define ASK(name) static void name(struct setup *s)

ASK(nothing)
{
    (void)s;
}

/* ---- pods ---- */
ASK(pod_no_metadata)
{
    s->pod.metadata = NULL;
}
ASK(pod_relative_logs)
{
    s->pod.log_directory = s->text;
}
ASK(pod_empty_dns)
{
    s->pod.dns_config = &s->dns;
}
ASK(pod_dns)
{
    s->dns.servers = s->list;
    s->dns.n_servers = 1;
    s->pod.dns_config = &s->dns;
}
ASK(pod_bad_dns)
{
    static char two_lines[] = "192.0.2.1\nnameserver 192.0.2.2";
    s->list[0] = two_lines;
    pod_dns(s);
}
ASK(pod_port)
{
    s->port.container_port = 80;
    s->pod.port_mappings = s->ports;
    s->pod.n_port_mappings = 1;
}
ASK(pod_host_port)
{
    pod_port(s);
    s->port.host_port = 8080;
}
ASK(pod_large_port)
{
    pod_host_port(s);
    s->port.host_port = 65536;
}
ASK(pod_no_port)
{
    pod_host_port(s);
    s->port.container_port = 0;
}
ASK(pod_odd_protocol)
{
    pod_port(s);
    s->port.protocol = (Runtime__V1__Protocol)3;
}
ASK(pod_odd_ip)
{
    pod_host_port(s);
    s->port.host_ip = s->text;
}
ASK(pod_windows)
{
    s->pod.windows = &s->pod_windows;
}
ASK(pod_empty_selinux)
{
    s->pod_security.selinux_options = &s->selinux;
}
ASK(pod_selinux)
{
    s->selinux.type = s->text;
    s->pod_security.selinux_options = &s->selinux;
}
/* The kubelet sends this with every pod. */
ASK(pod_seccomp_default)
{
    s->pod_security.seccomp = &s->profile;
}
ASK(pod_host_network)
{
    s->namespaces.network = RUNTIME__V1__NAMESPACE_MODE__NODE;
    s->pod_security.namespace_options = &s->namespaces;
}
ASK(pod_host_ipc)
{
    s->namespaces.ipc = RUNTIME__V1__NAMESPACE_MODE__NODE;
    s->pod_security.namespace_options = &s->namespaces;
}
ASK(pod_guest_pid)
{
    s->namespaces.pid = RUNTIME__V1__NAMESPACE_MODE__NODE;
    s->pod_security.namespace_options = &s->namespaces;
}
ASK(pod_bad_network)
{
    s->namespaces.network = RUNTIME__V1__NAMESPACE_MODE__CONTAINER;
    s->pod_security.namespace_options = &s->namespaces;
}
ASK(pod_unmapped_userns)
{
    s->namespaces.userns_options = &s->userns; /* mode POD */
    s->pod_security.namespace_options = &s->namespaces;
}
ASK(pod_no_userns)
{
    s->userns.mode = RUNTIME__V1__NAMESPACE_MODE__NODE;
    pod_unmapped_userns(s);
}
ASK(pod_userns)
{
    pod_unmapped_userns(s);
    s->userns.uids = s->uid_list;
    s->userns.gids = s->gid_list;
    s->userns.n_uids = s->userns.n_gids = 1;
}
ASK(pod_userns_apart)
{
    pod_userns(s);
    s->gids.host_id = 300000;
    s->gids.length = 10;
}
ASK(pod_userns_to_the_end)
{
    pod_userns(s);
    s->uids.host_id = UINT32_MAX - s->uids.length;
}
ASK(pod_userns_beyond)
{
    pod_userns_to_the_end(s);
    s->uids.length++;
}
ASK(pod_userns_overflow)
{
    pod_userns(s);
    s->gids.length = UINT32_MAX;
}
ASK(pod_userns_two)
{
    pod_userns(s);
    s->userns.n_uids = 2;
}
ASK(pod_userns_no_groups)
{
    pod_userns(s);
    s->userns.n_gids = 0;
}
ASK(pod_userns_not_zero)
{
    pod_userns(s);
    s->uids.container_id = 1;
}
ASK(pod_userns_empty)
{
    pod_userns(s);
    s->gids.length = 0;
}
ASK(pod_userns_root)
{
    pod_userns(s);
    s->gids.host_id = 0;
}
ASK(pod_userns_node_mapped)
{
    pod_userns(s);
    s->userns.mode = RUNTIME__V1__NAMESPACE_MODE__NODE;
}
ASK(pod_userns_container)
{
    pod_userns(s);
    s->userns.mode = RUNTIME__V1__NAMESPACE_MODE__CONTAINER;
}
ASK(pod_userns_target)
{
    pod_userns(s);
    s->userns.mode = RUNTIME__V1__NAMESPACE_MODE__TARGET;
}
ASK(pod_userns_guest_pid)
{
    pod_userns(s);
    s->namespaces.pid = RUNTIME__V1__NAMESPACE_MODE__NODE;
}
ASK(pod_group_alone)
{
    s->pod_security.run_as_group = &s->id;
}
ASK(pod_long_hostname)
{
    memset(s->text, 'x', 65);
    s->text[65] = '\0';
    s->pod.hostname = s->text;
}

ASK(pod_negative_memory)
{
    s->pod_linux.resources = &s->pod_resources;
    s->pod_resources.memory_limit_in_bytes = -5;
}
ASK(pod_no_memory_limit)
{
    s->pod_linux.resources = &s->pod_resources;
    s->pod_resources.memory_limit_in_bytes = -1;
}
ASK(pod_negative_overhead)
{
    s->pod_linux.overhead = &s->pod_resources;
    s->pod_resources.cpu_shares = -5;
}

static const struct row pod_rows[] = {
    {NULL, ERR_NONE, nothing},
    {NULL, ERR_NONE, pod_empty_dns},
    {NULL, ERR_NONE, pod_dns},
    {NULL, ERR_NONE, pod_port},
    {NULL, ERR_NONE, pod_host_port},
    {"port_mappings[0].host_port", ERR_INVALID, pod_large_port},
    {"port_mappings[0].container_port", ERR_INVALID, pod_no_port},
    {"port_mappings[0].protocol", ERR_INVALID, pod_odd_protocol},
    {"port_mappings[0].host_ip", ERR_INVALID, pod_odd_ip},
    {NULL, ERR_NONE, pod_empty_selinux},
    {NULL, ERR_NONE, pod_seccomp_default},
    {NULL, ERR_NONE, pod_guest_pid},
    {NULL, ERR_NONE, pod_no_userns},
    {"metadata", ERR_INVALID, pod_no_metadata},
    {"log_directory", ERR_INVALID, pod_relative_logs},
    {"hostname", ERR_INVALID, pod_long_hostname},
    {"namespace_options.network", ERR_INVALID, pod_bad_network},
    {"run_as_group", ERR_INVALID, pod_group_alone},
    {"dns_config", ERR_INVALID, pod_bad_dns},
    {"windows", ERR_UNSUPPORTED, pod_windows},
    {"selinux_options", ERR_UNSUPPORTED, pod_selinux},
    {"namespace_options.network", ERR_UNSUPPORTED, pod_host_network},
    {"namespace_options.ipc", ERR_UNSUPPORTED, pod_host_ipc},
    {NULL, ERR_NONE, pod_no_memory_limit},
    {"linux.resources.memory_limit_in_bytes", ERR_INVALID, pod_negative_memory},
    {"linux.overhead.cpu_shares", ERR_INVALID, pod_negative_overhead},
    {NULL, ERR_NONE, pod_userns},
    {NULL, ERR_NONE, pod_userns_apart},
    {NULL, ERR_NONE, pod_userns_to_the_end},
    {"userns_options.uids: 0 mappings", ERR_INVALID, pod_unmapped_userns},
    {"userns_options.uids: 2 mappings", ERR_INVALID, pod_userns_two},
    {"userns_options.gids: 0 mappings", ERR_INVALID, pod_userns_no_groups},
    {"userns_options.uids: beyond", ERR_INVALID, pod_userns_beyond},
    {"userns_options.gids: beyond", ERR_INVALID, pod_userns_overflow},
    {"userns_options.uids: the container's 0", ERR_INVALID, pod_userns_not_zero},
    {"userns_options.gids: the length", ERR_INVALID, pod_userns_empty},
    {"userns_options.gids: onto root", ERR_INVALID, pod_userns_root},
    {"userns_options: mode NODE", ERR_INVALID, pod_userns_node_mapped},
    {"userns_options.mode", ERR_INVALID, pod_userns_container},
    {"userns_options.mode", ERR_INVALID, pod_userns_target},
    {"pid NODE", ERR_INVALID, pod_userns_guest_pid},
};

/* ---- containers ---- */
ASK(no_metadata)
{
    s->config.metadata = NULL;
}
ASK(no_image)
{
    s->config.image = NULL;
}
ASK(no_linux)
{
    s->config.linux = NULL;
}
ASK(climbing_log)
{
    (void)snprintf(s->text, sizeof(s->text), "a/../../b");
    s->config.log_path = s->text;
}
ASK(absolute_log)
{
    (void)snprintf(s->text, sizeof(s->text), "/b");
    s->config.log_path = s->text;
}
ASK(dotted_log)
{
    (void)snprintf(s->text, sizeof(s->text), "a/..b..");
    s->config.log_path = s->text;
}
ASK(bad_signal)
{
    s->config.stop_signal = (Runtime__V1__Signal)66;
}
ASK(empty_env)
{
    s->config.envs = s->envs;
    s->config.n_envs = 1;
}
ASK(relative_dir)
{
    s->config.working_dir = s->text;
}
ASK(mounts)
{
    s->config.mounts = s->mounts;
    s->config.n_mounts = 1;
}
ASK(devices)
{
    s->config.devices = s->devices;
    s->config.n_devices = 1;
}
ASK(guest_device)
{
    devices(s);
    (void)snprintf(s->text, sizeof(s->text), "/dev/net/tun");
    s->device.host_path = s->device.container_path = s->text;
}
ASK(device_elsewhere)
{
    guest_device(s);
    s->device.container_path = s->list[0] + 4; /* "/net/tun" */
}
ASK(device_climbing)
{
    guest_device(s);
    s->device.container_path = s->climbing;
}
static void put_device_at(struct setup *s, const char *path)
{
    guest_device(s);
    (void)snprintf(s->climbing, sizeof(s->climbing), "%s", path);
    s->device.container_path = s->climbing;
}
ASK(device_slash)
{
    put_device_at(s, "/dev/x/");
}
ASK(device_dot)
{
    put_device_at(s, "/dev/./fd");
}
ASK(device_dot_last)
{
    put_device_at(s, "/dev/x/.");
}
ASK(device_over_link)
{
    put_device_at(s, "/dev/fd");
}
ASK(device_over_null)
{
    put_device_at(s, "/dev/null");
}
ASK(device_over_terminals)
{
    put_device_at(s, "/dev/pts/0");
}
ASK(device_beside_link)
{
    put_device_at(s, "/dev/fd0");
}
ASK(device_null)
{
    put_device_at(s, "/dev/null");
    s->device.host_path = s->climbing;
}
ASK(devices_same)
{
    guest_device(s);
    s->device_two.host_path = s->device_two.container_path = s->text;
    s->config.n_devices = 2;
}
ASK(devices_at_one_place)
{
    guest_device(s);
    (void)snprintf(s->climbing, sizeof(s->climbing), "/dev/fuse");
    s->device_two.host_path = s->climbing;
    s->device_two.container_path = s->text;
    s->config.n_devices = 2;
}
ASK(device_permissions)
{
    guest_device(s);
    s->device.permissions = s->text;
}
ASK(seccomp_default)
{
    s->security.seccomp = &s->profile;
}
ASK(seccomp_relative)
{
    s->profile.profile_type = RUNTIME__V1__SECURITY_PROFILE__PROFILE_TYPE__Localhost;
    s->profile.localhost_ref = s->text;
    s->security.seccomp = &s->profile;
}
ASK(seccomp_unknown)
{
    s->profile.profile_type = (Runtime__V1__SecurityProfile__ProfileType)9;
    s->security.seccomp = &s->profile;
}
ASK(seccomp_legacy)
{
    (void)snprintf(s->text, sizeof(s->text), "runtime/default");
    s->security.seccomp_profile_path = s->text;
}
ASK(seccomp_legacy_bad)
{
    s->security.seccomp_profile_path = s->text;
}
ASK(strict_groups)
{
    s->security.supplemental_groups_policy = RUNTIME__V1__SUPPLEMENTAL_GROUPS_POLICY__Strict;
}
ASK(unknown_policy)
{
    s->security.supplemental_groups_policy = (Runtime__V1__SupplementalGroupsPolicy)2;
}
ASK(oom_score)
{
    s->resources.oom_score_adj = 1000;
}
ASK(oom_score_large)
{
    s->resources.oom_score_adj = 1001;
}
ASK(cdi_devices)
{
    s->config.cdi_devices = s->cdis;
    s->config.n_cdi_devices = 1;
}
ASK(windows)
{
    s->config.windows = &s->windows;
}
ASK(empty_selinux)
{
    s->security.selinux_options = &s->selinux;
}
ASK(selinux)
{
    s->selinux.level = s->text;
    s->security.selinux_options = &s->selinux;
}
ASK(apparmor_default)
{
    s->security.apparmor = &s->profile;
}
ASK(apparmor_profile)
{
    s->profile.profile_type = RUNTIME__V1__SECURITY_PROFILE__PROFILE_TYPE__Localhost;
    s->security.apparmor = &s->profile;
}
ASK(apparmor_legacy)
{
    (void)snprintf(s->text, sizeof(s->text), "localhost/x");
    s->security.apparmor_profile = s->text;
}
ASK(group_alone)
{
    s->security.run_as_group = &s->id;
}
ASK(user_twice)
{
    s->security.run_as_user = &s->id;
    s->security.run_as_username = s->text;
}
ASK(negative_user)
{
    s->id.value = -1;
    s->security.run_as_user = &s->id;
}
ASK(large_group)
{
    s->groups[0] = 4294967295;
    s->security.supplemental_groups = s->groups;
    s->security.n_supplemental_groups = 1;
}
ASK(privileged_alone)
{
    s->security.privileged = true;
}
ASK(privileged)
{
    s->security.privileged = s->pod_security.privileged = true;
}
ASK(host_network)
{
    s->namespaces.network = RUNTIME__V1__NAMESPACE_MODE__NODE;
    s->security.namespace_options = &s->namespaces;
}
ASK(target_of_nobody)
{
    s->namespaces.pid = RUNTIME__V1__NAMESPACE_MODE__TARGET;
    s->security.namespace_options = &s->namespaces;
}
ASK(cpuset)
{
    s->resources.cpuset_cpus = s->cpus;
    s->resources.cpuset_mems = s->cpus;
}
ASK(odd_cpus)
{
    s->resources.cpuset_cpus = s->text;
}
ASK(odd_mems)
{
    s->resources.cpuset_mems = s->text;
}
ASK(no_hugepages)
{
    s->resources.hugepage_limits = s->hugepage_list;
    s->resources.n_hugepage_limits = 1;
}
ASK(hugepages)
{
    no_hugepages(s);
    s->hugepages.limit = 1;
}
ASK(odd_page_size)
{
    no_hugepages(s);
    s->hugepages.page_size = s->text;
}
ASK(negative_memory)
{
    s->resources.memory_limit_in_bytes = -5;
}
ASK(no_memory_limit)
{
    s->resources.memory_limit_in_bytes = -1;
}
ASK(negative_shares)
{
    s->resources.cpu_shares = -1;
}
ASK(negative_period)
{
    s->resources.cpu_period = -1;
}
ASK(little_swap)
{
    s->resources.memory_limit_in_bytes = 100;
    s->resources.memory_swap_limit_in_bytes = 50;
}

ASK(negative_swap)
{
    s->resources.memory_swap_limit_in_bytes = -5;
}

static void set_unified(struct setup *s, const char *file, const char *value)
{
    s->unified.key = (char *)(uintptr_t)file;
    s->unified.value = (char *)(uintptr_t)value;
    s->unified_list[0] = &s->unified;
    s->resources.unified = s->unified_list;
    s->resources.n_unified = 1;
}

ASK(unified)
{
    set_unified(s, "hugetlb.2MB.max", "max");
}
ASK(unified_path)
{
    set_unified(s, "bad/key", "1");
}
ASK(unified_climbing)
{
    set_unified(s, "../cpu.max", "1");
}
ASK(unified_nothing)
{
    set_unified(s, "pids.max", "");
}
ASK(swap_alone)
{
    s->resources.memory_swap_limit_in_bytes = 50;
}

/* A container in the user namespace of its pod. */
ASK(userns)
{
    s->userns.uids = s->pod_userns.uids = s->uid_list;
    s->userns.gids = s->pod_userns.gids = s->gid_list;
    s->userns.n_uids = s->userns.n_gids = s->pod_userns.n_uids = s->pod_userns.n_gids = 1;
    s->namespaces.userns_options = &s->userns;
    s->security.namespace_options = &s->namespaces;
    s->pod_namespaces.userns_options = &s->pod_userns;
    s->pod_security.namespace_options = &s->pod_namespaces;
}
ASK(userns_of_pod_alone)
{
    userns(s);
    s->security.namespace_options = NULL;
}
ASK(userns_no_security)
{
    userns(s);
    s->linux_.security_context = NULL;
}
ASK(userns_of_container_alone)
{
    userns(s);
    s->pod_security.namespace_options = NULL;
}
ASK(userns_other)
{
    userns(s);
    s->gids.host_id++;
    s->pod_userns.gids = s->uid_list;
}
ASK(userns_last_user)
{
    userns(s);
    s->id.value = 65535;
    s->security.run_as_user = s->security.run_as_group = &s->id;
}
ASK(userns_user_beyond)
{
    userns_last_user(s);
    s->uids.length = 65535;
}
ASK(userns_group_beyond)
{
    userns_last_user(s);
    s->gids.length = 65535;
}
ASK(userns_groups_beyond)
{
    userns(s);
    s->groups[0] = 65536;
    s->security.supplemental_groups = s->groups;
    s->security.n_supplemental_groups = 1;
}
ASK(userns_privileged)
{
    userns(s);
    s->security.privileged = s->pod_security.privileged = true;
}

static const struct row container_rows[] = {
    {NULL, ERR_NONE, userns},
    {NULL, ERR_NONE, userns_last_user},
    {NULL, ERR_NONE, userns_privileged},
    {"userns_options: not as the pod's", ERR_INVALID, userns_of_pod_alone},
    {"userns_options: not as the pod's", ERR_INVALID, userns_no_security},
    {"userns_options: not as the pod's", ERR_INVALID, userns_of_container_alone},
    {"userns_options: not as the pod's", ERR_INVALID, userns_other},
    {"run_as_user", ERR_INVALID, userns_user_beyond},
    {"run_as_group", ERR_INVALID, userns_group_beyond},
    {"supplemental_groups", ERR_INVALID, userns_groups_beyond},
    {NULL, ERR_NONE, nothing},
    {NULL, ERR_NONE, no_linux},
    {NULL, ERR_NONE, dotted_log},
    {NULL, ERR_NONE, empty_selinux},
    {NULL, ERR_NONE, apparmor_default},
    {NULL, ERR_NONE, privileged},
    {NULL, ERR_NONE, no_hugepages},
    {NULL, ERR_NONE, hugepages},
    {NULL, ERR_NONE, no_memory_limit},
    {NULL, ERR_NONE, cpuset},
    {NULL, ERR_NONE, guest_device},
    {NULL, ERR_NONE, device_beside_link},
    {NULL, ERR_NONE, device_null},
    {NULL, ERR_NONE, devices_same},
    {NULL, ERR_NONE, seccomp_default},
    {NULL, ERR_NONE, seccomp_legacy},
    {NULL, ERR_NONE, strict_groups},
    {NULL, ERR_NONE, oom_score},
    {"metadata", ERR_INVALID, no_metadata},
    {"image", ERR_INVALID, no_image},
    {"log_path", ERR_INVALID, climbing_log},
    {"log_path", ERR_INVALID, absolute_log},
    {"stop_signal", ERR_INVALID, bad_signal},
    {"envs[0]", ERR_INVALID, empty_env},
    {"working_dir", ERR_INVALID, relative_dir},
    {"run_as_group", ERR_INVALID, group_alone},
    {"run_as_user", ERR_INVALID, user_twice},
    {"run_as_user", ERR_INVALID, negative_user},
    {"supplemental_groups", ERR_INVALID, large_group},
    {"privileged", ERR_INVALID, privileged_alone},
    {"target_id", ERR_INVALID, target_of_nobody},
    {"linux.resources.memory_limit_in_bytes", ERR_INVALID, negative_memory},
    {"linux.resources.cpu_shares", ERR_INVALID, negative_shares},
    {"linux.resources.cpu_period", ERR_INVALID, negative_period},
    {"memory_swap_limit_in_bytes", ERR_INVALID, little_swap},
    {"memory_swap_limit_in_bytes", ERR_INVALID, swap_alone},
    {"memory_swap_limit_in_bytes", ERR_INVALID, negative_swap},
    {NULL, ERR_NONE, unified},
    {"linux.resources.unified: 'bad/key'", ERR_INVALID, unified_path},
    {"linux.resources.unified", ERR_INVALID, unified_climbing},
    {"linux.resources.unified: nothing for pids.max", ERR_INVALID, unified_nothing},
    {"mounts", ERR_UNSUPPORTED, mounts},
    {"devices[0].host_path", ERR_UNSUPPORTED, devices},
    {"devices[0].container_path", ERR_UNSUPPORTED, device_elsewhere},
    {"devices[0].container_path", ERR_UNSUPPORTED, device_climbing},
    {"devices[0].container_path", ERR_INVALID, device_slash},
    {"devices[0].container_path", ERR_INVALID, device_dot},
    {"devices[0].container_path", ERR_INVALID, device_dot_last},
    {"devices[0].container_path", ERR_INVALID, device_over_link},
    {"devices[0].container_path", ERR_INVALID, device_over_null},
    {"devices[0].container_path", ERR_INVALID, device_over_terminals},
    {"devices[1].container_path", ERR_INVALID, devices_at_one_place},
    {"devices[0].permissions", ERR_INVALID, device_permissions},
    {"seccomp.localhost_ref", ERR_INVALID, seccomp_relative},
    {"seccomp.profile_type", ERR_INVALID, seccomp_unknown},
    {"seccomp_profile_path", ERR_INVALID, seccomp_legacy_bad},
    {"supplemental_groups_policy", ERR_INVALID, unknown_policy},
    {"oom_score_adj", ERR_INVALID, oom_score_large},
    {"CDI_devices", ERR_UNSUPPORTED, cdi_devices},
    {"windows", ERR_UNSUPPORTED, windows},
    {"selinux_options", ERR_UNSUPPORTED, selinux},
    {"apparmor", ERR_UNSUPPORTED, apparmor_profile},
    {"apparmor", ERR_UNSUPPORTED, apparmor_legacy},
    {"namespace_options.network", ERR_UNSUPPORTED, host_network},
    {"cpuset_cpus", ERR_INVALID, odd_cpus},
    {"cpuset_mems", ERR_INVALID, odd_mems},
    {"hugepage_limits[0].page_size", ERR_INVALID, odd_page_size},
};

static void expect(const struct row *row, int result, const struct err *err)
{
    if (row->field == NULL) {
        if (result != 0)
            fail_msg("refused: %s", err->msg);
        return;
    }
    assert_int_equal(result, -1);
    if (err->code != row->code || strstr(err->msg, row->field) == NULL)
        fail_msg("wanted %s about %s, got %s: %s", err_code_name(row->code), row->field,
                 err_code_name(err->code), err->msg);
}

static void pods(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(pod_rows); i++) {
        struct setup s;
        struct err err = {0};

        set_up(&s);
        pod_rows[i].ask(&s);
        expect(&pod_rows[i], crivalid_pod(&s.pod, &err), &err);
    }
}

static void containers(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(container_rows); i++) {
        struct setup s;
        struct err err = {0};

        set_up(&s);
        container_rows[i].ask(&s);
        expect(&container_rows[i], crivalid_container(&s.config, &s.pod, &err), &err);
    }
}

/* ContainerConfig { linux (15) { security_context (2) { field 99: 1 } } }, and the same with a
 * field that is known (2: privileged). */
static void unknown_fields(void **state)
{
    static const uint8_t unknown[] = {15 << 3 | 2, 5, 2 << 3 | 2, 3, 0x98, 6, 1};
    static const uint8_t known[] = {15 << 3 | 2, 4, 2 << 3 | 2, 2, 2 << 3, 1};
    Runtime__V1__ContainerConfig *config =
        runtime__v1__container_config__unpack(NULL, sizeof(unknown), unknown);
    char text[80] = "";

    (void)state;
    assert_non_null(config);
    assert_true(crivalid_has_unknown(&config->base, text, sizeof(text)));
    assert_string_equal(text, "field 99 of LinuxContainerSecurityContext");
    runtime__v1__container_config__free_unpacked(config, NULL);
    config = runtime__v1__container_config__unpack(NULL, sizeof(known), known);
    assert_non_null(config);
    assert_true(config->linux->security_context->privileged);
    assert_false(crivalid_has_unknown(&config->base, text, sizeof(text)));
    runtime__v1__container_config__free_unpacked(config, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pods),
        cmocka_unit_test(containers),
        cmocka_unit_test(unknown_fields),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
