#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What a cluster does around a pod: the kubelet tells the node's pod CIDRs (both families), the configuration comes from a
# template, and kube-proxy's rules lead to pods. The rules are those of its iptables mode (KUBE-SERVICES, KUBE-SVC, KUBE-SEP,
# KUBE-MARK-MASQ, KUBE-POSTROUTING), written here, beside the real bridge plugin with hairpinMode: pod to service to another
# pod with its own address as source, pod to its own service, host and outside to service and node port, TCP and UDP.
# SCTP host ports can be had as rules only where the kernel has no SCTP: that those are made is what is checked.
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
isolate "$0" "$@"
need jq python3 busybox iptables ip6tables curl nsenter
[ -x /usr/lib/cni/bridge ] || skip "containernetworking-plugins is not installed"
need_tools

# ---- the node's CIDRs, as the kubelet brings them
mkdir "$work/net.d"
jq -n --arg d "$work/leases" '{cniVersion: "1.0.0", name: "kubenet", plugins: [
    {type: "bridge", bridge: "cni0", isGateway: true, hairpinMode: true,
     ipam: {type: "host-local", dataDir: $d, ranges: "RANGES", routes: "ROUTES"}},
    {type: "portmap", capabilities: {portMappings: true}}]}' |
    sed 's/"RANGES"/{{.PodCIDRRanges}}/; s/"ROUTES"/{{.Routes}}/' >"$work/template"
config=('[network]' 'loopback_only = no' "conf_template = $work/template")
start_daemon "${config[@]}"
touch "$work/crictl.yaml"
mkdir -p "$work/busybox-rootfs/bin"
"${CC:-cc}" -O1 -static -o "$work/busybox-rootfs/bin/udp_echo" "$repo/tests/integration/udp_echo.c"
busybox_image test.local/busybox:latest

is_ready() { crictl info | jq -e '.status.conditions[] | select(.type == "NetworkReady") | .status'; }
if is_ready >/dev/null; then fail "ready before there is a CIDR"; fi
if crictl update-runtime-config --pod-cidr 10.88.0.0/16,10.88.0.0/99 2>"$work/refused"; then fail "no CIDR was taken"; fi
grep -q 'InvalidArgument.*10.88.0.0/99' "$work/refused" || fail "$(cat "$work/refused")"
[ -z "$(ls "$work/net.d")" ] || fail "a configuration of no CIDR: $(ls "$work/net.d")"
# A kubelet without CIDRs (they are the network's own matter) sends none.
crictl update-runtime-config --pod-cidr ''
[ -z "$(ls "$work/net.d")" ] || fail "a configuration of nothing: $(ls "$work/net.d")"
crictl update-runtime-config --pod-cidr 10.88.3.0/24,fd00:88:3::/64
wait_for 30 is_ready
jq -e '.plugins[0].ipam | .ranges == [[{subnet: "10.88.3.0/24"}], [{subnet: "fd00:88:3::/64"}]] and
    .routes == [{dst: "0.0.0.0/0"}, {dst: "::/0"}]' "$work/net.d/10-casemate.conflist" >/dev/null ||
    fail "$(cat "$work/net.d/10-casemate.conflist")"
# It says so again whenever it starts, and so does a new daemon find it.
crictl update-runtime-config --pod-cidr 10.88.3.0/24,fd00:88:3::/64
kill_daemon
launch_daemon
wait_for 30 is_ready

