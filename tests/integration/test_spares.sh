#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Machines that are made ahead: a pod takes one and is its own (name, clock, randomness, cgroup); one that has died meanwhile
# costs the pod nothing; a killed daemon's are cleared at the next start, a daemon that ends takes its own along, and pods
# live on.
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
need jq python3 busybox
need_tools
isolate "$0" "$@"
SPARES=1
start_daemon '[guest]'
touch "$work/crictl.yaml"
busybox_image test.local/busybox:latest

ahead() { [ "$(grep -c 'a machine was made ahead' "$work/casemated.log")" -ge "$1" ]; }
machines() { pgrep -c qemu-system || true; }
is() { [ "$(machines)" = "$1" ]; }

# The first one comes without being asked for; a pod takes it, and another one comes.
wait_for 60 ahead 1
is 1 || fail "$(machines) machines for one spare"
one=$(crictl runp "$(pod_json one)")
wait_for 60 ahead 2
is 2 || fail "$(machines) machines for one pod and one spare"
[ "$(crictl pods -q | wc -l)" = 1 ] || fail "a spare shows as a pod"
spare=$(pgrep -n qemu-system)
[ "$(ps -o cls= -p "$spare" | tr -d ' ')" = IDL ] || fail "a spare does not stand back"
# The kernel's group of a session, where it makes them; a task in a cpu cgroup of its own has none that counts.
group_nice() { sed -n 's/.* nice //p' "/proc/$1/autogroup" 2>/dev/null || true; }
grouped=$(group_nice "$spare")
[ "${grouped:-10}" = 10 ] || fail "a spare's autogroup does not stand back: nice $grouped"

cgroup=/casemate-test-$$
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then hierarchy=/sys/fs/cgroup; else hierarchy=/sys/fs/cgroup/memory; fi
json=$(pod_json two)
jq --arg c "$cgroup" '.hostname = "second" | .linux.cgroup_parent = $c' "$json" >"$json.2"
two=$(crictl runp "$json.2")
grep -q "pod two is ready (made ahead)" "$work/casemated.log" || fail "the spare was not taken"
[ "$(ps -o cls= -L -p "$spare" | sort -u | tr -d ' ')" = TS ] || fail "the pod's machine still stands back"
[ -z "$grouped" ] || [ "$(group_nice "$spare")" = 0 ] || fail "the autogroup of the pod's machine still stands back"
find "$hierarchy$cgroup" -name cgroup.procs -exec cat {} + | has -x "$spare" || fail "the machine is not in the pod's cgroup"
c=$(crictl create "$two" "$(container_json c1 c1.log sh -c 'hostname; date +%s; ls; sleep 1000')" "$json.2")
crictl start "$c" >/dev/null
has_lines() { [ "$(crictl logs "$c" 2>/dev/null | wc -l)" -ge 4 ]; }
wait_for 30 has_lines
[ "$(crictl logs "$c" | sed -n 1p)" = second ] || fail "hostname: $(crictl logs "$c" | sed -n 1p)"
skew=$(($(crictl logs "$c" | sed -n 2p) - $(date +%s)))
[ "${skew#-}" -le 30 ] || fail "the clock is off by $skew s"
if crictl logs "$c" | has warm; then fail "traces of warming up: $(crictl logs "$c")"; fi
[ "$(crictl exec --sync "$c" sh -c 'ps | grep -c "[w]arm" || true')" = 0 ] || fail "a process of warming up is left"

# Dead when it is wanted: another machine is started in its place.
wait_for 60 ahead 3
crictl stopp "$one" >/dev/null
crictl rmp "$one" >/dev/null
kill -STOP "$daemon_pid"
kill -9 "$(pgrep -n qemu-system)"
kill -CONT "$daemon_pid"
three=$(crictl runp "$(pod_json three)")
crictl inspectp "$three" | jq -e '.status.state == "SANDBOX_READY"' >/dev/null || fail "the pod is not ready"
wait_for 60 ahead 4

# A daemon that is killed forgets its spare; the next one clears it, and no pod.
kill_daemon
spare=$(pgrep -n qemu-system)
launch_daemon
wait_for 60 ahead 5
is 3 || fail "$(machines) machines after a restart, for two pods and one spare"
if kill -0 "$spare" 2>/dev/null; then fail "the former daemon's spare is still there"; fi
crictl exec --sync "$c" true || fail "the container of an adopted machine is lost in a restart"

# One that ends takes it along.
four=$(crictl runp "$(pod_json four)")
wait_for 60 ahead 6
is 4 || fail "$(machines) machines for three pods and one spare"
stop_daemon
is 3 || fail "$(machines) machines after the daemon's end, for three pods"
launch_daemon
wait_for 60 ahead 7
for pod in "$two" "$three" "$four"; do
    crictl stopp "$pod" >/dev/null
    crictl rmp "$pod" >/dev/null
done
rmdir "$hierarchy$cgroup" 2>/dev/null || true
find /sys/fs/cgroup -depth -type d -name "casemate-test-$$" -exec rmdir {} \; 2>/dev/null || true
stop_daemon
is 0 || fail "a machine is left"

# Of two, one is left when a pod has taken the other, and the next is not begun while its container is brought up. On a busy
# machine there may be a long pause between two calls: then again, with another pod.
SPARES=2 write_config '[guest]'
: >"$work/casemated.log"
launch_daemon
stood_back=0
for i in 1 2 3 4 5; do
    wait_for 60 ahead $((i + 1))
    pod=$(crictl runp "$(pod_json "calm$i")")
    c=$(crictl create "$pod" "$(container_json "calm$i" "calm$i.log" sleep 1000)" "$work/pod-calm$i.json")
    crictl start "$c" >/dev/null
    ! is $((i + 1)) || stood_back=1
    [ "$stood_back" = 0 ] || break
    sleep 3 # pods that come in a row are served as they come
done
[ "$stood_back" = 1 ] || fail "spares are begun while containers are brought up: $(machines) machines"
wait_for 60 is $((i + 2))
crictl rmp -fa >/dev/null 2>&1
stop_daemon
is 0 || fail "a machine is left"
left=$(find "$run/pods" "$state/pods" -mindepth 2)
[ -z "$left" ] || fail "left: $left"
echo "spares: taken, dead, killed with their daemon, ended with it"
