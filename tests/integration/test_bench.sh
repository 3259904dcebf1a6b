#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The benchmark harness: its arithmetic, and a short run against the real peer, which must leave
# figures in the promised form and nothing else. What the figures are is not this test's business.
# Exit 0 passed, 77 a requirement is missing, else failed.
set -euo pipefail

repo=$(cd "$(dirname "$0")/../.." && pwd)

skip() {
    echo "SKIP test_bench: $*"
    exit 77
}
fail() {
    echo "FAIL test_bench: $*"
    exit 1
}

[ "$(id -u)" = 0 ] || skip "needs root for namespaces, cgroups and containers"
for tool in go docker-registry containerd runc iptables jq unshare ip zstd; do
    command -v "$tool" >/dev/null || skip "$tool is missing"
done

export GOTOOLCHAIN=${GOTOOLCHAIN:-auto} GOWORK=off
(cd "$repo/tests/bench/crbench" && CGO_ENABLED=0 go vet . && CGO_ENABLED=0 go test -count=1 .) ||
    fail "crbench's own tests"

work=$(mktemp -d /var/tmp/casemate-test-bench.XXXXXX)
trap 'rm -rf "$work"' EXIT
BENCH_OUT=$work/out TMPDIR=$work N=3 ROUNDS=1 EXEC_N=3 PODS=3 \
    ONLY=pod_create_p50,lifecycle_p50,exec_true_p50,idle_pod_pss \
    "$repo/tests/bench/run.sh" || fail "the run failed"

results=$work/out/results.json
for metric in pod_create_p50:ms lifecycle_p50:ms exec_true_p50:ms idle_pod_pss:MiB; do
    jq -e --arg m "${metric%:*}" --arg u "${metric#*:}" '.[$m] | .peer > 0 and .unit == $u and .n == 3 and
        ((.casemate == null and .ratio == null and (.reason | length > 0)) or
         (.casemate > 0 and (.ratio - .casemate / .peer | fabs) < 1e-9))' "$results" >/dev/null ||
        fail "$metric: $(jq -c --arg m "${metric%:*}" '.[$m]' "$results")"
done
jq -e '.kernel and .containerd and .runc and .date and .cores' "$work/out/raw/versions.json" >/dev/null ||
    fail "versions.json is not whole"
jq -e '.samples.pod_create | length == 3' "$work/out/raw/peer-1-latency.json" >/dev/null || fail "no raw samples"

rm -rf "$work/out"
left=$(ls -A "$work")
[ -z "$left" ] || fail "left behind: $left"
left=$(find /sys/fs/cgroup -maxdepth 2 -name 'casemate-bench.*')
for group in $left; do
    # Only a group whose maker is gone was left behind.
    kill -0 "${group##*.}" 2>/dev/null || fail "left behind: $group"
done
echo "PASS test_bench"
