#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Pods with a user namespace, read back from inside of their containers: mappings, owners of the image's files, set-id bits
# and file capabilities, what root may there and what not, the network, exec, the daemon's return. The kernel decides
# whether layers are id-mapped or their files' owners changed; what is seen must be the same.
# shellcheck disable=SC2016  # scripts for the shell in a container
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
isolate "$0" "$@"
need jq python3 busybox iptables cc
[ -x /usr/lib/cni/bridge ] || skip "containernetworking-plugins is not installed"
need_tools

mkdir "$work/net.d"
jq -n --arg d "$work/leases" '{cniVersion: "1.0.0", name: "userns", plugins: [{type: "bridge", bridge: "cni0", isGateway: true,
    ipam: {type: "host-local", dataDir: $d, ranges: [[{subnet: "10.88.0.0/16"}]], routes: [{dst: "0.0.0.0/0"}]}}]}' \
    >"$work/net.d/10-userns.conflist"
start_daemon "[guest]" "${GUEST_CONFIG:-}"
touch "$work/crictl.yaml"

# ---- an image with owners, set-id programs, file capabilities, hard links, links out of it, and a layer that hides things
cat >"$work/who.c" <<'END'
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(void)
{
    char line[256];
    FILE *f = fopen("/proc/self/status", "r");
    printf("euid %d egid %d", (int)geteuid(), (int)getegid());
    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        if (strncmp(line, "CapEff:\t", 8) == 0)
            printf(" cap %.16s\n", line + 8);
    }
    return 0;
}
END
cc -static -O1 -o "$work/who" "$work/who.c"
python3 - "$(command -v busybox)" "$work/who" "$work/one.tar" "$work/two.tar" <<'END'
import io, struct, subprocess, sys, tarfile
busybox, who, one, two = sys.argv[1:]
def add(tar, name, data=None, mode=0o644, uid=0, gid=0, kind=None, link="", xattr=None):
    info = tarfile.TarInfo(name)
    info.mode, info.uid, info.gid, info.linkname = mode, uid, gid, link
    if xattr is not None:
        info.pax_headers = {"SCHILY.xattr.security.capability": xattr.decode("utf-8", "surrogateescape")}
    if kind is not None:
        info.type = kind
        tar.addfile(info)
    else:
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
program = open(who, "rb").read()
capability = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)  # revision 2, effective: NET_BIND_SERVICE
with tarfile.open(one, "w", format=tarfile.PAX_FORMAT) as t:
    for d in ("bin", "tmp", "etc", "home", "home/app", "gone", "opaque", "links", "deep"):
        add(t, d, kind=tarfile.DIRTYPE, mode=0o1777 if d == "tmp" else 0o755)
    add(t, "bin/busybox", open(busybox, "rb").read(), 0o755)
    for a in subprocess.run([busybox, "--list"], stdout=subprocess.PIPE, text=True).stdout.split():
        if a != "busybox":
            add(t, "bin/" + a, kind=tarfile.SYMTYPE, link="busybox")
    add(t, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\nfar:x:70000:0::/:/bin/sh\n")
    add(t, "etc/group", b"root:x:0:\napp:x:1000:\nextra:x:2000:app\n")
    add(t, "home/app/own", b"app\n", 0o600, 1000, 1000)
    add(t, "home/app/last", b"last\n", 0o644, 65535, 65535)
    add(t, "home/app/outside", b"outside\n", 0o644, 100005, 200005)
    add(t, "bin/show", program, 0o755)
    add(t, "bin/show-root", program, 0o4755)
    add(t, "bin/show-app", program, 0o6755, 1000, 2000)
    add(t, "bin/show-outside", program, 0o4755, 100000, 0)
    add(t, "bin/show-cap", program, 0o755, xattr=capability)
    add(t, "links/a", b"linked\n", 0o640, 1000, 2000)
    add(t, "links/b", kind=tarfile.LNKTYPE, link="links/a")
    add(t, "links/out", kind=tarfile.SYMTYPE, link="/../../../proc/1", uid=1000, gid=1000)
    add(t, "gone/file", b"gone\n")
    add(t, "opaque/below", b"below\n")
    add(t, "deep/" + "/".join(["d"] * 200), kind=tarfile.DIRTYPE, mode=0o755, uid=1000, gid=1000)
    add(t, "etc/changed", b"one\n", 0o644, 1000, 1000)
with tarfile.open(two, "w", format=tarfile.PAX_FORMAT) as t:
    add(t, "gone/.wh.file", b"")
    add(t, "opaque/.wh..wh..opq", b"")
    add(t, "opaque/above", b"above\n", 0o644, 1000, 1000)
    add(t, "etc/changed", b"two\n", 0o644, 0, 1000)
END
python3 "$repo/scripts/oci-layout.py" --out "$work/layout" --ref test.local/busybox:latest --layer "$work/one.tar" \
    --layer "$work/two.tar" --volume /home/app --volume /newvol --volume /home/app/own-dir >/dev/null
"$bin/casemate" image import "$work/layout" >/dev/null

crictl info | jq -e '.runtimeHandlers | length > 0 and all(.[]; .features.user_namespaces == true)' >/dev/null ||
    fail "the handlers do not say that they have user namespaces"

userns='{uids: [{host_id: 100000, container_id: 0, length: 65536}], gids: [{host_id: 200000, container_id: 0, length: 65536}]}'

change() {
    jq "$2" "$1" >"$work/changed.json"
    mv "$work/changed.json" "$1"
}

n=0
# begin NAME FILTER CMD...: a container in the pod's user namespace whose JSON went through the filter; sets c.
begin() {
    local name=$1 filter=$2
    shift 2
    container_json "$name" "$name.log" "$@" >/dev/null
    change "$work/container-$name.json" ".linux.security_context.namespace_options = {pid: 1, userns_options: $userns} | $filter"
    c=$(crictl create "$pod" "$work/container-$name.json" "$work/pod-p.json")
    crictl start "$c" >/dev/null
    n=$((n + 1))
}
refused() {
    container_json refused refused.log /bin/true >/dev/null
    change "$work/container-refused.json" ".linux.security_context.namespace_options = {pid: 1, userns_options: $userns} | $3"
    local said
    if said=$(crictl create "$pod" "$work/container-refused.json" "$work/pod-p.json" 2>&1); then
        fail "not refused: $3"
    fi
    [[ $said == *"$1"*"$2"* ]] || fail "$3: not refused as $1 '$2': $said"
}
refused_pod() {
    pod_json bad >/dev/null
    change "$work/pod-bad.json" ".linux.security_context.namespace_options.userns_options = $1"
    local said
    if said=$(crictl runp "$work/pod-bad.json" 2>&1); then fail "not refused: $1"; fi
    [[ $said == *InvalidArgument*"$2"* ]] || fail "$1: not refused as '$2': $said"
}
sec() { echo ".linux.security_context += $1"; }

# ---- mappings that cannot be
refused_pod '{mode: 0}' 'uids: 0 mappings'
refused_pod '{mode: 1}' 'userns_options.mode'
refused_pod '{uids: [{host_id: 0, length: 65536}], gids: [{host_id: 1, length: 65536}]}' 'onto root'
refused_pod '{uids: [{host_id: 4294967295, length: 1}], gids: [{host_id: 1, length: 1}]}' 'beyond the last id'

pod_json p >/dev/null
change "$work/pod-p.json" '.hostname = "the-pod" | .linux = {security_context: {privileged: true, namespace_options:
    {pid: 1, userns_options: '"$userns"'}}, sysctls: {"kernel.shm_rmid_forced": "1", "net.ipv4.ip_local_port_range": "40000 50000"}}'
