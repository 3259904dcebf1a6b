#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Pods of a node without a network have loopback and nothing else, whether their machine boots, is a clone or was made ahead;
# so it stays over a restart of the daemon, and with a network there is an eth0 again.
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
isolate "$0" "$@"
need jq python3 busybox
need_tools
export SPARES=1
start_daemon '[guest]' '[handler "cold"]' 'template = no'
touch "$work/crictl.yaml"
busybox_image test.local/busybox:latest

# start NAME HANDLER: a pod with a container; sets pod, ctr.
start() {
    pod=$(crictl runp --runtime "$2" "$(pod_json "$1")")
    ctr=$(crictl create "$pod" "$(container_json "$1" "$1.log" /bin/sh -c 'mkdir /www; echo of its own >/www/index.html
        exec httpd -f -p 80 -h /www')" "$work/pod-$1.json")
    crictl start "$ctr" >/dev/null
}
guest() { crictl exec -s "$ctr" /bin/sh -c "$1"; }

only_loopback() {
    [ "$(guest 'ls /sys/class/net')" = lo ] || fail "$1: interfaces: $(guest 'ls /sys/class/net')"
    [ "$(guest 'ip -o link | wc -l')" = 1 ] || fail "$1: links: $(guest 'ip -o link')"
    guest 'grep -c : /proc/net/dev' | has -x 1 || fail "$1: $(guest 'cat /proc/net/dev')"
    guest 'ls /proc/sys/net/ipv4/conf' | has -x eth0 && fail "$1: settings of an eth0"
    [ -z "$(guest 'ip route')" ] || fail "$1: routes: $(guest 'ip route')"
    for address in 127.0.0.1 '[::1]'; do
        [ "$(guest "wget -qO- http://$address/")" = "of its own" ] || fail "$1: $address"
    done
    crictl inspectp "$pod" | jq -e '.status.network.ip // "" | . == ""' >/dev/null || fail "$1: an address"
    # Figures of the network are there, and none of an interface.
    crictl statsp -o json --id "$pod" | jq -e '.stats[0].linux.network.interfaces // [] | length == 0' >/dev/null ||
        fail "$1: $(crictl statsp -o json --id "$pod")"
}

start cold cold
only_loopback "booted"
crictl rmp -f "$pod" >/dev/null
start clone ''
only_loopback "a clone"
wait_for 60 spare_is_at_hand
start ahead ''
grep -q 'pod ahead is ready (made ahead)' "$work/casemated.log" || fail "the machine that was made ahead was not taken"
only_loopback "made ahead"
kill_daemon
launch_daemon
only_loopback "after a restart"

# With a network the next pod has an interface.
if [ -x /usr/lib/cni/bridge ] && command -v iptables >/dev/null; then
    mkdir -p "$work/net.d"
    jq -n --arg d "$work/leases" '{cniVersion: "1.0.0", name: "pods", type: "bridge", bridge: "cni0", isGateway: true,
        ipam: {type: "host-local", dataDir: $d, ranges: [[{subnet: "10.88.0.0/16"}]]}}' >"$work/net.d/10-pods.conf"
    start net ''
    guest 'ip -4 addr show eth0' | has 'inet 10.88.0.2/16' || fail "an interface with an address: $(guest 'ip addr')"
    guest 'ping -c 1 -W 20 10.88.0.1' >/dev/null || fail "the gateway"
fi
echo "loopback alone"