# ---- pods that say who they are and who asks
start() { # NAME: sets pod, ctr, four, six
    pod=$(crictl runp "$(pod_json "$1")")
    # shellcheck disable=SC2016
    ctr=$(crictl create "$pod" "$(container_json "$1" "$1.log" /bin/sh -c 'mkdir -p /www/cgi-bin
        printf "#!/bin/sh\nprintf \"Content-type: text/plain\\\\r\\\\n\\\\r\\\\n\"\necho '"$1"' \$REMOTE_ADDR\n" >/www/cgi-bin/who
        chmod +x /www/cgi-bin/who; udp_echo 53 & exec httpd -f -p 80 -h /www')" "$work/pod-$1.json")
    crictl start "$ctr" >/dev/null
    four=$(crictl inspectp "$pod" | jq -r .status.network.ip)
    six=$(crictl inspectp "$pod" | jq -r '.status.network.additionalIps[0].ip')
}
start one
one=$ctr one_pod=$pod one4=$four one6=$six
start two
two=$ctr two_pod=$pod two4=$four two6=$six
[ "$one4 $one6" = "10.88.3.2 fd00:88:3::2" ] || fail "addresses in the CIDRs: $one4 $one6"
[ "$two4 $two6" = "10.88.3.3 fd00:88:3::3" ] || fail "addresses in the CIDRs: $two4 $two6"

# ---- kube-proxy
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
if [ -e /proc/sys/net/bridge/bridge-nf-call-iptables ]; then
    sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1
    masquerade_all=no
else
    # An answer would take the short way over the bridge and miss the translation: as with --masquerade-all then.
    masquerade_all=yes
fi
for t in iptables ip6tables; do
    $t -t nat -N KUBE-SERVICES
    $t -t nat -N KUBE-MARK-MASQ
    $t -t nat -N KUBE-POSTROUTING
    $t -t nat -A PREROUTING -j KUBE-SERVICES
    $t -t nat -A OUTPUT -j KUBE-SERVICES
    $t -t nat -A POSTROUTING -j KUBE-POSTROUTING
    $t -t nat -A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
    $t -t nat -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
    $t -t nat -A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
    $t -t nat -A KUBE-POSTROUTING -j MASQUERADE
done
# service NAME PROTOCOL IP PORT NODEPORT ENDPOINT CIDR
service() {
    local t=iptables to=$6:$4 name=$1-${2^^}
    case $3 in *:*) t=ip6tables to="[$6]:$4" ;; esac
    $t -t nat -N "KUBE-SVC-$name"
    $t -t nat -N "KUBE-SEP-$name"
    $t -t nat -A KUBE-SERVICES -d "$3" -p "$2" -m "$2" --dport "$4" -j "KUBE-SVC-$name"
    $t -t nat -A KUBE-SERVICES -m addrtype --dst-type LOCAL -p "$2" -m "$2" --dport "$5" -j KUBE-MARK-MASQ
    $t -t nat -A KUBE-SERVICES -m addrtype --dst-type LOCAL -p "$2" -m "$2" --dport "$5" -j "KUBE-SVC-$name"
    if [ "$masquerade_all" = yes ]; then
        $t -t nat -A "KUBE-SVC-$name" -j KUBE-MARK-MASQ
    else
        $t -t nat -A "KUBE-SVC-$name" ! -s "$7" -d "$3" -p "$2" -m "$2" --dport "$4" -j KUBE-MARK-MASQ
    fi
    $t -t nat -A "KUBE-SVC-$name" -j "KUBE-SEP-$name"
    $t -t nat -A "KUBE-SEP-$name" -s "$6" -j KUBE-MARK-MASQ
    $t -t nat -A "KUBE-SEP-$name" -p "$2" -m "$2" -j DNAT --to-destination "$to"
}
service ONE tcp 10.96.0.1 80 30001 "$one4" 10.88.3.0/24
service TWO tcp 10.96.0.2 80 30002 "$two4" 10.88.3.0/24
service ONE udp 10.96.0.1 53 30053 "$one4" 10.88.3.0/24
service ONE tcp fd00:96::1 80 30001 "$one6" fd00:88:3::/64
service TWO tcp fd00:96::2 80 30002 "$two6" fd00:88:3::/64

# What is outside: a host behind a link, with a way to the node's addresses.
unshare --net sleep 100000 &
outside=$!
has_own_net() { [ "$(readlink /proc/$outside/ns/net)" != "$(readlink /proc/self/ns/net)" ]; }
wait_for 30 has_own_net
ip link add up0 type veth peer name up1
ip link set up1 netns "$outside"
ip addr add 192.0.2.1/24 dev up0
ip -6 addr add 2001:db8::1/64 dev up0 nodad
# A node has a way out: an address of a service is not looked for on a link.
ip link set up0 up
ip route add default via 192.0.2.9
ip -6 route add default via 2001:db8::9
nsenter --net=/proc/$outside/ns/net sh -ec 'ip link set lo up; ip addr add 192.0.2.9/24 dev up1
    ip -6 addr add 2001:db8::9/64 dev up1 nodad; ip link set up1 up'