pod=$(crictl runp "$work/pod-p.json")

# ---- who it is, and whose the files are
out self '.' 'for m in uid_map gid_map; do tr -s " " <"/proc/self/$m"; done; id; hostname; readlink /proc/self/ns/user
    cat /proc/self/setgroups; echo "pid $$"; grep -E "^(CapEff|CapBnd)" /proc/self/status | tr -s "\t" " "'
says ' 0 100000 65536'
says ' 0 200000 65536'
says 'uid=0(root) gid=0(root) groups=0(root)'
says the-pod
says 'CapEff: 00000000a80425fb'
says 'CapBnd: 00000000a80425fb'
says 'pid 1'
first_ns=$(grep '^user:' <<<"$out")
out owners '.' 'cd /; stat -c "%u:%g %a %n" / /bin /bin/busybox /bin/sh /tmp /home/app/own /home/app/last /home/app/outside /etc/changed \
    /links/a /links/b /links/out /opaque/above /dev /dev/null /dev/shm /etc/hosts /etc/resolv.conf /etc/hostname \
    /bin/show-root /bin/show-app /bin/show-cap; find /deep -type d -user 1000 | wc -l
    cat /etc/changed /links/b; ls /gone | wc -l; ls /opaque; grep -c the-pod /etc/hosts; cat /etc/hostname
    find / -xdev ! -path /proc ! -path /sys ! -path /home/app/outside ! -name show-outside \( -user 65534 -o -group 65534 \) | sed "s/^/nobody /"'
