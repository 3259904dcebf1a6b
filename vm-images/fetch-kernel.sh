#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Fetch Debian's cloud kernel into the cache folder: the image as an uncompressed PVH kernel where it is one, and its
# modules with their dependency lists. Nothing is installed on this machine.
#
# Result: one folder per package and version, which appears whole or not at all:
#   vmlinux        uncompressed, when the kernel can be entered through PVH
#   vmlinuz        as Debian ships it
#   lib/modules/R  modules, with modules.dep, modules.softdep, modules.alias, modules.builtin
#   release        R, as `uname -r` will say
#   source         package and version
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    cat <<USAGE
Usage: fetch-kernel.sh [OPTION]...
Fetch Debian's guest kernel and print the folder it was unpacked into, below
  $CACHE

  --package NAME  take this package (default: linux-image-cloud-ARCHITECTURE)
  --suite SUITE   take it from this Debian suite (e.g. bookworm-backports), whatever this machine's sources are
  --help          this text

CASEMATE_CACHE names another cache folder. Exit status: 0 done, 4 the package could not be downloaded, 1 anything else.
USAGE
}

PACKAGE='' SUITE=''
while [ $# -gt 0 ]; do
    case $1 in
    --package) PACKAGE=$(option_value "$1" $# "${2-}"); shift 2 ;;
    --suite) SUITE=$(option_value "$1" $# "${2-}"); shift 2 ;;
    --help) usage; exit 0 ;;
    *) die "unknown argument '$1'" "see --help" ;;
    esac
done
need dpkg dpkg apt-get apt apt-cache apt depmod kmod
: "${PACKAGE:=linux-image-cloud-$(dpkg --print-architecture)}"

# resolve: sets IMAGE, VERSION and OUT from what apt knows now. Metapackages are followed, and an image which only exists
# unsigned (a build that was not signed yet) is found under that name. Returns 1 when there is no such package.
resolve() {
    local name=$PACKAGE record next
    while :; do
        record=$(apt-cache "${APT_OPTS[@]}" show --no-all-versions "$name" 2>/dev/null) ||
            record=$(apt-cache "${APT_OPTS[@]}" show --no-all-versions "$name-unsigned" 2>/dev/null) || return 1
        next=$(sed -n 's/^Depends:.*\(linux-image-[0-9][^ ,]*\).*/\1/p' <<< "$record")
        case $next in '' | "$name") break ;; esac
        name=$next
    done
    IMAGE=$(sed -n 's/^Package: //p' <<< "$record")
    VERSION=$(sed -n 's/^Version: //p' <<< "$record")
    OUT=$CACHE/debian-${IMAGE}_${VERSION//[^A-Za-z0-9.+~-]/_}
}

# unpack ROOT: arrange the unpacked package ROOT as the folder which is described above.
unpack() {
    local root=$1 image status=0 modules
    image=$(echo "$root"/boot/vmlinuz-*)
    [ -f "$image" ] || die "$IMAGE $VERSION holds no boot/vmlinuz-*" "is it a kernel image? --package NAME"
    mkdir -p "$WORK/out"
    printf '%s\n' "${image##*/vmlinuz-}" > "$WORK/out/release"
    printf '%s %s\n' "$IMAGE" "$VERSION" > "$WORK/out/source"
    cp "$image" "$WORK/out/vmlinuz"
    "$VM_IMAGES/extract-vmlinux.sh" "$image" "$WORK/out/vmlinux" || status=$?
    case $status in
    0) ;;
    3) say "the guest boots Debian's compressed image, which takes a little longer" ;;
    *) say "no uncompressed kernel could be made of $IMAGE; the guest boots the compressed image" ;;
    esac
    # Debian 12 has them in lib, Debian 13 in usr/lib.
    for modules in "$root/usr/lib/modules" "$root/lib/modules"; do
        [ -d "$modules" ] || continue
        mkdir -p "$WORK/out/lib"
        mv "$modules" "$WORK/out/lib/modules"
        break
    done
    [ -d "$WORK/out/lib/modules" ] || die "$IMAGE $VERSION holds no modules"
    # The package's own lists are made when it is installed.
    depmod -b "$WORK/out" "$(cat "$WORK/out/release")" || die "depmod failed for $IMAGE"
}

mkdir -p "$CACHE"
[ -z "$SUITE" ] || apt_suite "$SUITE"
if ! resolve; then
    say "apt on this machine does not lead '$PACKAGE' to a kernel; trying with package lists of our own"
    apt_own machine
    resolve || die_missing "'$PACKAGE' leads to no kernel image in this machine's sources"
fi
if [ ! -d "$OUT" ]; then
    WORK=$(mktemp -d "$CACHE/fetch.XXXXXX")
    trap 'rm -rf "$WORK"' EXIT
    trap 'exit 130' INT TERM
    if ! apt_unpack "$IMAGE" "$VERSION" "$WORK/root"; then
        say "the archive may have moved on since this machine's lists were fetched; trying with fresh ones"
        apt_own machine
        resolve || die_missing "'$PACKAGE' is gone from this machine's sources"
        apt_unpack "$IMAGE" "$VERSION" "$WORK/root" ||
            die_missing "$IMAGE $VERSION could not be fetched"
    fi
    unpack "$WORK/root"
    # Another run may have been quicker; its result is as good.
    mv -T "$WORK/out" "$OUT" 2>/dev/null || [ -d "$OUT" ] || die "$OUT could not be written"
fi
printf '%s\n' "$OUT"
