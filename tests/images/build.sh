#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Build the images that critest v1.36.0 and the benchmark use, out of Debian packages and the small
# programs in src/.
#
#   build.sh OUTDIR     OUTDIR/storage    a docker-registry's storage holding them all (serve.sh --data OUTDIR)
#                       OUTDIR/images.txt one line each: REFERENCE DIGEST MEDIA-TYPE
#
# Packages are fetched with apt-get and unpacked, not installed. The result is kept outside the
# checkout, under the hash of everything that goes in, so that a second run is a copy. What specs
# run in each image is listed in README.md.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
layout_tool=$here/../../scripts/oci-layout.py
# shellcheck source=tests/images/debs.sh
. "$here/debs.sh"

die() {
    echo "build: $*" >&2
    exit 1
}

[ $# -eq 1 ] || { echo "usage: build.sh OUTDIR" >&2; exit 2; }
out=$1
for tool in "${CC:-cc}" apt-get dpkg-deb readelf zstd docker-registry curl python3; do
    command -v "$tool" >/dev/null || die "$tool is missing"
done

arch=$(dpkg --print-architecture)
# Words of one string are the names that a package has in different releases; the first that exists
# is taken.
wanted=(busybox nginx apache2-bin libc6 libcrypt1 libpcre2-8-0 zlib1g libzstd1 libexpat1 libuuid1 libgcc-s1
    'libssl3t64 libssl3' 'libapr1t64 libapr1' 'libaprutil1t64 libaprutil1')
# shellcheck disable=SC2086,SC2048  # the strings are split
candidates=$(deb_candidates ${wanted[*]})
packages=()
for names in "${wanted[@]}"; do
    found=''
    for name in $names; do
        found=${found:-$(awk -v n="$name" '$1 == n { print n }' <<<"$candidates")}
    done
    [ -n "$found" ] || die "the package lists have no $names (run apt-get update)"
    packages+=("$found")
done

inputs() {
    find "$here" -type f ! -name '*.md' ! -name serve.sh -print0 | sort -z | xargs -0 sha256sum | sed "s| $here| |"
    sha256sum <"$layout_tool"
    "${CC:-cc}" --version | head -n 1
    echo "$candidates"
}

hash=$(inputs | sha256sum | cut -c 1-16)
cache=${CASEMATE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/casemate}/test-images/$hash

# deliver: put the kept result into OUTDIR, whole or not at all.
deliver() {
    local stamp=$out/.inputs
    [ "$(cat "$stamp" 2>/dev/null)" = "$hash" ] && return
    mkdir -p "$out"
    rm -rf "$out/storage" "$out/images.txt" "$stamp"
    cp -a --reflink=auto "$cache/storage" "$cache/images.txt" "$out/"
    echo "$hash" >"$stamp"
}

if [ -s "$cache/images.txt" ]; then
    deliver
    exit
fi

work=$(mktemp -d)
registry_pid=''
cleanup() {
    if [ -s "$work/registry.pid" ]; then
        registry_pid=$(cat "$work/registry.pid")
        kill "$registry_pid" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap cleanup EXIT
umask 022

# ---- layers ----------------------------------------------------------------------------------------------------------

echo "build: fetching ${#packages[@]} packages" >&2
deb_unpack "$work/debs" "${packages[@]}"

# Static programs of our own: NAME DESTINATION-DIR
compile() {
    "${CC:-cc}" -std=gnu17 -D_GNU_SOURCE -Os -s -Wall -Wextra -static -o "$2" "$here/src/$1.c"
}

# The upstream image has one file and a hard link for each applet; so has this. The package is
# busybox, not busybox-static: the latter's shell runs applets without looking at the files, and a
# spec masks /bin/ls and expects that it matters.
make_busybox() {
    local root=$work/busybox binary applet
    mkdir -p "$root"/{bin,dev,home,lib,proc,root,sys,tmp,usr/bin,var/run,var/tmp}
    chmod 1777 "$root/tmp" "$root/var/tmp"
    chmod 0700 "$root/root"
    binary=$(cd "$work/debs" && find . -type f -path '*bin/busybox' -print -quit)
    elf_install "$work/debs" "$root" "$binary" bin/busybox
    for applet in $("$root/bin/busybox" --list); do
        [ "$applet" = busybox ] || ln "$root/bin/busybox" "$root/bin/$applet"
    done
}

make_etc() {
    local root=$work/etc
    mkdir -p "$root/etc" "$root/bin"
    cat >"$root/etc/passwd" <<'PASSWD'
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
PASSWD
    cat >"$root/etc/group" <<'GROUP'
root:x:0:
daemon:x:1:
bin:x:2:
www-data:x:33:
nogroup:x:65534:
GROUP
    echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
    compile pgrep "$root/bin/pgrep"
    compile ipcs "$root/bin/ipcs"
    compile pause "$root/bin/pause" # for containers that only wait and that end at SIGTERM
}

# default-user (1000) is in group-defined-in-image (50000), as the specs of SupplementalGroupsPolicy
# want it.
make_predefined_group() {
    local root=$work/predefined-group
    mkdir -p "$root/etc" "$root/home/default-user"
    { cat "$work/etc/etc/passwd"; echo 'default-user:x:1000:1000::/home/default-user:/bin/sh'; } >"$root/etc/passwd"
    { cat "$work/etc/etc/group"; printf '%s\n' 'default-user:x:1000:' \
        'group-defined-in-image:x:50000:default-user'; } >"$root/etc/group"
}

make_nginx() {
    local root=$work/nginx
    elf_install "$work/debs" "$root" usr/sbin/nginx /usr/sbin/nginx
    mkdir -p "$root"/{var/log/nginx,var/lib/nginx,var/run} "$root/usr/share/nginx/html"
    install -D -m 0644 "$here/conf/nginx.conf" "$root/etc/nginx/nginx.conf"
    install -D -m 0644 "$here/conf/nginx-default.conf" "$root/etc/nginx/conf.d/default.conf"
    echo '<!doctype html><title>nginx</title><p>Welcome to nginx.' >"$root/usr/share/nginx/html/index.html"
    echo 'gone in the next layer' >"$root/usr/share/nginx/html/old.html"
    # The layer above has a file replaced and a file removed.
    mkdir -p "$work/nginx-hostnet/usr/share/nginx/html"
    install -D -m 0644 "$here/conf/nginx-hostnet.conf" "$work/nginx-hostnet/etc/nginx/conf.d/default.conf"
    : >"$work/nginx-hostnet/usr/share/nginx/html/.wh.old.html"
}

make_httpd() {
    local root=$work/httpd base=/usr/local/apache2 module
    elf_install "$work/debs" "$root" usr/sbin/apache2 $base/bin/httpd
    for module in mod_mpm_event mod_authz_core mod_dir; do
        elf_install "$work/debs" "$root" "usr/lib/apache2/modules/$module.so" "$base/modules/$module.so"
    done
    mkdir -p "$root$base/logs" "$root/var/lock/apache2" "$root/var/log/apache2" "$root/var/run/apache2"
    elf_library "$work/debs" "$root" libgcc_s.so.1 # loaded when a thread ends; no ELF header says so
    install -D -m 0644 "$here/conf/httpd.conf" "$root$base/conf/httpd.conf"
    mkdir -p "$root$base/htdocs"
    echo '<html><body><h1>It works!</h1></body></html>' >"$root$base/htdocs/index.html"
}

make_small() {
    mkdir -p "$work/nonewprivs/bin" "$work/pause"
    compile nonewprivs "$work/nonewprivs/bin/nonewprivs"
    chmod 4755 "$work/nonewprivs/bin/nonewprivs"
    compile pause "$work/pause/pause"
}

# marker NAME: a layer with one empty file, as the upstream test images have it.
marker() {
    mkdir -p "$work/marker-$1"
    : >"$work/marker-$1/$1"
    echo "$work/marker-$1"
}

# ---- images ----------------------------------------------------------------------------------------------------------

layout=$work/layout
# image REFERENCE OPTION...: one image of this machine's architecture, added to the layout.
image() {
    local ref=$1
    shift
    "$layout_tool" --out "$layout" --add-to-index --arch "$arch" --ref "$ref" "$@" >/dev/null
}

# foreign FORMAT REFERENCE...: images of other platforms under the same names, each of which says
# what it is; an index comes of it, and whoever takes the wrong entry gets an image that cannot run.
foreign() {
    local format=$1 ref platform refs=()
    shift
    for ref; do
        refs+=(--ref "$ref")
    done
    for platform in amd64/ arm/v7 arm64/v8 ppc64le/ s390x/; do
        [ "${platform%/*}" != "$arch" ] || continue
        mkdir -p "$work/foreign-${platform%/*}"
        echo "$platform" >"$work/foreign-${platform%/*}/platform"
        "$layout_tool" --out "$layout" --add-to-index "${refs[@]}" --arch "${platform%/*}" \
            --variant "${platform#*/}" --layer "$work/foreign-${platform%/*}" --format "$format" >/dev/null
    done
}

make_images() {
    local e2e=registry.k8s.io/e2e-test-images cri=gcr.io/k8s-staging-cri-tools ecr=public.ecr.aws/docker/library
    local path=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin name tag tags=() ref
    local base=(--env "$path" --layer "$work/busybox" --layer "$work/etc")
    local box=("${base[@]}" --cmd '["sh"]') docker=(--format docker)

    image $e2e/busybox:1.29-2 "${box[@]}" "${docker[@]}"
    foreign docker $e2e/busybox:1.29-2
    image $e2e/nginx:1.14-2 "${base[@]}" --layer "$work/nginx" --expose 80/tcp --stop-signal SIGTERM \
        --cmd '["nginx", "-g", "daemon off;"]'
    foreign oci $e2e/nginx:1.14-2
    image $e2e/httpd:2.4.39-4 "${base[@]}" --layer "$work/httpd" --compress zstd --expose 80/tcp \
        --workdir /usr/local/apache2 --stop-signal SIGWINCH \
        --cmd '["/usr/local/apache2/bin/httpd", "-D", "FOREGROUND", "-f", "/usr/local/apache2/conf/httpd.conf"]'
    image $e2e/nonewprivs:1.3 "${base[@]}" --layer "$work/nonewprivs" "${docker[@]}" --entrypoint '["/bin/nonewprivs"]'

    # Each tag is an image of its own, the same under both registries: a spec counts the names of
    # one image.
    for tag in 3.6 3.8 3.9 3.10 3.10.1; do
        for ref in registry.k8s.io/pause:$tag k8s.gcr.io/pause:$tag; do
            tags+=("$ref")
            image "$ref" --layer "$work/pause" --env "$path" --user 65535:65535 --entrypoint '["/pause"]' \
                --label "version=$tag"
        done
    done
    foreign oci "${tags[@]}"

    image "$cri/hostnet-nginx-$arch:latest" "${base[@]}" --layer "$work/nginx" --layer "$work/nginx-hostnet" \
        "${docker[@]}" --expose 12003/tcp --stop-signal SIGTERM --cmd '["nginx", "-g", "daemon off;"]'
    for name in 1 2 3 latest digest; do
        image "$cri/test-image-$name:latest" "${box[@]}" --layer "$(marker "test-image-$name")" "${docker[@]}"
        foreign docker "$cri/test-image-$name:latest"
    done
    for tag in 1 2 3; do
        image "$cri/test-image-tags:$tag" "${box[@]}" --layer "$(marker same-image)" "${docker[@]}"
    done
    foreign docker $cri/test-image-tags:{1,2,3}
    for tag in test all; do
        image "$cri/test-image-tag:$tag" "${box[@]}" --layer "$(marker "$tag")" "${docker[@]}"
        foreign docker "$cri/test-image-tag:$tag"
    done
    image $cri/test-image-user-uid:latest "${box[@]}" --user 1002 "${docker[@]}"
    image $cri/test-image-user-username:latest "${box[@]}" --user www-data "${docker[@]}"
    image $cri/test-image-user-uid-group:latest "${box[@]}" --user 1003:1004
    image $cri/test-image-user-username-group:latest "${box[@]}" --user www-data:1004
    image $cri/test-image-predefined-group:latest "${box[@]}" --layer "$work/predefined-group" \
        --user 1000 "${docker[@]}"
    foreign docker $cri/test-image-predefined-group:latest

    # critest -benchmark lists these; each must be an image of its own.
    for tag in 1.35.0-glibc 1-uclibc 1 1-glibc 1-musl; do
        image "$ecr/busybox:$tag" "${box[@]}" --layer "$(marker "busybox-$tag")"
    done
}

echo "build: making layers and images" >&2
make_busybox
make_etc
make_predefined_group
make_nginx
make_httpd
make_small
make_images

echo "build: filling the registry's storage" >&2
mkdir -p "$work/result"
address=$("$here/serve.sh" --data "$work/result" --port 0 --pidfile "$work/registry.pid")
"$here/push.py" "$layout" "${address#http://}" | sort >"$work/images.txt"
kill "$(cat "$work/registry.pid")"
rm -rf "$work"/result/run.* "$work/registry.pid"
cp "$work/images.txt" "$work/result/images.txt"

mkdir -p "${cache%/*}"
mv "$work/result" "$cache.new.$$"
# Another run may have finished first; its result is as good.
mv -T "$cache.new.$$" "$cache" 2>/dev/null || rm -rf "$cache.new.$$"
deliver
echo "build: $(wc -l <"$out/images.txt") images in $out" >&2
