#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A plugin that fails ends the start of the pod's machine at once, whatever that waits for: its guest (here one whose agent
# never answers), or a template that is still being made. The pod fails in the plugin's own words, and nothing is left.
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
isolate "$0" "$@"
need jq python3 busybox cpio
need_tools

# A guest without an agent: PID 1 sleeps.
mkdir -p "$work/deaf/bin" "$work/net.d" "$work/plugins"
cp "$(command -v busybox)" "$work/deaf/bin/busybox"
ln -s busybox "$work/deaf/bin/sh"
printf '#!/bin/sh\nwhile :; do /bin/busybox sleep 1000; done\n' >"$work/deaf/init"
chmod +x "$work/deaf/init"
(cd "$work/deaf" && find . -mindepth 1 -printf '%P\n' | cpio --quiet -o -H newc --owner=0:0) >"$work/deaf.img"

ln -s "$repo/tests/fakes/cni_fake.sh" "$work/plugins/fake"
# plugin MODE: what the next pod's plugin does.
plugin() {
    jq -nc --arg m "$1" --arg l "$work/fake.log" --arg d "$work/leases" '{cniVersion: "1.0.0", name: "odd", type: "fake",
        fakeADD: $m, log: $l, leases: $d}' >"$work/net.d/00-odd.conf.new"
    mv "$work/net.d/00-odd.conf.new" "$work/net.d/00-odd.conf"
    : >"$work/fake.log"
}
mkdir "$work/leases"
plugin ok
export SPARES=0
start_daemon '[network]' "bin_dirs = $work/plugins" '[handler "deaf"]' "initrd = $work/deaf.img" 'template = no' \
    '[handler "deafclone"]' "initrd = $work/deaf.img"
touch "$work/crictl.yaml"
template_is_made() { [ "$("$bin/casemate" version --json | jq '.daemon.templates // 0')" != 0 ]; }

machines() {
    local pids
    pids=$(pgrep qemu-system || true)
    for pid in $pids; do
        tr '\0' ' ' <"/proc/$pid/cmdline"
        echo
    done | grep -vc 'guest=template-' || true
}
# Templates are made meanwhile; all else that there was before is there afterwards, and nothing more.
left() {
    find "$run/net" "$run/pods" "$state/net" "$state/pods" -mindepth 1 ! -name 'scratch*' 2>/dev/null | sort
    find "$work/leases" -type f
    crictl pods -q
    echo "machines $(machines)"
}
left >"$work/before"

# refused HANDLER SECONDS: the pod fails in the plugin's words, long before its machine would have been given up (60 s).
refused() {
    local began=$SECONDS
    if crictl runp --runtime "$1" "$(pod_json "$1")" >"$work/refused" 2>&1; then fail "$1: a pod without a network"; fi
    grep -q "network 'odd': plugin 'fake' (ADD): no subnet; as it was told" "$work/refused" ||
        fail "$1: $(cat "$work/refused")"
    if grep -q 'virtual machine' "$work/refused"; then fail "$1: the machine is blamed: $(cat "$work/refused")"; fi
    [ $((SECONDS - began)) -lt "$2" ] || fail "$1: it took $((SECONDS - began)) s"
    grep -q '^DEL ' "$work/fake.log" || fail "$1: no DEL after a failed ADD"
    left >"$work/after"
    diff "$work/before" "$work/after" || fail "$1: something is left"
}

# At once: the machine need not even be started. Later: it runs and is waited for, or its template is.
for mode in error late; do
    for handler in deaf deafclone casemate; do
        plugin "$mode"
        refused "$handler" 25
    done
done
# A machine that was made ahead is no reason to try again: the plugin is asked once, also when it says that it may be.
stop_daemon
SPARES=1
: >"$work/casemated.log"
write_config '[network]' "bin_dirs = $work/plugins"
launch_daemon
# A pod that has a network: the machine ahead is made after it. The fake makes no interface, so it is a network in name.
plugin ok
first=$(crictl runp "$(pod_json first)")
wait_for 60 spare_is_at_hand
plugin busy
if crictl runp "$(pod_json busy)" >"$work/refused" 2>&1; then fail "a pod without a network"; fi
grep -q "plugin 'fake' (ADD): try again later" "$work/refused" || fail "$(cat "$work/refused")"
[ "$(grep -c '^ADD ' "$work/fake.log")" = 1 ] || fail "the plugin was asked twice: $(cat "$work/fake.log")"
[ "$(crictl pods -q | wc -l)" = 1 ] || fail "the pod that failed is left"
[ "$(find "$run/net/netns" -type f | wc -l)" = 1 ] || fail "a namespace is left"
crictl rmp -f "$first" >/dev/null
# The daemon is none the worse: a guest that answers has its network told.
plugin ok
stop_daemon
[ "$(machines)" = 0 ] || fail "a machine is left"
echo "a plugin's failure ends the pod's start at once"
