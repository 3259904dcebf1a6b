#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The guest image, by booting it: the real scripts make a kernel and an initrd around a small /init of the test's own,
# QEMU (TCG) boots them, and what the guest reports on its console is compared with what it must have.
#
# GUEST_KERNEL=tuned tests the tuned kernel instead of Debian's (skipped when it was not built); GUEST_COMPRESS=METHOD
# compresses the initrd; GUEST_APPEND adds to the kernel's command line. Lines that start with "note:" are measurements.
# Exit status: 0 passed, 77 skipped with the reason, anything else failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

KERNEL=${GUEST_KERNEL:-debian}
COMPRESS=${GUEST_COMPRESS:-none}
DEADLINE_S=60
FAILED=0

skip() { printf 'SKIP: %s\n' "$*"; exit 77; }
fail() { printf 'FAIL: %s\n' "$*"; FAILED=1; }
pass() { printf 'ok: %s\n' "$*"; }

# check DESCRIPTION COMMAND...: what is described holds when the command succeeds.
check() {
    if "${@:2}"; then
        pass "$1"
    else
        fail "not so: $1"
    fi
}

[ "$(uname -m)" = x86_64 ] || skip "the machine is not x86-64"
for tool in qemu-system-x86_64 cc cpio depmod apt-get readelf; do
    PATH=$PATH:/usr/sbin command -v "$tool" >/dev/null || skip "$tool is not installed (scripts/deps.sh installs it)"
done

WORK=$(mktemp -d)
QEMU_PID=
# shellcheck disable=SC2317  # called by the trap
cleanup() {
    [ -z "$QEMU_PID" ] || kill -KILL "$QEMU_PID" 2>/dev/null || true
    rm -rf "$WORK"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# ---- building --------------------------------------------------------------------------------------------------------

cc -std=gnu17 -D_GNU_SOURCE -O2 -Wall -Wextra -static -s -o "$WORK/init" tests/integration/guest_image_init.c ||
    skip "no static libc to link the test's /init with (libc6-dev)"

status=0
case $KERNEL in
debian)
    vm-images/fetch-kernel.sh > "$WORK/kernel-dir" || status=$?
    [ "$status" -ne 4 ] || skip "Debian's kernel package is not cached and cannot be downloaded"
    ;;
tuned)
    vm-images/build-kernel.sh --print > "$WORK/kernel-dir" 2>/dev/null ||
        skip "the tuned kernel was not built (make guest-kernel)"
    ;;
esac
[ "$status" -eq 0 ] || { fail "fetch-kernel.sh exits with $status"; exit 1; }
vm-images/build.sh --agent "$WORK/init" --out "$WORK/guest" --kernel "$KERNEL" --compress "$COMPRESS"

image=$WORK/guest/vmlinux
[ -f "$image" ] || image=$WORK/guest/vmlinuz
for file in "$image" "$WORK/guest/initrd.img"; do
    hash=$(sha256sum "$file" | cut -d ' ' -f 1)
    check "guest.json describes ${file##*/}" grep -qF \
        "\"file\": \"${file##*/}\", \"size\": $(stat -c %s "$file"), \"sha256\": \"$hash\"" "$WORK/guest/guest.json"
done
check "the kernel is an uncompressed PVH image" [ "${image##*/}" = vmlinux ]

# The same inputs make the same initrd, at another time.
modules=()
[ "$KERNEL" != debian ] || modules=(--modules "$(echo "$(cat "$WORK/kernel-dir")"/lib/modules/*)")
touch "$WORK/init"
vm-images/mkinitrd.sh --agent "$WORK/init" --out "$WORK/again.img" --compress "$COMPRESS" \
    ${modules[@]+"${modules[@]}"} > "$WORK/names"
check "the initrd is reproducible" cmp "$WORK/again.img" "$WORK/guest/initrd.img"

# ---- what must be refused --------------------------------------------------------------------------------------------

# refuses TEXT COMMAND...: the command must fail and say TEXT.
refuses() {
    local text=$1
    shift
    if "$@" > "$WORK/refusal" 2>&1; then
        fail "not refused: $*"
    elif grep -qF -- "$text" "$WORK/refusal"; then
        pass "refused: $text"
    else
        fail "refused, but without '$text': $(cat "$WORK/refusal")"
    fi
}
printf 'int main(void) { return 0; }\n' | cc -x c -o "$WORK/dynamic" -
refuses "is not static" vm-images/mkinitrd.sh --agent "$WORK/dynamic" --out "$WORK/refused.img"
refuses "there is no agent" vm-images/build.sh --agent "$WORK/none" --out "$WORK/refused" --kernel "$image"
if [ "$KERNEL" = debian ]; then
    printf 'virtio_pci\nno_such_module\n' > "$WORK/list"
    refuses "has no module 'no_such_module'" vm-images/mkinitrd.sh --agent "$WORK/init" --list "$WORK/list" \
        --out "$WORK/refused.img" "${modules[@]}"
