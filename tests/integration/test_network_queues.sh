#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Machines that start with two vCPUs have an interface with two queues: booted, as clones of a template, and made ahead, whose
# tap is moved into the pod's namespace afterwards. Traffic goes through both queues, in frames of many times the MTU. One
# vCPU: one queue, as ever.
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
isolate "$0" "$@"
need jq python3 busybox iptables nsenter
[ -x /usr/lib/cni/bridge ] || skip "containernetworking-plugins is not installed"
need_tools

mkdir "$work/net.d"
jq -n --arg d "$work/leases" '{cniVersion: "1.0.0", name: "pods", plugins: [{type: "bridge", bridge: "cni0", isGateway: true,
    ipMasq: true, ipam: {type: "host-local", dataDir: $d, ranges: [[{subnet: "10.88.0.0/16"}]],
    routes: [{dst: "0.0.0.0/0"}]}}]}' >"$work/net.d/10-pods.conflist"
SPARES=1
start_daemon '[guest]' 'vcpus = 2' '[handler "cold"]' 'template = no' '[handler "one"]' 'vcpus = 1'
touch "$work/crictl.yaml"
busybox_image test.local/busybox:latest

machine_of() { crictl inspectp "$1" | jq -r .info.pid; }
# start NAME HANDLER: a pod with a web server; sets pod, ctr, ip.
start() {
    pod=$(crictl runp --runtime "$2" "$(pod_json "$1")")
    ctr=$(crictl create "$pod" "$(container_json "$1" "$1.log" /bin/sh -c 'mkdir /www
        dd if=/dev/urandom of=/www/big bs=1M count=4 2>/dev/null; exec httpd -f -p 80 -h /www')" "$work/pod-$1.json")
    crictl start "$ctr" >/dev/null
    ip=$(crictl inspectp "$pod" | jq -r .status.network.ip)
}
guest() { crictl exec -s "$ctr" /bin/sh -c "$1"; }

# Frames that came to the guest, and went, by each queue's interrupt; the first line the receiving ones.
interrupts() { guest "grep -e virtio.-$1 /proc/interrupts" | awk '{n = 0; for (i = 2; $i ~ /^[0-9]+$/; i++) n += $i; print n}'; }

# has_queues N: what the guest has, and what the host's tap in the pod's namespace has.
has_queues() {
    local n tap
    tap=/proc/$(machine_of "$pod")/fdinfo
    n=$(guest 'ls -d /sys/class/net/eth0/queues/tx-* | wc -l')
    [ "$n" = "$1" ] || fail "$n queues to send with in the guest, not $1"
    n=$(guest 'ls -d /sys/class/net/eth0/queues/rx-* | wc -l')
    [ "$n" = "$1" ] || fail "$n queues to receive with in the guest, not $1"
    n=$(grep -l '^iff:.*ctap0' "$tap"/* | wc -l)
    [ "$n" = "$1" ] || fail "QEMU has $n descriptors of the tap, not $1"
    # An interrupt for each direction of each queue, and the configuration's: none is shared.
    n=$(guest 'ls /sys/class/net/eth0/device/../msi_irqs | wc -l')
    [ "$n" -gt $((2 * $1)) ] || fail "$n interrupts for $1 queues"
}

# Streams in both directions, many of them: they spread over the queues by their ports.
moves_data() {
    for _ in 1 2 3 4 5 6 7 8; do
        busybox wget -qO- "http://$ip/big" | cmp -n 4194304 - "$work/big" || fail "$1: what came is not what is there"
    done
    for _ in 1 2 3 4; do
        [ "$(guest 'wget -qO- http://10.88.0.1:9000/big | md5sum')" = "$(md5sum <"$work/big")" ] ||
            fail "$1: what went in is not what is there"
    done
}
# counters: bytes and packets that the tap has had from the guest, and has given to it.
counters() {
    nsenter --net="$run/net/netns/$pod" sed -n 's/^ *ctap0: *//p' /proc/net/dev | awk '{print $1, $2, $9, $10}'
}
# Segmentation is left to whoever needs it last, so what crosses the tap, the joining and the bridge is far larger than the
# MTU, in both directions: some 50 KiB of data in a frame, and 4 KiB with all acknowledgements counted, where it would be
# 1.5 KiB at most.
frames_are_large() {
    local a b
    read -r -a a <<<"$2"
    read -r -a b <<<"$3"
    for i in 0 2; do
        [ $(((b[i] - a[i]) / (b[i + 1] - a[i + 1]))) -gt 4096 ] ||
            fail "$1: $((b[i] - a[i])) bytes in $((b[i + 1] - a[i + 1])) frames ($i): offloads are off"
    done
}
both_ways() {
    local before
    # shellcheck disable=SC2016 # expanded in the guest
    until guest 'test "$(stat -c %s /www/big)" = 4194304'; do sleep 0.1; done
    guest 'cat /www/big' >"$work/big"
    before=$(counters)
    moves_data "$1"
    frames_are_large "$1" "$before" "$(counters)"
}
ip link add cni0 type bridge
ip addr add 10.88.0.1/16 dev cni0
ip link set cni0 up
busybox httpd -p 10.88.0.1:9000 -h "$work"

# used QUEUES: every queue of the interface has received and sent something.
used() {
    local q n
    for q in $(seq 0 $(($1 - 1))); do
        for way in input output; do
            n=$(interrupts "$way.$q" | sort -n | tail -1)
            [ "${n:-0}" -gt 0 ] || fail "$2: $way queue $q was not used: $(guest 'grep virtio /proc/interrupts')"
        done
    done
}

start cold cold
[ "$(crictl inspectp "$pod" | jq .info.cloned)" != true ] || fail "a machine that was to boot is a clone"
has_queues 2
both_ways "booted"
used 2 "booted"
crictl rmp -f "$pod" >/dev/null

start clone ''
[ "$(crictl inspectp "$pod" | jq .info.cloned)" = true ] || fail "the machine is no clone"
has_queues 2
both_ways "a clone"
used 2 "a clone"
first=$pod

wait_for 60 spare_is_at_hand
: >"$work/empty"
mount --bind "$work/empty" "$(realpath /etc/resolv.conf)"
start ahead ''
umount "$(realpath /etc/resolv.conf)"
grep -q 'pod ahead is ready (made ahead)' "$work/casemated.log" || fail "the machine that was made ahead was not taken"
# What it rehearsed with is gone: the interface has the pod's addresses, the one that IPv6 makes of its MAC address, and routes
# through the pod's gateway.
guest 'ip addr show dev eth0; ip route; ip -6 route; ip neigh' >"$work/eth0"
has_not() { if grep -q -e "$1" "$work/eth0"; then fail "left of the rehearsal ($1): $(cat "$work/eth0")"; fi; }
has_not '192\.0\.2\.'
has_not '2001:db8:'
has_not 'fe80::ff:fe00:1/'
[ "$(grep -c 'inet 10\.88\.' "$work/eth0")" = 1 ] || fail "the pod's address: $(cat "$work/eth0")"
[ "$(grep -c 'inet6 fe80::' "$work/eth0")" = 1 ] || fail "an IPv6 address of its own: $(cat "$work/eth0")"
[ "$(grep -c '^default via 10\.88\.0\.1' "$work/eth0")" = 1 ] || fail "the way out: $(cat "$work/eth0")"
# Nor are its files: this pod's are in their place, and there is none where it has none, as on a host that knows no resolver.
[ "$(guest 'cat /etc/hostname')" = "$(guest hostname)" ] || fail "/etc/hostname: $(guest 'cat /etc/hostname')"
guest 'grep -v -e "^127\." -e "^::1" -e "^fe00:" -e "^ff0" /etc/hosts' >"$work/hosts"
[ "$(cut -f 1 "$work/hosts")" = "$ip" ] || fail "/etc/hosts: $(cat "$work/hosts")"
if guest 'test -e /etc/resolv.conf'; then fail "/etc/resolv.conf: $(guest 'cat /etc/resolv.conf')"; fi
has_queues 2
both_ways "made ahead"
used 2 "made ahead"
crictl rmp -f "$pod" "$first" >/dev/null

start single one
has_queues 1
both_ways "one vCPU"
used 1 "one vCPU"
crictl rmp -f "$pod" >/dev/null
if grep -e 'tap cannot be used' -e 'no template' -e 'template does not work' "$work/casemated.log"; then
    fail "that must not be in the log"
fi
stop_daemon
echo "two vCPUs, two queues"
