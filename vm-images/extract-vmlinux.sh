#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Turn an x86 bzImage into the uncompressed ELF kernel inside it.
#
# The setup header says where the payload is (Linux boot protocol, Documentation/arch/x86/boot.rst): setup_sects at
# 0x1f1, magic "HdrS" at 0x202, version at 0x206, payload_offset at 0x248 and payload_length at 0x24c (from 2.08). The
# payload is the compressed vmlinux; all formats but gzip are followed by the uncompressed size as 32 bit little endian,
# which is checked. Relocation tables may follow the ELF file inside: what lies behind its section headers is cut off.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    cat <<USAGE
Usage: extract-vmlinux.sh BZIMAGE OUT
Write the uncompressed ELF kernel of BZIMAGE to OUT.
Exit status: 0 done, 3 the kernel has no PVH entry point (OUT is not written: boot the bzImage), 1 anything else.
USAGE
}

case ${1-} in --help) usage; exit 0 ;; esac
[ $# -eq 2 ] || { usage >&2; exit 2; }
IN=$1 OUT=$2
[ -f "$IN" ] || die "there is no file '$IN'"
need od coreutils readelf binutils awk mawk

# field FILE OFFSET BYTES: an unsigned little-endian number.
field() { od -An -v -t "u$3" -j "$2" -N "$3" --endian=little "$1" | tr -d ' '; }

# bytes FILE OFFSET LENGTH: that part of the file.
bytes() { tail -c +"$(($2 + 1))" "$1" | head -c "$3"; }

PART=$(mktemp "$OUT.XXXXXX")
RAW=$PART.payload
trap 'rm -f "$PART" "$RAW"' EXIT
trap 'exit 130' INT TERM

# SIGPIPE from `head` ending early is how bytes() stops.
set +o pipefail
[ "$(bytes "$IN" $((0x202)) 4 | tr -d '\0')" = HdrS ] || die "'$IN' is not an x86 bzImage"
[ "$(field "$IN" $((0x206)) 2)" -ge $((0x208)) ] || die "'$IN' has a boot protocol older than 2.08"
setup_sects=$(field "$IN" $((0x1f1)) 1)
[ "$setup_sects" -ne 0 ] || setup_sects=4
offset=$(((setup_sects + 1) * 512 + $(field "$IN" $((0x248)) 4)))
length=$(field "$IN" $((0x24c)) 4)
size=$(stat -c %s "$IN")
if [ "$length" -le 16 ] || [ $((offset + length)) -gt "$size" ]; then
    die "'$IN' is cut short or not a plain bzImage"
fi

magic=$(bytes "$IN" "$offset" 4 | od -An -v -t x1 | tr -d ' \n')
case $magic in
1f8b*) tool=gzip package=gzip ;;
02214c18) tool=lz4 package=lz4 ;;
28b52ffd) tool=zstd package=zstd ;;
fd377a58) tool=xz package=xz-utils ;;
425a68*) tool=bzip2 package=bzip2 ;;
*) die "'$IN': unknown compression (payload starts with $magic)" ;;
esac
need "$tool" "$package"
want=
if [ "$tool" != gzip ]; then
    length=$((length - 4))
    want=$(field "$IN" $((offset + length)) 4)
fi
bytes "$IN" "$offset" "$length" > "$RAW"
set -o pipefail
"$tool" -dc < "$RAW" > "$PART" || die "'$IN': $tool could not decompress the payload"
[ -z "$want" ] || [ "$want" -eq "$(stat -c %s "$PART")" ] ||
    die "'$IN': the payload is not as long as it says ($(stat -c %s "$PART") bytes, not $want)"

readelf -hW "$PART" > "$RAW" 2>/dev/null || die "'$IN' does not hold an ELF kernel"
end=$(awk -F: '
    /Start of section headers/ { start = $2 + 0 }
    /Size of section headers/ { size = $2 + 0 }
    /Number of section headers/ { n = $2 + 0 }
    END { print start + size * n }' "$RAW")
if [ "$end" -gt 0 ] && [ "$end" -lt "$(stat -c %s "$PART")" ]; then
    truncate -s "$end" "$PART"
fi
# The PVH entry is an ELF note called "Xen" of type 18 (XEN_ELFNOTE_PHYS32_ENTRY).
readelf -nW "$PART" > "$RAW" 2>/dev/null || true
if ! grep -qE '^ *Xen .*(0x0*12\)|PHYS32_ENTRY)' "$RAW"; then
    say "'$IN' has no PVH entry point"
    exit 3
fi
chmod 0644 "$PART"
mv "$PART" "$OUT"
