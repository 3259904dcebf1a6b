#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Build the tuned guest kernel from Debian's linux-source and our kernel.config.
#
# The result lives in the cache folder under a hash of everything that decides it: the options (comments aside), the
# source package and its version, compiler and linker, and the functions below which do the work ("recipe"). When it
# is there, nothing is done. A build happens in a private folder and its result appears in one rename, so that a kill
# leaves nothing half made.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    cat <<USAGE
Usage: build-kernel.sh [OPTION]...
Build the tuned guest kernel (vmlinux and vmlinuz) into the cache folder:
  $CACHE

  --jobs N       run N jobs at once (default: the number of CPUs)
  --suite SUITE  take linux-source from this Debian suite (e.g. bookworm-backports)
  --package NAME take this source package (default: linux-source-6.12 where there is one, else the release's)
  --check        compile nothing: configure, and say which options did not survive
  --print        build nothing: print the folder of the kernel, and fail when it was not built yet
  --help         this text

About 12 minutes of two CPUs, once. CASEMATE_CACHE names another cache folder.
USAGE
}

JOBS=$(nproc)
SUITE=
PACKAGE=
PRINT=0
CHECK=0
while [ $# -gt 0 ]; do
    case $1 in
    --jobs) JOBS=$(option_value "$1" $# "${2-}"); shift 2 ;;
    --suite) SUITE=$(option_value "$1" $# "${2-}"); shift 2 ;;
    --package) PACKAGE=$(option_value "$1" $# "${2-}"); shift 2 ;;
    --check) CHECK=1; shift ;;
    --print) PRINT=1; shift ;;
    --help) usage; exit 0 ;;
    *) die "unknown argument '$1'" "see --help" ;;
    esac
done
case $JOBS in '' | *[!0-9]*) die "--jobs takes a number, not '$JOBS'" ;; esac

CONFIGS=("$VM_IMAGES/kernel.config")
OPTIONAL=$VM_IMAGES/kernel.config.optional

# ---- recipe: what these functions say is part of the hash ------------------------------------------------------------

# recipe_edit SRC: the one change that is made to Debian's source.
# A CPU that ACPI lists as absent counts as hot-pluggable only when the kernel recognises its hypervisor by name. QEMU's
# TCG is not among those names, so a guest under software emulation could never gain a CPU. The CPUID bit that every
# hypervisor sets is what is meant.
recipe_edit() {
    local file=$1/arch/x86/kernel/acpi/boot.c
    local old='return !hypervisor_is_type(X86_HYPER_NATIVE);' new='return boot_cpu_has(X86_FEATURE_HYPERVISOR);'
    if [ "$(grep -cF "$old" "$file")" = 1 ]; then
        sed -i "s/$old/$new/" "$file"
        grep -qF "$new" "$file"
    else
        printf 'acpi/boot.c: nothing to change in this version\n'
    fi
}

# recipe_configure SRC OBJ FRAGMENT
recipe_configure() {
    (cd "$1" && scripts/kconfig/merge_config.sh -n -O "$2" "$3")
}

# recipe_compile SRC OBJ EPOCH JOBS
recipe_compile() {
    export KBUILD_BUILD_USER=casemate KBUILD_BUILD_HOST=casemate KBUILD_BUILD_VERSION=1
    KBUILD_BUILD_TIMESTAMP=$(date -u -R -d "@$3")
    export KBUILD_BUILD_TIMESTAMP
    make -C "$1" O="$2" ARCH=x86 -j"$4" vmlinux bzImage
}

# recipe_collect OBJ OUT
recipe_collect() {
    objcopy -S -R .comment "$1/vmlinux" "$2/vmlinux"
    cp "$1/arch/x86/boot/bzImage" "$2/vmlinuz"
    cp "$1/.config" "$2/config"
    cp "$1/System.map" "$2/System.map"
    cp "$1/include/config/kernel.release" "$2/release"
}

# ---- the rest --------------------------------------------------------------------------------------------------------

