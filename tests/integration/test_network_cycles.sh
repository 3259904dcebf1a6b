#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# 200 pods' networks up and down through host/net and real plugins, four at a time, without machines: no lease, link,
# rule or namespace is left.
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
isolate "$0" "$@"
need iptables ip6tables tc
[ -x /usr/lib/cni/bridge ] || skip "containernetworking-plugins is not installed"
test=$repo/build/tests/unit/host/net/test_plugins
[ -x "$test" ] || fail "$test is not built"
cd "$repo"
CYCLES=${CYCLES:-200} "$test" >"$work/out" 2>&1 || {
    tail -n 40 "$work/out"
    fail "something failed, or was left"
}
grep ' cycles: ' "$work/out" || fail "nothing was done"
