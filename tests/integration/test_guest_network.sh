#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A pod's network in a real VM (TCG): taps, their joining with a pod's interfaces, the agent's part, in namespaces of the
# test's own; vm_network says what is tried. Exit status: 0 passed, 77 skipped with the reason, else failed.
set -euo pipefail
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"

need qemu-system-x86_64 mksquashfs mke2fs busybox ip nsenter ping
PATH=$PATH:/usr/sbin:/sbin
[ -s "$repo/build/guest/vmlinux" ] || skip "the guest is not built: make guest"
[ -c /dev/net/tun ] || skip "there is no /dev/net/tun"
make -s -C "$repo" build/tests/unit/agent/net/vm_network build/tests/bench/nettool
isolate "$0" "$@"

export PATH=$repo/build/tests/bench:$PATH TMPDIR=$work

root=$work/root
mkdir -p "$root"/{bin,tmp,etc}
cp "$(command -v busybox)" "$root/bin/busybox"
for applet in sh cat ip ping mv rm dd hostname grep sleep touch; do
    ln -s busybox "$root/bin/$applet"
done
cp "$repo/build/tests/bench/nettool" "$root/bin/"
echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
mksquashfs "$root" "$work/0.img" -quiet -no-progress -comp lz4 -all-root >/dev/null
mkdir -p "$work/empty/opt"
mksquashfs "$work/empty" "$work/1.img" -quiet -no-progress -all-root >/dev/null
truncate -s 64M "$work/2.img"
mke2fs -q -t ext4 -O ^has_journal -m0 "$work/2.img"

timeout --kill-after=5 300 "$repo/build/tests/unit/agent/net/vm_network" "$repo/build/guest" "$work"
