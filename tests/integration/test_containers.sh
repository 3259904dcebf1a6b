#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Containers from birth to end, over the real crictl: resources as the guest's cgroup has them, changed at run time and
# refused with a reason; a layer deleted with its container; out of memory; exits, reasons and times; what forks is killed
# whole; grace to the second; fifty containers; statistics, also of fifty.
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
need jq python3 busybox
need_tools
isolate "$0" "$@"
start_daemon '[guest]' 'memory_mib = 320'
touch "$work/crictl.yaml"
busybox_image test.local/busybox:latest

pod=$(crictl runp "$(pod_json one)")
pod_config=$work/pod-one.json

# make NAME FILTER CMD...: creates a container whose JSON went through a jq filter; prints its id.
make() {
    local name=$1 filter=$2 json
    shift 2
    json=$(container_json "$name" "$name.log" "$@")
    jq "$filter" "$json" >"$json.2"
    crictl create "$pod" "$json.2" "$pod_config"
}
status() { crictl inspect "$1" | jq -r ".status.$2"; }
exited() { [ "$(status "$1" state)" = CONTAINER_EXITED ]; }
expect() { [ "$2" = "$3" ] || fail "$1: '$2', not '$3'"; }
inside() { crictl exec --sync "$1" sh -c "$2" | tr -d '\r'; }

# ---- resources: what the spec says is what the cgroup has
c=$(make limits '.linux.resources = {cpu_shares: 512, cpu_quota: 50000, cpu_period: 100000,
    memory_limit_in_bytes: 67108864, memory_swap_limit_in_bytes: 67108864,
    unified: {"pids.max": "50", "memory.oom.group": "1"}}' sleep 1000)
crictl start "$c" >/dev/null
cgroup=/sys/fs/cgroup
expect cpu.weight "$(inside "$c" "cat $cgroup/cpu.weight")" 20
expect cpu.max "$(inside "$c" "cat $cgroup/cpu.max")" '50000 100000'
expect memory.max "$(inside "$c" "cat $cgroup/memory.max")" 67108864
expect memory.swap.max "$(inside "$c" "cat $cgroup/memory.swap.max 2>/dev/null || echo 0")" 0
expect pids.max "$(inside "$c" "cat $cgroup/pids.max")" 50
expect memory.oom.group "$(inside "$c" "cat $cgroup/memory.oom.group")" 1

# ---- changed at run time: what is named changes, the rest stays, and the status tells
crictl update --memory 100663296 --cpu-quota 20000 "$c" >/dev/null
expect 'memory.max after an update' "$(inside "$c" "cat $cgroup/memory.max")" 100663296
expect 'cpu.max after an update' "$(inside "$c" "cat $cgroup/cpu.max")" '20000 100000'
expect 'cpu.weight after an update' "$(inside "$c" "cat $cgroup/cpu.weight")" 20
expect 'resources in the status' "$(status "$c" 'resources.linux | "\(.memoryLimitInBytes) \(.cpuQuota) \(.cpuShares)"')" \
    '100663296 20000 512'
crictl update --memory -1 --cpu-quota -1 "$c" >/dev/null
expect 'limits taken away' "$(inside "$c" "cat $cgroup/memory.max $cgroup/cpu.max" | xargs)" 'max max 100000'
crictl update --memory 100663296 --cpu-quota 20000 "$c" >/dev/null
if out=$(crictl update --cpuset-mems 1 "$c" 2>&1); then fail "a memory node that is not there was taken"; fi
grep -q 'cpuset.mems 1: the guest has 0' <<<"$out" || fail "the refusal names no field: $out"
big=$(make big '.linux.resources = {memory_limit_in_bytes: 100000000}' \
    sh -c 'head -c 20000000 /dev/zero >/dev/shm/big; echo ready; sleep 1000')
crictl start "$big" >/dev/null
wait_for 60 grep -q ready "$work/logs/one/big.log"
if out=$(crictl update --memory 10000000 "$big" 2>&1); then fail "a limit below what is in use was taken"; fi
grep -q 'are in use' <<<"$out" || fail "no reason for the refusal: $out"
expect 'state after a refused update' "$(status "$big" state)" CONTAINER_RUNNING
expect 'limit after a refused update' "$(status "$big" resources.linux.memoryLimitInBytes)" 100000000
if out=$(crictl update --cpu-share 4096 --cpu-quota 10 "$c" 2>&1); then fail "a quota of 10 us was taken"; fi
expect 'cpu.weight after a refusal of cpu.max' "$(inside "$c" "cat $cgroup/cpu.weight")" 20
echo "containers: resources at the start and at run time"

