/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What becomes of every field of a pod's and a container's configuration. docs/CRI.md is written
 * from this table, and test_crifields.c holds it against the code: against the descriptors of
 * proto/cri (no field may be missing), against crivalid (what is refused, and nothing else), and
 * against crispec (what is said to be in force changes what the guest is asked for; what is said to
 * change nothing does not).
 */
#pragma once

#include <stddef.h>

enum crifield_kind {
    GUEST,   /* in force: part of what the guest is asked for */
    HOST,    /* in force: done on the host, or read together with another field */
    KEPT,    /* kept, given back, filtered by; means nothing to the runtime */
    MOOT,    /* accepted: there is nothing in a pod here that it could apply to */
    REFUSED, /* valid in CRI, not provided: UNIMPLEMENTED, by its path */
    WRONG,   /* contradicts CRI: INVALID_ARGUMENT */
};

/*
 * path: from "pod" or "container"; "[]" after a repeated message; "=NAME" for one value of an
 * enumeration. sample: a value to try out, as text; NULL: 1, "x", or the value after '='. with:
 * assignments "path=value" separated by blanks that have to be there as well.
 */
struct crifield {
    const char *path;
    enum crifield_kind kind;
    const char *note;
    const char *sample;
    const char *with;
};

#define POD_SEC "pod.linux.security_context."
#define SEC     "container.linux.security_context."
#define RES     "container.linux.resources."

/* The mappings of one security context, and of a pod with a container that fits it. */
#define MAPPED(base)                                                                               \
    base "namespace_options.userns_options.uids[].host_id=100000 " base                            \
         "namespace_options.userns_options.uids[].length=65536 " base                              \
         "namespace_options.userns_options.gids[].host_id=100000 " base                            \
         "namespace_options.userns_options.gids[].length=65536 "
#define USERNS MAPPED(POD_SEC) MAPPED(SEC)

