# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What the scripts of vm-images/ share: messages, the cache folder, and packages fetched with apt without installing.
#
# Packages are taken from the machine's own apt configuration, read only. Where its package lists are absent (a fresh
# container, or a user who may not run `apt-get update`), or a suite is wanted that the machine does not have, an apt
# configuration of our own below the cache folder is used instead; the machine's is never changed.
# Sourced, never run. The caller has `set -euo pipefail`.

# shellcheck disable=SC2034  # for the scripts that source this file
VM_IMAGES=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${CASEMATE_CACHE:-${XDG_CACHE_HOME:-${HOME:?HOME or CASEMATE_CACHE must be set}/.cache}/casemate}/guest

# The apt options in use; empty: the machine's own configuration.
APT_OPTS=(-o APT::Sandbox::User=)
# 1 after package lists or a package could not be fetched.
APT_BROKEN=0

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

# die MESSAGE [REMEDY]
die() {
    printf '%s: error: %s\n' "${0##*/}" "$1" >&2
    [ $# -lt 2 ] || printf '%s: remedy: %s\n' "${0##*/}" "$2" >&2
    exit 1
}

# die_missing MESSAGE: a package cannot be had. Exit status 4 when the network or a source failed, 1 when there is none.
die_missing() {
    [ "$APT_BROKEN" = 1 ] || die "$1" "configure Debian's main archive in /etc/apt and run apt-get update"
    say "error: $1, and not all sources could be read"
    say "remedy: check the network and the sources in /etc/apt"
    exit 4
}

# need COMMAND PACKAGE...: fail unless each command exists (pairs).
need() {
    while [ $# -ge 2 ]; do
        command -v "$1" >/dev/null || PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null ||
            die "'$1' is missing" "apt-get install $2"
        shift 2
    done
    PATH=$PATH:/usr/sbin:/sbin
}

# option_value OPTION ARGS-LEFT VALUE: prints the value of an option, or fails when there is none.
option_value() {
    [ "$2" -ge 2 ] || die "$1 needs a value" "see --help"
    printf '%s\n' "$3"
}

# debian_codename: the release of this machine (bookworm, trixie, ...).
debian_codename() {
    sed -n 's/^VERSION_CODENAME="\{0,1\}\([a-z]*\).*/\1/p' /etc/os-release
}

# apt_has PACKAGE: whether apt can download it.
apt_has() {
    [ -n "$(apt_candidate "$1")" ]
}

# apt_candidate PACKAGE: the version that apt would take, or nothing.
apt_candidate() {
    apt-cache "${APT_OPTS[@]}" policy "$1" 2>/dev/null |
        awk '$1 == "Candidate:" && $2 != "(none)" { print $2; exit }'
}

# apt_own NAME [SOURCES]: from here on use an apt configuration of our own called NAME: the machine's sources, or the
# deb822 text SOURCES. Its lists are fetched when they are older than a day.
apt_own() {
    local dir=$CACHE/apt/$1
    mkdir -p "$dir/state/lists/partial" "$dir/cache/archives/partial" "$dir/etc"
    : > "$dir/state/status"
    APT_OPTS+=(-o "Dir::State=$dir/state" -o "Dir::State::status=$dir/state/status" -o "Dir::Cache=$dir/cache")
    if [ $# -ge 2 ]; then
        mkdir -p "$dir/etc/sources.list.d"
        printf '%s\n' "$2" > "$dir/etc/sources.list.d/casemate.sources"
        APT_OPTS+=(-o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$dir/etc/sources.list.d")
    fi
    if [ -z "$(find "$dir/stamp" -mtime -1 2>/dev/null)" ]; then
        say "fetching package lists into $dir"
        if apt-get "${APT_OPTS[@]}" -qq -o APT::Update::Error-Mode=any update >&2; then
            touch "$dir/stamp"
        else
            # One broken source among several is no reason to stop: what is needed may be in another.
            APT_BROKEN=1
            say "not all package lists could be fetched (above), going on with those that were"
        fi
    fi
}

# apt_suite SUITE: from here on take packages from this Debian suite alone. The archive that serves this machine's release
# is asked for it.
apt_suite() {
    local uri
    uri=$(apt-get indextargets --format "\$(REPO_URI)" 'Created-By: Packages' "Codename: $(debian_codename)" 2>/dev/null |
        head -n 1)
    [ -n "$uri" ] || die "apt knows no archive of this machine's release" "apt-get update"
    apt_own "$1" "$(printf '%s\n' 'Types: deb' "URIs: $uri" "Suites: $1" \
        'Components: main' 'Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg')"
}

# apt_ready PACKAGE: make sure that PACKAGE can be downloaded, with lists of our own when the machine has none.
apt_ready() {
    need apt-get apt apt-cache apt dpkg-deb dpkg
    apt_has "$1" && return 0
    say "apt on this machine does not know '$1'; trying with package lists of our own"
    apt_own machine
    apt_has "$1" || die_missing "there is no package '$1' in the sources of this machine"
}

# apt_unpack PACKAGE VERSION DIR: download the package and unpack it into DIR, which must not exist yet. Nothing is
# installed. Returns 1, with a message, when it cannot be had; the caller says what to do about it.
apt_unpack() {
    local tmp=$3.part status=0
    mkdir -p "$tmp" || return 1
    say "fetching $1 $2"
    (cd "$tmp" && apt-get "${APT_OPTS[@]}" -qq download "$1=$2" >&2) || status=1
    [ "$status" -eq 0 ] || APT_BROKEN=1
    [ "$status" -ne 0 ] || dpkg-deb -x "$tmp"/*.deb "$3" || status=1
    rm -rf "$tmp"
    return "$status"
}