# ---- a successor of the daemon knows the update
kill_daemon
launch_daemon
expect 'resources after a restart' "$(status "$c" resources.linux.memoryLimitInBytes)" 100663296

# ---- who has removed a container has the room that its layer took
inodes() { inside "$c" "df -i / | tail -n 1" | awk '{print $3}'; }
before=$(inodes)
# shellcheck disable=SC2016  # for the shell in the container
many=$(make many . sh -c 'i=0; while [ $i -lt 2000 ]; do : >/f$i; i=$((i + 1)); done; echo ready; sleep 1000')
crictl start "$many" >/dev/null
wait_for 60 grep -q ready "$work/logs/one/many.log"
crictl rm -f "$many" >/dev/null
after=$(inodes)
[ "$after" -lt $((before + 200)) ] || fail "2000 files of a removed container: $after inodes, $before before it"
echo "containers: a layer is deleted when its container is removed"

# ---- out of memory: that container ends, its neighbours do not
oom=$(make oom '.linux.resources = {memory_limit_in_bytes: 16777216, memory_swap_limit_in_bytes: 16777216}' \
    sh -c 'exec head -c 50000000 /dev/zero >/dev/shm/oom')
crictl start "$oom" >/dev/null
wait_for 60 exited "$oom"
expect 'out of memory' "$(crictl inspect "$oom" | jq -r '.status | "\(.reason) \(.exitCode)"')" 'OOMKilled 137'
inside "$c" 'rm /dev/shm/*'
expect 'the neighbour' "$(status "$c" state)" CONTAINER_RUNNING
expect 'the neighbour lives' "$(inside "$c" 'echo alive')" alive
echo "containers: out of memory"

# ---- exits: codes, signals, reasons, times, and all output before the end
ends() { # NAME SCRIPT REASON CODE
    local id
    id=$(make "$1" . sh -c "$2")
    crictl start "$id" >/dev/null
    wait_for 60 exited "$id"
    expect "$1" "$(crictl inspect "$id" | jq -r '.status | "\(.reason) \(.exitCode)"')" "$3 $4"
    crictl rm "$id" >/dev/null
}
ends zero 'exit 0' Completed 0
ends three 'exit 3' Error 3
# As the first process of its namespace a shell cannot kill itself with a signal that it does not handle.
ends term 'sh -c "kill -TERM \$\$"; exit $?' Error 143
before=$(date +%s%N)
id=$(make lines . sh -c 'seq 1 20000; echo last')
crictl start "$id" >/dev/null
wait_for 60 exited "$id"
[ "$(tail -n 1 "$work/logs/one/lines.log" | cut -d ' ' -f 4)" = last ] || fail "output is missing when the container has exited"
expect 'lines in the log' "$(wc -l <"$work/logs/one/lines.log")" 20001
crictl inspect "$id" | jq -e --arg b "$before" --arg a "$(date +%s%N)" \
    '.status | [.createdAt, .startedAt, .finishedAt] | map(sub("\\.[0-9]+"; "") | sub("[+-][0-9:]+$"; "Z") | fromdateiso8601) |
     (($b | tonumber) / 1e9 - 2 < .[0]) and (.[0] <= .[1]) and (.[1] <= .[2]) and (.[2] < ($a | tonumber) / 1e9 + 2)' >/dev/null ||
    fail "times of $(crictl inspect "$id" | jq -c '.status | {createdAt, startedAt, finishedAt}')"
nope=$(make nope . /bin/nope)
if out=$(crictl start "$nope" 2>&1); then fail "a container without its program was started"; fi
grep -q 'exec /bin/nope: no such file or directory' <<<"$out" || fail "not in words: $out"
expect 'a failed start' "$(crictl inspect "$nope" | jq -r '.status | "\(.state) \(.reason) \(.exitCode)"')" \
    'CONTAINER_EXITED StartError 128'
status "$nope" message | has 'exec /bin/nope: no such file or directory' || fail "the message: $(status "$nope" message)"
denied=$(make denied . /etc/passwd)
if out=$(crictl start "$denied" 2>&1); then fail "a file without x was run"; fi
grep -q 'exec /etc/passwd: permission denied' <<<"$out" || fail "not in words: $out"
expect 'a file that is no program' "$(status "$denied" reason)" StartError
odd=$(make odd . sleep 1000)
mkdir "$work/logs/one/odd.log"
if out=$(crictl start "$odd" 2>&1); then fail "a container without its log was started"; fi
expect 'a container without its log' "$(crictl inspect "$odd" | jq -r '.status | "\(.state) \(.reason) \(.exitCode)"')" \
    'CONTAINER_EXITED ContainerCannotRun 128'
