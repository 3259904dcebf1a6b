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
mkdir -p "$work/$runtime" "$work/cni-cache" /run/netns || exit 1
mount --bind "$work/cni-cache" /var/lib/cni || exit 1
ip link set lo up || exit 1

address=$("$repo/tests/images/serve.sh" --data "$work/registry" --port 5000 --pidfile /run/registry.pid \
    --log /run/registry.log --read-only) || exit 1
runtime_start "$runtime" "$work/$runtime" "$address"

# bench SUBCOMMAND FLAG...: in the background and waited for, so that signals are seen meanwhile.
bench() {
    "$crbench" "$1" --socket "$runtime_socket" --runtime "$runtime" --out "$raw/$runtime-$round-$1.json" \
        --cgroup-parent "$cgroup" --daemon-pid "$runtime_pid" "${@:2}" &
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
    echo "bench: $runtime, round $round: $command" >&2
    case $command in
        latency) bench latency --image $image --n "$BENCH_N" --warmup 2 ;;
        exec) bench exec --image $image --n "$BENCH_EXEC_N" --warmup 3 ;;
        pull) bench pull --image registry.k8s.io/bench/pull:1 --n "$BENCH_PULLS" --warmup 0 --timeout 5m \
            --registry-log /run/registry.log --blobs 10 ;;
        pss) bench pss --image $image --pods "$BENCH_PODS" ;;
        list) bench list --image $image --pods 10 --containers "$BENCH_CONTAINERS" --n "$BENCH_LISTS" --warmup 5 ;;
    esac || failed=1
done
runtime_stop
kill "$(cat /run/registry.pid)" 2>/dev/null
if [ "$failed" != 0 ]; then
    echo "bench: $runtime failed; the end of its log:" >&2
    tail -n 15 "$work/$runtime/log" >&2
fi
exit "$failed"
