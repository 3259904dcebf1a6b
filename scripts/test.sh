#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Everything that CI checks, from a clean checkout on a bare Debian: installs what is missing, builds, and runs unit,
# sanitizer, fuzz, lint and integration tests.
#   scripts/test.sh [--only STAGE[,STAGE...]] [--list]
# Stages: deps build headers unit lint asan tsan fuzz integration tuned
set -euo pipefail
cd "$(dirname "$0")/.."

stages=(deps build headers unit lint asan tsan fuzz integration tuned)
only=
while [ $# -gt 0 ]; do
    case $1 in
    --only) only=$2 && shift 2 ;;
    --list) printf '%s\n' "${stages[@]}" && exit 0 ;;
    -h | --help) sed -n '3,6s/^# \{0,1\}//p' "$0" && exit 0 ;;
    *) echo "test.sh: unknown argument '$1'" >&2 && exit 2 ;;
    esac
done

jobs=$(nproc)
passed=() failed=() skipped=()

stage_deps() { bash scripts/deps.sh all; }
stage_build() { make -j"$jobs" WERROR=1 all tests && make guest; }
stage_headers() { make headers; }
stage_unit() { make -j"$jobs" WERROR=1 unit; }
stage_lint() { make lint; }
stage_asan() {
    # The converter is a program of its own, under limits that a sanitizer does not fit into.
    ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1 UBSAN_OPTIONS=print_stacktrace=1 UNIT_TIMEOUT=600 \
        CASEMATE_CONVERT=$PWD/build/bin/casemate-convert make -j"$jobs" BUILD=build/asan SANITIZE=address,undefined OPT=-O1 unit
}
stage_tsan() {
    # What threads share: the loop, gRPC calls from many threads, QMP callers, the store. (Tests that count events of real
    # processes within a time are run without the sanitizer's tenfold slowdown, in the stages unit and asan.)
    local tests=() t
    for t in common/loop/test_loop common/rpc/test_threads common/rpc/test_rpc host/vmm/test_qmp_client \
        host/store/test_store host/net/test_net; do
        tests+=("build/tsan/tests/unit/$t")
    done
    make -j"$jobs" BUILD=build/tsan SANITIZE=thread OPT=-O1 "${tests[@]}" &&
        UNIT_TIMEOUT=600 bash scripts/run-unit.sh build/tsan "${tests[@]}"
}
stage_fuzz() { make FUZZ_SECONDS="${FUZZ_SECONDS:-6}" fuzz; }

# run_integration TEST...: each by itself, within a time.
run_integration() {
    local t name status bad=0 n_ok=0 n_skip=0 start
    mkdir -p build/tests/log
    for t; do
        name=$(basename "$t" .sh)
        status=0 start=$SECONDS
        timeout --kill-after=30 "${INTEGRATION_TIMEOUT:-900}" bash "$t" >"build/tests/log/$name.log" 2>&1 </dev/null || status=$?
        case $status in
        0) echo "ok      $name ($((SECONDS - start)) s)" && n_ok=$((n_ok + 1)) ;;
        77)
            echo "SKIP    $name: $(tail -n 1 "build/tests/log/$name.log")"
            n_skip=$((n_skip + 1)) && skipped+=("$name")
            ;;
        *)
            echo "FAILED  $name (exit status $status, $((SECONDS - start)) s)"
            tail -n 80 "build/tests/log/$name.log"
            bad=$((bad + 1))
            ;;
        esac
    done
    echo "integration: $n_ok passed, $bad failed, $n_skip skipped"
    [ "$bad" -eq 0 ]
}

stage_integration() { run_integration tests/integration/test_*.sh; }

stage_tuned() {
    # The kernel that nodes should have is built, and what depends on a kernel most runs on it. (KERNEL=tuned has all do so.)
    local t tests=()
    [ "${KERNEL:-debian}" != tuned ] || return 0
    for t in agent_vm clone containers crictl spares userns; do
        tests+=("tests/integration/test_$t.sh")
    done
    make guest-kernel && make guest KERNEL=tuned || return 1
    local rc=0
    run_integration "${tests[@]}" || rc=1
    make guest || rc=1
    return "$rc"
}

for s in "${stages[@]}"; do
    if [ -n "$only" ] && ! grep -qw "$s" <<<"${only//,/ }"; then
        continue
    fi
    echo "== $s"
    begin=$SECONDS
    if "stage_$s"; then
        passed+=("$s")
        echo "== $s: ok ($((SECONDS - begin)) s)"
    else
        failed+=("$s")
        echo "== $s: FAILED ($((SECONDS - begin)) s)"
        case $s in deps | build) break ;; esac
    fi
done

# In CI nothing that it must have may be missing.
if [ "${CI:-}" = true ] && [ "${#skipped[@]}" -gt 0 ]; then
    echo "skipped in CI: ${skipped[*]}"
    failed+=("skips")
fi
[ "${#failed[@]}" -eq 0 ] || echo "failed: ${failed[*]}"
echo "${#passed[@]} passed, ${#failed[@]} failed, ${#skipped[@]} skipped"
[ "${#failed[@]}" -eq 0 ]
