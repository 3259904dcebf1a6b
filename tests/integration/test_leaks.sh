#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# After PODS cycles of pod and container (default 50; the first one is not counted, it makes what is kept on purpose)
# there are no more processes, links, namespaces, mounts, cgroups, files and daemon descriptors than before.
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
isolate "$0" "$@"
need jq python3 busybox pgrep losetup
need_tools
start_daemon '[guest]'
touch "$work/crictl.yaml"
busybox_image test.local/busybox:latest

cycle() {
    local pod c
    pod=$(crictl runp "$(pod_json "p$1")")
    c=$(crictl create "$pod" "$(container_json c c.log /bin/sh -c 'echo hi; exec sleep 1000')" "$work/pod-p$1.json")
    crictl start "$c" >/dev/null
    crictl exec --sync "$c" true >/dev/null
    # Half of the pods go in order, half at once with everything in them alive.
    if [ $(($1 % 2)) -eq 0 ]; then
        crictl stop --timeout 0 "$c" >/dev/null
        crictl rm "$c" >/dev/null
        crictl stopp "$pod" >/dev/null
        crictl rmp "$pod" >/dev/null
    else
        crictl rmp -f "$pod" >/dev/null
    fi
}

cycle 0
cycle 1
quiet() { footprint >"$work/now" && sleep 0.3 && footprint | cmp -s - "$work/now"; }
wait_for 20 quiet
footprint >"$work/before"
for i in $(seq "${PODS:-50}"); do
    cycle "$i"
done
same() { footprint >"$work/after" && cmp -s "$work/before" "$work/after"; }
for _ in $(seq 100); do
    same && break
    sleep 0.2
done
diff "$work/before" "$work/after" || fail "something is left behind after ${PODS:-50} pods"
echo "${PODS:-50} pods, nothing left"
