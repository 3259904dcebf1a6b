#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Pods whose machines are clones of one template: what two of them must never have in common, a template that survives the
# daemon, the daemon killed in the middle of many starts, memory that grows and comes back, runtime handlers.
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
isolate "$0" "$@"
need jq python3 busybox openssl curl
need_tools
start_daemon '[guest]' '[handler "cold"]' 'template = no' '[handler "bounded"]' 'template = no' 'memory_max_mib = 384'
touch "$work/crictl.yaml"

# busybox for a shell, openssl and its libraries for keys.
root=$work/busybox-rootfs
for file in $(command -v openssl) $(ldd "$(command -v openssl)" | grep -o '/[^ ]*'); do
    mkdir -p "$root$(dirname "$file")"
    cp -L "$file" "$root$file"
done
busybox_image test.local/busybox:latest

info() { crictl inspectp "$1" | jq -r ".info.info // .info | if type == \"string\" then fromjson else . end | $2"; }
run_sleeper() { # NAME: pod and container ids
    local pod c
    pod=$(crictl runp "$(pod_json "$1")" 2>/dev/null)
    c=$(crictl create "$pod" "$(container_json "$1" "$1.log" /bin/sleep 1000)" "$work/pod-$1.json")
    crictl start "$c" >/dev/null
    echo "$pod $c"
}

# shellcheck disable=SC2016
has_grown() { [ "$(crictl exec -s "$c" awk '/MemTotal/ {print $2}' /proc/meminfo)" -gt 655360 ]; }
# crictl has no word for UpdatePodSandboxResources.
update_pod() { # POD BYTES CPU_QUOTA
    python3 -c '
import struct, sys
def varint(n):
    return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)
def field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data
numbers = {1: 100000, 2: int(sys.argv[3]), 4: int(sys.argv[2])}
q = field(1, sys.argv[1].encode()) + field(3, b"".join(varint(n << 3) + varint(v) for n, v in numbers.items()))
sys.stdout.buffer.write(struct.pack(">BI", 0, len(q)) + q)' "$1" "$2" "$3" >"$work/request"
    curl -sS --http2-prior-knowledge --unix-socket "$socket" -H 'content-type: application/grpc' -H 'te: trailers' \
        -D "$work/headers" -o /dev/null --data-binary "@$work/request" \
        http://localhost/runtime.v1.RuntimeService/UpdatePodSandboxResources
    grep -qi '^grpc-status: 0' "$work/headers" || fail "UpdatePodSandboxResources: $(cat "$work/headers")"
}

# ---- uniqueness: everything that is drawn at random, names the machine or its boot, or tells the time
read -r pod_a a < <(run_sleeper a)
read -r pod_b b < <(run_sleeper b)
for pod in "$pod_a" "$pod_b"; do
    [ "$(info "$pod" .cloned)" = true ] || fail "pod $pod is no clone: $(crictl inspectp "$pod" | jq -c .info)"
done
# One value per line; the first look is at the very first bytes that a container draws.
# shellcheck disable=SC2016
look='head -c 32 /dev/urandom | base64; head -c 32 /dev/random | base64; cat /proc/sys/kernel/random/uuid
    openssl rand -hex 32; openssl ecparam -name prime256v1 -genkey -noout; openssl genrsa 1024 2>/dev/null; mktemp -u'
for c in "$a" "$b" "$a" "$b"; do
    crictl exec -s "$c" /bin/sh -c "$look"
done | grep . >"$work/values"
# Nothing but the lines that frame keys.
twice=$(sort "$work/values" | grep -v -- '-----' | uniq -d)
[ -z "$twice" ] || fail "drawn twice: $twice"
[ "$(wc -l <"$work/values")" -gt 60 ] || fail "not everything was drawn: $(cat "$work/values")"
# What names a machine or its boot: whatever of it there is.
for c in a b; do
    crictl exec -s "${!c}" /bin/sh -c 'cat /proc/sys/kernel/random/boot_id; hostname; cd /sys/class
        cat /etc/machine-id /var/lib/dbus/machine-id dmi/id/*_uuid dmi/id/*_serial net/[!l]*/address 2>/dev/null; :' |
        grep . | sort -u >"$work/names.$c"
    [ "$(wc -l <"$work/names.$c")" -ge 2 ] || fail "a pod without a name or a boot id: $(cat "$work/names.$c")"
