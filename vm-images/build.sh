#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Make what a pod boots: kernel, initrd and a description of both.
#
# guest.json is what the daemon reads to find the files and to key its templates by content:
#   {"version": 1, "flavour": "debian"|"tuned"|"custom", "kernel_release": "6.1.0-...", "kernel_source": "PACKAGE VERSION",
#    "kernel": {"file": "vmlinux"|"vmlinuz", "pvh": true|false, "size": N, "sha256": "..."},
#    "initrd": {"file": "initrd.img", "size": N, "sha256": "..."},
#    "agent_version": "..."|null, "modules": ["virtio_pci", ...]}
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    cat <<USAGE
Usage: build.sh --agent FILE --out DIR [OPTION]...
Write the guest's kernel (DIR/vmlinux, or DIR/vmlinuz when it has no PVH entry point), DIR/initrd.img,
DIR/guest.json, and DIR/warm.img, the disk that machines made ahead warm up with.

  --kernel debian     Debian's cloud kernel, fetched with apt and cached (the default)
  --kernel tuned      our own, from build-kernel.sh, which must have run
  --kernel PATH       this vmlinux or vmlinuz; everything that the guest needs must be built into it
  --modules FILE      the modules that are wanted (default: vm-images/modules)
  --compress METHOD   of the initrd: none, lz4 or zstd (default: none)
  --help              this text

CASEMATE_KERNEL_PACKAGE names another Debian image package than linux-image-cloud-ARCHITECTURE.
USAGE
}

AGENT='' OUT='' KERNEL=debian COMPRESS=none LIST=$VM_IMAGES/modules
while [ $# -gt 0 ]; do
    case $1 in
    --agent) AGENT=$(option_value "$1" $# "${2-}"); shift 2 ;;
    --out) OUT=$(option_value "$1" $# "${2-}"); shift 2 ;;
    --kernel) KERNEL=$(option_value "$1" $# "${2-}"); shift 2 ;;
    --modules) LIST=$(option_value "$1" $# "${2-}"); shift 2 ;;
    --compress) COMPRESS=$(option_value "$1" $# "${2-}"); shift 2 ;;
    --help) usage; exit 0 ;;
    *) die "unknown argument '$1'" "see --help" ;;
    esac
done
if [ -z "$AGENT" ] || [ -z "$OUT" ]; then
    usage >&2
    exit 2
fi
need sha256sum coreutils
need mksquashfs squashfs-tools
mkdir -p "$OUT"
WORK=$(mktemp -d "$OUT/.build.XXXXXX")
trap 'rm -rf "$WORK"' EXIT
trap 'exit 130' INT TERM

# release_of FILE: what `uname -r` will say, from the version string in the image.
release_of() {
    LC_ALL=C grep -aom1 'Linux version [0-9][^ ]*' "$1" | head -n 1 | cut -d ' ' -f 3 || true
}

# choose_kernel: sets FLAVOUR, SOURCE, RELEASE, IMAGE (the file), FILE (its name) and MODULES (a folder, or nothing).
choose_kernel() {
    local dir
    MODULES=
    case $KERNEL in
    debian)
        FLAVOUR=debian
        dir=$("$VM_IMAGES/fetch-kernel.sh" \
            ${CASEMATE_KERNEL_PACKAGE:+--package "$CASEMATE_KERNEL_PACKAGE"})
        MODULES=$dir/lib/modules/$(cat "$dir/release")
        ;;
    tuned)
        FLAVOUR=tuned
        dir=$("$VM_IMAGES/build-kernel.sh" --print)
        ;;
    *)
        FLAVOUR=custom
        [ -f "$KERNEL" ] || die "--kernel: '$KERNEL' is neither 'debian' nor 'tuned' nor a file"
        choose_custom
        return
        ;;
    esac
    SOURCE=$(cat "$dir/source")
    RELEASE=$(cat "$dir/release")
    FILE=vmlinux
    [ -f "$dir/$FILE" ] || FILE=vmlinuz
    IMAGE=$dir/$FILE
}

