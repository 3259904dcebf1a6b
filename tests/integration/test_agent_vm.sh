#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The guest agent in a real VM: QEMU (TCG) boots the guest image with two layers and a scratch disk, and vm_scenario drives
# the agent over its port. Exit status: 0 passed, 77 skipped with the reason, anything else failed.
# AGENT_VM_PROGRAM=vm_hostile or vm_userns: that program drives it instead. AGENT_VM_AGENT=FILE: this agent, which need not be static.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

BUILD=${BUILD:-build}
DEADLINE_S=${AGENT_VM_DEADLINE_S:-240}
PROGRAM=${AGENT_VM_PROGRAM:-vm_scenario}

skip() { printf 'SKIP: %s\n' "$*"; exit 77; }
[ "$(uname -m)" = x86_64 ] || skip "the machine is not x86-64"
PATH=$PATH:/usr/sbin:/sbin
for tool in qemu-system-x86_64 mksquashfs mke2fs busybox python3; do
    command -v "$tool" >/dev/null || skip "$tool is not installed (scripts/deps.sh installs it)"
done
[ -s "$BUILD/guest/guest.json" ] || skip "there is no guest image (make guest)"
KERNEL=$BUILD/guest/vmlinux
[ -s "$KERNEL" ] || KERNEL=$BUILD/guest/vmlinuz
make -s "$BUILD/tests/unit/agent/init/$PROGRAM" BUILD="$BUILD"

WORK=$(mktemp -d)
QEMU_PID=
# shellcheck disable=SC2317  # called by the trap
cleanup() {
    [ -z "$QEMU_PID" ] || kill -KILL "$QEMU_PID" 2>/dev/null || true
    rm -rf "$WORK"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# Layer one: busybox and its names, two users, files that layer two changes.
one=$WORK/one two=$WORK/two
mkdir -p "$one"/{bin,etc,tmp,root,home/someone} "$two/etc"
cp "$(command -v busybox)" "$one/bin/busybox"
for name in sh cat echo ls id pwd env sleep true seq tail touch hostname mount grep wc df date stty tty ps head mknod dd mkdir rmdir tr; do
    ln -s busybox "$one/bin/$name"
done
printf 'root:x:0:0:root:/root:/bin/sh\nsomeone:x:1000:1000::/home/someone:/bin/sh\n' >"$one/etc/passwd"
printf 'root:x:0:\nsomeone:x:1000:\nextra:x:2000:someone\n' >"$one/etc/group"
echo 'layer one' >"$one/etc/layer"
echo 'only in one' >"$one/etc/only-in-1"
echo 'removed by two' >"$one/etc/removed"
echo 'layer two' >"$two/etc/layer"
mknod "$two/etc/removed" c 0 0
mksquashfs "$one" "$WORK/0.img" -quiet -no-progress -noI -noD -noF -noX -all-root >/dev/null
mksquashfs "$two" "$WORK/1.img" -quiet -no-progress -noI -noD -noF -noX -all-root >/dev/null
# The same of a file system whose ids every kernel can map, with owners, a set-id file and one with capabilities: for vm_userns.
cp "$one/bin/busybox" "$one/bin/busybox-set"
cp "$one/bin/busybox" "$one/bin/busybox-cap"
chmod 4755 "$one/bin/busybox-set"
python3 -c 'import os, struct, sys; os.setxattr(sys.argv[1], "security.capability", struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0))' \
    "$one/bin/busybox-cap"
echo 'only mine' >"$one/home/someone/own"
chmod 600 "$one/home/someone/own"
chown -R 1000:1000 "$one/home/someone"
mke2fs -q -t ext4 -O ^has_journal -d "$one" "$WORK/3.img" 32M >/dev/null
mke2fs -q -t ext4 -O ^has_journal -d "$two" "$WORK/4.img" 4M >/dev/null
truncate -s 256M "$WORK/2.img"
mke2fs -q -t ext4 -O ^has_journal,quota,project -E quotatype=prjquota -m0 "$WORK/2.img"

# Another agent goes into a second archive behind the first: the kernel unpacks both, the later file wins. A dynamic one
# brings its loader and libraries along.
initrd=$BUILD/guest/initrd.img
if [ -n "${AGENT_VM_AGENT:-}" ]; then
    more=$WORK/more
    mkdir -p "$more"
    cp "$AGENT_VM_AGENT" "$more/init"
    ldd "$AGENT_VM_AGENT" | grep -o '/[^ ]*' | while read -r library; do
        mkdir -p "$more${library%/*}"
        cp -L "$library" "$more$library"
    done
    { cat "$initrd" && (cd "$more" && find . -mindepth 1 -printf '%P\n' | cpio --quiet -o -H newc --owner=0:0); } >"$WORK/initrd.img"
    initrd=$WORK/initrd.img
fi

drives=()
for i in 0 1 2 3 4; do
    drives+=(-blockdev "driver=file,filename=$WORK/$i.img,node-name=f$i$([ $i = 2 ] || echo ,read-only=on)"
        -blockdev "driver=raw,file=f$i,node-name=d$i$([ $i = 2 ] || echo ,read-only=on)"
        -device "scsi-hd,bus=scsi0.0,channel=0,scsi-id=0,lun=$i,drive=d$i")
done
qemu-system-x86_64 -accel tcg,tb-size=64 -M q35 -m "${AGENT_VM_MEMORY:-256}" -nodefaults -no-user-config -display none -no-reboot \
    -kernel "$KERNEL" -initrd "$initrd" \
    -append "console=ttyS0 quiet panic=-1 tsc=reliable no_timer_check ${AGENT_VM_APPEND:-}" \
    -serial "file:$WORK/console.log" \
    -device virtio-scsi-pci,id=scsi0 "${drives[@]}" \
    -device virtio-serial-pci -chardev "socket,id=c0,path=$WORK/port.sock,server=on,wait=off" \
    -device virtserialport,chardev=c0,name=org.casemate.agent.0 &
QEMU_PID=$!

status=0
timeout --kill-after=5 "$DEADLINE_S" "$BUILD/tests/unit/agent/init/$PROGRAM" "$WORK/port.sock" || status=$?
if [ "$status" -eq 0 ]; then
    # The agent was asked to power off: QEMU ends by itself.
    for _ in $(seq 100); do
        kill -0 "$QEMU_PID" 2>/dev/null || break
        sleep 0.1
    done
    if kill -0 "$QEMU_PID" 2>/dev/null; then
        echo "not ok: the VM did not power off"
        status=1
    else
        wait "$QEMU_PID" || status=$?
        QEMU_PID=
        echo "ok: the VM has powered off"
    fi
fi
if grep -a -A 30 'ERROR: AddressSanitizer\|runtime error:' "$WORK/console.log"; then
    echo "not ok: the sanitizers have found something"
    status=1
fi
if [ "$status" -ne 0 ]; then
    echo "--- console"
    tail -n 40 "$WORK/console.log"
fi
exit "$status"
