#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The daemon's disk is full (a small tmpfs in this test's own mount namespace): a pull, a pod, a container each fail with
# the reason, and nothing half done is seen or left; what runs goes on, its log loses no byte; once there is room
# again the same daemon does all of it, and the next one finds what this one said that there is.
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
isolate "$0" "$@"
need jq python3 busybox pgrep docker-registry curl
need_tools
touch "$work/crictl.yaml"

full=$work/state/filler
room() { mount -o "remount,size=$1" "$work/state"; }
# To the last block, also those that a record in the making has just given back.
fill() {
    dd if=/dev/zero of="$full" bs=64k oflag=append conv=notrunc status=none 2>/dev/null || true
    dd if=/dev/zero of="$full" bs=4k oflag=append conv=notrunc status=none 2>/dev/null || true
}
make_room() { rm -f "$full"; }
# crictl COMMAND... must fail; its words are in $out.
refused() {
    if out=$(crictl "$@" 2>&1); then fail "with a full disk, crictl $1 says: $out"; fi
}
says_why() { grep -qiE 'no space left|disk is full|disk full' <<<"$out" || fail "the reason is not named: $out"; }
files_of_images() { find "$state/images" -type f -printf '%P %s\n' | sort; }

mkdir "$work/state" "$work/big" "$work/registry"
mount -t tmpfs -o size=16m,mode=0711 tmpfs "$work/state"

# ---- a pull

head -c 24000000 /dev/urandom >"$work/big/noise"
python3 "$repo/scripts/oci-layout.py" --out "$work/big-layout" --ref full.test/big:1 --layer "$work/big" >/dev/null
address=$(bash "$repo/tests/images/serve.sh" --data "$work/registry" --port 0 --pidfile "$work/registry.pid")
registry_pid=$(cat "$work/registry.pid")
python3 "$repo/tests/images/push.py" "$work/big-layout" "${address#*://}" >/dev/null
start_daemon '[guest]' 'template = no' '[registry "full.test"]' "mirror = $address"

files_of_images >"$work/files-before"
refused pull full.test/big:1
says_why
echo "ok: pull: $(grep -o 'desc = .*' <<<"$out" | tail -n 1)"
[ -z "$(crictl images -q)" ] || fail "half an image is seen: $(crictl images)"
files_of_images | diff "$work/files-before" - || fail "a failed pull leaves files"
room 100m
crictl pull full.test/big:1 >/dev/null || fail "the pull with room enough"
crictl images -q | has . || fail "the image is not listed"
crictl rmi full.test/big:1 >/dev/null
files_of_images | diff "$work/files-before" - || fail "a removed image leaves files"

# ---- a pod

busybox_image test.local/busybox:latest
fill
refused runp "$(pod_json none)"
says_why
echo "ok: runp: $(grep -o 'desc = .*' <<<"$out" | tail -n 1)"
[ -z "$(pgrep qemu-system || true)" ] || fail "a VM is left of a pod that has no room"
[ -z "$(find "$run/pods" "$state/pods" -mindepth 2 2>/dev/null)" ] || fail "a pod without room leaves files: $(find "$run/pods" "$state/pods")"
crictl pods -q >/dev/null || fail "pods cannot be listed"
make_room
# Its name is free, or held by a pod that can be removed.
for p in $(crictl pods -q); do crictl rmp -f "$p" >/dev/null; done
pod=$(crictl runp "$work/pod-none.json")
[ "${#pod}" -eq 64 ] || fail "a pod with room enough: $pod"

# ---- containers, and a log that finds no room

mkdir -p "$state/logs"
pod2_json=$(jq --arg d "$state/logs" '.metadata.name = "logs" | .metadata.uid = "logs" | .log_directory = $d' "$work/pod-none.json")
echo "$pod2_json" >"$work/pod-logs.json"
pod2=$(crictl runp "$work/pod-logs.json")
last=60000
counter=$(crictl create "$pod2" "$(container_json counter counter.log /bin/sh -c \
    "i=0; while [ \$i -lt $last ]; do i=\$((i+1)); echo \$i; [ \$i -ne 500 ] || until [ -e /go ]; do usleep 50000; done; done
     exec sleep 1000")" "$work/pod-logs.json")
crictl start "$counter" >/dev/null
log=$state/logs/counter.log
lines_at_least() { [ "$(wc -l <"$log")" -ge "$1" ]; }
wait_for 60 lines_at_least 500
fill
crictl exec --sync "$counter" touch /go
made=() n=0
while [ "$n" -lt 400 ]; do
    n=$((n + 1))
    out=$(crictl create "$pod" "$(container_json "c$n" "c$n.log" sleep 1000)" "$work/pod-none.json" 2>&1) || break
    made+=("$out")
    fill
done
[ "$n" -lt 400 ] || fail "400 containers were made on a full disk"
says_why
echo "ok: create, after ${#made[@]}: $(grep -o 'desc = .*' <<<"$out" | tail -n 1)"
same_containers() {
    diff <(printf '%s\n' "${made[@]}" | sed '/^$/d' | sort) <(crictl ps -a -q --pod "$pod" | sort)
}
same_containers || fail "the list is not what was answered"
[ "$(crictl exec --sync "$counter" echo alive)" = alive ] || fail "what runs does not go on"

# A container that fills the host's disk through its own: it gets the error, the machine lives.
crictl exec --sync --timeout 60 "$counter" sh -c 'dd if=/dev/zero of=/big bs=1M count=200; sync; rm -f /big; echo done' >"$work/dd" 2>&1 ||
    fail "exec of a writer: $(cat "$work/dd")"
[ "$(pgrep -c qemu-system)" -eq 2 ] || fail "a machine has ended for want of room"

# What the container has said meanwhile waits for room.
if lines_at_least "$last"; then fail "the whole log is on a full disk"; fi

# Stopping needs no room; what it cannot write down it writes down later.
begin=$SECONDS
crictl stopp "$pod" >/dev/null 2>"$work/err" || grep -qiE 'no space|full' "$work/err" || fail "stopp: $(cat "$work/err")"
[ $((SECONDS - begin)) -le 30 ] || fail "stopping took $((SECONDS - begin)) s"
[ "$(pgrep -c qemu-system)" -eq 1 ] || fail "the stopped pod's machine runs"

# Killed with the disk still full, the next one, once there is room, knows the same.
kill_daemon
make_room
launch_daemon
same_containers || fail "the list is another one after a restart"
crictl inspectp "$pod" | jq -e '.status.state == "SANDBOX_NOTREADY"' >/dev/null || fail "the stopped pod runs again"
crictl inspect "$counter" | jq -e '.status.state == "CONTAINER_RUNNING"' >/dev/null || fail "what ran does not go on"
wait_for 120 lines_at_least "$last"
awk '{print $4}' "$log" | diff -q - <(seq "$last") >/dev/null || fail "the log lost or doubled lines: $(awk '{print $4}' "$log" | diff - <(seq "$last") | head -n 5)"
crictl rmp -f "$pod" >/dev/null
pod=$(crictl runp "$(pod_json again)")
c=$(crictl create "$pod" "$(container_json c c.log sleep 1000)" "$work/pod-again.json")
crictl start "$c" >/dev/null
crictl rmp -f "$pod" "$pod2" >/dev/null
[ -z "$(crictl pods -q)$(crictl ps -a -q)" ] || fail "something is left"
[ -z "$(pgrep qemu-system || true)" ] || fail "a VM is left"
stop_daemon
echo "a full disk: errors, nothing lost, all well again with room"
