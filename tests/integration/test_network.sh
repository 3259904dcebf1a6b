#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Pods with a network of real CNI plugins (bridge, host-local, portmap, bandwidth, firewall, tuning), IPv4 and IPv6, in a
# network namespace of the test's own: pod to host, host to pod, pod to pod, host ports on every address and on 127.0.0.1,
# hairpin, over a kill -9 of the daemon; two networks in a pod; in the end no link, lease, rule or namespace is left.
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
isolate "$0" "$@"
need jq python3 busybox iptables ip6tables curl tc
[ -x /usr/lib/cni/bridge ] || skip "containernetworking-plugins is not installed"
need_tools

net=$work/net.d
mkdir "$net"
# A host with an address of its own, beside the bridge that the plugins make.
ip link add up0 type veth peer name up1
ip link set up0 up
ip link set up1 up
ip addr add 192.0.2.1/24 dev up0
ip -6 addr add 2001:db8::1/64 dev up0 nodad
sysctl -qw net.ipv6.conf.all.forwarding=1

ipam() {
    jq -cn --arg d "$work/leases" --arg four "$1" --arg six "$2" '{type: "host-local", dataDir: $d,
        ranges: [[{subnet: $four}], [{subnet: $six}]], routes: [{dst: "0.0.0.0/0"}, {dst: "::/0"}]}'
}

jq -n --argjson ipam "$(ipam 10.88.0.0/16 fd00:88::/64)" '{cniVersion: "1.0.0", name: "pods", plugins: [
    {type: "bridge", bridge: "cni0", isGateway: true, ipMasq: true, hairpinMode: true, mtu: 1400, ipam: $ipam},
    {type: "portmap", capabilities: {portMappings: true}},
    {type: "bandwidth", capabilities: {bandwidth: true}},
    {type: "firewall"},
    {type: "tuning", sysctl: {"net.ipv4.conf.eth0.arp_notify": "1"}}]}' >"$net/10-pods.conflist"

# Everything of networks that must be the same before and after.
network_state() {
    {
        ip -o link | awk '{print $2}' | grep -v '^cni'
        find "$work/leases" -type f ! -name lock ! -name 'last_reserved*' 2>/dev/null || true
        # Without the chains that the plugins keep for all pods.
        { iptables-save; ip6tables-save; } | grep '^-A' | grep -v -e CNI-HOSTPORT -e CNI-ADMIN -e CNI-FORWARD || true
        tc qdisc show | grep -v -e noqueue -e cni || true
        find "$run/net" "$state/net" -mindepth 1 2>/dev/null || true
    } | sort
}

start_daemon "[guest]"
touch "$work/crictl.yaml"
mkdir -p "$work/busybox-rootfs/bin"
"${CC:-cc}" -O1 -static -o "$work/busybox-rootfs/bin/udp_echo" "$repo/tests/integration/udp_echo.c"
busybox_image test.local/busybox:latest
crictl info | jq -e '.status.conditions[] | select(.type == "NetworkReady") | .status' >/dev/null || fail "NetworkReady"
network_state >"$work/before"

# pod NAME [JQ]: a pod, its configuration changed by a jq program; sets `pod`.
run_pod() {
    local json
    json=$(pod_json "$1")
    jq "${2:-.}" "$json" >"$json.new"
    mv "$json.new" "$json"
    pod=$(crictl runp "$json")
}

# run_container POD NAME CMD...: a running container in the pod NAME; sets `ctr`.
run_container() {
    local podname=$1 name=$2
    shift 2
    ctr=$(crictl create "$pod" "$(container_json "$name" "$name.log" "$@")" "$work/pod-$podname.json")
    crictl start "$ctr" >/dev/null
}

run_pod web '.port_mappings = [{protocol: 0, container_port: 80, host_port: 8080},
    {protocol: 1, container_port: 53, host_port: 5353}]
    | .annotations = {"kubernetes.io/ingress-bandwidth": "200M", "kubernetes.io/egress-bandwidth": "200M"}
    | .dns_config = {servers: ["192.0.2.53"], searches: ["cluster.test"]} | .hostname = "web"'
web=$pod
run_container web web /bin/sh -c 'mkdir /www; echo from the pod >/www/index.html; udp_echo 53 & exec httpd -f -p 80 -h /www'
webctr=$ctr
crictl inspectp "$web" >"$work/inspect"
four=$(jq -r .status.network.ip "$work/inspect")
six=$(jq -r '.status.network.additionalIps[0].ip' "$work/inspect")
[ "$four" = 10.88.0.2 ] || fail "address $four"
[ "$six" = fd00:88::2 ] || fail "address $six"

