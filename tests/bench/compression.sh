#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# What the compression of layer images costs and brings: processor time to convert, size on disk, processor time of the
# virtual machine (QEMU's own) for a container that only exits, for one that reads a part of the image, and for one that
# reads four layers whole, from a cold cache each time, and what memory the guest has left with the image mounted.
# Processor time rather than elapsed time, because other load on the machine moves that less. docs/images.md has a table
# that it made. Interleaved: each round takes every compression in turn; medians of ROUNDS (default 3).
#
#   COMPRESSIONS="zstd lz4 none"   ROUNDS=3   CASEMATE_BIN=build/bin
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/../integration/lib.sh"
isolate "$0" "$@"
need jq python3 busybox
need_tools
touch "$work/crictl.yaml"
rounds=${ROUNDS:-3}
read -ra compressions <<<"${COMPRESSIONS:-zstd lz4 none}"

"$repo/tests/bench/make_image.py" "$work"
mkdir -p "$work/base/bin"
cp "$(command -v busybox)" "$work/base/bin/busybox"
ln -s busybox "$work/base/bin/sh"
layers=(--layer "$work/base")
for n in 0 1 2 3 4 5 6 7 8 9; do layers+=(--layer "$work/layer$n.tar"); done
"$repo/scripts/oci-layout.py" --out "$work/layout" --ref test.local/big:1 "${layers[@]}" >/dev/null
rm "$work"/layer*.tar

exited() { crictl inspect "$1" | jq -e '.status.state == "CONTAINER_EXITED"'; }
# cpu_ms FIELDS PID: the sum of fields of /proc/PID/stat, behind the command's name; 12 and 13 are its own, 14 and 15 its
# children's.
cpu_ms() {
    sed 's/.*) //' "/proc/$2/stat" | awk -v fields="$1" -v hz="$(getconf CLK_TCK)" \
        '{ n = split(fields, f, " "); for (i = 1; i <= n; i++) sum += $f[i]; print int(sum * 1000 / hz) }'
}

# timed_run NAME COMMAND...: sets took to the milliseconds that the virtual machine needed, output to what it printed.
timed_run() {
    local name=$1 c qemu before
    shift
    qemu=$(pgrep -o qemu-system)
    before=$(cpu_ms '12 13' "$qemu")
    c=$(crictl create "$pod" "$(IMAGE=test.local/big:1 container_json "$name" "$name.log" "$@")" "$work/pod-p.json")
    crictl start "$c" >/dev/null
    wait_for 300 exited "$c"
    took=$(($(cpu_ms '12 13' "$qemu") - before))
    output=$(cat "$work/logs/p/$name.log")
    crictl rm -f "$c" >/dev/null
}

run_one() {
    local compression=$1 convert disk
    start_daemon '[guest]' 'memory_mib = 512' '[image]' "compression = $compression"
    "$bin/casemate" image import -q "$work/layout" >/dev/null
    convert=$(cpu_ms '14 15' "$daemon_pid") # the converters, waited for
    disk=$(du -sk "$state/images" | cut -f 1)
    for load in 'exit 0' 'cat /app0/part0/*/* /app5/part1/*/* >/dev/null' 'cat /app[0-3]/*/*/* >/dev/null'; do
        sync
        pod=$(crictl runp "$(pod_json p)") # a machine of its own: nothing is cached in it
        timed_run c /bin/busybox sh -c "$load"
        times+=("$took")
        crictl stopp "$pod" >/dev/null
        crictl rmp "$pod" >/dev/null
    done
    pod=$(crictl runp "$(pod_json p)")
    timed_run m /bin/busybox sh -c 'grep MemAvailable /proc/meminfo'
    memory=$(awk '/MemAvailable/ { print int($(NF - 1) / 1024) }' <<<"$output")
    crictl stopp "$pod" >/dev/null
    crictl rmp "$pod" >/dev/null
    echo "$compression $convert $((disk / 1024)) ${times[*]} $memory" >>"$work/samples"
    stop_daemon
    rm -rf "$state"
}

for ((round = 0; round < rounds; round++)); do
    for compression in "${compressions[@]}"; do
        times=()
        run_one "$compression"
    done
done
echo 'compression convert_ms  disk_mib   exit_ms read_part_ms read_160mb_ms mem_mib'
python3 - "$work/samples" <<'PYTHON'
import statistics, sys
rows = {}
for line in open(sys.argv[1]):
    name, *values = line.split()
    rows.setdefault(name, []).append([int(v) for v in values])
for name, samples in rows.items():
    print(f"{name:11}", *(f"{statistics.median(column):9.0f}" for column in zip(*samples)))
PYTHON
