#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A hundred pods at a time, each a clone: all become ready, each guest answers for itself, also to the next daemon after this
# one was killed, and in the end nothing is left of them.
#   PODS=100
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
isolate "$0" "$@"
need jq
need_tools
start_daemon '[guest]'
touch "$work/crictl.yaml"
pods=${PODS:-100}
mkdir -p "$work/ids"

run_pod() { crictl runp "$(pod_json "p$1")" >"$work/ids/$1"; }
run_every_fourth() { # FIRST
    local n
    for ((n = $1; n <= pods; n += 4)); do
        run_pod "$n" || return 1
    done
}
run_pod 1 # itself a clone or, on a slow machine, booted while the template is made
template_made() { grep -q 'template .* made in' "$work/casemated.log"; }
wait_for 120 template_made
workers=()
for first in 2 3 4 5; do
    run_every_fourth "$first" 2>>"$work/err" &
    workers+=($!)
done
for worker in "${workers[@]}"; do
    wait "$worker" || fail "a pod did not start: $(tail -n 3 "$work/err")"
done
[ "$(cat "$work/ids"/* | sort -u | wc -l)" = "$pods" ] || fail "not $pods different pods"
[ "$(pgrep -c qemu-system)" = "$pods" ] || fail "$(pgrep -c qemu-system) machines for $pods pods"
[ "$(crictl pods --state ready -q | wc -l)" = "$pods" ] || fail "not all are ready"
booted=$(grep -c 'the machine boots' "$work/casemated.log" || true)
[ "$booted" -le 1 ] || fail "$booted pods were booted instead of cloned"

# What a guest says of itself; one that does not answer is not listed.
answers() { crictl statsp -o json | jq '[.stats[] | select(.linux.memory.workingSetBytes.value != null)] | length'; }
all_answer() { [ "$(answers)" = "$pods" ]; }
wait_for 60 all_answer
kill_daemon
launch_daemon
[ "$(crictl pods --state ready -q | wc -l)" = "$pods" ] || fail "not all were found again"
wait_for 60 all_answer

# shellcheck disable=SC2046
crictl stopp $(cat "$work/ids"/*) >/dev/null
# shellcheck disable=SC2046
crictl rmp $(cat "$work/ids"/*) >/dev/null
[ -z "$(pgrep qemu-system || true)" ] || fail "a machine is left"
left=$(find "$run/pods" "$state/pods" -mindepth 2)
[ -z "$left" ] || fail "left: $left"
stop_daemon
echo "$pods clones: ready, each answering, found again, nothing left"
