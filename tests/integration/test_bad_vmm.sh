#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A QEMU that is missing, refuses, dies or hangs, and a guest whose agent never answers, or stops answering: RunPodSandbox
# fails in time and with QEMU's own words, stop and remove need nobody's help, and each time nothing is left.
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
isolate "$0" "$@"
need jq python3 busybox pgrep losetup cc cpio
need_tools
touch "$work/crictl.yaml"
chmod 0711 "$work"
real_qemu=$(command -v qemu-system-x86_64)

# run_pod NAME TIMEOUT: runp with a deadline of the client's own, which for this call is twice the TIMEOUT; what was said
# is in $out, the seconds that it took in $took.
run_pod() {
    local begin=$SECONDS status=0
    out=$("$tools/crictl" --config "$work/crictl.yaml" --timeout "$2" --runtime-endpoint "unix://$socket" \
        --image-endpoint "unix://$socket" runp "$(pod_json "$1")" 2>&1) || status=$?
    took=$((SECONDS - begin))
    return "$status"
}

no_pods() { [ -z "$(crictl pods -q)" ]; }
# refused NAME TIMEOUT MOST PATTERN: no pod comes up, within MOST seconds, and the answer matches.
refused() {
    if run_pod "$1" "$2"; then fail "$1: a pod was made: $out"; fi
    grep -qE "$4" <<<"$out" || fail "$1: the answer has no /$4/: $out"
    [ "$took" -le "$3" ] || fail "$1: it took $took s: $out"
    wait_for 30 no_pods
    nothing_left "$1"
    echo "ok: $1 ($took s): $(grep -oE "desc = .*" <<<"$out" | tail -n 1 | cut -c 1-200)"
}

# The same but for one network namespace, which the daemon makes with its first machine and keeps.
same_footprint() {
    footprint >"$work/after"
    diff "$work/before" "$work/after" | grep '^[<>]' >"$work/diff" || true
    [ "$(wc -l <"$work/diff")" -le 1 ] && ! grep -qvx '> fd net:' "$work/diff"
}
nothing_left() {
    local end=$((SECONDS + 30))
    until same_footprint; do
        [ "$SECONDS" -lt "$end" ] || fail "$1: left behind: $(cat "$work/diff")"
        sleep 0.1
    done
    [ -z "$(pgrep qemu-system || true)" ] || fail "$1: a VM is left"
}

decided() { crictl info | jq -e '.status.conditions[] | select(.type == "RuntimeReady") | .message | test("deciding") | not'; }
quiet() { footprint >"$work/before" && sleep 0.2 && footprint | cmp -s - "$work/before"; }
launch() {
    "$bin/casemated" --config "$work/casemate.conf" >>"$work/casemated.log" 2>&1 &
    daemon_pid=$!
    wait_for 30 decided
}
# restart CONFIG...: the daemon with this configuration; it need not be ready for pods.
restart() {
    [ -z "$daemon_pid" ] || stop_daemon
    write_config "$@"
    launch
    wait_for 30 quiet
}

# stand_in COMMAND: a QEMU that runs a shell command, in a place that QEMU's own uid reaches. It is asked for its version like the real one.
stand_in() {
    # shellcheck disable=SC2016  # the stand-in's own $1
    printf '#!/bin/sh\ncase $1 in --version | -version) exec %s --version ;; esac\n%s\n' "$real_qemu" "$1" >"$work/qemu.new"
    chmod 0755 "$work/qemu.new"
    mv "$work/qemu.new" "$work/qemu"
}

# ---- QEMU

restart '[guest]' 'template = no' '[vmm]' "qemu = $work/no-such-qemu"
crictl info | jq -e '.status.conditions[] | select(.type == "RuntimeReady") | .status == false and
    (.message | test("no-such-qemu"))' >/dev/null || fail "RuntimeReady does not say what is missing: $(crictl info | jq -c .status)"
refused missing 60s 10 'no-such-qemu'