static const struct crifield crifields[] = {
    /* ---- the pod ---- */
    {"pod.metadata.name", HOST,
     "with uid, namespace and attempt the pod's name; taken: ALREADY_EXISTS", "x", ""},
    {"pod.metadata.uid", HOST, "as above", "x", ""},
    {"pod.metadata.namespace", HOST, "as above", "x", ""},
    {"pod.metadata.attempt", HOST, "as above", "1", ""},
    {"pod.hostname", HOST,
     "the guest's host name; empty: made from the pod's name; longer than 64 bytes: "
     "INVALID_ARGUMENT",
     "x", ""},
    {"pod.log_directory", HOST, "on the host, absolute; a container's log_path is below it", "/x",
     ""},
    {"pod.dns_config.servers", HOST,
     "the pod's /etc/resolv.conf; none of the three: what the network plugins say, else a copy of "
     "the host's",
     "192.0.2.1", ""},
    {"pod.dns_config.searches", HOST, "as above", "x", ""},
    {"pod.dns_config.options", HOST, "as above", "x", ""},
    {"pod.port_mappings[].protocol", HOST,
     "what the network's plugins with the capability portMappings do of it; without a host port "
     "nothing",
     "1", ""},
    {"pod.port_mappings[].container_port", HOST, "as above", "80", ""},
    {"pod.port_mappings[].host_ip", HOST, "as above", "192.0.2.1", ""},
    {"pod.port_mappings[].host_port", HOST,
     "as above; on a node without a pod network: UNIMPLEMENTED", "80",
     "pod.port_mappings[].container_port=80"},
    {"pod.labels", KEPT, "", NULL, ""},
    {"pod.annotations", HOST,
     "also told to network plugins with the capability io.kubernetes.cri.pod-annotations; "
     "kubernetes.io/ingress-bandwidth and egress-bandwidth, network.casemate.dev/ips and mac are "
     "handed on as capabilities",
     NULL, ""},
    {"pod.linux.cgroup_parent", HOST, "parent of the VM's cgroup on the host", "/x", ""},
    {POD_SEC "namespace_options.network=POD", HOST, "the network of the pod's VM", NULL, ""},
    {POD_SEC "namespace_options.network=CONTAINER", WRONG, "CRI has POD and NODE", NULL, ""},
    {POD_SEC "namespace_options.network=NODE", REFUSED,
     "a virtual machine cannot have the host's network", NULL, ""},
    {POD_SEC "namespace_options.network=TARGET", WRONG, "CRI has POD and NODE", NULL, ""},
    {POD_SEC "namespace_options.pid", HOST,
     "counts per container; POD, CONTAINER and NODE (the VM's processes, never the host's)", "2",
     ""},
    {POD_SEC "namespace_options.ipc=POD", HOST, "the VM's", NULL, ""},
    {POD_SEC "namespace_options.ipc=CONTAINER", HOST, "counts per container", NULL, ""},
    {POD_SEC "namespace_options.ipc=NODE", REFUSED, "a virtual machine cannot have the host's IPC",
     NULL, ""},
    {POD_SEC "namespace_options.ipc=TARGET", WRONG, "CRI has POD and NODE", NULL, ""},
    {POD_SEC "namespace_options.target_id", HOST, "with pid TARGET", "x", ""},
    {POD_SEC "namespace_options.userns_options.mode=POD", HOST,
     "one user namespace for the pod's containers, below the guest's (see below)", NULL, USERNS},
    {POD_SEC "namespace_options.userns_options.mode=CONTAINER", WRONG, "CRI has POD and NODE", NULL,
     ""},
    {POD_SEC "namespace_options.userns_options.mode=NODE", HOST, "no user namespace", NULL, ""},
    {POD_SEC "namespace_options.userns_options.mode=TARGET", WRONG, "CRI has POD and NODE", NULL,
     ""},
    {POD_SEC "namespace_options.userns_options.uids[].host_id", HOST,
     "an id of the guest, not of the node; 0: INVALID_ARGUMENT. One mapping, none with mode NODE",
     "100000", USERNS},
    {POD_SEC "namespace_options.userns_options.uids[].container_id", HOST,
     "0, else INVALID_ARGUMENT", "0", USERNS},
    {POD_SEC "namespace_options.userns_options.uids[].length", HOST,
     "at least 1, and not beyond the last id", "65536", USERNS},
    {POD_SEC "namespace_options.userns_options.gids[].host_id", HOST, "as above; may differ",
     "100000", USERNS},
    {POD_SEC "namespace_options.userns_options.gids[].container_id", HOST, "as above", "0", USERNS},
    {POD_SEC "namespace_options.userns_options.gids[].length", HOST, "as above", "65536", USERNS},
    {POD_SEC "selinux_options.user", REFUSED, "SELinux is not available in the guest", NULL, ""},
    {POD_SEC "selinux_options.role", REFUSED, "as above", NULL, ""},
    {POD_SEC "selinux_options.type", REFUSED, "as above", NULL, ""},
    {POD_SEC "selinux_options.level", REFUSED, "as above", NULL, ""},
    {POD_SEC "run_as_user", MOOT, "a pod has no process of its own; containers say it themselves",
     NULL, ""},
    {POD_SEC "run_as_group", MOOT, "as above; without run_as_user: INVALID_ARGUMENT", NULL,
     POD_SEC "run_as_user=1"},
    {POD_SEC "readonly_rootfs", MOOT, "as above", NULL, ""},
    {POD_SEC "supplemental_groups", MOOT, "as above", NULL, ""},
    {POD_SEC "supplemental_groups_policy", MOOT, "as above", NULL, ""},
    {POD_SEC "privileged", HOST, "its containers may be privileged", NULL, ""},
    {POD_SEC "seccomp.profile_type", MOOT, "as above", NULL, ""},
    {POD_SEC "seccomp.localhost_ref", MOOT, "as above", NULL, ""},
    {POD_SEC "seccomp_profile_path", MOOT, "as above", NULL, ""},
    {POD_SEC "apparmor.profile_type=RuntimeDefault", MOOT,
     "means the default where AppArmor is on, and in the guest it is not", NULL, ""},
    {POD_SEC "apparmor.profile_type=Unconfined", MOOT, "", NULL, ""},
    {POD_SEC "apparmor.profile_type=Localhost", REFUSED, "AppArmor is not available in the guest",
     NULL, ""},
    {POD_SEC "apparmor.localhost_ref", MOOT, "read with Localhost only", NULL, ""},
    {"pod.linux.sysctls", HOST,
     "set in the VM before any container, safe and unsafe alike: the kernel is the pod's own", NULL,
     ""},
    {"pod.linux.overhead", MOOT,
     "what a machine has for itself is configured (memory_mib); the limits of cgroup_parent are "
     "the "
     "kubelet's",
     "1", ""},
    {"pod.linux.resources", HOST,
     "memory limit and CPU quota size the VM, or the sum of its containers' if that is more; "
     "UpdatePodSandboxResources changes them",
     "1", ""},
    {"pod.windows", REFUSED, "this is a Linux runtime", NULL, ""},

    /* ---- a container ---- */
    {"container.metadata.name", HOST, "with attempt unique in the pod", "x", ""},
    {"container.metadata.attempt", HOST, "as above", "1", ""},
    {"container.image.image", HOST, "must be there: creating never pulls", "x", ""},
    {"container.image.annotations", KEPT, "", NULL, ""},
    {"container.image.user_specified_image", KEPT, "", NULL, ""},
    {"container.image.runtime_handler", KEPT, "handlers share one store", NULL, ""},
    {"container.image.image_ref", KEPT, "", NULL, ""},
    {"container.command", GUEST, "replaces the image's entrypoint, and drops its cmd", NULL, ""},
    {"container.args", GUEST, "replaces the image's cmd", NULL, ""},
    {"container.working_dir", GUEST, "absolute; made if missing; empty: the image's", "/x", ""},
    {"container.envs[].key", GUEST, "over the image's, which goes over PATH, TERM and HOSTNAME",
     NULL, ""},
    {"container.envs[].value", GUEST, "as above", NULL, "container.envs[].key=k"},
    {"container.mounts", REFUSED, "volumes are not provided yet", NULL, ""},
    {"container.devices[].host_path", REFUSED,
     "a virtual machine cannot have the node's devices. In force for those that are software and "
     "the same in every kernel, where the guest's own stands in: /dev/null, zero, full, random, "
     "urandom, fuse, net/tun",
     "/dev/sda", ""},
    {"container.devices[].container_path", GUEST,
     "below /dev (else refused), and not where something else is that every container has; only "
     "these and the standard devices can be used (BPF filter)",
     "/dev/x", "container.devices[].host_path=/dev/fuse"},
    {"container.devices[].permissions", GUEST, "of \"rwm\"; empty: all", "r",
     "container.devices[].host_path=/dev/fuse"},
    {"container.labels", KEPT, "", NULL, ""},
    {"container.annotations", KEPT, "", NULL, ""},
    {"container.log_path", HOST, "relative to the pod's log_directory, which it may not leave",
     NULL, ""},
    {"container.stdin", GUEST, "held open by the agent", NULL, ""},
    {"container.stdin_once", GUEST, "", NULL, ""},
    {"container.tty", GUEST, "one terminal for all three; TERM is set", NULL, ""},
    {RES "cpu_period", GUEST, "cpu.max", "50000", ""},
    {RES "cpu_quota", GUEST, "cpu.max; -1: no limit any more", "50000", ""},
    {RES "cpu_shares", GUEST, "cpu.weight", "512", ""},
    {RES "memory_limit_in_bytes", GUEST, "memory.max; -1: no limit any more", "1000000", ""},
    {RES "oom_score_adj", GUEST, "of the process in the guest, -1000 to 1000", NULL, ""},
    {RES "cpuset_cpus", GUEST,
     "cpuset.cpus, of the guest's CPUs, which are numbered from 0; the machine grows to the "
     "highest "
     "number. More than it can have: RESOURCE_EXHAUSTED, with what the guest has",
     "0", ""},
    {RES "cpuset_mems", GUEST, "cpuset.mems: the guest has node 0; others: RESOURCE_EXHAUSTED", "0",
     ""},
    {RES "hugepage_limits[].page_size", GUEST,
     "hugetlb.SIZE.max; a size that the guest does not have is refused, but for a limit of 0",
     "2MB", ""},
    {RES "hugepage_limits[].limit", GUEST,
     "as above; pages are there if sysctl vm.nr_hugepages says so", NULL,
     RES "hugepage_limits[].page_size=2MB"},
    {RES "unified", GUEST,
     "files of cgroup v2, over what the other fields say, also after an update; cpuset.* and "
     "hugetlb.* are refused as "
     "above",
     "pids.max", ""},
    {RES "memory_swap_limit_in_bytes", GUEST,
     "memory.swap.max: what is above the memory limit, without which it is INVALID_ARGUMENT",
     "2000000", RES "memory_limit_in_bytes=1000000"},
    {SEC "capabilities.add_capabilities", GUEST,
     "names with or without CAP_, and ALL; unknown: INVALID_ARGUMENT", "SYS_ADMIN", ""},
    {SEC "capabilities.drop_capabilities", GUEST, "after the additions", "CHOWN", ""},
    {SEC "capabilities.add_ambient_capabilities", GUEST, "in every set", "SYS_ADMIN", ""},
    {SEC "privileged", GUEST,
     "inside the VM: all capabilities, every device of the guest, /sys and cgroups writable, no "
     "seccomp; nothing of the host. The pod must be privileged",
     NULL, POD_SEC "privileged=1"},
    {SEC "namespace_options.network=POD", MOOT, "the pod has one network", NULL, ""},
    {SEC "namespace_options.network=CONTAINER", WRONG, "CRI has POD and NODE", NULL, ""},
    {SEC "namespace_options.network=NODE", REFUSED,
     "a virtual machine cannot have the host's network", NULL, ""},
    {SEC "namespace_options.network=TARGET", WRONG, "CRI has POD and NODE", NULL, ""},
    {SEC "namespace_options.pid=POD", GUEST, "shared by the pod's containers", NULL, ""},
    {SEC "namespace_options.pid=CONTAINER", GUEST, "its own", NULL, ""},
    {SEC "namespace_options.pid=NODE", GUEST, "the VM's processes, never the host's", NULL, ""},
    {SEC "namespace_options.pid=TARGET", GUEST, "those of target_id", NULL,
     SEC "namespace_options.target_id=x"},
    {SEC "namespace_options.ipc=POD", GUEST, "shared by the pod's containers, with its /dev/shm",
     NULL, ""},
    {SEC "namespace_options.ipc=CONTAINER", GUEST, "its own, with a /dev/shm of 64 MiB", NULL, ""},
    {SEC "namespace_options.ipc=NODE", REFUSED, "a virtual machine cannot have the host's IPC",
     NULL, ""},
    {SEC "namespace_options.ipc=TARGET", WRONG, "CRI has POD and NODE", NULL, ""},
    {SEC "namespace_options.target_id", HOST,
     "a container of the pod, with pid TARGET; an id or a prefix of one", "x", ""},
    {SEC "namespace_options.userns_options.mode=POD", HOST,
     "must be as the pod's: else INVALID_ARGUMENT", NULL, USERNS},
    {SEC "namespace_options.userns_options.mode=CONTAINER", WRONG, "CRI has POD and NODE", NULL,
     ""},
    {SEC "namespace_options.userns_options.mode=NODE", MOOT, "no user namespace", NULL, ""},
    {SEC "namespace_options.userns_options.mode=TARGET", WRONG, "CRI has POD and NODE", NULL, ""},
    {SEC "namespace_options.userns_options.uids[].host_id", HOST, "must be as the pod's", "100000",
     USERNS},
    {SEC "namespace_options.userns_options.uids[].container_id", HOST, "as above", "0", USERNS},
    {SEC "namespace_options.userns_options.uids[].length", HOST,
     "as above; run_as_user must be below it", "65536", USERNS},
    {SEC "namespace_options.userns_options.gids[].host_id", HOST, "as above", "100000", USERNS},
    {SEC "namespace_options.userns_options.gids[].container_id", HOST, "as above", "0", USERNS},
    {SEC "namespace_options.userns_options.gids[].length", HOST,
     "as above; all groups must be below it", "65536", USERNS},
    {SEC "selinux_options.user", REFUSED, "SELinux is not available in the guest", NULL, ""},
    {SEC "selinux_options.role", REFUSED, "as above", NULL, ""},
    {SEC "selinux_options.type", REFUSED, "as above", NULL, ""},
    {SEC "selinux_options.level", REFUSED, "as above", NULL, ""},
    {SEC "run_as_user", GUEST, "its groups come from the container's /etc/passwd and /etc/group",
     NULL, ""},
    {SEC "run_as_group", GUEST, "needs a user: else INVALID_ARGUMENT", NULL, SEC "run_as_user=1"},
    {SEC "run_as_username", GUEST, "looked up in the container's /etc/passwd; unknown: NOT_FOUND",
     NULL, ""},
    {SEC "readonly_rootfs", GUEST, "", NULL, ""},
    {SEC "supplemental_groups", GUEST, "", NULL, ""},
    {SEC "supplemental_groups_policy=Merge", GUEST, "with the image's groups of the user", NULL,
     ""},
    {SEC "supplemental_groups_policy=Strict", GUEST, "without them", NULL, ""},
    {SEC "no_new_privs", GUEST, "with privileged: INVALID_ARGUMENT", NULL, ""},
    {SEC "masked_paths", GUEST,
     "exactly these; none with privileged; \"/\", or one through a link of /proc's, is refused",
     "/x", ""},
    {SEC "readonly_paths", GUEST,
     "exactly these, with the mounts below them (\"/\": all); none with privileged; one through a "
     "link of /proc's is refused",
     "/x", ""},
    {SEC "seccomp.profile_type=RuntimeDefault", GUEST, "the built-in allow-list, per capability",
     NULL, ""},
    {SEC "seccomp.profile_type=Unconfined", MOOT, "no filter", NULL, ""},
    {SEC "seccomp.profile_type=Localhost", GUEST, "compiled on the host and sent as BPF", NULL,
     SEC "seccomp.localhost_ref=@profile"},
    {SEC "seccomp.localhost_ref", GUEST,
     "an absolute path on the host, at most 1 MiB of JSON; SCMP_ACT_NOTIFY is refused, and so is a "
     "rule that denies a call whose name libseccomp does not know where the default permits it",
     "@profile", SEC "seccomp.profile_type=2"},
    {SEC "seccomp_profile_path", GUEST, "the older form; counts without seccomp", "runtime/default",
     ""},
    {SEC "apparmor.profile_type=RuntimeDefault", MOOT,
     "means the default where AppArmor is on, and in the guest it is not", NULL, ""},
    {SEC "apparmor.profile_type=Unconfined", MOOT, "", NULL, ""},
    {SEC "apparmor.profile_type=Localhost", REFUSED,
     "AppArmor is not available in the guest (ignored when privileged)", NULL, ""},
    {SEC "apparmor.localhost_ref", MOOT, "read with Localhost only", NULL, ""},
    {SEC "apparmor_profile", REFUSED,
     "the older form: localhost/… is refused, the other values mean nothing", "localhost/x", ""},
    {"container.windows", REFUSED, "this is a Linux runtime", NULL, ""},
    {"container.CDI_devices", REFUSED, "host devices are not provided", NULL, ""},
    {"container.stop_signal", HOST, "over the image's; SIGTERM when neither says", "10", ""},
};
