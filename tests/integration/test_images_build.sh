#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The test images: built, served in a network namespace of this test's own, read back over HTTP and
# run. Exit 0 passed, 77 a requirement is missing, else failed.
set -euo pipefail

repo=$(cd "$(dirname "$0")/../.." && pwd)

skip() {
    echo "SKIP test_images_build: $*"
    exit 77
}
fail() {
    echo "FAIL test_images_build: $*"
    exit 1
}

if [ "${1:-}" != inside ]; then
    [ "$(id -u)" = 0 ] || skip "needs root for a network namespace and chroot"
    for tool in docker-registry apt-get readelf zstd curl jq setpriv ipcmk openssl htpasswd; do
        command -v "$tool" >/dev/null || skip "$tool is missing"
    done
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    "$repo/tests/images/build.sh" "$work/out" || fail "build.sh failed"
    unshare -n -- bash "$0" inside "$work"
    exit
fi

work=$2
ip link set lo up
trap 'kill "$(cat "$work/plain.pid")" "$(cat "$work/tls.pid" 2>/dev/null)" 2>/dev/null || true' EXIT
plain=$("$repo/tests/images/serve.sh" --data "$work/out" --port 5000 --pidfile "$work/plain.pid" --read-only)
[ "$plain" = http://127.0.0.1:5000 ] || fail "serves at $plain"

accept=()
for type in docker.distribution.manifest.v2 docker.distribution.manifest.list.v2 oci.image.manifest.v1 \
    oci.image.index.v1; do
    accept+=(-H "Accept: application/vnd.$type+json")
done
fetch() {
    curl -sSf --noproxy '*' "${accept[@]}" "$plain/v2/$1"
}
check_digest() {
    [ "sha256:$(sha256sum <"$1" | cut -d ' ' -f 1)" = "$2" ] || fail "$3: the content is not $2"
}

# 1. Every manifest under its tag, with the digest that images.txt promises.
count=0 types=''
while read -r ref digest type; do
    path=${ref#*/}
    fetch "${path%:*}/manifests/${path##*:}" >"$work/manifest" || fail "no manifest for $ref"
    check_digest "$work/manifest" "$digest" "$ref"
    [ "$(jq -r .mediaType "$work/manifest")" = "$type" ] || fail "$ref is not $type"
    types+="$type "
    count=$((count + 1))
done <"$work/out/images.txt"
[ "$count" -ge 30 ] || fail "only $count images"
for type in docker.distribution.manifest.v2 docker.distribution.manifest.list.v2 oci.image.manifest.v1 \
    oci.image.index.v1; do
    [[ $types == *"vnd.$type+json"* ]] || fail "no image has the media type of $type"
done

# unpack PATH TAG DIR: this machine's image, every blob checked, laid out in DIR.
unpack() {
    local arch layer blob
    arch=$(dpkg --print-architecture)
    mkdir -p "$3"
    fetch "$1/manifests/$2" >"$work/manifest"
    if [ "$(jq 'has("manifests")' "$work/manifest")" = true ]; then
        blob=$(jq -r --arg a "$arch" '.manifests[] | select(.platform.architecture == $a) | .digest' "$work/manifest")
        fetch "$1/manifests/$blob" >"$work/manifest"
        check_digest "$work/manifest" "$blob" "$1 for $arch"
    fi
    jq -r '.config.digest' "$work/manifest" >"$work/config.digest"
    fetch "$1/blobs/$(cat "$work/config.digest")" >"$work/config"
    check_digest "$work/config" "$(cat "$work/config.digest")" "$1's config"
    for layer in $(jq -r '.layers[] | .digest' "$work/manifest"); do
        fetch "$1/blobs/$layer" >"$work/layer"
        check_digest "$work/layer" "$layer" "$1's layer"
        case $(od -An -N1 -tx1 "$work/layer") in
            ' 28') zstd -q -d -c "$work/layer" ;;
            *) gzip -d -c "$work/layer" ;;
        esac | tar -x -p -C "$3"
    done
}

# 2. What the specs run is there and works.
# shellcheck disable=SC2016  # $1 is for the inner shell
with_proc='mount --bind /proc "$1/proc" && exec chroot "$@"'
unpack e2e-test-images/busybox 1.29-2 "$work/box"
for applet in sh top pidof netstat brctl hostname ls cat touch grep id pgrep ipcs dd mount sleep; do
    [ -x "$work/box/bin/$applet" ] || fail "busybox lacks $applet"
