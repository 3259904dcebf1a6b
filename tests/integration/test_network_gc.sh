#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# CNI 1.1 with real plugins that speak it (of the Go module proxy; Debian 12's are older): a pod with a whole chain, STATUS as
# the node's condition, and GC when the daemon starts: what no pod has any more goes, what a pod has stays, and a network that
# another runtime is attached to is left alone.
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
isolate "$0" "$@"
need jq python3 busybox iptables ip6tables curl tc
need_tools
# Where libcni keeps what other runtimes have attached is below here, and no business of this test.
mount -t tmpfs tmpfs /var/lib

mkdir "$work/net.d" "$work/plugins"
cp "$tools"/cni/* "$work/plugins/"
# GC of a main plugin has to reach the IPAM plugin (CNI 1.1, section 4), which the reference bridge does not do yet.
cat >"$work/plugins/bridge-that-collects" <<END
#!/bin/sh
[ "\$CNI_COMMAND" != GC ] || exec "$work/plugins/host-local"
exec "$work/plugins/bridge"
END
chmod +x "$work/plugins/bridge-that-collects"

# network IPAM TYPE: the configuration.
network() {
    jq -n --arg t "$1" --arg i "$2" --arg d "$work/leases" '{cniVersion: "1.1.0", name: "pods", plugins: [
        {type: $t, bridge: "cni0", isGateway: true, ipMasq: true, hairpinMode: true,
         ipam: {type: $i, dataDir: $d, ranges: [[{subnet: "10.88.0.0/16"}], [{subnet: "fd00:88::/64"}]],
                routes: [{dst: "0.0.0.0/0"}, {dst: "::/0"}]}},
        {type: "portmap", capabilities: {portMappings: true}},
        {type: "bandwidth", capabilities: {bandwidth: true}},
        {type: "firewall"},
        {type: "tuning", sysctl: {"net.ipv4.conf.IFNAME.arp_notify": "1"}}]}' >"$work/net.d/10-pods.conflist.new"
    mv "$work/net.d/10-pods.conflist.new" "$work/net.d/10-pods.conflist"
}

network bridge host-local
config=('[network]' "bin_dirs = $work/plugins")
start_daemon "${config[@]}"
touch "$work/crictl.yaml"
busybox_image test.local/busybox:latest

# ---- STATUS
condition() { crictl info | jq -r '.status.conditions[] | select(.type == "NetworkReady") | '"$1"; }
is_ready() { [ "$(condition .status)" = true ]; }
is_not_ready() { [ "$(condition .status)" = false ]; }
is_ready || fail "not ready: $(condition .message)"
network bridge no-such-ipam
wait_for 30 is_not_ready
condition .message | has "plugin 'bridge' (STATUS): .*no-such-ipam" || fail "$(condition .message)"
network bridge host-local
wait_for 30 is_ready

# ---- a pod
json=$(pod_json web)
jq '.port_mappings = [{protocol: 0, container_port: 80, host_port: 8080}]
    | .annotations = {"kubernetes.io/ingress-bandwidth": "200M"}' "$json" >"$json.new"
pod=$(crictl runp "$json.new")
ctr=$(crictl create "$pod" "$(container_json web web.log /bin/sh -c \
    'mkdir /www; echo from the pod >/www/index.html; exec httpd -f -p 80 -h /www')" "$json.new")
crictl start "$ctr" >/dev/null
works() {
    local at
    for at in 10.88.0.2 '[fd00:88::2]' 127.0.0.1:8080; do
        [ "$(curl -sS --max-time 20 --retry 5 --retry-connrefused --noproxy '*' -g "http://$at/")" = "from the pod" ] ||
            fail "$1: $at"
    done
}
works "at first"
crictl exec -s "$ctr" cat /proc/sys/net/ipv4/conf/eth0/arp_notify | has -x 1 || fail "tuning"

# ---- GC
lose() { # a lease that no pod has
    printf 'gone\r\neth0' >"$work/leases/pods/10.88.0.77"
}
again() { # [LINES]: the daemon starts anew
    kill_daemon
    : >"$work/casemated.log"
    write_config "${config[@]}" "$@"
    launch_daemon
    if grep -i 'garbage of' "$work/casemated.log"; then fail "plugins do not take GC"; fi
}
leases() { (cd "$work/leases/pods" && echo [0-9f]*); }

[ "$(leases)" = "10.88.0.2 fd00:88::2" ] || fail "leases: $(leases)"
lose
# All of the reference plugins take it, and nothing happens to the pod.
again
works "after GC"
network bridge-that-collects host-local
again
[ "$(leases)" = "10.88.0.2 fd00:88::2" ] || fail "leases after GC: $(leases)"
works "after GC"

# Another runtime's attachment.
lose
mkdir -p /var/lib/cni/results
touch /var/lib/cni/results/pods-0123456789ab-eth0
again
[ -e "$work/leases/pods/10.88.0.77" ] || fail "GC in a network of another runtime"
grep -q "network 'pods': its plugins are not asked to collect garbage.*/var/lib/cni/results/pods-0123456789ab-eth0" \
    "$work/casemated.log" || fail "it is not said why there is no GC"
again 'gc = yes'
[ "$(leases)" = "10.88.0.2 fd00:88::2" ] || fail "leases after GC that was insisted on: $(leases)"
lose
rm /var/lib/cni/results/*
again 'gc = no'
[ -e "$work/leases/pods/10.88.0.77" ] || fail "GC that was not wanted"
works "in the end"

rm "$work/leases/pods/10.88.0.77"
crictl rmp -f "$pod" >/dev/null
[ "$(find "$work/leases/pods" -name '[0-9f]*' | wc -l)" = 0 ] || fail "leases are left: $(leases)"
stop_daemon
echo "CNI 1.1: STATUS and GC of real plugins"