done
same=$(comm -12 "$work/names.a" "$work/names.b")
[ -z "$same" ] || fail "two pods have the same: $same"
now=$(date +%s)
for c in "$a" "$b"; do
    there=$(crictl exec -s "$c" date +%s)
    if [ $((there - now)) -gt 60 ] || [ $((now - there)) -gt 60 ]; then fail "the clock is off by $((there - now)) s"; fi
    # A second of the guest's monotonic clock is about a second here too.
    # shellcheck disable=SC2016
    crictl exec -s "$c" /bin/sh -c 'a=$(cut -d. -f1 /proc/uptime); sleep 1; b=$(cut -d. -f1 /proc/uptime); [ "$b" -gt "$a" ]' ||
        fail "the monotonic clock stands still"
done

# ---- a pod that the kubelet gives more has a machine that has more, and a later daemon knows it
c=$a
# shellcheck disable=SC2016
busy='cpu() { echo $(awk "/^cpu$1 / {print \$2}" /proc/stat) $(awk "/^usage_usec/ {print \$2}" /sys/fs/cgroup/cpu.stat) \
        $(awk "{print int(\$1 * 1000)}" /proc/uptime); }
    { while :; do :; done; } & { while :; do :; done; } &
    before=$(cpu "$1"); sleep 3; after=$(cpu "$1"); kill %1 %2
    set -- $before $after
    echo $(($4 - $1)) $((($5 - $2) / ($6 - $3)))'
# Two busy processes: user ticks of the processor, and thousandths of a CPU that the container had of all of them.
busy_on() { crictl exec -s "$a" /bin/sh -c "$busy" sh "$1"; }
read -r _ used < <(busy_on 0)
if [ "$used" -lt 500 ] || [ "$used" -gt 1100 ]; then fail "two processes on one vCPU had $used thousandths of a CPU"; fi
update_pod "$pod_a" 536870912 200000
wait_for 60 has_grown
# The host's size bounds a machine's.
if [ "$(nproc)" -ge 2 ]; then
    has_two() { [ "$(crictl exec -s "$a" nproc)" -eq 2 ]; }
    wait_for 60 has_two
    read -r ticks used < <(busy_on 1)
    if [ "$ticks" -lt 100 ] || [ "$used" -lt 1300 ]; then
        fail "two processes on two vCPUs had $used thousandths of a CPU, $ticks ticks on the added one"
    fi
fi

# ---- the template survives the daemon, clones too
wait_for 60 test -e "$state"/templates/*/template.json
before=$(stat -c %i "$state"/templates/*/memory)
kill_daemon
launch_daemon
wait_for 60 grep -q 'template .* read in' "$work/casemated.log"
[ "$(crictl exec -s "$a" /bin/echo alive)" = alive ] || fail "a clone did not survive the daemon"
[ "$(info "$pod_a" .memoryLimit)" = 536870912 ] || fail "a pod's new limit is forgotten: $(crictl inspectp "$pod_a" | jq -c .info)"
[ "$(stat -c %i "$state"/templates/*/memory)" = "$before" ] || fail "the template was made again"
crictl rmp -fa >/dev/null 2>&1

# ---- handlers
pod=$(crictl runp --runtime cold "$(pod_json cold)" 2>/dev/null)
[ "$(info "$pod" .cloned)" = false ] || fail "a pod of a handler without template is a clone"
if crictl runp --runtime nonesuch "$(pod_json nonesuch)" 2>/dev/null; then fail "an unknown handler was taken"; fi
crictl info | jq -e '[.runtimeHandlers[] | .name // ""] | index("cold") and index("casemate") and index("")' >/dev/null ||
    fail "Status does not list the handlers: $(crictl info | jq -c .runtimeHandlers)"
crictl info | jq -e '.casemate | if type == "string" then fromjson else . end | .handlers[] |
    select(.name == "cold" and .machine == "q35" and .template == false and .accelerator == "tcg")' >/dev/null ||
    fail "Status does not say what the handlers are: $(crictl info | jq -c .casemate)"
# The templates' memory is shown, and its bound.
crictl info | jq -e '.casemate | if type == "string" then fromjson else . end | .templates |
    .count == 1 and .bytes > 16777216 and .bytes <= .maxBytes and .maxBytes == 2147483648 and .refused == 0' >/dev/null ||
    fail "Status on templates: $(crictl info | jq -c .casemate)"