# older_than VERSION: whether the source is older than that.
older_than() {
    [ "$(printf '%s\n' "$1" "$VERSION" | sort -V | head -n 1)" != "$1" ]
}

# options FILE...: the options of fragments or of a .config, one NAME=VALUE per line, "is not set" as =n.
options() {
    sed -n -e 's/^# \(CONFIG_[A-Za-z0-9_]*\) is not set$/\1=n/p' -e '/^CONFIG_[A-Za-z0-9_]*=/p' "$@"
}

# choose_source: sets PACKAGE and VERSION, and completes CONFIGS.
choose_source() {
    local suite=$SUITE
    if [ -z "$suite$PACKAGE" ] && ! apt_has linux-source-6.12 && [ "$(debian_codename)" = bookworm ]; then
        say "linux-source-6.12 is in none of this machine's sources; trying bookworm-backports"
        suite=bookworm-backports
    fi
    if [ -n "$suite" ]; then
        apt_suite "$suite"
    fi
    if [ -z "$PACKAGE" ]; then
        if apt_has linux-source-6.12; then
            PACKAGE=linux-source-6.12
        else
            apt_ready linux-source
            PACKAGE=$(apt-cache "${APT_OPTS[@]}" depends linux-source |
                awk '$1 == "Depends:" && $2 ~ /^linux-source-/ { print $2; exit }')
        fi
    fi
    apt_ready "$PACKAGE"
    VERSION=$(apt_candidate "$PACKAGE")
    if older_than 6.12; then
        CONFIGS+=("$VM_IMAGES/kernel.config.before-6.12")
    fi
}

# cache_key: the hash of all inputs.
cache_key() {
    {
        options "${CONFIGS[@]}"
        printf '%s %s\n' "$PACKAGE" "$VERSION"
        "${CC:-gcc}" --version | head -n 1
        ld --version | head -n 1
        declare -f recipe_edit recipe_configure recipe_compile recipe_collect
    } | sha256sum | cut -c1-16
}

# check_config FILE: every option asked for must have survived; prints those which did not.
check_config() {
    local lost fatal=0 option since
    lost=$(comm -23 <(options "${CONFIGS[@]}" | sort) <({
        options "$1"
        # Kconfig does not mention an option whose dependencies are off: as good as "n".
        options "${CONFIGS[@]}" | sed -n 's/=n$//p' | while read -r option; do
            grep -q "^$option=" "$1" || printf '%s=n\n' "$option"
        done
    } | sort -u))
    for option in $lost; do
        since=$(awk -v option="${option%%=*}" '$1 == option { print $2 }' "$OPTIONAL")
        if [ -n "$since" ] && older_than "$since"; then
            say "option $option is not in this version (allowed by ${OPTIONAL##*/})"
        else
            say "option $option did not survive olddefconfig"
            fatal=1
        fi
    done
    [ "$fatal" = 0 ] || die "kernel.config asks for options that this kernel does not take" \
        "fix their dependencies in ${CONFIGS[0]}, or list them in $OPTIONAL with the reason"
}

# watch_build PID LOG: progress of the build, a line in place on a terminal, else a line each 30 s.
watch_build() {
    local start=$SECONDS next=$((SECONDS + 30)) count
    while kill -0 "$1" 2>/dev/null; do
        count=$(grep -cE '^  (CC|AS|AR|LD|HOSTCC|OBJCOPY) ' "$2" || true)
        if [ -t 2 ]; then
            printf '\r%s: %s objects built, %d:%02d elapsed ' "${0##*/}" "$count" \
                $(((SECONDS - start) / 60)) $(((SECONDS - start) % 60)) >&2
        elif [ "$SECONDS" -ge "$next" ]; then
            say "$count objects built, $((SECONDS - start)) s elapsed"
            next=$((SECONDS + 30))
        fi
        # Waits for the build's end, at most three seconds.
        timeout 3 tail --pid="$1" -f /dev/null || true
    done
    [ ! -t 2 ] || printf '\n' >&2
}