# What the guest sees of it.
# says PATTERN COMMAND...: what the command prints has a line like this.
says() {
    local pattern=$1 out
    shift
    out=$("$@")
    grep -q -e "$pattern" <<<"$out" || fail "no '$pattern' in what $* says: $out"
}
in_web() { crictl exec -s "$webctr" "$@"; }
in_web ip addr show eth0 >"$work/addr"
grep -q 'inet 10.88.0.2/16' "$work/addr" || fail "IPv4 in the guest: $(cat "$work/addr")"
grep -q 'inet6 fd00:88::2/64' "$work/addr" || fail "IPv6 in the guest: $(cat "$work/addr")"
grep -q 'mtu 1400' "$work/addr" || fail "MTU in the guest: $(cat "$work/addr")"
# A clone has what its template agreed upon with QEMU: checksums (bits 0, 1) and segmentation (7, 8 in, 11, 12 out) are offloaded.
in_web cat /sys/class/net/eth0/device/features | has '^11.....11..11' ||
    fail "offloads: $(in_web cat /sys/class/net/eth0/device/features)"
says 'default via 10.88.0.1 dev eth0' in_web ip route
says 'default via fd00:88::1 dev eth0' in_web ip -6 route
says 1 in_web cat /proc/sys/net/ipv4/conf/eth0/arp_notify
says 'nameserver 192.0.2.53' in_web cat /etc/resolv.conf
says '^10.88.0.2[[:space:]]*web' in_web cat /etc/hosts

get() { curl -sS --max-time 20 --retry 5 --retry-connrefused --noproxy '*' -g "$@"; }
expect_web() {
    [ "$(get "$1")" = "from the pod" ] || fail "$1"
}
udp_echo() {
    python3 - "$1" "$2" <<'PY' || fail "UDP $1 $2"
import socket, sys
for _ in range(10):
    s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(2)
    try:
        s.sendto(b"ping\n", (sys.argv[1], int(sys.argv[2])))
        sys.exit(s.recv(100) != b"ping\n")
    except OSError:
        pass
sys.exit(1)
PY
}
all_ways() {
    expect_web http://10.88.0.2/
    expect_web 'http://[fd00:88::2]/'
    expect_web http://127.0.0.1:8080/
    expect_web http://192.0.2.1:8080/
    expect_web http://10.88.0.1:8080/
    expect_web 'http://[2001:db8::1]:8080/'
    udp_echo 192.0.2.1 5353
    udp_echo 127.0.0.1 5353
}
all_ways

# Pod to host, to another pod, to itself by the host's port.
mkdir "$work/www"
echo from the host >"$work/www/index.html"
busybox httpd -p 9000 -h "$work/www"
run_pod other
other=$pod
run_container other sleeper /bin/sleep 100000
in_other() { crictl exec -s "$ctr" "$@"; }
[ "$(in_other cat /sys/class/net/eth0/address)" != "$(in_web cat /sys/class/net/eth0/address)" ] ||
    fail "two pods have one MAC address: $(in_web cat /sys/class/net/eth0/address)"
[ "$(in_other wget -qO- http://192.0.2.1:9000/)" = "from the host" ] || fail "pod to host"
[ "$(in_other wget -qO- 'http://[2001:db8::1]:9000/')" = "from the host" ] || fail "pod to host, IPv6"
[ "$(in_other wget -qO- http://10.88.0.2/)" = "from the pod" ] || fail "pod to pod"
[ "$(in_other wget -qO- 'http://[fd00:88::2]/')" = "from the pod" ] || fail "pod to pod, IPv6"
[ "$(in_other wget -qO- http://192.0.2.1:8080/)" = "from the pod" ] || fail "pod to a host port"
[ "$(in_web wget -qO- http://192.0.2.1:8080/)" = "from the pod" ] || fail "hairpin"

# The network does not need the daemon, and the next one knows it.
kill_daemon
expect_web http://192.0.2.1:8080/
launch_daemon
[ "$(crictl inspectp "$web" | jq -r .status.network.ip)" = 10.88.0.2 ] || fail "the address after a restart"
all_ways
crictl exec -s "$ctr" wget -qO- http://10.88.0.2/ >/dev/null || fail "pod to pod after a restart"

# Stopped: the addresses go back at once, and the other pod keeps its own.
crictl stopp "$web" >/dev/null
[ -z "$(crictl inspectp "$web" | jq -r '.status.network.ip // ""')" ] || fail "a stopped pod has an address"
[ "$(find "$work/leases" -name '10.88.*' | wc -l)" -eq 1 ] || fail "leases after a stop"
[ "$(in_other wget -qO- http://192.0.2.1:9000/)" = "from the host" ] || fail "the other pod's network"
crictl rmp "$web" >/dev/null
crictl rmp -f "$other" >/dev/null
network_state >"$work/after"
diff "$work/before" "$work/after" || fail "something is left"

