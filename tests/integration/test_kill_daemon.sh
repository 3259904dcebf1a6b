#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# casemated is killed with SIGKILL while a container counts, again and again, and once across a log rotation: the pod runs
# on, and in the end every number is in the log once and in order.
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
isolate "$0" "$@"
need jq python3 busybox
need_tools
start_daemon '[guest]'
touch "$work/crictl.yaml"
busybox_image test.local/busybox:latest

last=${COUNT:-30000}
pod=$(crictl runp "$(pod_json count)")
# A pause every hundred numbers, so that the count lasts for as long as the kills do; stderr gets some lines too.
c=$(crictl create "$pod" "$(container_json c c.log /bin/sh -c \
    "i=0; while [ \$i -lt $last ]; do i=\$((i+1)); echo \$i; [ \$((i % 100)) -ne 0 ] || { echo err \$i >&2; usleep 30000; }; done; printf unfinished")" "$work/pod-count.json")
crictl start "$c" >/dev/null
log=$work/logs/count/c.log

lines_at_least() { [ "$(cat "$log"* | wc -l)" -ge "$1" ]; }
vm=$(pgrep qemu-system)
kills=0
for target in 500 2500 5000 9000 14000; do
    wait_for 60 lines_at_least "$target"
    kill_daemon
    kills=$((kills + 1))
    # The machine has gone on without its daemon: its ring fills meanwhile.
    kill -0 "$vm" || fail "the VM died with the daemon"
    if [ "$target" -eq 5000 ]; then
        mv "$log" "$log.1" # rotated while nobody was there
        launch_daemon
        crictl inspect "$c" | jq -e '.status.state == "CONTAINER_RUNNING"' >/dev/null || fail "not running after a restart"
        kill_daemon # and again, before the log is opened anew
        launch_daemon
        crictl inspect "$c" >/dev/null
        "$tools/crictl" --config "$work/crictl.yaml" --runtime-endpoint "unix://$socket" inspect "$c" >/dev/null
    else
        launch_daemon
    fi
done
wait_for 180 is_exited
crictl inspect "$c" | jq -e '.status.exitCode == 0 and .status.reason == "Completed"' >/dev/null || fail "exit status"

files=("$log")
[ ! -e "$log.1" ] || files=("$log.1" "$log")
cat "${files[@]}" >"$work/all.log"
if grep -vqE '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]{9}Z (stdout|stderr) [FP] ' "$work/all.log"; then
    fail "a line is not in CRI's format: $(grep -vE '^[0-9-]+T[0-9:.]+Z (stdout|stderr) [FP] ' "$work/all.log" | head -n 3)"
fi
awk '$2 == "stdout" && $3 == "F" {print $4}' "$work/all.log" >"$work/numbers"
seq "$last" >"$work/wanted"
cmp "$work/wanted" "$work/numbers" || fail "numbers are missing, doubled or out of order: $(diff "$work/wanted" "$work/numbers" | head -n 5)"
awk '$2 == "stderr" {print $5}' "$work/all.log" >"$work/errors"
seq 100 100 "$last" | cmp - "$work/errors" || fail "stderr lines are missing, doubled or out of order"
[ "$(grep -c ' stdout P unfinished$' "$work/all.log")" -eq 1 ] || fail "the unterminated last line"

crictl rmp -f "$pod" >/dev/null
[ -z "$(pgrep qemu-system || true)" ] || fail "a VM is left"
echo "killed $((kills + 1)) times; $last numbers once and in order"
