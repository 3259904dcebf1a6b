# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Sourced by build.sh: Debian packages as ingredients, unpacked and never installed.

# deb_candidates NAME...: a line "PACKAGE VERSION SHA256" for each of these that the package lists
# know. One call for all of them: reading the lists is what takes the time.
deb_candidates() {
    { apt-cache show --no-all-versions "$@" 2>/dev/null || true; } | awk '
        $1 == "Package:" { name = $2 }
        $1 == "Version:" { version = $2 }
        $1 == "SHA256:" { print name, version, $2 }'
}

# deb_unpack DIR PACKAGE...: fetch the packages and unpack them all into DIR.
deb_unpack() {
    local dir=$1 deb
    shift
    mkdir -p "$dir" "$dir.debs"
    (cd "$dir.debs" && apt-get -q -q -o APT::Sandbox::User=root download "$@") || {
        echo "cannot fetch packages (stale package lists? run apt-get update): $*" >&2
        return 1
    }
    for deb in "$dir.debs"/*.deb; do
        dpkg-deb -x "$deb" "$dir"
    done
}

# elf_install FROM TO BINARY DESTINATION: copy BINARY, a path in the unpacked tree FROM, to
# DESTINATION in the root file system TO, with its loader and every library that it needs, directly
# or not, all taken from FROM.
elf_install() {
    local from=$1 to=$2 binary=$3 destination=$4 loader name
    install -D -m 0755 "$from/$binary" "$to/$destination"
    loader=$(readelf -l "$from/$binary" | sed -n 's/.*program interpreter: \(.*\)]/\1/p')
    if [ -n "$loader" ] && [ ! -e "$to$loader" ]; then
        name=$(_elf_find "$from" "${loader##*/}") || return 1
        install -D -m 0755 "$name" "$to$loader"
    fi
    _elf_libraries "$from" "$to" "$from/$binary"
}

_elf_find() {
    local found
    found=$(find "$1" -name "$2" \( -type f -o -type l \) -print -quit)
    [ -n "$found" ] || {
        echo "library $2 is in none of the packages" >&2
        return 1
    }
    readlink -f "$found"
}

# elf_library FROM TO SONAME: copy one library and what it needs into the root file system TO.
elf_library() {
    local path lib
    lib=/lib/$(gcc -print-multiarch 2>/dev/null || dpkg-architecture -qDEB_HOST_MULTIARCH)/$3
    [ -e "$2$lib" ] && return
    path=$(_elf_find "$1" "$3") || return 1
    install -D -m 0644 "$path" "$2$lib"
    _elf_libraries "$1" "$2" "$path"
}

_elf_libraries() {
    local soname
    for soname in $(readelf -d "$3" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
        elf_library "$1" "$2" "$soname" || return 1
    done
}