# A plugin that fails, in its own words; a host's network; a host port that is no port: refused, and nothing is left.
refused() {
    local words=$1
    shift
    if crictl runp "$1" >"$work/refused" 2>&1; then fail "a pod that cannot be was made: $words"; fi
    grep -q "$words" "$work/refused" || fail "no '$words' in $(cat "$work/refused")"
}
mkdir "$work/plugins"
ln -s "$repo/tests/fakes/cni_fake.sh" "$work/plugins/fake"
jq -n --arg l "$work/fake.log" '{cniVersion: "1.0.0", name: "odd", type: "fake", fakeADD: "error", log: $l}' |
    jq -c . >"$net/00-odd.conf"
stop_daemon
write_config '[network]' "bin_dirs = $work/plugins:/usr/lib/cni"
launch_daemon
refused "plugin 'fake' (ADD): no subnet; as it was told" "$(pod_json odd)"
sed -i 's/"fakeADD":"error"/"fakeADD":"hang"/' "$net/00-odd.conf"
stop_daemon
write_config '[network]' "bin_dirs = $work/plugins:/usr/lib/cni" 'plugin_timeout_s = 5'
launch_daemon
refused 'did not end in time' "$(pod_json odd)"
[ "$(grep -c '^DEL ' "$work/fake.log")" -ge 2 ] || fail "no DEL after a failed ADD"
rm "$net/00-odd.conf"
stop_daemon
write_config '[network]' "bin_dirs = $work/plugins:/usr/lib/cni"
launch_daemon
jq '.linux.security_context.namespace_options.network = 2' "$(pod_json odd)" >"$work/odd.json"
refused 'another RuntimeClass' "$work/odd.json"
jq '.port_mappings = [{container_port: 80, host_port: 70000}]' "$(pod_json odd)" >"$work/odd.json"
refused 'host_port: 70000 is no port' "$work/odd.json"
network_state >"$work/after"
diff "$work/before" "$work/after" || fail "something is left of pods that were refused"

# The daemon is killed while a plugin works, and a machine ends by itself: addresses go back all the same.
jq -nc --arg l "$work/fake.log" --arg d "$work/leases" '{cniVersion: "1.0.0", name: "odd", type: "fake", fakeADD: "hang",
    log: $l, leases: $d}' >"$net/00-odd.conf"
rm "$work/fake.log"
crictl runp "$(pod_json cut)" >/dev/null 2>&1 &
wait_for 30 grep -q '^ADD ' "$work/fake.log"
kill_daemon
rm "$net/00-odd.conf"
launch_daemon
same_as_before() {
    network_state >"$work/after"
    cmp -s "$work/before" "$work/after"
}
wait_for 60 same_as_before
grep -q '^DEL .* netns=yes prev=no' "$work/fake.log" || fail "no DEL for a pod that was cut off"
run_pod dying
kill -9 "$(crictl inspectp "$pod" | jq -r .info.pid)"
wait_for 60 same_as_before
crictl rmp "$pod" >/dev/null

# macvlan, and IPv6 alone.
jq -n --arg d "$work/leases" '{cniVersion: "0.4.0", name: "six", type: "macvlan", master: "up0",
    ipam: {type: "host-local", dataDir: $d, ranges: [[{subnet: "fd00:99::/64"}]]}}' >"$net/00-six.conf"
ip -6 addr add fd00:99::ff/64 dev up1 nodad
run_pod six
run_container six sleeper6 /bin/sleep 100000
[ "$(crictl inspectp "$pod" | jq -r .status.network.ip)" = fd00:99::2 ] || fail "the address of a pod with IPv6 alone"
in_other ping6 -c 1 -W 20 fd00:99::ff >/dev/null || fail "macvlan: $(in_other ip addr)"
crictl rmp -f "$pod" >/dev/null
rm "$net/00-six.conf"

# Two networks: the second interface is plugged in. The configuration counts from the next pod on.
jq -n --arg d "$work/leases" '{cniVersion: "0.4.0", name: "second", plugins: [{type: "ptp",
    ipam: {type: "host-local", dataDir: $d, ranges: [[{subnet: "172.30.0.0/24"}]]}}]}' >"$net/20-second.conflist"
stop_daemon
write_config '[network]' 'max_networks = 2'
launch_daemon
run_pod two
run_container two sleeper2 /bin/sleep 100000
says 'inet 172.30.0.2/24' in_other ip addr show eth1
in_other ping -c 1 -W 20 172.30.0.1 >/dev/null || fail "the second network's gateway: $(in_other ip route)"
in_other ping -c 1 -W 20 10.88.0.1 >/dev/null || fail "the first network's gateway"
crictl rmp -f "$pod" >/dev/null
rm "$net/20-second.conflist"

# Some pods at once, up and down.
pids=()
for i in 1 2 3 4; do
    json=$(pod_json "many$i")
    (
        for _ in 1 2; do
            p=$(crictl runp "$json")
            crictl rmp -f "$p" >/dev/null
        done
    ) &
    pids+=($!)
done
for p in "${pids[@]}"; do wait "$p" || fail "pods at once"; done
network_state >"$work/after"
diff "$work/before" "$work/after" || fail "something is left"
stop_daemon
