#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Paths that a container or its image bends, which something with more rights then resolves; and what else a container finds
# of the machine that it is in.
# shellcheck disable=SC2016  # scripts for the shell in a container
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
isolate "$0" "$@"
need jq python3 busybox
need_tools
start_daemon '[guest]'
touch "$work/crictl.yaml"
busybox_image test.local/busybox:latest

# image NAME OPTION...: test.local/NAME with what is in layer-NAME over busybox.
image() {
    local name=$1
    shift
    python3 "$repo/scripts/oci-layout.py" --out "$work/layout-$name" --ref "test.local/$name:latest" \
        --layer "$work/busybox-rootfs" --layer "$work/layer-$name" "$@" >/dev/null
    "$bin/casemate" image import "$work/layout-$name" >/dev/null
}

begin() {
    local name=$1 filter=$2
    shift 2
    container_json "$name" "$name.log" "$@" >/dev/null
    jq "$filter" "$work/container-$name.json" >"$work/changed.json"
    mv "$work/changed.json" "$work/container-$name.json"
    c=$(crictl create "$pod" "$work/container-$name.json" "$work/pod-$p.json")
    crictl start "$c" >/dev/null
}

# refused NAME FILTER WORDS: it cannot be made or started, for this reason.
refused() {
    local said
    if said=$(begin "$1" "$2" /bin/ls 2>&1); then fail "$1 was started"; fi
    [[ $said == *"$3"* ]] || fail "$1: not refused with '$3': $said"
}

# pod NAME FILTER: sets p and pod.
pod() {
    p=$1
    pod_json "$p" >/dev/null
    jq "$2" "$work/pod-$p.json" >"$work/changed.json"
    mv "$work/changed.json" "$work/pod-$p.json"
    pod=$(crictl runp "$work/pod-$p.json")
}

# ---- /proc/1/root, where process 1 is not the container's own: it is no working directory, whoever says so
mkdir -p "$work/layer-door/proc/1/root"
ln -s /proc/1/root "$work/layer-door/w"
image door --workdir /w
for mode in 0 2; do
    pod "shared$mode" ".linux.security_context.namespace_options.pid = $mode"
    shared=".linux.security_context.namespace_options.pid = $mode"
    refused "field$mode" ".working_dir = \"/proc/1/root\" | $shared" 'working directory'
    refused "image$mode" ".image.image = \"test.local/door:latest\" | $shared" 'working directory'
    begin "later$mode" ".working_dir = \"/w\" | $shared" /bin/sh -c 'rmdir /w && ln -s /proc/1/root /w && touch /ready; exec sleep 1000'
    has_bent() { crictl exec -s "$c" /bin/ls /ready; }
    is_bent() { ! has_bent 2>"$work/said" && grep -q 'working directory' "$work/said"; }
    wait_for 30 is_bent
    # An exec does not make a directory that its container's process took away.
    begin "gone$mode" ".working_dir = \"/w\" | $shared" /bin/sh -c 'rmdir /w; touch /ready; exec sleep 1000'
    wait_for 30 is_bent
    if [ "$mode" = 0 ]; then
        out tracer '.linux.security_context.capabilities.add_capabilities = ["SYS_PTRACE"]' \
            'grep -E "^(CapEff|NoNewPrivs)" /proc/1/status | tr "\t" " "; ls -A /proc/1/root/ /proc/1/root/.. | grep -vc ":$"; cat /proc/1/comm'
        says 'CapEff: 0000000000000000'
        says 'NoNewPrivs: 1'
        says_not etc
        says pause
    fi
    crictl rmp -f "$pod" >/dev/null
done

# ---- ".." goes no further than the container's root while that is being furnished
mkdir -p "$work/layer-dots/etc"
ln -s ../run/systemd/resolve/stub-resolv.conf "$work/layer-dots/etc/resolv.conf"
ln -s ../../../../tmp/hosts "$work/layer-dots/etc/hosts"
image dots
pod dots '.dns_config = {servers: ["192.0.2.53"]}'
out dots '.image.image = "test.local/dots:latest"' 'cat /etc/resolv.conf; grep -c localhost /tmp/hosts; ls /run/systemd/resolve'
says 'nameserver 192.0.2.53'
says stub-resolv.conf
says_not 'No such file'
out up '.working_dir = "/etc/../../../run/casemate/scratch/c9"' 'pwd; ls -d /run/casemate/scratch/c9'
says /run/casemate/scratch/c9
# Nothing of the machine's own was made or taken: the next ones have writable layers as ever.
for i in 1 2 3; do
    out "next$i" . 'touch /mine && echo fine'
    says fine
done
crictl rmp -f "$pod" >/dev/null

# ---- a privileged container that divides its cgroup takes processes still
pod divided '.linux.security_context.privileged = true'
begin divided '.linux.security_context = {privileged: true, namespace_options: {pid: 1}}' /bin/sh -c '
    cd /sys/fs/cgroup && mkdir init && for i in $(cat cgroup.procs); do echo $i >init/cgroup.procs; done
    echo +pids >cgroup.subtree_control && touch /ready; exec sleep 1000'
wait_for 30 has_bent
[ "$(crictl exec -s "$c" /bin/cat /proc/self/cgroup)" = 0::/init ] || fail "an exec in a cgroup that was divided"

# ---- a command that has ended has ended, whoever holds its output
said=$(crictl exec -s --timeout 2 "$c" /bin/sh -c 'sleep 60 & echo said; exit 7' 2>&1) && fail "the exit code is lost"
[[ $said == *said*'exit code 7'* || $said == *'exit code 7'*said* || $said == *said*7* ]] || fail "an exec with a child: $said"
crictl rmp -f "$pod" >/dev/null
echo "escapes: none"
