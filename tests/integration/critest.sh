#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs critest specs against a freshly started daemon: FOCUS=regex SKIP=regex (defaults: what this release must pass).
# JUnit goes to build/critest/. Images come from tests/images through a registry on loopback.
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
isolate "$0" "$@"
need jq docker-registry iptables
[ -x /usr/lib/cni/bridge ] || skip "containernetworking-plugins is not installed"
need_tools

focus=${FOCUS:-}
[ -n "$focus" ] || focus=$(grep -v '^#' "$repo/tests/integration/critest.focus" | sed '/^$/d' | paste -sd'|')
skip_specs=${SKIP:-}
[ -n "$skip_specs" ] || skip_specs=$(grep -v '^#' "$repo/tests/integration/critest.skip" | sed '/^$/d' | paste -sd'|')

bash "$repo/tests/images/build.sh" "$work/images" >"$work/images.log" 2>&1 || {
    tail -n 20 "$work/images.log"
    fail "the test images could not be built"
}
address=$(bash "$repo/tests/images/serve.sh" --data "$work/images" --port 0 --read-only --pidfile "$work/registry.pid")
registry_pid=$(cat "$work/registry.pid")
registries=()
for host in registry.k8s.io k8s.gcr.io gcr.io public.ecr.aws; do
    registries+=("[registry \"$host\"]" "mirror = $address")
done
mkdir "$work/net.d"
jq -n --arg d "$work/leases" '{cniVersion: "1.0.0", name: "critest", plugins: [
    {type: "bridge", bridge: "cni0", isGateway: true, ipMasq: true, hairpinMode: true, ipam: {type: "host-local",
        dataDir: $d, ranges: [[{subnet: "10.89.0.0/16"}]], routes: [{dst: "0.0.0.0/0"}]}},
    {type: "portmap", capabilities: {portMappings: true}}]}' >"$work/net.d/10-critest.conflist"
start_daemon "${registries[@]}"

mkdir -p "$repo/build/critest"
read -ra args <<<"${CRITEST_ARGS:-}"
cd "$work"
touch crictl.yaml
status=0
"$tools/critest" -config "$work/crictl.yaml" -runtime-endpoint "unix://$socket" -image-endpoint "unix://$socket" \
    -ginkgo.focus="$focus" ${skip_specs:+-ginkgo.skip="$skip_specs"} -ginkgo.seed=1 -ginkgo.no-color \
    -ginkgo.junit-report="$repo/build/critest/junit.xml" "${args[@]}" >"$repo/build/critest/critest.log" 2>&1 || status=$?
cp "$work/casemated.log" "$repo/build/critest/casemated.log"
grep -E '^(Ran |SUCCESS|FAIL!|\[FAIL\]|  \[FAIL\])' "$repo/build/critest/critest.log" || tail -n 40 "$repo/build/critest/critest.log"
ran=$(sed -nE 's/^Ran ([0-9]+) of .*/\1/p' "$repo/build/critest/critest.log")
[ "$status" -eq 0 ] || fail "critest exited with $status; see build/critest/critest.log"
[ "${ran:-0}" -ge "${CRITEST_MIN:-1}" ] || fail "critest ran ${ran:-no} specs, at least ${CRITEST_MIN:-1} were expected"
[ -z "$(pgrep qemu-system || true)" ] || fail "a VM is left"
[ -z "$(find "$work/leases" -name '10.*')" ] || fail "an address is left"