for line in '0:0 755 /' '0:0 755 /bin' '0:0 755 /bin/busybox' '0:0 777 /bin/sh' '0:0 1777 /tmp' '1000:1000 600 /home/app/own' \
    '65535:65535 644 /home/app/last' '65534:65534 644 /home/app/outside' '0:1000 644 /etc/changed' '1000:2000 640 /links/a' \
    '1000:2000 640 /links/b' '1000:1000 777 /links/out' '1000:1000 644 /opaque/above' '0:0 755 /dev' '0:0 666 /dev/null' \
    '0:0 1777 /dev/shm' '0:0 644 /etc/hosts' '0:0 644 /etc/resolv.conf' '0:0 644 /etc/hostname' '0:0 4755 /bin/show-root' \
    '1000:2000 6755 /bin/show-app' '0:0 755 /bin/show-cap' 1 two linked 0 above the-pod; do
    says "$line"
done
says_not 'nobody '
says_not below

# ---- what can be done with files
out files '.' 'cd /home/app; echo new >made && chown 1000:2000 made && chmod 4711 made && stat -c "%u:%g %a %n" made
    echo more >>own && cat own; rm last && ls; chown 70000 made 2>&1; chown 1000 outside 2>&1; echo x >>/etc/hosts && echo hosts
    mkdir -p /a/b && mv /links /a/b/ && cat /a/b/links/a; mv /opaque /moved && ls /moved; touch /dev/shm/x && echo shm
    mknod /tmp/node c 1 3 2>&1; mknod /tmp/disk b 8 0 2>&1; mkfifo /tmp/fifo && echo fifo; echo x >/dev/null && head -c 2 /dev/zero | wc -c
    echo 1 >/proc/sys/kernel/msgmax; echo 7 >/proc/sys/vm/swappiness; echo 0 >/sys/fs/cgroup/memory.max; echo x >/dev/stdout'
for line in '1000:2000 4711 made' app more linked above hosts shm fifo 2 x \
    'chown: made: Invalid argument' 'chown: outside: Operation not permitted' \
    'mknod: /tmp/node: Operation not permitted' 'mknod: /tmp/disk: Operation not permitted' \
    "/bin/sh: can't create /proc/sys/vm/swappiness: Permission denied"; do
    says "$line"
done
grep -q "can't create /sys/fs/cgroup/memory.max" <<<"$out" || fail "the cgroup can be written: $out"

