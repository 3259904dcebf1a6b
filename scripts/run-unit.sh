#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs cmocka programs one after another: run-unit.sh BUILDDIR PROGRAM...
# Every program's output goes to BUILDDIR/tests/log/; what failed is printed, what was skipped is named, and the
# closing line says how many there were. UNIT_TIMEOUT bounds one program (seconds).
#
# Where that is permitted each program has a PID namespace of its own, so that whatever it has started (machines, registries)
# ends with it, also when it is cut off; and a program that ends and leaves processes behind has failed.
#
# With CI=true nothing may be skipped for want of what this tree builds or scripts/deps.sh installs.
set -euo pipefail
build=$1
shift
log=$build/tests/log
mkdir -p "$log"
# The namespace's first process outlives the program, reaps, and looks who is left (after their time to die of it).
# shellcheck disable=SC2016
inside='"$@"; status=$?
    for _ in $(seq 100); do
        left=$(grep -hs "^Name:" /proc/[2-9]/status /proc/[1-9][0-9]*/status | cut -f 2 | grep -vx -e grep -e cut -e bash -e seq)
        [ -n "$left" ] || exit $status
        sleep 0.1
    done
    echo "FAILED: processes are left: $left"
    exit $((status == 0 ? 125 : status))'
apart=()
if unshare --pid --fork --kill-child --mount-proc true 2>/dev/null; then
    apart=(unshare --pid --fork --kill-child --mount-proc bash -c "$inside" bash)
fi
passed=0 failed=0 skipped=0
provided='is not installed|is not built|make guest|needs containernetworking-plugins'
for program in "$@"; do
    case $program in *.a | *.o) continue ;; esac
    name=${program#"$build"/}
    out=$log/$(basename "$program").log
    status=0 start=$SECONDS
    timeout --kill-after=10 "${UNIT_TIMEOUT:-300}" "${apart[@]}" "$program" >"$out" 2>&1 </dev/null || status=$?
    n_pass=$(grep -c '^\[       OK \]' "$out" || true)
    n_skip=$(grep -c '^\[  SKIPPED \] .' "$out" || true)
    n_skip=$((n_skip / 2 + n_skip % 2))
    skipped=$((skipped + n_skip))
    if [ "$status" -eq 0 ]; then
        passed=$((passed + n_pass))
        echo "ok      $name ($n_pass tests$([ "$n_skip" -gt 0 ] && echo ", $n_skip skipped"), $((SECONDS - start)) s)"
        grep -a '^SKIP: ' "$out" || true
        if [ "${CI:-}" = true ] && grep -aqE "^SKIP: .*($provided)" "$out"; then
            failed=$((failed + 1))
            echo "FAILED  $name skips in CI what CI has"
        fi
    else
        failed=$((failed + 1))
        passed=$((passed + n_pass))
        echo "FAILED  $name (exit status $status, $((SECONDS - start)) s)"
        tail -n 60 "$out"
    fi
done
echo "unit: $passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
