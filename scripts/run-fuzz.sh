#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs each libFuzzer target for FUZZ_SECONDS (default 10), starting from tests/fuzz/corpus/NAME where there is one:
# run-fuzz.sh BUILDDIR TARGET...  A finding stays in BUILDDIR/tests/fuzz/ for `TARGET FILE` to reproduce.
set -euo pipefail
build=$1
shift
failed=0
for target in "$@"; do
    name=$(basename "$target")
    work=$build/tests/fuzz/work/$name
    mkdir -p "$work"
    seeds=()
    [ -d "tests/fuzz/corpus/$name" ] && seeds=("tests/fuzz/corpus/$name")
    log=$build/tests/fuzz/$name.log
    status=0
    "$target" -max_total_time="${FUZZ_SECONDS:-10}" -timeout=10 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 \
        -artifact_prefix="$build/tests/fuzz/$name-" "$work" "${seeds[@]}" >"$log" 2>&1 </dev/null || status=$?
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    if [ "$status" -eq 0 ] && [ "${runs:-0}" -gt 0 ]; then
        echo "ok      $name ($runs runs)"
    else
        failed=$((failed + 1))
        echo "FAILED  $name (exit status $status)"
        tail -n 40 "$log"
    fi
done
echo "fuzz: $(($# - failed)) passed, $failed failed"
[ "$failed" -eq 0 ]
