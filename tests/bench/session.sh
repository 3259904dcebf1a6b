#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# One runtime, one round: run by run.sh as the first process of network, mount and process
# namespaces of its own. Starts the registry and the runtime, runs the load generator's subcommands,
# stops both. When this process ends, the kernel ends all others of the namespace and drops its
# mounts and interfaces, whatever state they are in.
#
#   session.sh RUNTIME ROUND WORKDIR RAWDIR CRBENCH CGROUP SUBCOMMAND...
set -uo pipefail

repo=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=tests/bench/runtimes.sh
. "$repo/tests/bench/runtimes.sh"

runtime=$1 round=$2 work=$3 raw=$4 crbench=$5 cgroup=$6
shift 6

# The settings that a subcommand's time depends on; run.sh exports them.
: "${BENCH_N:?}" "${BENCH_EXEC_N:?}" "${BENCH_PULLS:?}" "${BENCH_PODS:?}" "${BENCH_LISTS:?}"

child='' interrupted=0
# A signal to the session interrupts the load generator, which then cleans up and ends; so does the
# session.
trap 'interrupted=1; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null' TERM INT

# The mounts: /run is private (sockets, network namespaces, shims), and so is what CNI keeps.
mount -t tmpfs -o mode=0755 tmpfs /run || exit 1
mkdir -p "$work/$runtime" "$work/cni-cache" /run/netns /var/lib/cni || exit 1
mount --bind "$work/cni-cache" /var/lib/cni || exit 1
ip link set lo up || exit 1

address=$("$repo/tests/images/serve.sh" --data "$work/registry" --port 5000 --pidfile /run/registry.pid \
    --log /run/registry.log --read-only) || exit 1
runtime_start "$runtime" "$work/$runtime" "$address"

# The accelerator that casemated has decided on.
casemate_accel() {
    "$repo/build/bin/casemate" version --json --socket "$runtime_socket" | jq -r .daemon.accelerator
}

# bench SUBCOMMAND FLAG...: in the background and waited for, so that signals are seen meanwhile.
bench() {
    local name=$runtime
    [ "$1" != coldboot ] || name=qemu
    "$crbench" "$1" --socket "$runtime_socket" --runtime "$name" --out "$raw/$name-$round-$command.json" \
        --commit "${BENCH_COMMIT:-}" --cgroup-parent "$cgroup" --daemon-pid "$runtime_pid" "${@:2}" &
    child=$!
    wait "$child"
    local rc=$?
    # wait is cut short by the trap; the second one is for the end.
    kill -0 "$child" 2>/dev/null && wait "$child"
    child=''
    return "$rc"
}

image=registry.k8s.io/e2e-test-images/busybox:1.29-2
failed=0
for command; do
    [ "$interrupted" = 0 ] || break
    if [ "$SECONDS" -ge "${BENCH_SESSION_TIME:-3600}" ]; then
        echo "bench: out of time: $runtime, round $round: $command is left out" >&2
        failed=1
        continue
    fi
    echo "bench: $runtime, round $round: $command; a random read in 12 MiB takes $("$work/cachelat") ns" >&2
    # --limit: after so long few repetitions are enough.
    case $command in
        latency) bench latency --image $image --n "$BENCH_N" --warmup 2 --limit 60s ;;
        rested) bench latency --image $image --n $((BENCH_N < 30 ? BENCH_N : 30)) --warmup 2 --limit 120s --pause 2500ms \
            --suffix _rested ;;
        nospares) bench latency --image $image --n $((BENCH_N < 20 ? BENCH_N : 20)) --warmup 2 --limit 40s --suffix _no_spares ;;
        loopback) bench latency --image $image --n $((BENCH_N < 20 ? BENCH_N : 20)) --warmup 2 --limit 80s --pause 2500ms \
            --suffix _loopback ;;
        exec) bench exec --image $image --n "$BENCH_EXEC_N" --warmup 3 --limit 20s ;;
        pull) bench pull --image registry.k8s.io/bench/pull:1 --second registry.k8s.io/bench/pull:2 --n "$BENCH_PULLS" \
            --warmup 0 --timeout 5m --limit 90s --registry-log /run/registry.log --blobs 10 ;;
        density) bench density --image $image --pods "$BENCH_PODS" --n "$BENCH_LISTS" --window "${WINDOW:-10s}" --limit 240s ;;
        list) bench list --image $image --pods 10 --containers "$BENCH_CONTAINERS" --n "$BENCH_LISTS" --warmup 5 --limit 120s ;;
        parallel) bench parallel --pods "$BENCH_PARALLEL" --n $((BENCH_N < 3 ? 1 : 3)) --warmup 1 --limit 60s ;;
        clone) bench clone --n $((BENCH_N < 15 ? BENCH_N : 15)) --warmup 1 --limit 40s ;;
        coldboot) bench coldboot --n $((BENCH_N < 8 ? BENCH_N : 8)) --warmup 1 --limit 30s --qemu "$(command -v qemu-system-x86_64)" \
            --kernel "$repo/build/guest/vmlinux" --initrd "$repo/build/guest/initrd.img" --accel "$(casemate_accel)" ;;
        network) bench network --image registry.k8s.io/bench/net:1 --n $((BENCH_N < 3 ? 1 : 3)) --warmup 0 --limit 60s \
            --nettool "$work/net/nettool" ;;
        plugins) bench plugins --n "$BENCH_N" --warmup 2 --limit 20s --cni-conf "$work/$runtime/cni/10-bench.conflist" \
            --cni-bin "$work/$runtime/cni-bin" ;;
    esac || failed=1
done
[ "$runtime" != casemate ] || casemate_accel >"$work/accelerator"
runtime_stop
kill "$(cat /run/registry.pid)" 2>/dev/null
if [ "$failed" != 0 ]; then
    echo "bench: $runtime failed; the end of its log:" >&2
    tail -n 15 "$work/$runtime/log" >&2
fi
exit "$failed"