"$bin/casemate" metrics | has -x 'casemate_templates 1' || fail "metrics on templates: $("$bin/casemate" metrics)"
# One start since this daemon began: each phase of it was counted.
"$bin/casemate" metrics >"$work/metrics"
for phase in pod machine agent configuration; do
    grep -qx "casemate_start_phase_duration_seconds_count{phase=\"$phase\"} 1" "$work/metrics" ||
        fail "no start was counted: $(cat "$work/metrics")"
done
crictl rmp -fa >/dev/null 2>&1

# ---- memory: a pod gets what its resources say, and what it frees goes back to the host
jq '.linux.resources = {memory_limit_in_bytes: 536870912}' "$(pod_json big)" >"$work/pod-big2.json"
pod=$(crictl runp "$work/pod-big2.json" 2>/dev/null)
[ "$(info "$pod" .cloned)" = true ] || fail "a pod with a memory limit is no clone"
c=$(crictl create "$pod" "$(container_json big big.log /bin/sleep 1000)" "$work/pod-big2.json")
crictl start "$c" >/dev/null
wait_for 60 has_grown
# A container uses so many MB and lets go of them: the host has them back, the template's own pages excepted.
gives_back() { # POD CONTAINER MB
    local qemu idle used
    qemu=$(info "$1" .pid)
    idle=$(rss "$qemu")
    crictl exec -s "$2" awk "BEGIN { s = sprintf(\"%${3}000000s\", \"x\"); print length(s) }" >/dev/null
    used=$(rss "$qemu")
    [ "$used" -gt $((idle + $3 / 2)) ] || fail "$3 MB were used and the machine has $idle, then $used MiB"
    wait_for 60 has_less_than "$qemu" $((used - $3 / 2))
}
rss() { awk '/^Rss/ {print int($2 / 1024)}' "/proc/$1/smaps_rollup"; }
has_less_than() { [ "$(rss "$1")" -lt "$2" ]; }
gives_back "$pod" "$c" 200
# Of the memory that the machine was born with, too.
read -r pod c < <(run_sleeper small)
gives_back "$pod" "$c" 60
# A container that is given more while it runs has a machine that has more.
crictl update --memory 536870912 "$c" >/dev/null
wait_for 60 has_grown
# So has one whose limit is known from the start, in a pod that says nothing; machines that booted grow too.
jq '.linux.resources = {memory_limit_in_bytes: 536870912}' "$(container_json limit limit.log /bin/sleep 1000)" >"$work/limit.json"
for handler in '' cold; do
    pod=$(crictl runp --runtime "$handler" "$(pod_json "limit$handler")" 2>/dev/null)
    c=$(crictl create "$pod" "$work/limit.json" "$work/pod-limit$handler.json")
    crictl start "$c" >/dev/null
    wait_for 60 has_grown
done
# Not more than the configuration says.
jq '.metadata.name = "bounded"' "$work/pod-big2.json" >"$work/pod-bounded.json"
pod=$(crictl runp --runtime bounded "$work/pod-bounded.json" 2>/dev/null)
c=$(crictl create "$pod" "$(container_json bounded bounded.log /bin/sleep 1000)" "$work/pod-bounded.json")
crictl start "$c" >/dev/null
# shellcheck disable=SC2016
there=$(crictl exec -s "$c" awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
if [ "$there" -gt 384 ] || [ "$there" -lt 257 ]; then fail "a machine bounded by 384 MiB has $there"; fi
crictl rmp -fa >/dev/null 2>&1

# ---- the daemon is killed in the middle of many starts: a successor leaves nothing of them
leftovers() {
    pgrep -a qemu-system || true
    find "$run/pods/vm" "$state/pods/disk" -mindepth 1 2>/dev/null
}
[ -z "$(leftovers)" ] || fail "before: $(leftovers)"
for i in $(seq 20); do
    crictl runp "$(pod_json "storm$i")" >/dev/null 2>&1 &
done
some_run() { [ "$(pgrep -c qemu-system)" -ge 5 ]; }
wait_for 60 some_run
kill_daemon
wait || true
launch_daemon
# Those that were ready are pods like any other; the rest is gone.
crictl pods -q >"$work/ready"
[ "$(pgrep -c qemu-system || true)" -le $(($(wc -l <"$work/ready") + 1)) ] ||
    fail "$(wc -l <"$work/ready") pods and machines: $(pgrep -a qemu-system | cut -c-80)"
crictl rmp -fa >/dev/null 2>&1
nothing_left() { [ -z "$(leftovers)" ]; }
wait_for 30 nothing_left
echo "clones differ, the template survives, memory comes back, nothing is left"
