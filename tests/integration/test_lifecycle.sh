#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A pod as the kubelet drives it: init containers one after the other, a sidecar that goes on, an app that is started again as
# the next attempt while the last one is still there, what is removed in between, and the end in the kubelet's order; and
# the same life in the events of GetContainerEvents, as crictl shows them.
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
need jq python3 busybox
need_tools
isolate "$0" "$@"
start_daemon '[guest]'
touch "$work/crictl.yaml"
busybox_image test.local/busybox:latest

crictl events -o json >"$work/events.json" 2>"$work/events.err" &
events_pid=$!
# A stream begins when the daemon has the call: a pod that comes and goes until it is seen.
seen() {
    local id
    id=$(crictl runp "$(pod_json first)")
    crictl rmp -f "$id" >/dev/null
    [ -s "$work/events.json" ]
}
wait_for 60 seen

pod=$(crictl runp "$(pod_json life)")
pod_config=$work/pod-life.json
logs=$work/logs/life

# make NAME ATTEMPT CMD...: a container as the kubelet names it: its log is NAME/ATTEMPT.log. Sets c.
make() {
    local name=$1 attempt=$2
    shift 2
    mkdir -p "$logs/$name"
    container_json "$name" "$name/$attempt.log" "$@" >/dev/null
    jq --argjson a "$attempt" '.metadata.attempt = $a' "$work/container-$name.json" >"$work/container.json"
    c=$(crictl create "$pod" "$work/container.json" "$pod_config")
}
run() {
    make "$@"
    crictl start "$c" >/dev/null
}
status() { crictl inspect "$1" | jq -r ".status.$2"; }
exited() { [ "$(status "$1" state)" = CONTAINER_EXITED ]; }
ended() { # ID REASON CODE
    wait_for 60 exited "$1"
    expect "how $1 ended" "$(crictl inspect "$1" | jq -r '.status | "\(.reason) \(.exitCode)"')" "$2 $3"
}
expect() { [ "$2" = "$3" ] || fail "$1: '$2', not '$3'"; }
first_time() { head -n 1 "$1" | cut -d ' ' -f 1; }
last_time() { tail -n 1 "$1" | cut -d ' ' -f 1; }
before() { [[ $(last_time "$1") < $(first_time "$2") ]] || fail "the log $1 does not end before $2 begins"; }

# ---- init containers: each runs to its end before the next; one fails and is tried again; one is kept, the others go
run prepare 0 sh -c 'echo first; exit 4'
prepare0=$c
ended "$prepare0" Error 4
make prepare 1 sh -c 'echo second >/dev/shm/prepared; echo second'
prepare1=$c
crictl start "$prepare1" >/dev/null
ended "$prepare1" Completed 0
crictl rm --keep-logs "$prepare0" >/dev/null
run check 0 sh -c 'cat /dev/shm/prepared; echo checked'
check=$c
ended "$check" Completed 0
expect "what the second init container finds" "$(crictl logs "$check")" $'second\nchecked'
before "$logs/prepare/0.log" "$logs/prepare/1.log"
before "$logs/prepare/1.log" "$logs/check/0.log"
crictl rm --keep-logs "$check" >/dev/null
expect "the log of a removed container" "$(tail -n 1 "$logs/check/0.log" | cut -d ' ' -f 3-)" 'F checked'
expect "the kept init container" "$(crictl ps -a -q --no-trunc)" "$prepare1"
echo "lifecycle: init containers"

# ---- a sidecar (the init container that goes on), then the app, in the same sandbox
run sidecar 0 sh -c 'trap "" TERM; echo up; (setsid sh -c "sleep 3331 & sleep 3332" &); (sleep 3333 &); while :; do sleep 0.1; done'
sidecar=$c
wait_for 60 grep -q up "$logs/sidecar/0.log"
run app 0 sh -c 'echo attempt 0; cat /dev/shm/prepared; exit 3'
app0=$c
ended "$app0" Error 3
before "$logs/sidecar/0.log" "$logs/app/0.log"