done
[ "$(chroot "$work/box" /bin/sh -c 'echo -n hello')" = hello ] || fail "busybox sh does not work"
mkdir -p "$work/box/proc"
sleep 60 &
sleeper=$!
pids=$(unshare -m -- sh -c "$with_proc" - "$work/box" /bin/pgrep sleep) || true
segments=$(unshare -i -m -- sh -c "ipcmk -M 4096 >/dev/null && $with_proc" - "$work/box" /bin/ipcs -m) || true
kill "$sleeper"
grep -qx "$sleeper" <<<"$pids" || fail "pgrep does not find $sleeper: $pids"
grep -q ' 4096$' <<<"$segments" || fail "ipcs does not show a segment: $segments"

unpack e2e-test-images/nonewprivs 1.3 "$work/nnp"
for flag in '0 ' '1000 --no-new-privs'; do
    # shellcheck disable=SC2086  # the second word is an option or nothing
    uid=$(cd "$work/nnp" && setpriv --reuid=1000 --regid=1000 --clear-groups ${flag#* } ./bin/nonewprivs)
    [ "$uid" = "Effective uid: ${flag%% *}" ] || fail "nonewprivs with '${flag#* }' prints '$uid'"
done

# answer PORT EXPECTED COMMAND...: the server started by COMMAND answers with EXPECTED.
answer() {
    local port=$1 expected=$2 server deadline=$((SECONDS + 10)) page=''
    shift 2
    "$@" >"$work/server.log" 2>&1 &
    server=$!
    while kill -0 "$server" 2>/dev/null && [ "$SECONDS" -lt "$deadline" ]; do
        page=$(curl -s --noproxy '*' -m 2 "http://127.0.0.1:$port/") && break
        sleep 0.05
    done
    kill "$server" 2>/dev/null || true
    wait "$server" || true
    [[ $page == *"$expected"* ]] || fail "$*: answered '$page': $(cat "$work/server.log")"
}
unpack e2e-test-images/nginx 1.14-2 "$work/nginx"
mkdir -p "$work/nginx/dev"
: >"$work/nginx/dev/null"
answer 80 'Welcome to nginx' chroot "$work/nginx" nginx -g 'daemon off;'
unpack e2e-test-images/httpd 2.4.39-4 "$work/httpd"
: >"$work/httpd/dev/null"
mkdir -p "$work/httpd/proc"
answer 80 'It works' unshare -m -- sh -c "$with_proc" - "$work/httpd" \
    /usr/local/apache2/bin/httpd -D FOREGROUND -f /usr/local/apache2/conf/httpd.conf
grep -q httpd "$work/server.log" || fail "httpd logs nothing of itself"
unpack "k8s-staging-cri-tools/hostnet-nginx-$(dpkg --print-architecture)" latest "$work/hostnet"
[ -e "$work/hostnet/usr/share/nginx/html/.wh.old.html" ] || fail "hostnet-nginx has no whiteout"
: >"$work/hostnet/dev/null"
answer 12003 'Welcome to nginx' chroot "$work/hostnet" nginx -g 'daemon off;'

for user in uid:1002 username:www-data uid-group:1003:1004 username-group:www-data:1004 predefined:1000; do
    name=test-image-user-${user%%:*}
    [ "${user%%:*}" != predefined ] || name=test-image-predefined-group
    unpack "k8s-staging-cri-tools/$name" latest "$work/user"
    [ "$(jq -r .config.User "$work/config")" = "${user#*:}" ] || fail "$name has the wrong user"
done
grep -q '^group-defined-in-image:x:50000:default-user$' "$work/user/etc/group" || fail "no predefined group"

# 3. TLS and an account.
tls=$("$repo/tests/images/serve.sh" --data "$work/out" --port 0 --pidfile "$work/tls.pid" --tls "$work/tls" \
    --htpasswd someone:secret --read-only)
[ "$(curl -s --noproxy '*' --cacert "$work/tls/ca.pem" -o /dev/null -w '%{http_code}' "$tls/v2/")" = 401 ] ||
    fail "no account is asked for"
curl -sSf --noproxy '*' --cacert "$work/tls/ca.pem" -u someone:secret "$tls/v2/_catalog" |
    grep -q e2e-test-images/busybox || fail "TLS with an account does not serve"

echo "PASS test_images_build: $count images"
