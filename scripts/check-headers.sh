#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every header compiles alone: check-headers.sh BUILDDIR HEADER...
set -euo pipefail
build=$1
shift
failed=0
for h in "$@"; do
    if ! printf '#include "%s"\n' "$h" | "${CC:-cc}" -std=gnu17 -D_GNU_SOURCE -I. -I"$build/gen" -Ulinux -Wall -Wextra \
        -Werror -fsyntax-only -x c -; then
        echo "header '$h' does not compile alone"
        failed=1
    fi
done
exit $failed
