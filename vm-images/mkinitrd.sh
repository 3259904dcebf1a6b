#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Make the guest's initrd: the static agent as /init, and the modules that it loads.
#
# Modules are put in decompressed (the guest has no decompressor of its own for them) as /modules/NAME.ko, and
# /modules.list names them, one absolute path per line, in the order in which they are to be loaded; it is empty when
# the kernel has everything built in. Modules marked "@" in the list are not loaded at boot: they go to /demand, and
# /demand/list says which files to load, in order, for each name that the kernel may ask for ("PATTERN FILE…"). The order comes from modules.dep and modules.softdep of that very kernel.
# The same inputs give the same bytes: entries sorted, all times 0, everything owned by root.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    cat <<USAGE
Usage: mkinitrd.sh --agent FILE --out FILE [OPTION]...
Make an initrd that holds the static program FILE as /init.

  --modules DIR      take modules from DIR, a lib/modules/RELEASE with its dependency lists (default: no modules)
  --list FILE        the modules that are wanted (default: $VM_IMAGES/modules)
  --keep-signatures  leave the modules' signatures on
  --compress METHOD  none, lz4 or zstd (default: none; measurements are in README.md)
  --help             this text

Prints the names of the modules, in load order.
USAGE
}

AGENT='' OUT='' MODULES='' LIST=$VM_IMAGES/modules COMPRESS=none KEEP_SIGNATURES=0
while [ $# -gt 0 ]; do
    case $1 in
    --agent) AGENT=$(option_value "$1" $# "${2-}"); shift 2 ;;
    --out) OUT=$(option_value "$1" $# "${2-}"); shift 2 ;;
    --modules) MODULES=$(option_value "$1" $# "${2-}"); shift 2 ;;
    --list) LIST=$(option_value "$1" $# "${2-}"); shift 2 ;;
    --compress) COMPRESS=$(option_value "$1" $# "${2-}"); shift 2 ;;
    --keep-signatures) KEEP_SIGNATURES=1; shift ;;
    --help) usage; exit 0 ;;
    *) die "unknown argument '$1'" "see --help" ;;
    esac
done
if [ -z "$AGENT" ] || [ -z "$OUT" ]; then
    usage >&2
    exit 2
fi
[ -f "$AGENT" ] || die "there is no agent at '$AGENT'" "make all"
[ -f "$LIST" ] || die "there is no module list at '$LIST'"
need cpio cpio awk mawk
case $COMPRESS in
none) compress=(cat) ;;
lz4) need lz4 lz4; compress=(lz4 -l -9 -c) ;;  # -l: the format that the kernel reads
zstd) need zstd zstd; compress=(zstd -19 -q -c) ;;
*) die "unknown compression '$COMPRESS'" "none, lz4 or zstd" ;;
esac
if command -v readelf >/dev/null && readelf -lW "$AGENT" 2>/dev/null | grep -q INTERP; then
    die "'$AGENT' is not static: it wants a loader, and the guest has none" "link it with -static or -static-pie"
fi

# ---- which modules, in which order -----------------------------------------------------------------------------------

declare -A FILE_OF=() DEPS_OF=() PRE_OF=() POST_OF=() ALIAS_OF=() BUILTIN=() STATE=()
ORDER=()

# module_name PATH: the name of a module file, with '_' for '-' as the kernel has it.
module_name() {
    local name=${1##*/}
    name=${name%%.ko*}
    REPLY=${name//-/_}
}

read_lists() {
    local line path rest word mode
    [ -f "$MODULES/modules.dep" ] || die "'$MODULES' has no modules.dep" "depmod -b ROOT RELEASE"
    while IFS=: read -r path rest; do
        module_name "$path"
        FILE_OF[$REPLY]=$path
        DEPS_OF[$REPLY]=$rest
    done < "$MODULES/modules.dep"
    while read -r path; do
        module_name "$path"
        BUILTIN[$REPLY]=1
    done < "$MODULES/modules.builtin"
    while read -r _ word line; do
        module_name "$word"
        path=$REPLY mode=
        for word in $line; do
            case $mode:$word in
            *:pre: | *:post:) mode=$word ;;
            pre::*) PRE_OF[$path]+=" $word" ;;
            post::*) POST_OF[$path]+=" $word" ;;
            esac
        done
    done < <(grep '^softdep ' "$MODULES/modules.softdep" 2>/dev/null)
    # A soft dependency may name an algorithm ("crc32c") and mean the modules which offer it.
    while read -r _ word path; do
        module_name "$word"
        ALIAS_OF[$REPLY]+=" $path"
    done < <(grep -E '^alias [A-Za-z0-9_-]+ ' "$MODULES/modules.alias" 2>/dev/null)
}

