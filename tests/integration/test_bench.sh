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
for tool in go docker-registry containerd runc iptables jq unshare ip zstd qemu-system-x86_64; do
    command -v "$tool" >/dev/null || skip "$tool is missing"
done

export GOTOOLCHAIN=${GOTOOLCHAIN:-auto} GOWORK=off
(cd "$repo/tests/bench/crbench" && CGO_ENABLED=0 go vet . && CGO_ENABLED=0 go test -count=1 .) ||
    fail "crbench's own tests"

for file in bin/casemated guest/vmlinux; do
    [ -r "$repo/build/$file" ] || fail "build/$file is not built"
done
work=$(mktemp -d /var/tmp/casemate-test-bench.XXXXXX)
trap 'rm -rf "$work"' EXIT
only=pod_create_p50,exec_true_p50,idle_pod_pss,clone_agent_vs_coldboot,pods20_parallel,cni_add_p50
BENCH_OUT=$work/out TMPDIR=$work N=3 ROUNDS=1 EXEC_N=3 PODS=3 LISTS=5 PARALLEL=2 WINDOW=1s ONLY=$only PAGE=$work/out/page \
    "$repo/tests/bench/run.sh" || fail "the run failed"

results=$work/out/results.json
for metric in pod_create_p50:ms:3 lifecycle_p50:ms:3 exec_true_p50:ms:6 idle_pod_pss:MiB:3 clone_agent_vs_coldboot:ms:3 \
    cni_add_p50:ms:3; do
    IFS=: read -r name unit n <<<"$metric"
    jq -e --arg m "$name" --arg u "$unit" --argjson n "$n" '.[$m] | .peer > 0 and .casemate > 0 and .unit == $u and .n == $n and
        (.ratio - .casemate / .peer | fabs) < 1e-9 and .measured != ""' "$results" >/dev/null ||
        fail "$name: $(jq -c --arg m "$name" '.[$m]' "$results")"
done
# What was measured in another way than the metric's name says is not passed off as it.
for metric in pods20_parallel daemon_pss_100_pods; do
    jq -e --arg m "$metric" '.[$m] | .casemate == null and .ratio == null and (.reason | test("measured with [23] pods"))' \
        "$results" >/dev/null || fail "$metric: $(jq -c --arg m "$metric" '.[$m]' "$results")"
done
jq -e '.kernel and .containerd and .runc and .date and .cores and .network == "cni"' "$work/out/raw/versions.json" >/dev/null ||
    fail "versions.json is not whole"
jq -e '.samples.pod_create | length == 3' "$work/out/raw/peer-1-latency.json" >/dev/null || fail "no raw samples"
grep -q 'pod_create_p50' "$work/out/page/figures.md" || fail "the page has no figures"
for plot in "$work"/out/page/*.svg; do
    python3 -c 'import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])' "$plot" || fail "$plot is no SVG"
done
[ -s "$work/out/page/raw/casemate-1-latency.json" ] || fail "the page has no raw data"

# One metric anew: the others stay. Resumed: nothing is left to measure.
before=$(jq -c .pod_create_p50 "$results")
BENCH_OUT=$work/out TMPDIR=$work N=3 ROUNDS=1 EXEC_N=4 PEER=0 ONLY=exec_true_p50 "$repo/tests/bench/run.sh" >/dev/null ||
    fail "one metric alone"
[ "$(jq -c .pod_create_p50 "$results")" = "$before" ] || fail "another metric has changed"
jq -e '.samples.exec_true | length == 4' "$work/out/raw/casemate-1-exec.json" >/dev/null || fail "the metric was not measured anew"
begin=$SECONDS
RESUME=1 BENCH_OUT=$work/out TMPDIR=$work N=3 ROUNDS=1 ONLY=$only "$repo/tests/bench/run.sh" >"$work/log" 2>&1 || fail "resumed"
if grep 'round 1: latency' "$work/log"; then fail "measured again in $((SECONDS - begin)) s"; fi
rm "$work/log"

rm -rf "$work/out"
left=$(ls -A "$work")
[ -z "$left" ] || fail "left behind: $left"
left=$(find /sys/fs/cgroup -maxdepth 2 -name 'casemate-bench.*')
for group in $left; do
    # Only a group whose maker is gone was left behind.
    kill -0 "${group##*.}" 2>/dev/null || fail "left behind: $group"
done
echo "PASS test_bench"
