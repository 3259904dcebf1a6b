#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What a container's fields come to, read back from inside of it: /proc/self/status, cgroup files, mountinfo, and what can
# and cannot be done. One pod, many short containers; docs/CRI.md is the list of fields.
# shellcheck disable=SC2016  # scripts for the shell in a container
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
isolate "$0" "$@"
need jq python3 busybox iptables
need_tools
start_daemon '[guest]'
touch "$work/crictl.yaml"

# An image with users, groups, an environment and a stop signal of its own.
busybox_image test.local/base:latest
root=$work/busybox-rootfs
mkdir -p "$root/home/app"
printf 'root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n77:x:0:0::/root:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\napp:x:1000:\nextra:x:2000:app\nother:x:3000:\n' >"$root/etc/group"
# iptables with its libraries: what a sidecar's init container brings.
tables=$(readlink -f "$(command -v iptables)")
ldd "$tables" | grep -o '/[^ ]*' >"$work/libraries"
find /usr/lib/*/xtables -name '*.so' >>"$work/libraries"
while read -r file; do
    mkdir -p "$root${file%/*}"
    cp -L "$file" "$root$file"
done < <(echo "$tables" && cat "$work/libraries")
ln -s "$tables" "$root/bin/iptables"
"${CC:-cc}" -O1 -static -o "$root/bin/huge_pages" "$repo/tests/integration/huge_pages.c"
python3 "$repo/scripts/oci-layout.py" --out "$work/layout" --ref test.local/busybox:latest --layer "$root" --env A=image \
    --env B=image --user app --workdir /home/app --stop-signal USR1 --entrypoint '["/bin/sh", "-c"]' \
    --cmd '["id -u; echo $A $B"]' >/dev/null
"$bin/casemate" image import "$work/layout" >/dev/null
mkdir -p "$work/link/etc"
ln -s /dev/null "$work/link/etc/hostname"
python3 "$repo/scripts/oci-layout.py" --out "$work/linked" --ref test.local/linked:latest --layer "$root" --layer "$work/link" \
    >/dev/null
"$bin/casemate" image import "$work/linked" >/dev/null

# One with volumes: with contents, over nothing, in one another, over what the pod brings, by way of links, and in places that
# are the runtime's.
mkdir -p "$root/data/sub" "$root/real"
echo from-the-image >"$root/data/file"
chmod 1777 "$root/data"
chmod 666 "$root/data/file"
"$root/bin/busybox" ln "$root/data/file" "$root/data/sub/same"
ln -s /real "$root/alias"
ln -s ../../.. "$root/real/top"
ln -s /dev "$root/devices"
python3 "$repo/scripts/oci-layout.py" --out "$work/layout-volumes" --ref test.local/volumes:latest --layer "$root" --volume /newvol \
    --volume /data --volume /data/sub/ --volume //deep/./er/../new --volume /etc --volume alias/x --volume /alias/top \
    --volume /devices --volume / --volume /proc/acpi --volume /sys/fs/cgroup --volume /dev/shm --volume /tmp/../data >/dev/null
"$bin/casemate" image import "$work/layout-volumes" >/dev/null

n=0
# change NAME FILTER: the container's JSON, run through jq.
change() {
    jq "$2" "$work/container-$1.json" >"$work/changed.json"
    mv "$work/changed.json" "$work/container-$1.json"
}

# begin NAME FILTER [CMD...]: makes and starts a container whose JSON went through the jq filter; sets c.
begin() {
    local name=$1 filter=$2
    shift 2
    container_json "$name" "$name.log" "$@" >/dev/null
    change "$name" "$filter"
    c=$(crictl create "$pod" "$work/container-$name.json" "$work/pod-p.json")
    crictl start "$c" >/dev/null
    n=$((n + 1))
}

# refused CODE WORDS FILTER: creating it fails with that code and says these words.
refused() {
    container_json refused refused.log /bin/true >/dev/null
    change refused "$3"
    local said
    if said=$(crictl create "$pod" "$work/container-refused.json" "$work/pod-p.json" 2>&1); then
        fail "not refused: $3"
    fi
    [[ $said == *"$1"*"$2"* ]] || fail "$3: not refused as $1 '$2': $said"
}

sec() { echo ".linux.security_context = $1"; }
res() { echo ".linux.resources = $1"; }
status='grep -E "^(Cap...|NoNewPrivs|Seccomp|Uid|Gid|Groups):" /proc/self/status | tr -s "\t " " "'

pod_json p >/dev/null
jq '.hostname = "the-pod" | .linux = {security_context: {privileged: true}, sysctls: {"kernel.shm_rmid_forced": "1",
    "net.ipv4.ip_local_port_range": "40000 50000", "kernel.msgmax": "8192", "vm.overcommit_memory": "1", "vm.nr_hugepages": "4"}}' \
    "$work/pod-p.json" >"$work/changed.json"
mv "$work/changed.json" "$work/pod-p.json"
pod=$(crictl runp "$work/pod-p.json")

# ---- sets of the guest's CPUs: the machine has one, grows to the number that is named, and no further than the host. First
# of all, since an emulated machine that has run much may have no room for another vCPU's code (host/vmm/resize.c).
show='cd /sys/fs/cgroup; for f in cpuset.cpus cpuset.cpus.effective cpuset.mems; do echo "$f $(cat $f)"; done; grep Cpus_allowed_list /proc/self/status | tr "\t" " "'
out cpus "$(res '{cpuset_cpus: "0", cpuset_mems: "0"}')" "$show"
says 'cpuset.cpus 0'
says 'cpuset.cpus.effective 0'
says 'cpuset.mems 0'
says 'Cpus_allowed_list: 0'
crictl inspect "$c" | jq -e '.status.resources.linux | .cpusetCpus == "0" and .cpusetMems == "0"' >/dev/null || fail "a set in the status"
host_cpus=$(nproc --all)
if [ "$host_cpus" -gt 1 ]; then
    out cpus-more "$(res '{cpuset_cpus: "1"}')" "$show; nproc"
    says 'cpuset.cpus.effective 1'
    says 'Cpus_allowed_list: 1'
    says 1
    begin cpus-update '.' /bin/sleep 1000
    crictl update --cpuset-cpus 1 --cpuset-mems 0 "$c" >/dev/null
    crictl exec --sync "$c" cat /sys/fs/cgroup/cpuset.cpus /sys/fs/cgroup/cpuset.mems | tr '\n' ' ' | has '^1 0 ' || fail "an update of the set"
    crictl update --cpu-share 512 "$c" >/dev/null
    crictl inspect "$c" | jq -e '.status.resources.linux.cpusetCpus == "1"' >/dev/null || fail "the set after another update"
    if said=$(crictl update --cpuset-cpus "0-$host_cpus" "$c" 2>&1); then fail "more CPUs than the host has"; fi
    [[ $said == *ResourceExhausted*"cpuset.cpus 0-$host_cpus: the guest has 0-"* ]] || fail "not by name: $said"
    [ "$(crictl exec --sync "$c" cat /sys/fs/cgroup/cpuset.cpus)" = 1 ] || fail "the set after a refusal"
fi
out cpus-unified "$(res '{cpuset_cpus: "0", unified: {"cpuset.mems": "0", "cpuset.cpus": "0"}}')" "$show"
says 'cpuset.cpus 0'
says 'cpuset.mems 0'
refused ResourceExhausted 'cpuset.cpus 1000: the guest has 0' "$(res '{cpuset_cpus: "1000"}')"
refused ResourceExhausted 'cpuset.cpus 1000: the guest has 0' "$(res '{unified: {"cpuset.cpus": "1000"}}')"
refused ResourceExhausted 'cpuset.mems 1: the guest has 0' "$(res '{cpuset_mems: "1"}')"
refused InvalidArgument linux.resources.cpuset_cpus "$(res '{cpuset_cpus: "zero"}')"

# ---- the process
out image 'del(.command)' ''
says 1000
says 'image image'
out process '.working_dir = "/made/here" | .envs = [{key: "A", value: "cri"}, {key: "C", value: ""}]' \
    'pwd; echo "$A $B-$C-$HOSTNAME-$HOME"; hostname; tty; echo "$TERM"; cat; umask; ulimit -n; ulimit -Hn; echo end'
says /made/here
says 'cri image--the-pod-/home/app'
says the-pod
says 'not a tty'
says 0022
says 1048576
says end
out home '.envs = [{key: "HOME", value: ""}]' 'env | grep "^HOME" | tr "\n" ,; echo; ulimit -u; cat /proc/sys/kernel/threads-max'
says 'HOME=/home/app,'
says unlimited
says 4194304
out terminal '.tty = true' 'tty; echo "$TERM"; stty size'
says $'/dev/pts/0\r'
says $'xterm\r'
begin stdin '.stdin = true' /bin/cat
crictl inspect "$c" | jq -e '.status.state == "CONTAINER_RUNNING"' >/dev/null || fail "stdin: cat has ended"
crictl stop -t 0 "$c" >/dev/null
begin signal '.' /bin/sh -c 'trap "exit 7" USR1; echo ready; while :; do sleep 0.1; done'
has_ready() { crictl logs "$c" 2>&1 | has ready; }
wait_for 30 has_ready
crictl stop -t 60 "$c" >/dev/null
[ "$(crictl inspect "$c" | jq .status.exitCode)" = 7 ] || fail "the image's stop signal was not sent"
begin signal2 '.stop_signal = 10' /bin/sh -c 'trap "exit 8" INT; echo ready; while :; do sleep 0.1; done'
[ "$(jq .stop_signal "$work/container-signal2.json")" = 10 ] || fail "jq"
wait_for 30 has_ready
crictl stop -t 60 "$c" >/dev/null
[ "$(crictl inspect "$c" | jq .status.exitCode)" = 8 ] || fail "the field's stop signal was not sent"

# ---- who it is, and who an exec is
begin merge "$(sec '{run_as_username: "app", supplemental_groups: [3000], seccomp: {profile_type: 0}, no_new_privs: true}')" \
    /bin/sleep 1000
merge=$c
[ "$(crictl exec --sync "$c" id -u)" = 1000 ] || fail "exec's user"
[ "$(crictl exec --sync "$c" id -G)" = '1000 2000 3000' ] || fail "Merge: $(crictl exec --sync "$c" id -G)"
crictl inspect "$c" | jq -e '.status.user.linux | (.uid | tonumber) == 1000 and (.gid | tonumber) == 1000 and
    ([.supplementalGroups[] | tonumber] | sort) == [1000, 2000, 3000]' >/dev/null || fail "status.user: $(crictl inspect "$c")"
out strict "$(sec '{run_as_user: {value: 1000}, supplemental_groups: [3000], supplemental_groups_policy: 1}')" 'id -G'
says '1000 3000'
out numbers "$(sec '{run_as_user: {value: 77}, run_as_group: {value: 88}}')" "$status"
says 'Uid: 77 77 77 77'
says 'Gid: 88 88 88 88'
says 'Groups: 88 '
refused NotFound 'no such user' "$(sec '{run_as_username: "nobody-here"}')"

# ---- what it may do
out caps "$(sec '{run_as_user: {value: 0}}')" "$status"
says 'CapEff: 00000000a80425fb'
says 'CapBnd: 00000000a80425fb'
says 'CapAmb: 0000000000000000'
says 'NoNewPrivs: 0'
says 'Seccomp: 0'
out caps-list "$(sec '{run_as_user: {value: 0}, no_new_privs: true, capabilities: {drop_capabilities: ["ALL"],
    add_capabilities: ["NET_ADMIN", "CAP_KILL"]}}')" "$status; ip link add br9 type bridge 2>&1 && echo bridged; ip link del br9"
says 'CapEff: 0000000000001020'
says 'NoNewPrivs: 1'
says bridged
out caps-tables "$(sec '{run_as_user: {value: 0}, capabilities: {add_capabilities: ["NET_ADMIN"]}}')" \
    'iptables -t nat -A OUTPUT -p tcp -m owner ! --uid-owner 1337 -j REDIRECT --to-ports 15001 2>&1 && iptables -t nat -S OUTPUT'
says '-A OUTPUT -p tcp -m owner ! --uid-owner 1337 -j REDIRECT --to-ports 15001'
out caps-all "$(sec '{run_as_user: {value: 0}, capabilities: {add_capabilities: ["ALL"], drop_capabilities: ["SYS_BOOT"]}}')" \
    "$status"
says 'CapEff: 000001ffffbfffff'
out caps-ambient "$(sec '{capabilities: {drop_capabilities: ["ALL"], add_ambient_capabilities: ["NET_BIND_SERVICE"]}}')" "$status"
says 'Uid: 1000 1000 1000 1000'
says 'CapAmb: 0000000000000400'
says 'CapEff: 0000000000000400'
out kernel-log "$(sec '{run_as_user: {value: 0}}')" 'dmesg 2>&1; echo end'
says 'dmesg: klogctl: Operation not permitted'
says end
out kernel-log-granted "$(sec '{run_as_user: {value: 0}, capabilities: {add_capabilities: ["SYSLOG"]}}')" 'dmesg >/dev/null && echo read'
says read

profile=$work/profile.json
jq -n '{defaultAction: "SCMP_ACT_ALLOW", syscalls: [{names: ["mkdir", "mkdirat"], action: "SCMP_ACT_ERRNO", errnoRet: 28}]}' >"$profile"
out seccomp-default "$(sec '{run_as_user: {value: 0}, seccomp: {profile_type: 0}}')" \
    "$status; unshare -m true 2>&1; mkdir /x && echo made; chroot / true && echo chrooted"
says 'Seccomp: 2'
says 'unshare: unshare(0x20000): Operation not permitted'
says made
says chrooted
out seccomp-admin "$(sec '{run_as_user: {value: 0}, seccomp: {profile_type: 0}, capabilities: {add_capabilities: ["SYS_ADMIN"]}}')" \
    'unshare -m true 2>&1 && echo unshared'
says unshared
out seccomp-file "$(sec "{run_as_user: {value: 0}, seccomp: {profile_type: 2, localhost_ref: \"$profile\"}}")" "$status; mkdir /x 2>&1"
says 'Seccomp: 2'
says "mkdir: can't create directory '/x': No space left on device"
refused NotFound 'linux.security_context.seccomp' "$(sec '{seccomp: {profile_type: 2, localhost_ref: "/does/not/exist"}}')"

out privileged "$(sec '{run_as_user: {value: 0}, privileged: true, seccomp: {profile_type: 0}, masked_paths: ["/proc/version"]}')" \
    "$status"'; ls /dev/sda /dev/kmsg; mkdir /sys/fs/cgroup/mine && echo cgroup; head -c 4 /proc/version | wc -c; grep -c " /sys sysfs rw" /proc/mounts'
says 'CapEff: 000001ffffffffff'
says 'Seccomp: 0'
says /dev/sda
says /dev/kmsg
says cgroup
says 4

# ---- what it sees
out paths "$(sec '{run_as_user: {value: 0}, masked_paths: ["/proc/version", "/proc/acpi", "/not/there"], readonly_paths: ["/proc/sys"]}')" \
    'head -c 4 /proc/version | wc -c; ls /proc/acpi | wc -l; echo 1 >/proc/sys/kernel/msgmax; echo x >/etc/new && echo written; cat /proc/self/mountinfo'
says 0
says '/bin/sh: can'\''t create /proc/sys/kernel/msgmax: Read-only file system'
says written
grep -q ' /proc/version ' <<<"$out" || fail "mountinfo: $out"
out no-users "$(sec '{run_as_user: {value: 0}, masked_paths: ["/etc/passwd"]}')" 'id -u; wc -c </etc/passwd'
says 0
out no-users-number "$(sec '{masked_paths: ["/etc/passwd"], run_as_user: {value: 1000}}')" 'id -u'
says 1000
refused NotFound 'no such user' "$(sec '{masked_paths: ["/etc/passwd"], run_as_username: "app"}')"
refused InvalidArgument 'read-only path /proc/self/root/etc: leads through a link' "$(sec '{readonly_paths: ["/proc/self/root/etc"]}')"
refused InvalidArgument 'masked path /proc/self/root/etc/passwd: leads through a link' "$(sec '{masked_paths: ["/proc/self/root/etc/passwd"]}')"
refused InvalidArgument 'the root directory cannot be hidden' "$(sec '{masked_paths: ["/"]}')"
out paths-root "$(sec '{run_as_user: {value: 0}, readonly_paths: ["/bin/.."]}')" \
    'touch /x 2>&1; touch /dev/shm/x 2>&1; echo x >/proc/sys/kernel/msgmax; echo x >/dev/null && echo null'
says 'touch: /x: Read-only file system'
says 'touch: /dev/shm/x: Read-only file system'
says "/bin/sh: can't create /proc/sys/kernel/msgmax: Read-only file system"
says null
out paths-dev "$(sec '{run_as_user: {value: 0}, masked_paths: ["/dev", "/etc/group"]}')" 'ls /dev | wc -l; wc -c </etc/group; stat -c %t:%T /etc/group'
says 0
says 1:3
# An image whose host name is a link to what covers a masked file.
IMAGE=test.local/linked:latest out paths-linked "$(sec '{run_as_user: {value: 0}, masked_paths: ["/etc/group"]}')" \
    'stat -c %t:%T /etc/group /dev/null; wc -c </etc/hostname; grep -c the-pod /etc/hosts'
says_not the-pod
[ "$(tr '\n' ' ' <<<"$out")" = '1:3 1:3 0 1 ' ] || fail "the cover of a masked file: $out"
out no-paths "$(sec '{run_as_user: {value: 0}}')" 'echo 8192 >/proc/sys/kernel/msgmax && echo written; grep -c /proc/ /proc/self/mountinfo; ls -d /sys/kernel >/dev/null; touch /sys/x 2>&1'
says written
says 0
out read-only "$(sec '{run_as_user: {value: 0}, readonly_rootfs: true}')" 'touch /x 2>&1; touch /dev/shm/x && echo shm; df -m /dev/shm | tail -n 1 | tr -s " " | cut -d " " -f 2'
says 'touch: /x: Read-only file system'
says shm
says 64
out devices '.devices = [{host_path: "/dev/fuse", container_path: "/dev/given", permissions: "rw"},
    {host_path: "/dev/net/tun", container_path: "/dev/net/tun", permissions: "rwm"}] | '"$(sec '{run_as_user: {value: 0}}')" \
    'exec 3<>/dev/given && echo opened; exec 4<>/dev/net/tun && echo tunnel; mknod /dev/other c 10 229 2>&1; ls -l /dev/given | cut -c 1'
says opened
says tunnel
says c
out no-devices "$(sec '{run_as_user: {value: 0}}')" \
    'mknod /dev/mine c 10 229 && (exec 3<>/dev/mine) 2>&1; mknod /dev/disk b 8 0 && head -c 1 /dev/disk 2>&1; ls /dev | tr "\n" " "; echo; echo x >/dev/null && echo null'
says '/bin/sh: can'\''t create /dev/mine: Operation not permitted'
says 'head: /dev/disk: Operation not permitted'
says 'core disk fd full mine mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero '
says null

# ---- whom it sees
begin neighbour "$(sec '{run_as_user: {value: 0}}')" /bin/sh -c 'touch /dev/shm/of-the-pod; exec sleep 4321'
neighbour=$c
has_shm() { crictl exec --sync "$neighbour" ls /dev/shm/of-the-pod; }
wait_for 30 has_shm
out pid-pod "$(sec '{run_as_user: {value: 0}}')" 'ps | grep -c "[s]leep 4321"; cat /proc/1/comm; ls /dev/shm/of-the-pod'
says 1
says pause
says /dev/shm/of-the-pod
out pid-own "$(sec '{run_as_user: {value: 0}, namespace_options: {pid: 1, ipc: 1}}')" 'echo "$$"; ps | grep -c "[s]leep 4321"; ls /dev/shm | wc -l'
says 1
says 0
out pid-vm "$(sec '{run_as_user: {value: 0}, namespace_options: {pid: 2}}')" 'cat /proc/1/comm; cat /proc/self/cgroup'
says init
says 0::/
out pid-target "$(sec "{run_as_user: {value: 0}, namespace_options: {pid: 3, target_id: \"$neighbour\"}}")" 'ps | grep -c "[s]leep 4321"'
says 1
out sysctls "$(sec '{run_as_user: {value: 0}}')" 'cd /proc/sys; cat kernel/shm_rmid_forced net/ipv4/ip_local_port_range vm/overcommit_memory'
says $'40000\t50000'
says 1

# ---- what it gets
out resources "$(res '{cpu_shares: 2048, cpu_quota: 50000, cpu_period: 100000, memory_limit_in_bytes: 67108864,
    memory_swap_limit_in_bytes: 67108864, oom_score_adj: 321, unified: {"pids.max": "99"}}')" \
    'cd /sys/fs/cgroup; for f in cpu.weight cpu.max memory.max memory.swap.max pids.max; do echo "$f $(cat $f)"; done; cat /proc/self/oom_score_adj; cat /proc/self/cgroup'
says 'cpu.weight 79'
says 'cpu.max 50000 100000'
says 'memory.max 67108864'
says 'pids.max 99'
says 321
says 0::/

# ---- huge pages: the sysctl has made four of 2 MiB, the limit is two
out huge "$(res '{hugepage_limits: [{page_size: "2MB", limit: 4194304}, {page_size: "1GB", limit: 0}]}')" \
    'cat /sys/fs/cgroup/hugetlb.2MB.max; huge_pages 3'
says 'page 2'
says 'no more'
says_not 'page 3'
says 4194304
crictl inspect "$c" | jq -e '.status.resources.linux.hugepageLimits | length == 2 and (.[0].limit | tonumber) == 4194304' >/dev/null ||
    fail "huge pages in the status: $(crictl inspect "$c" | jq -c .status.resources.linux)"
out huge-free '.' 'huge_pages 3'
says 'page 3'
refused Unimplemented 'hugetlb.64KB.max 65536: the guest has huge pages of ' "$(res '{hugepage_limits: [{page_size: "64KB", limit: 65536}]}')"
refused InvalidArgument 'linux.resources.hugepage_limits[0].page_size' "$(res '{hugepage_limits: [{page_size: "two", limit: 1}]}')"

# ---- the image's volumes: the same with either root, but for what is around them
volumes='.image.image = "test.local/volumes:latest"'
look='stat -c "%u:%g %a %n" /newvol /data /deep/new /real/x; cat /data/file
    for d in /newvol /data /data/sub /deep/new /etc /real/x; do echo >$d/mine && grep -q " $d " /proc/self/mountinfo && echo "wrote $d"; done
    rm /data/file /data/sub/same && ls /data; grep the-pod /etc/hosts | cut -f 2
    touch /other /real/other /deep/other && echo around; rmdir /newvol
    touch /dev/shm/x && ls /sys/fs/cgroup/cgroup.procs; head -c 3 /dev/zero | wc -c
    head -c 10000000 /dev/zero >/newvol/big; echo end; exec sleep 1000'
for read_only in false true; do
    begin "volumes-$read_only" "$volumes | $(sec "{run_as_user: {value: 0}, readonly_rootfs: $read_only, namespace_options: {pid: 1}}")" \
        /bin/sh -c "$look"
    has_run() { crictl logs "$c" 2>&1 | has '^end'; }
    wait_for 60 has_run
    out=$(crictl logs "$c" 2>&1)
    for line in '0:0 755 /newvol' '0:0 1777 /data' '0:0 755 /deep/new' '0:0 755 /real/x' from-the-image 'wrote /newvol' 'wrote /data' \
        'wrote /data/sub' 'wrote /deep/new' 'wrote /etc' 'wrote /real/x' the-pod /sys/fs/cgroup/cgroup.procs 3; do
        says "$line"
    done
    case $read_only in
        false)
            says around
            says "rmdir: '/newvol': Device or resource busy"
            ;;
        true)
            says 'touch: /other: Read-only file system'
            says 'touch: /real/other: Read-only file system'
            says 'touch: /deep/other: Read-only file system'
            ;;
    esac
    counts_volume() { [ "$(crictl stats -o json --id "$c" | jq '.stats[0].writableLayer.usedBytes.value | tonumber')" -gt 10000000 ]; }
    wait_for 60 counts_volume
    crictl stop -t 0 "$c" >/dev/null
    crictl rm "$c" >/dev/null
done
out volumes-again "$volumes | $(sec '{run_as_user: {value: 0}, readonly_rootfs: true}')" 'ls /newvol /data; cat /data/file'
says file
says from-the-image
says_not mine
out volumes-user "$volumes | $(sec '{run_as_user: {value: 1000}, run_as_group: {value: 2000}, readonly_rootfs: true}')" \
    'echo more >>/data/file && tail -n 1 /data/file; touch /newvol/x 2>&1'
says more
says 'touch: /newvol/x: Permission denied'

# ---- refused by name
refused Unimplemented mounts '.mounts = [{container_path: "/x", host_path: "/tmp"}]'
refused Unimplemented 'devices[0].host_path' '.devices = [{host_path: "/dev/sda", container_path: "/dev/sda", permissions: "rwm"}]'
refused Unimplemented selinux_options "$(sec '{selinux_options: {level: "s0"}}')"
refused Unimplemented apparmor "$(sec '{apparmor: {profile_type: 2, localhost_ref: "x"}}')"
refused InvalidArgument userns_options "$(sec '{namespace_options: {userns_options: {mode: 0, uids: [{host_id: 100000, length: 65536}],
    gids: [{host_id: 100000, length: 65536}]}}}')"
refused Unimplemented namespace_options.network "$(sec '{namespace_options: {network: 2}}')"
refused InvalidArgument capabilities "$(sec '{capabilities: {add_capabilities: ["FLY"]}}')"
refused InvalidArgument masked "$(sec '{masked_paths: ["relative"]}')"
refused InvalidArgument 'no file of a controller' "$(res '{unified: {"cgroup.procs": "1"}}')"

# A daemon that comes back runs an exec as the same one.
kill_daemon
launch_daemon
crictl exec --sync "$merge" sh -c 'id -u; id -G; grep -E "^(Seccomp|NoNewPrivs):" /proc/self/status | tr -s "\t" " "; cat /proc/self/oom_score_adj' |
    grep . >"$work/identity"
printf '%s\n' 1000 '1000 2000 3000' 'NoNewPrivs: 1' 'Seccomp: 2' 0 | diff - "$work/identity" ||
    fail "exec after the daemon's return"
crictl inspect "$merge" | jq -e '.status.user.linux.supplementalGroups | length == 3' >/dev/null || fail "status.user after return"

# A sysctl that the guest's kernel does not have: no pod, and the reason by name.
pod_json odd >/dev/null
jq '.linux.sysctls = {"kernel.does_not_exist": "1"}' "$work/pod-odd.json" >"$work/changed.json"
if said=$(crictl runp "$work/changed.json" 2>&1); then fail "a sysctl that does not exist was set"; fi
[[ $said == *'sysctl kernel.does_not_exist'* ]] || fail "not refused by name: $said"

crictl stopp "$pod" >/dev/null
crictl rmp "$pod" >/dev/null
[ -z "$(pgrep -a qemu-system || true)" ] || fail "a VM is left"
echo "fields: $n containers in one pod, all as asked"