stand_in 'echo "qemu: the moon is in the wrong phase" >&2; exit 1'
restart '[guest]' 'template = no' '[vmm]' "qemu = $work/qemu"
refused refuses 60s 10 'the moon is in the wrong phase'
stand_in 'kill -KILL $$'
refused dies 60s 10 'SIGKILL'
stand_in 'exit 0'
refused ends-at-once 60s 10 'ended|status 0'
stand_in 'exec sleep 1000'
refused hangs 3s 20 'DeadlineExceeded|CANCELLED|Canceled'
[ -z "$(pgrep -x sleep || true)" ] || fail "the stand-in still runs"
# The same daemon takes a QEMU that works again.
stand_in "exec $real_qemu \"\$@\""
run_pod mended 60s || fail "a pod after QEMU was mended: $out"
crictl rmp -f "$(crictl pods -q)" >/dev/null
nothing_left mended

# The real one's own refusals.
head -c 100000 /dev/urandom >"$work/noise"
restart '[guest]' 'template = no' "kernel = $work/noise" '[vmm]'
refused no-kernel 60s 10 'kernel'

# ---- the guest

guest_with() {
    printf '#include <unistd.h>\nint main(void) { %s return 0; }\n' "$1" >"$work/init.c"
    cc -O1 -static -s -o "$work/init" "$work/init.c" || skip "no static libc to link the test's /init with (libc6-dev)"
    bash "$repo/vm-images/mkinitrd.sh" --agent "$work/init" --out "$work/silent.img" >/dev/null
}
guest_with 'for (;;) pause();'
restart '[guest]' 'template = no' "initrd = $work/silent.img" '[vmm]'
refused silent-agent 5s 25 'DeadlineExceeded|Deadline'
# Two at once, and the daemon is killed while it waits for them: the next one clears them.
pids=()
for i in 1 2; do
    (run_pod "silent$i" 60s && exit 1 || exit 0) &
    pids+=($!)
done
two_machines() { [ "$(pgrep -c qemu-system)" -eq 2 ]; }
wait_for 20 two_machines
kill_daemon
for p in "${pids[@]}"; do
    wait "$p" || fail "a pod came up without an agent"
done
launch
[ -z "$(crictl pods -q)" ] || fail "a pod is left: $(crictl pods)"
nothing_left silent-agents

guest_with ''
restart '[guest]' 'template = no' "initrd = $work/silent.img" '[vmm]'
refused agent-ends 60s 40 'panic'

# ---- a VM that worked

restart '[guest]' 'template = no'
busybox_image test.local/busybox:latest
up() {
    pod=$(crictl runp "$(pod_json "$1")")
    c=$(crictl create "$pod" "$(container_json c c.log sleep 1000)" "$work/pod-$1.json")
    crictl start "$c" >/dev/null
    vm=$(pgrep qemu-system)
}
exited() { crictl inspect "$c" | jq -e '.status.state == "CONTAINER_EXITED"' >/dev/null; }

up deaf
kill -STOP "$vm"
begin=$SECONDS
if out=$(crictl exec --sync --timeout 2 "$c" true 2>&1); then fail "exec in a machine that stands still: $out"; fi
[ $((SECONDS - begin)) -le 15 ] || fail "exec with a limit of 2 s took $((SECONDS - begin)) s"
grep -qiE 'deadline|timed out|time' <<<"$out" || fail "exec in a machine that stands still: $out"
begin=$SECONDS
crictl stopp "$pod" >/dev/null
[ $((SECONDS - begin)) -le 20 ] || fail "stopping a pod that stands still took $((SECONDS - begin)) s"
exited || fail "the container of a stopped pod is $(crictl inspect "$c" | jq -r .status.state)"
crictl rmp "$pod" >/dev/null
[ -z "$(pgrep qemu-system || true)" ] || fail "a VM is left"

up killed
kill -KILL "$vm"
wait_for 10 exited
crictl inspect "$c" | jq -e '.status.reason == "VMExited" and (.status.message | length > 0)' >/dev/null ||
    fail "no death certificate: $(crictl inspect "$c" | jq -c .status)"
crictl inspectp "$pod" | jq -e '.status.state == "SANDBOX_NOTREADY"' >/dev/null || fail "the pod outlives its machine"
crictl rmp "$pod" >/dev/null
stop_daemon
left=$(find "$run" "$state/pods" -mindepth 1 ! -type d ! -name accel.json ! -name 'scratch-*.ext4')
[ -z "$left" ] || fail "files are left: $left"
echo "a bad machine monitor and bad guests: all as expected"