# build OUT: unpack, configure, compile.
build() {
    local src obj log=$CACHE/${1##*/}.log epoch archive status=0 start=$SECONDS
    [ "$CHECK" = 0 ] || log=$CACHE/${1##*/}.check.log
    WORK=$(mktemp -d "$CACHE/kernel-build.XXXXXX")
    trap 'stop_build; rm -rf "$WORK"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    apt_unpack "$PACKAGE" "$VERSION" "$WORK/package" ||
        die_missing "$PACKAGE $VERSION could not be fetched"
    archive=$(echo "$WORK"/package/usr/src/linux-source-*.tar.xz)
    [ -f "$archive" ] || die "$PACKAGE $VERSION holds no source archive where it was expected"
    epoch=$(stat -c %Y "$archive")
    say "unpacking the source"
    tar -C "$WORK" -xJf "$archive"
    rm -rf "$WORK/package"
    src=$(echo "$WORK"/linux-source-*)
    obj=$WORK/obj
    mkdir -p "$obj" "$WORK/out"
    recipe_edit "$src" > "$log" 2>&1 || die "the source could not be edited; the log is $log"
    cat "${CONFIGS[@]}" > "$WORK/fragment"
    recipe_configure "$src" "$obj" "$WORK/fragment" >> "$log" 2>&1 || die "configuring failed; the log is $log"
    check_config "$obj/.config"
    if [ "$CHECK" = 1 ]; then
        say "every option of kernel.config is in the configuration of $PACKAGE $VERSION, or listed as optional"
        exit 0
    fi
    say "compiling with $JOBS jobs; the log is $log"
    recipe_compile "$src" "$obj" "$epoch" "$JOBS" >> "$log" 2>&1 &
    MAKE_PID=$!
    watch_build "$MAKE_PID" "$log"
    wait "$MAKE_PID" || status=$?
    MAKE_PID=
    if [ "$status" -ne 0 ]; then
        tail -n 20 "$log" >&2
        die "the kernel did not build (exit $status); the log is $log"
    fi
    recipe_collect "$obj" "$WORK/out"
    printf '%s %s\n' "$PACKAGE" "$VERSION" > "$WORK/out/source"
    printf '%s\n' "$((SECONDS - start))" > "$WORK/out/build-seconds"
    mv -T "$WORK/out" "$1" 2>/dev/null || [ -d "$1" ] || die "$1 could not be written"
    say "built in $((SECONDS - start)) s: $1"
}

# stop_build: end the compilation, with its children, when this script is ended.
MAKE_PID=
# shellcheck disable=SC2317  # called by the trap
stop_build() {
    [ -z "$MAKE_PID" ] || kill -TERM -- "-$MAKE_PID" 2>/dev/null || kill -TERM "$MAKE_PID" 2>/dev/null || true
}

main() {
    need make make "${CC:-gcc}" build-essential ld binutils objcopy binutils flex flex bison bison bc bc xz xz-utils \
        sha256sum coreutils lz4 lz4 perl perl flock util-linux
    printf '#include <gelf.h>\n' | "${CC:-gcc}" -E - > /dev/null 2>&1 ||
        die "the headers of libelf are missing" "apt-get install libelf-dev"
    choose_source
    OUT=$CACHE/kernel-$(cache_key)
    if [ "$PRINT" = 1 ]; then
        [ -d "$OUT" ] || die "the tuned kernel was not built yet" "make guest-kernel"
        printf '%s\n' "$OUT"
        exit 0
    fi
    mkdir -p "$CACHE"
    exec 9> "$OUT.lock"
    [ "$CHECK" = 1 ] || flock -n 9 || { say "another run is building this kernel; waiting for it"; flock 9; }
    if [ -d "$OUT" ] && [ "$CHECK" = 0 ]; then
        say "already built: $OUT"
    else
        # Job control gives the compilation a process group of its own.
        set -m
        build "$OUT"
    fi
    printf '%s\n' "$OUT"
}

# On one line: bash reads no further once it runs, so a checkout that changes during a build does not disturb it.
main; exit