# add NAME: append the module and, before it, what it needs. Returns 1 when there is no such module.
add() {
    local name path word i
    local -a deps
    module_name "$1"
    name=$REPLY
    [ -z "${STATE[$name]-}" ] || return 0
    [ -z "${BUILTIN[$name]-}" ] || return 0
    if [ -z "${FILE_OF[$name]-}" ]; then
        [ -n "${ALIAS_OF[$name]-}" ] || return 1
        STATE[$name]="alias"
        for word in ${ALIAS_OF[$name]}; do
            add "$word" || true
        done
        return 0
    fi
    STATE[$name]=adding
    for word in ${PRE_OF[$name]-}; do
        add "$word" || true
    done
    # modules.dep names the innermost dependency last.
    read -r -a deps <<< "${DEPS_OF[$name]}"
    for ((i = ${#deps[@]} - 1; i >= 0; i--)); do
        add "${deps[i]}" || die "'$name' needs '${deps[i]}', which '$MODULES' does not have"
    done
    ORDER+=("$name")
    for word in ${POST_OF[$name]-}; do
        add "$word" || true
    done
}

# copy_module FILE DEST: the module, decompressed.
copy_module() {
    case $1 in
    *.ko) cp "$1" "$2" ;;
    *.ko.xz) need xz xz-utils; xz -dc "$1" > "$2" ;;
    *.ko.zst) need zstd zstd; zstd -dcq "$1" > "$2" ;;
    *.ko.gz) gzip -dc "$1" > "$2" ;;
    *) die "'$1': unknown compression of a module" ;;
    esac
}

# cut_signature FILE: remove the signature behind a module. Whoever can change a module in the initrd can change the agent
# beside it, so a signature protects nothing here, and checking 27 of them is a quarter of the time that loading takes.
# Layout, from the end: the marker, then struct module_signature of 12 bytes, whose last four are the length of the
# signature before it, big endian (include/linux/module_signature.h).
cut_signature() {
    local marker='~Module signature appended~' size length
    [ "$(tail -c 28 "$1" | tr -d '\0\n')" = "$marker" ] || return 0
    size=$(stat -c %s "$1")
    length=$(od -An -v -t u4 -j $((size - 32)) -N 4 --endian=big "$1" | tr -d ' ')
    [ $((length + 40)) -lt "$size" ] || die "'${1##*/}': its signature is longer than the file"
    truncate -s $((size - 40 - length)) "$1"
}

# demand: the modules that are loaded when the kernel asks for them. What the boot loads already is not repeated.
demand() {
    local -a boot=("${ORDER[@]}")
    local -A before=()
    local wanted mark name file files pattern module
    for name in "${!STATE[@]}"; do
        before[$name]=${STATE[$name]}
    done
    while read -r wanted mark; do
        [ "$mark" = @ ] || continue
        ORDER=() STATE=()
        for name in "${!before[@]}"; do
            STATE[$name]=${before[$name]}
        done
        add "${wanted%\?}" || [ "${wanted%\?}" != "$wanted" ] ||
            die "'$MODULES' has no module '$wanted'" "remove it from $LIST, or mark it with '?'"
        [ "${#ORDER[@]}" -gt 0 ] || continue
        mkdir -p "$ROOT/demand"
        files=
        for name in "${ORDER[@]}"; do
            file=/demand/$name.ko
            files+=" $file"
            [ ! -e "$ROOT$file" ] || continue
            copy_module "$MODULES/${FILE_OF[$name]}" "$ROOT$file"
            [ "$KEEP_SIGNATURES" = 1 ] || cut_signature "$ROOT$file"
        done
        module_name "$wanted"
        printf '%s%s\n' "$REPLY" "$files" >> "$ROOT/demand/list"
        while read -r _ pattern module; do
            [ "$module" != "$REPLY" ] || printf '%s%s\n' "$pattern" "$files" >> "$ROOT/demand/list"
        done < <(grep '^alias ' "$MODULES/modules.alias" 2>/dev/null)
    done < <(sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$LIST")
    ORDER=("${boot[@]}")
}

# ---- the archive -----------------------------------------------------------------------------------------------------

PART=
WORK=$(mktemp -d)
trap 'rm -rf "$WORK" ${PART:+"$PART"}' EXIT
trap 'exit 130' INT TERM
ROOT=$WORK/root
mkdir -p "$ROOT/dev" "$ROOT/proc" "$ROOT/sys" "$ROOT/run"
cp "$AGENT" "$ROOT/init"
: > "$ROOT/modules.list"
if [ -n "$MODULES" ]; then
    read_lists
    while read -r wanted mark; do
        [ "$mark" != @ ] || continue
        add "${wanted%\?}" || [ "${wanted%\?}" != "$wanted" ] ||
            die "'$MODULES' has no module '$wanted'" "remove it from $LIST, or mark it with '?'"
    done < <(sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$LIST")
    mkdir -p "$ROOT/modules"
    for name in ${ORDER[@]+"${ORDER[@]}"}; do
        copy_module "$MODULES/${FILE_OF[$name]}" "$ROOT/modules/$name.ko"
        [ "$KEEP_SIGNATURES" = 1 ] || cut_signature "$ROOT/modules/$name.ko"
        printf '/modules/%s.ko\n' "$name" >> "$ROOT/modules.list"
        printf '%s\n' "$name"
    done
    demand
fi
find "$ROOT" -type d -exec chmod 0755 {} +
find "$ROOT" -type f -exec chmod 0644 {} +
chmod 0755 "$ROOT/init"
find "$ROOT" -exec touch -h -d @0 {} +
PART=$(mktemp "$OUT.XXXXXX")
(cd "$ROOT" && find . -mindepth 1 -printf '%P\0' | LC_ALL=C sort -z |
    cpio --quiet -0 -o -H newc --reproducible --owner=0:0) | "${compress[@]}" > "$PART"
chmod 0644 "$PART"
mv "$PART" "$OUT"