# ---- the app again, while the one that has exited is still there: only as another attempt
container_json app app/0.log true >/dev/null
jq '.metadata.attempt = 0' "$work/container-app.json" >"$work/container.json"
if said=$(crictl create "$pod" "$work/container.json" "$pod_config" 2>&1); then fail "the name was free: $said"; fi
[[ $said == *"AlreadyExists"*"attempt 0 exists"*"$app0"* ]] || fail "not by name: $said"
run app 1 sh -c 'echo attempt 1; exec sleep 1000'
app1=$c
wait_for 60 grep -q 'attempt 1' "$logs/app/1.log"
expect "the first attempt" "$(status "$app0" 'reason')" Error
expect "the first attempt's log" "$(crictl logs "$app0")" $'attempt 0\nsecond'
before "$logs/app/0.log" "$logs/app/1.log"
expect "attempts of the app" "$(crictl ps -a -o json --name app | jq -c '[.containers[].metadata.attempt // 0] | sort')" '[0,1]'
crictl rm --keep-logs "$app0" >/dev/null
expect "the second attempt, after the first is gone" "$(status "$app1" state)" CONTAINER_RUNNING
# ---- a new container where an earlier one of its name and attempt has exited and was removed
run app 0 sh -c 'echo again'
ended "$c" Completed 0
expect "the log goes on" "$(cut -d ' ' -f 4- "$logs/app/0.log" | tr '\n' ,)" 'attempt 0,second,again,'
crictl rm --keep-logs "$c" >/dev/null
# ---- a daemon that is killed in between knows all of it
kill_daemon
launch_daemon
wait "$events_pid" && fail "crictl events has not heard of the daemon's death"
expect "running after the daemon's return" "$(crictl ps -q --no-trunc | sort)" "$(printf '%s\n' "$app1" "$sidecar" | sort)"
expect "the init container after the daemon's return" "$(status "$prepare1" reason)" Completed
crictl events -o json >"$work/events2.json" 2>"$work/events2.err" &
events_pid=$!
seen2() {
    local id
    id=$(crictl runp "$(pod_json second)")
    crictl rmp -f "$id" >/dev/null
    [ -s "$work/events2.json" ]
}
wait_for 60 seen2
echo "lifecycle: sidecar, attempts, a new container in the place of a removed one"

# ---- the end, in the kubelet's order: the app with its grace, then the sidecar, which ignores SIGTERM and has forked twice
make witness 0 sleep 1000
jq '.linux.security_context.namespace_options.pid = 2' "$work/container.json" >"$work/witness.json"
crictl rm --keep-logs "$c" >/dev/null
witness=$(crictl create "$pod" "$work/witness.json" "$pod_config")
crictl start "$witness" >/dev/null
count() { crictl exec --sync "$witness" sh -c 'ps -o args | grep -c "^sleep 333" || true'; }
expect "processes of the sidecar" "$(count)" 3
crictl stop --timeout 30 "$app1" >/dev/null
ended "$app1" Error 143
begin=$(date +%s%N)
crictl stop --timeout 2 "$sidecar" >/dev/null
took=$((($(date +%s%N) - begin) / 1000000))
[ "$took" -ge 2000 ] || fail "the sidecar was killed within its grace period, after $took ms"
ended "$sidecar" Error 137
expect "what the sidecar had forked" "$(count)" 0
crictl stopp "$pod" >/dev/null
ended "$witness" Error 137
crictl rmp "$pod" >/dev/null
[ -z "$(crictl ps -a -q)" ] || fail "containers are left: $(crictl ps -a)"
echo "lifecycle: the end"