fi
kernel_dir=$(cat "$WORK/kernel-dir")
head -c 1000000 "$kernel_dir/vmlinuz" > "$WORK/short"
refuses "is cut short" vm-images/extract-vmlinux.sh "$WORK/short" "$WORK/refused.elf"
{ head -c 1000000 "$kernel_dir/vmlinuz"; head -c 5000 /dev/zero; tail -c +1005001 "$kernel_dir/vmlinuz"; } > "$WORK/bad"
refuses "error" vm-images/extract-vmlinux.sh "$WORK/bad" "$WORK/refused.elf"
refuses "not an x86 bzImage" vm-images/extract-vmlinux.sh "$WORK/init" "$WORK/refused.elf"
for left in "$WORK"/refused*; do
    [ ! -f "$left" ] || [ "$left" = "$WORK/refusal" ] || fail "a refused command left ${left##*/}"
done

# ---- booting ---------------------------------------------------------------------------------------------------------

started_ns=$(date +%s%N)
timeout --kill-after=5 "$DEADLINE_S" qemu-system-x86_64 -accel tcg -M q35 -cpu max -smp 1,maxcpus=2 \
    -nodefaults -no-user-config -display none -no-reboot -m 256M,maxmem=1G \
    -kernel "$image" -initrd "$WORK/guest/initrd.img" \
    -append "console=ttyS0 quiet panic=-1 ${GUEST_APPEND-}" -serial stdio \
    -device virtio-balloon-pci,free-page-reporting=on \
    -device virtio-serial-pci -chardev null,id=wire -device virtserialport,chardev=wire,name=casemate.test,nr=1 \
    -device virtio-scsi-pci -blockdev null-co,node-name=disk,size=1048576,read-zeroes=on -device scsi-hd,drive=disk \
    -netdev hubport,id=net,hubid=0 -device virtio-net-pci,netdev=net,romfile= \
    -object memory-backend-ram,id=more,size=256M -device virtio-mem-pci,memdev=more \
    -device virtio-rng-pci < /dev/null > "$WORK/console" 2> "$WORK/qemu.err" &
QEMU_PID=$!
status=0
wait "$QEMU_PID" || status=$?
QEMU_PID=
ran_ms=$((($(date +%s%N) - started_ns) / 1000000))
tr -d '\r' < "$WORK/console" > "$WORK/report"
[ "$status" -ne 124 ] || fail "the guest was not done after $DEADLINE_S s"
[ "$status" -eq 0 ] || { fail "QEMU exits with $status:"; cat "$WORK/qemu.err"; }

# expect PATTERN: a line of the report matches it from start to end.
expect() {
    if grep -qxE "GUEST $1" "$WORK/report"; then
        pass "guest: $(grep -m1 -xE "GUEST $1" "$WORK/report" | cut -c7-)"
    else
        fail "the guest does not say '$1'"
    fi
}
release=$(cat "$kernel_dir/release")
expect "kernel ${release//./\\.}"
for filesystem in overlay squashfs erofs ext4 fuse virtiofs; do
    expect "filesystem $filesystem"
done
for device in vsock port disk nic balloon mem; do
    expect "$device"
done
expect 'rng virtio_rng\.0'
expect 'done after [0-9]+ us'

# Every module of the list was tried, in order, and none failed for want of another or of a symbol.
sed -n 's/^GUEST module \/modules\/\([^ ]*\)\.ko .*/\1/p' "$WORK/report" > "$WORK/loaded"
check "$(wc -l < "$WORK/loaded") modules loaded in the order of the list" cmp "$WORK/names" "$WORK/loaded"
if grep '^GUEST module ' "$WORK/report" | grep -vE ' (ok|ENODEV) [0-9]+ us$'; then
    fail "modules did not load (above)"
fi
grep -E '^GUEST (init|modules took|cpu-possible|pressure)' "$WORK/report" | sed 's/^GUEST /note: /' || true

printf 'note: QEMU ran %d ms\n' "$ran_ms"

if [ "$FAILED" -ne 0 ]; then
    printf -- '---- console\n'
    cat "$WORK/console"
fi
exit "$FAILED"
