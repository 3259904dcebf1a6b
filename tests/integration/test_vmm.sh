#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The vmm room against real QEMU (TCG) with a guest that obeys the test: tests/unit/host/vmm/test_vm_real, none of its
# cases skipped. The guest is made by the real scripts around an /init of the test's own.
# Exit status: 0 passed, 77 skipped with the reason, anything else failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

skip() { printf 'SKIP: %s\n' "$*"; exit 77; }

[ "$(uname -m)" = x86_64 ] || skip "the machine is not x86-64"
for tool in qemu-system-x86_64 cc cpio depmod apt-get readelf; do
    PATH=$PATH:/usr/sbin command -v "$tool" >/dev/null || skip "$tool is not installed (scripts/deps.sh installs it)"
done

program=${VMM_TEST:-build/tests/unit/host/vmm/test_vm_real}
[ -x "$program" ] || make -s "$program"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cc -std=gnu17 -D_GNU_SOURCE -O2 -Wall -Wextra -static -s -o "$work/init" tests/integration/vmm_guest_init.c ||
    skip "no static libc to link the test's /init with (libc6-dev)"
status=0
vm-images/fetch-kernel.sh > "$work/kernel" || status=$?
[ "$status" -ne 4 ] || skip "Debian's kernel package is not cached and cannot be downloaded"
[ "$status" -eq 0 ]
vm-images/build.sh --agent "$work/init" --out "$work/guest" --kernel debian
touch "$work/guest/obeys"

CASEMATE_TEST_GUEST=$work/guest "$program" 2>&1 | tee "$work/out"
if grep -q '^SKIP: needs the test guest' "$work/out"; then
    echo "FAILED: the guest was not taken for the test's own"
    exit 1
fi
