#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Static checks: lint.sh BUILDDIR. Formatting, clang-tidy, cppcheck, shellcheck, and the arrows between rooms.
# Each tool that is missing is named; with CI=true a missing tool is a failure.
set -euo pipefail
build=$1
failed=0

have() {
    command -v "$1" >/dev/null && return 0
    echo "SKIP: $1 is not installed"
    [ "${CI:-}" != true ] || failed=1
    return 1
}

mapfile -t c_files < <(git ls-files -co --exclude-standard '*.c' | grep -v '^tests/images/')
mapfile -t all_c < <(git ls-files -co --exclude-standard '*.c' '*.h')
mapfile -t scripts < <(git ls-files -co --exclude-standard | xargs grep -lE '^#!.*\b(ba)?sh$' 2>/dev/null)

if have shellcheck; then
    shellcheck -x "${scripts[@]}" || failed=1
fi
if have clang-format; then
    clang-format --dry-run --Werror "${all_c[@]}" || failed=1
fi
if have cppcheck; then
    # Suppressed: what cppcheck reads wrongly here. It does not expand sys/queue.h (syntaxError), does not know the cleanup
    # attribute and steal_ptr (memleak, autoVariables, uninitvar), nor loops bounded by a found NUL (arrayIndex…).
    cppcheck -q --std=c11 --enable=warning,portability --inline-suppr --error-exitcode=1 -j2 -D_GNU_SOURCE -D__x86_64__ \
        --suppress=syntaxError --suppress=memleak --suppress=autoVariables --suppress=uninitvar \
        --suppress=arrayIndexOutOfBoundsCond \
        --suppress=missingIncludeSystem --suppress=unknownMacro --suppress=nullPointerOutOfMemory \
        --suppress=ctunullpointerOutOfMemory --suppress=nullPointerArithmeticOutOfMemory \
        -I. common host agent || failed=1
fi
if have clang-tidy; then
    mapfile -t tidy_files < <(printf '%s\n' "${c_files[@]}" | grep -E '^(common|host|agent)/')
    # shellcheck disable=SC2016 # expanded by the inner shell
    printf '%s\0' "${tidy_files[@]}" | xargs -0 -P2 -n4 bash -c '
        build=$0
        clang-tidy --quiet "$@" -- -std=gnu17 -D_GNU_SOURCE -I. -I"$build/gen" -Ulinux -DCASEMATE_VERSION="\"0\"" \
            -DCASEMATE_LIBEXECDIR="\"/\"" -DCASEMATE_DATADIR="\"/\"" -DCASEMATE_SYSCONFDIR="\"/\"" 2>/dev/null' \
        "$build" || failed=1
fi
python3 scripts/check-rooms.py || failed=1
# What begins with #! and is called by its name is a program.
for f in $(git ls-files -co --exclude-standard scripts .ci); do
    if [ -f "$f" ] && [ ! -x "$f" ] && [ "$(head -c 2 "$f" | tr -d '\0')" = '#!' ]; then
        echo "$f begins with #! and is not executable: chmod +x" && failed=1
    fi
done
exit $failed