# choose_custom: the same for a file of the user's.
choose_custom() {
    local status=0
    SOURCE=$KERNEL
    if [ "$(head -c 4 "$KERNEL" | tail -c 3)" = ELF ]; then
        IMAGE=$KERNEL FILE=vmlinux
    else
        IMAGE=$WORK/extracted FILE=vmlinux
        "$VM_IMAGES/extract-vmlinux.sh" "$KERNEL" "$IMAGE" || status=$?
        [ "$status" -eq 0 ] || IMAGE=$KERNEL FILE=vmlinuz
    fi
    RELEASE=$(release_of "$IMAGE")
}

# json_string TEXT: TEXT as a JSON string; control characters are dropped.
json_string() {
    printf '"%s"' "$(printf '%s' "$1" | tr -d '\000-\037' | sed -e 's/\\/\\\\/g' -e 's/"/\\"/g')"
}

# json_file PATH NAME: name, size and hash of a file as the inside of a JSON object.
json_file() {
    printf '"file": %s, "size": %s, "sha256": "%s"' "$(json_string "$2")" "$(stat -c %s "$1")" \
        "$(sha256sum "$1" | cut -d ' ' -f 1)"
}

# agent_version: as a JSON value. A program that does not know --version, or that waits, is not waited for.
agent_version() {
    local text
    if text=$(timeout 5 "$AGENT" --version < /dev/null 2>/dev/null | head -n 1) && [ -n "$text" ]; then
        json_string "$text"
    else
        printf 'null'
    fi
}

choose_kernel
"$VM_IMAGES/mkinitrd.sh" --agent "$AGENT" --out "$WORK/initrd.img" --compress "$COMPRESS" --list "$LIST" \
    ${MODULES:+--modules "$MODULES"} > "$WORK/names"
cp "$IMAGE" "$WORK/$FILE"
# Like the images that pods have: a program behind a link, the ends of files together with others', and an /etc with users, to
# which the pod's own files are added.
mkdir -p "$WORK/warm/bin" "$WORK/warm/etc"
echo 'root:x:0:0:root:/root:/bin/sh' > "$WORK/warm/etc/passwd"
echo 'root:x:0:' > "$WORK/warm/etc/group"
${CC:-cc} -static -Os -s -o "$WORK/warm/bin/warm" "$VM_IMAGES/warm.c"
ln -s bin/warm "$WORK/warm/warm"
mksquashfs "$WORK/warm" "$WORK/warm.img" -comp zstd -all-root -always-use-fragments -no-progress -quiet > /dev/null
{
    printf '{"version": 1, "flavour": "%s", "kernel_release": %s, "kernel_source": %s,\n' \
        "$FLAVOUR" "$(json_string "$RELEASE")" "$(json_string "$SOURCE")"
    printf ' "kernel": {%s, "pvh": %s},\n' "$(json_file "$WORK/$FILE" "$FILE")" \
        "$([ "$FILE" = vmlinux ] && echo true || echo false)"
    printf ' "initrd": {%s},\n' "$(json_file "$WORK/initrd.img" initrd.img)"
    printf ' "agent_version": %s,\n' "$(agent_version)"
    printf ' "modules": [%s]}\n' "$(sed -e 's/.*/"&"/' "$WORK/names" | paste -sd , | sed 's/,/, /g')"
} > "$WORK/guest.json"

# The description goes last: whoever finds it finds what it describes.
rm -f "$OUT/guest.json"
mv "$WORK/$FILE" "$OUT/$FILE"
case $FILE in
vmlinux) rm -f "$OUT/vmlinuz" ;;
vmlinuz) rm -f "$OUT/vmlinux" ;;
esac
mv "$WORK/initrd.img" "$OUT/initrd.img"
mv "$WORK/warm.img" "$OUT/warm.img"
mv "$WORK/guest.json" "$OUT/guest.json"
say "$FLAVOUR kernel $RELEASE ($FILE, $(($(stat -c %s "$OUT/$FILE") / 1024)) KiB)," \
    "initrd $(($(stat -c %s "$OUT/initrd.img") / 1024)) KiB, $(wc -l < "$WORK/names") modules: $OUT"