status "$odd" message | has "odd.log" || fail "the message: $(status "$odd" message)"
echo "containers: exits, reasons, times"

# ---- what forks and forks again ends with its container; the same name again
id=$(make forks . sh -c '(setsid sh -c "sleep 2222 & sleep 2223" &) ; (sleep 2224 &) ; sleep 2225')
crictl start "$id" >/dev/null
node=$(make node '.linux.security_context.namespace_options.pid = 2' sleep 1000)
crictl start "$node" >/dev/null
count() { crictl exec --sync "$node" sh -c 'ps | grep -c "[s]leep 222" || true'; }
all_four() { [ "$(count)" = 4 ]; }
wait_for 60 all_four
crictl stop --timeout 0 "$id" >/dev/null
expect 'processes left' "$(count)" 0
crictl rm "$id" >/dev/null
id=$(make forks . true)
crictl start "$id" >/dev/null
wait_for 60 exited "$id"
echo "containers: killed whole; the name is free again"

# ---- grace: SIGTERM, three seconds, SIGKILL
id=$(make grace . sh -c 'trap "echo got it" TERM; echo ready; while :; do sleep 0.1; done')
crictl start "$id" >/dev/null
wait_for 60 grep -q ready "$work/logs/one/grace.log"
begin=$(date +%s%N)
crictl stop --timeout 3 "$id" >/dev/null
took=$((($(date +%s%N) - begin) / 1000000))
[ "$took" -ge 3000 ] || fail "killed within the grace period, after $took ms"
[ "$took" -lt 8000 ] || fail "a stop with 3 s of grace took $took ms"
grep -q 'got it' "$work/logs/one/grace.log" || fail "no SIGTERM came first"
expect 'code after the grace period' "$(status "$id" exitCode)" 137
echo "containers: grace ($took ms for 3 s)"

# ---- statistics
crictl exec --sync "$c" sh -c 'head -c 3000000 /dev/zero >/file' >/dev/null
crictl stats -o json >"$work/stats.json" || fail "stats"
jq -e --arg c "$c" '.stats[] | select(.attributes.id == $c) |
    (.cpu.usageCoreNanoSeconds.value | tonumber > 0) and (.memory.workingSetBytes.value | tonumber > 0) and
    (.memory.availableBytes.value | tonumber < 100663296) and
    (.writableLayer.usedBytes.value | tonumber >= 3000000) and (.writableLayer.inodesUsed.value | tonumber > 0)' \
    "$work/stats.json" >/dev/null || fail "stats: $(jq -c --arg c "$c" '.stats[] | select(.attributes.id == $c)' "$work/stats.json")"
crictl statsp -o json >"$work/statsp.json" || fail "statsp"
jq -e --arg p "$pod" '.stats[] | select(.attributes.id == $p) | .linux |
    (.process.processCount.value | tonumber > 2) and (.cpu.usageCoreNanoSeconds.value | tonumber > 0) and
    (.containers | length >= 3)' "$work/statsp.json" >/dev/null || fail "statsp: $(jq -c . "$work/statsp.json")"
crictl metricsp -o json >"$work/metrics.json" 2>/dev/null || crictl metricsp >"$work/metrics.json" || fail "metricsp"
grep -q casemate_machine_resident_bytes "$work/metrics.json" || fail "metrics: $(head -c 600 "$work/metrics.json")"
crictl metricdescs | grep -c container_memory_working_set_bytes >/dev/null || fail "metricdescs"
echo "containers: statistics and metrics"

# ---- fifty containers in one pod
for i in $(seq 50); do
    id=$(make "many$i" . sleep 1000)
    crictl start "$id" >/dev/null
done
expect 'running containers' "$(crictl ps -q --name 'many' | wc -l)" 50
begin=$(date +%s%N)
expect 'statistics' "$(crictl stats -o json | jq '.stats | length >= 50')" true
echo "containers: fifty; their statistics took $((($(date +%s%N) - begin) / 1000000)) ms with crictl"
crictl stopp "$pod" >/dev/null
crictl rmp "$pod" >/dev/null
[ -z "$(pgrep -a qemu-system || true)" ] || fail "a VM is left"