# ---- the same in events
events() { jq -rs --arg id "$2" '.[] | select(.containerId == $id) | .containerEventType' "$1" 2>/dev/null | tr '\n' ' '; }
has_deleted() { events "$work/events2.json" "$pod" | has DELETED; }
wait_for 30 has_deleted
all='CONTAINER_CREATED_EVENT CONTAINER_STARTED_EVENT CONTAINER_STOPPED_EVENT CONTAINER_DELETED_EVENT '
expect "events of an init container" "$(events "$work/events.json" "$check")" "$all"
expect "events of the pod's beginning" "$(events "$work/events.json" "$pod")" 'CONTAINER_CREATED_EVENT CONTAINER_STARTED_EVENT '
expect "events of the pod's end" "$(events "$work/events2.json" "$pod")" 'CONTAINER_STOPPED_EVENT CONTAINER_DELETED_EVENT '
expect "events of the sidecar's end" "$(events "$work/events2.json" "$sidecar")" 'CONTAINER_STOPPED_EVENT CONTAINER_DELETED_EVENT '
jq -es --arg id "$prepare0" 'map(select(.containerId == $id and .containerEventType == "CONTAINER_STOPPED_EVENT")) | .[0] |
    .podSandboxStatus.metadata.name == "life" and .podSandboxStatus.state == "SANDBOX_READY" and
    (.containersStatuses[] | select(.id == $id) | .state == "CONTAINER_EXITED" and .exitCode == 4 and .reason == "Error")' \
    "$work/events.json" >/dev/null || fail "the statuses of an event: $(cat "$work/events.json")"
# The kubelet knows by the pod's own status that a pod is gone.
jq -es --arg id "$pod" 'map(select(.containerId == $id and .containerEventType == "CONTAINER_DELETED_EVENT")) | .[0] |
    .podSandboxStatus.id == $id and .podSandboxStatus.state == "SANDBOX_NOTREADY" and (.containersStatuses | length) == 0' \
    "$work/events2.json" >/dev/null || fail "the pod's last event: $(cat "$work/events2.json")"

# ---- a listener that does not listen: its stream ends, nothing waits for it, and another one hears everything
pod_json stuck >/dev/null
jq '.annotations = {large: ("x" * 300000)}' "$work/pod-stuck.json" >"$work/large.json"
pod_config=$work/large.json logs=$work/logs/stuck
pod=$(crictl runp "$pod_config")
crictl events -o json >"$work/stuck.json" 2>"$work/stuck.err" &
stuck_pid=$!
hears() {
    run hears 0 true
    ended "$c" Completed 0
    crictl rm "$c" >/dev/null
    [ -s "$work/stuck.json" ]
}
wait_for 60 hears
# Of that name, the one that writes there: between it and us is a shell.
stuck=$(pgrep -f "events -o json" | while read -r p; do
    if [ "$(readlink "/proc/$p/fd/1")" = "$work/stuck.json" ] && [ "$(cat "/proc/$p/comm")" = crictl ]; then echo "$p"; fi
done)
[ -n "$stuck" ] || fail "there is no crictl events"
kill -STOP "$stuck"
cut_off() { grep -q 'GetContainerEvents: the client does not keep up' "$work/casemated.log"; }
for i in $(seq 20); do
    if cut_off; then break; fi
    run "many$i" 0 true
    ended "$c" Completed 0
done
cut_off || fail "the listener was not cut off"
run last 0 true
ended "$c" Completed 0
last=$c
heard() { events "$work/events2.json" "$last" | has STOPPED; }
wait_for 60 heard
kill -CONT "$stuck"
wait "$stuck_pid" && fail "a listener that did not keep up ended well"
has ResourceExhausted <"$work/stuck.err" || fail "not in words: $(cat "$work/stuck.err")"
crictl rmp -f "$pod" >/dev/null
echo "lifecycle: a listener that does not listen"

# ---- a daemon that ends tells its listeners
stop_daemon
wait "$events_pid" && fail "crictl events ended well"
has 'casemated is ending' <"$work/events2.err" || fail "crictl events: $(cat "$work/events2.err")"
echo "lifecycle: events"