# ---- who answers, and whom it sees
# expect WHAT ANSWER ASKER...: the answer of http://WHAT/, asked by what the asker's words start with.
answers() {
    local at=$1 answer=$2 said
    shift 2
    said=$("$@" "http://$at/cgi-bin/who" 2>&1 | tr -d '[]' | sed 's/::ffff://') || true
    [ "$said" = "$answer" ] || fail "$at: '$said', not '$answer' (from $*)"
}
from_one() { crictl exec -s "$one" wget -qO- "$@"; }
from_two() { crictl exec -s "$two" wget -qO- "$@"; }
from_node() { curl -sS --max-time 20 --noproxy '*' -g "$@"; }
from_outside() { nsenter --net=/proc/$outside/ns/net curl -sS --max-time 20 --noproxy '*' -g "$@"; }
for c in "$one" "$two"; do
    up() { crictl exec -s "$c" wget -qO- http://127.0.0.1/cgi-bin/who; }
    wait_for 30 up
done

own=10.88.3.2 own6=fd00:88:3::2
[ "$masquerade_all" = no ] || own=10.88.3.1 own6=fd00:88:3::1
all_ways() {
    answers "$two4" "two 10.88.3.2" from_one
    # Another pod's service: that pod sees the asker's own address.
    answers 10.96.0.2 "two $own" from_one
    answers '[fd00:96::2]' "two $own6" from_one
    answers 10.96.0.1 "one ${own/3.2/3.3}" from_two
    # Its own service: it comes back as the node, or it would never be answered.
    answers 10.96.0.1 "one 10.88.3.1" from_one
    answers '[fd00:96::1]' "one fd00:88:3::1" from_one
    answers 10.96.0.2 "two 10.88.3.1" from_two
    # By the node's port: of pods, of the node, of others.
    answers 192.0.2.1:30001 "one 10.88.3.1" from_one
    answers 192.0.2.1:30002 "two 10.88.3.1" from_one
    answers 10.96.0.1 "one 10.88.3.1" from_node
    answers '[fd00:96::2]' "two fd00:88:3::1" from_node
    answers 192.0.2.1:30001 "one 10.88.3.1" from_outside
    answers '[2001:db8::1]:30002' "two fd00:88:3::1" from_outside
    # UDP, to another's and to its own.
    crictl exec -s "$two" udp_echo 10.96.0.1 53 || fail "UDP to a service"
    crictl exec -s "$one" udp_echo 10.96.0.1 53 || fail "UDP to its own service"
}
all_ways
# The rules are the node's, the pods live on: a daemon's end changes nothing.
kill_daemon
answers 10.96.0.2:80 "two 10.88.3.1" from_node
answers '[2001:db8::1]:30001' "one fd00:88:3::1" from_outside
launch_daemon
all_ways

# ---- SCTP: the rule of a host port
jq '.port_mappings = [{protocol: 2, container_port: 9899, host_port: 9900, host_ip: "192.0.2.1"}]' "$(pod_json sctp)" \
    >"$work/sctp.json"
sctp=$(crictl runp "$work/sctp.json")
iptables-save -t nat >"$work/rules"
grep -q -e '-p sctp .*--dport 9900 .*DNAT --to-destination 10.88.3.4:9899' "$work/rules" ||
    grep -q -e '-d 192.0.2.1/32 -p sctp .*DNAT --to-destination 10.88.3.4:9899' "$work/rules" ||
    fail "no rule for SCTP: $(grep -i -e sctp -e 9899 "$work/rules")"
python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132)' 2>/dev/null ||
    echo "SCTP: the rule is made; this kernel has no SCTP to send through it"
crictl rmp -f "$sctp" >/dev/null
iptables-save -t nat >"$work/rules"
if grep -q 9899 "$work/rules"; then fail "a rule is left: $(grep 9899 "$work/rules")"; fi

# ---- another CIDR (the kubelet never sends two different ones in a node's life, but a node may be used again)
crictl update-runtime-config --pod-cidr 10.99.0.0/24
[ "$(crictl inspectp "$one_pod" | jq -r .status.network.ip)" = 10.88.3.2 ] || fail "a pod's address has changed"
answers 10.96.0.1 "one 10.88.3.1" from_node
crictl rmp -f "$one_pod" "$two_pod" >/dev/null
ip link del cni0 # the plugin gives an existing bridge no other address
start three
[ "$four $six" = "10.99.0.2 null" ] || fail "after another CIDR: $four $six"
crictl rmp -f "$pod" >/dev/null
[ -z "$(find "$work/leases" -name '1*.*' -o -name 'fd*')" ] || fail "leases are left: $(find "$work/leases")"
# An operator's own configuration is not touched, and counts.
jq -n --arg d "$work/leases" '{cniVersion: "1.0.0", name: "own", type: "bridge", bridge: "own0", isGateway: true,
    ipam: {type: "host-local", dataDir: $d, ranges: [[{subnet: "10.77.0.0/24"}]]}}' >"$work/net.d/05-own.conf"
before=$(cat "$work/net.d/10-casemate.conflist")
crictl update-runtime-config --pod-cidr 10.98.0.0/24
[ "$(cat "$work/net.d/10-casemate.conflist")" = "$before" ] || fail "written beside an operator's configuration"
stop_daemon
echo "services, node ports, hairpin, CIDRs"