# ---- the image's volumes
out volumes "$(sec '{run_as_user: {value: 0}, readonly_rootfs: true}')" 'cd /home/app; stat -c "%u:%g %a %n" /newvol own own-dir
    echo x >/newvol/made && stat -c "%u:%g %n" /newvol/made; echo more >>own && cat own; touch /other 2>&1; rm -r /newvol/* && echo end'
for line in '0:0 755 /newvol' '1000:1000 600 own' '0:0 755 own-dir' '0:0 /newvol/made' app more 'touch: /other: Read-only file system' end; do
    says "$line"
done

# ---- programs that change who one is
out setid "$(sec '{run_as_user: {value: 1000}, run_as_group: {value: 1000}}')" \
    'id; show; show-root; show-app; show-outside; show-cap; ls -l /home/app/own | cut -d " " -f 1; cat /home/app/own; echo x >/dev/stdout; cat /etc/hosts >/dev/null && echo hosts'
for line in 'uid=1000(app) gid=1000(app) groups=1000(app),2000(extra)' 'euid 1000 egid 1000 cap 0000000000000000' \
    'euid 0 egid 1000 cap 00000000a80425fb' 'euid 1000 egid 2000 cap 0000000000000000' 'euid 1000 egid 1000 cap 0000000000000400' \
    app hosts x; do
    says "$line"
done
[ "$(grep -c '^euid 1000 egid 1000 cap 0000000000000000$' <<<"$out")" = 2 ] || fail "a set-id file of nobody's: $out"
out names "$(sec '{run_as_username: "app", supplemental_groups: [65535]}')" 'id -u; id -G'
says 1000
says '1000 2000 65535'
refused InvalidArgument run_as_user "$(sec '{run_as_user: {value: 65536}}')"
refused InvalidArgument 'user 70000 is not in the pod' "$(sec '{run_as_username: "far"}')"
refused InvalidArgument 'not as the pod' 'del(.linux.security_context.namespace_options.userns_options)'
refused InvalidArgument 'not as the pod' '.linux.security_context.namespace_options.userns_options.uids[0].length = 1000'
refused InvalidArgument 'pid NODE' '.linux.security_context.namespace_options.pid = 2'

# ---- the same namespace in the next container, and in exec; its own and the pod's pid namespace
begin other ".linux.security_context.namespace_options.pid = 0 | .linux.resources = {oom_score_adj: 321, memory_limit_in_bytes: 67108864}" \
    /bin/sh -c 'touch /dev/shm/of-other; exec sleep 4321'
other=$c
in_other() { crictl exec --sync "$other" "$@"; }
has_shm() { in_other ls /dev/shm/of-other; }
wait_for 30 has_shm
[ "$(in_other readlink /proc/self/ns/user)" = "$first_ns" ] || fail "another user namespace than in the first container"
in_other sh -c 'id -u; tr -s " " </proc/self/uid_map; cat /proc/self/oom_score_adj /sys/fs/cgroup/memory.max; cat /proc/1/comm;
    grep CapEff /proc/self/status | tr -s "\t" " "; echo x >/dev/stdout; touch /made && stat -c %u:%g /made' | grep . >"$work/seen"
printf '%s\n' 0 ' 0 100000 65536' 321 67108864 pause 'CapEff: 00000000a80425fb' x 0:0 | diff - "$work/seen" || fail "exec"
out join '.linux.security_context.namespace_options.pid = 0' 'ps | grep -c "[s]leep 4321"; ls /dev/shm/of-other; kill -0 $(pidof sleep) && echo killable'
says 1
says /dev/shm/of-other
says killable
out target ".linux.security_context.namespace_options += {pid: 3, target_id: \"$other\"}" 'ps | grep -c "[s]leep 4321"'
says 1
out own-ipc '.linux.security_context.namespace_options.ipc = 1' 'ls /dev/shm | wc -l; stat -c "%u:%g %a" /dev/shm'
says 0
says '0:0 1777'
out terminal '.tty = true' 'tty; stat -c "%u" /dev/pts/0; echo hello >/dev/tty; stty size >/dev/null && echo sized'
says $'/dev/pts/0\r'
says $'0\r'
says $'hello\r'
says $'sized\r'
out read-only "$(sec '{readonly_rootfs: true}') | .working_dir = \"/work/here\"" 'touch /x 2>&1; touch /dev/shm/y && echo shm; stat -c "%u %n" .'
says 'touch: /x: Read-only file system'
says shm
says '0 .'
out read-only-paths "$(sec '{readonly_paths: ["/"], masked_paths: ["/dev", "/etc/group"]}')" 'touch /x 2>&1; touch /home/app/own 2>&1; wc -c </etc/group; ls /dev | wc -l'
says 'touch: /x: Read-only file system'
says 'touch: /home/app/own: Read-only file system'
[ "$(grep -cx 0 <<<"$out")" = 2 ] || fail "masked paths: $out"
out masked "$(sec '{masked_paths: ["/proc/version", "/proc/acpi", "/proc/keys"], readonly_paths: ["/proc/sys"], seccomp: {profile_type: 0}}')" \
    'head -c 4 /proc/version | wc -c; cat /proc/keys | wc -c; echo 1 >/proc/sys/kernel/msgmax; grep Seccomp: /proc/self/status | tr -s "\t" " "'
says 0
says '/bin/sh: can'\''t create /proc/sys/kernel/msgmax: Read-only file system'
says 'Seccomp: 2'

# ---- capabilities are those of the namespace
out mounts "$(sec '{capabilities: {add_capabilities: ["SYS_ADMIN"]}}')" 'mkdir -p /m/1 /m/2 /m/3 /m/4 /m/5; mount -t proc proc /m/1 && cat /m/1/1/comm
    mount -t tmpfs tmpfs /m/2 && touch /m/2/x && stat -c %u /m/2/x; mount -t mqueue mqueue /m/3 && echo mqueue; mount -t devpts devpts /m/4 && echo devpts
    mount -t sysfs -o ro,nosuid,nodev,noexec sysfs /m/5 && ls /m/5/class/net; umount /m/2 && echo unmounted; hostname changed && hostname
    mount -o remount,rw /proc/sys 2>&1; mount -t ext4 /dev/sda /m/2 2>&1; unshare -m true && echo unshared'
for line in sh 0 mqueue devpts eth0 lo unmounted changed unshared; do says "$line"; done
[ "$(in_other hostname)" = changed ] || fail "the host name is not the pod's"
in_other sh -c 'cat /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_local_port_range' | grep . >"$work/seen"
printf '%s\n' 1 $'40000\t50000' | diff - "$work/seen" || fail "sysctls"
out nested "$(sec '{capabilities: {add_capabilities: ["SYS_ADMIN"]}}')" 'unshare -p -f -m --mount-proc=/proc sh -c "echo pid \$\$; ls /proc | grep -c ^1$" 2>&1'
says 'pid 1'
out privileged "$(sec '{privileged: true}')" 'grep CapEff /proc/self/status | tr -s "\t" " "; ls /dev/sda /dev/kmsg; head -c 1 /dev/sda 2>&1
    mkdir /sys/fs/cgroup/mine && echo $$ >/sys/fs/cgroup/mine/cgroup.procs && cat /proc/self/cgroup
    echo 1 >/sys/fs/cgroup/pids.max; echo 7 >/proc/sys/vm/swappiness; mknod /tmp/sda b 8 0 2>&1; mount -t tmpfs x /tmp && echo tmpfs; echo c >/proc/sysrq-trigger; date -s 2001-01-01 2>&1 | tail -n 1'
says 'CapEff: 000001ffffffffff'
says /dev/sda
says "head: /dev/sda: Permission denied"
says 0::/mine
grep -q "can't create /sys/fs/cgroup/pids.max" <<<"$out" || fail "a privileged container lifts its limits: $out"
says "/bin/sh: can't create /proc/sys/vm/swappiness: Permission denied"
says 'mknod: /tmp/sda: Operation not permitted'
says tmpfs
says "/bin/sh: can't create /proc/sysrq-trigger: Permission denied"
out devices '.devices = [{host_path: "/dev/fuse", container_path: "/dev/given", permissions: "rw"},
    {host_path: "/dev/net/tun", container_path: "/dev/net/tun", permissions: "rwm"}]' \
    'exec 3<>/dev/given && echo opened; exec 4<>/dev/net/tun && echo tunnel; stat -c %u:%g /dev/given'
says opened
says tunnel
says 0:0

# ---- many files and little memory: the owners' changes are charged to the container
for i in $(seq 110); do
    mkdir -p "$work/many/d$i"
    (cd "$work/many/d$i" && seq 100 | xargs touch)
done
python3 "$repo/scripts/oci-layout.py" --out "$work/many-layout" --ref test.local/many:latest --layer "$work/one.tar" \
    --layer "$work/many" >/dev/null
"$bin/casemate" image import "$work/many-layout" >/dev/null
IMAGE=test.local/many:latest out many '.linux.resources = {memory_limit_in_bytes: 16777216}' \
    'find /d[0-9]* -type f -user 0 -group 0 | wc -l; find /d[0-9]* -user 65534 | wc -l; touch /d1/new && echo new'
says 11000
says 0
says new

# ---- the network is the pod's: its interface, a low port, changes with the capability
ip=$(crictl inspectp "$pod" | jq -r .status.network.ip)
out network "$(sec '{capabilities: {add_capabilities: ["NET_ADMIN"]}}')" 'ip -o -4 addr show dev eth0 | tr -s " " | cut -d " " -f 4; ip route | grep -c ^default
    ping -c 1 -W 10 10.88.0.1 >/dev/null && echo gateway; ip link add d0 type dummy && ip link set d0 up && echo dummy; ip link del d0
    ping -c 1 -W 10 127.0.0.1 >/dev/null && echo loopback'
says "$ip/16"
says 1
says gateway
says dummy
says loopback
begin server '.' /bin/sh -c 'echo served | nc -l -p 80'
answers() { [ "$(busybox nc -w 5 "$ip" 80 </dev/null)" = served ]; }
wait_for 60 answers
"$bin/casemate" stats >/dev/null 2>&1 || true
crictl statsp -o json --id "$pod" | jq -e '.stats[0].linux.network.defaultInterface.name == "eth0" and
    (.stats[0].linux.network.defaultInterface.rxBytes.value | tonumber) > 0' >/dev/null || fail "the interface's figures: $(crictl statsp -o json --id "$pod")"

# ---- a daemon that comes back
kill_daemon
launch_daemon
[ "$(in_other readlink /proc/self/ns/user)" = "$first_ns" ] || fail "exec after the daemon's return"
[ "$(in_other id -u)" = 0 ] || fail "exec's user after the daemon's return"

crictl stopp "$pod" >/dev/null
crictl rmp "$pod" >/dev/null

# ---- one that has no id for the terminals' group
whole=$userns
userns='{uids: [{host_id: 100000, length: 1}], gids: [{host_id: 200000, length: 1}]}'
pod_json p >/dev/null
change "$work/pod-p.json" ".linux = {security_context: {namespace_options: {userns_options: $userns}}}"
pod=$(crictl runp "$work/pod-p.json")
out small '.' 'tr -s " " </proc/self/gid_map; id -u'
says ' 0 200000 1'
out small-terminal '.tty = true' 'tty; stat -c "%u:%g %a" "$(tty)"; echo hello >/dev/tty'
says $'/dev/pts/0\r'
says $'0:0 620\r'
says $'hello\r'
crictl stopp "$pod" >/dev/null
crictl rmp "$pod" >/dev/null
userns=$whole

# ---- a pod without one is as ever
pod_json plain >/dev/null
change "$work/pod-plain.json" '.linux.security_context.namespace_options.userns_options.mode = 2'
pod=$(crictl runp "$work/pod-plain.json")
cp "$work/pod-plain.json" "$work/pod-p.json"
out plain '.linux.security_context.namespace_options.userns_options = {mode: 2}' 'tr -s " " </proc/self/uid_map; stat -c %u:%g /home/app/outside; show-cap'
says ' 0 0 4294967295'
says 100005:200005
refused InvalidArgument 'not as the pod' '.'
crictl stopp "$pod" >/dev/null
crictl rmp "$pod" >/dev/null
[ -z "$(pgrep -a qemu-system || true)" ] || fail "a VM is left"

# ---- a machine made ahead: its card was out of sight, and a container has run in it
stop_daemon
SPARES=1 write_config "[guest]" "${GUEST_CONFIG:-}"
launch_daemon
wait_for 60 spare_is_at_hand
pod_json p >/dev/null
change "$work/pod-p.json" '.linux = {security_context: {namespace_options: {userns_options: '"$userns"'}}}'
pod=$(crictl runp "$work/pod-p.json")
grep -q "pod p is ready (made ahead)" "$work/casemated.log" || fail "no machine that was made ahead was taken"
ip=$(crictl inspectp "$pod" | jq -r .status.network.ip)
out ahead '.linux.security_context.namespace_options.pid = 0' 'tr -s " " </proc/self/uid_map; cat /proc/1/comm; ip -o -4 addr show dev eth0 | tr -s " " | cut -d " " -f 4
    ping -c 1 -W 10 10.88.0.1 >/dev/null && echo gateway; touch /dev/shm/x && echo shm; stat -c %u /etc/hosts /dev/shm; ls /sys/class/net'
for line in ' 0 100000 65536' pause "$ip/16" gateway shm 0 eth0; do says "$line"; done
says_not 65534
echo "user namespaces: $n containers, all as asked"
