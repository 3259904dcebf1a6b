#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The image service against Debian's docker-registry: forms of layers, platforms, many layers, a second image that shares
# layers, what the store says it occupies, pulls whose service is killed at random moments (KILLS times, default 200), and
# import of what skopeo writes. test_image_auth.sh has TLS, credentials and proxies.
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
isolate "$0" "$@"
need docker-registry unsquashfs python3 curl

export CONVERTER=$bin/casemate-convert
driver=${IMAGE_DRIVER:-$repo/build/tests/unit/host/image/test_live_registry}
[ -x "$driver" ] || fail "$driver is not built: make tests"
[ -x "$CONVERTER" ] || fail "$CONVERTER is not built"
layout=$work/layout state=$work/state

image() {
    "$driver" "$state" "$@"
}

# add_image REF LAYER...: to the layout.
add_image() {
    local ref=$1 layers=() l
    shift
    for l; do layers+=(--layer "$l"); done
    python3 "$repo/scripts/oci-layout.py" --out "$layout" --ref "$ref" "${layers[@]}" --add-to-index \
        --cmd /bin/sh "${extra[@]}" >/dev/null
}

stop_registry() {
    kill "$registry_pid"
    wait_for 10 registry_is_gone
    registry_pid=''
}

registry_is_gone() {
    ! kill -0 "$registry_pid" 2>/dev/null
}

# Sets address and registry_pid.
serve() {
    address=$(bash "$repo/tests/images/serve.sh" --data "$work/registry" --port 0 --pidfile "$work/registry.pid")
    registry_pid=$(cat "$work/registry.pid")
}

push() {
    python3 "$repo/tests/images/push.py" "$layout" "${address#*://}" >/dev/null
}

no_converter() {
    ! pgrep -x casemate-conver >/dev/null
}

# files DIR: how many there are.
files() {
    find "$state/images/$1" -type f | wc -l
}

# ---- images ------------------------------------------------------------------------------------

mkdir -p "$work/l1/etc" "$work/l1/dir" "$work/l2/etc" "$work/l2/dir"
echo a >"$work/l1/etc/a"
echo b >"$work/l1/etc/b"
touch "$work/l1/dir/old" "$work/l2/etc/.wh.a" "$work/l2/dir/.wh..wh..opq" "$work/l2/dir/new"
echo B >"$work/l2/etc/b"
extra=()
add_image docker.io/library/gz:1 "$work/l1" "$work/l2"
extra=(--compress zstd)
add_image docker.io/library/zstd:1 "$work/l1" "$work/l2"
extra=(--compress none --format docker)
add_image docker.io/library/none:1 "$work/l1" "$work/l2"
extra=()
add_image docker.io/library/arch:1 "$work/l1"
extra=(--arch arm64 --variant v8)
add_image docker.io/library/arch:1 "$work/l2"
add_image docker.io/library/foreign:1 "$work/l2"
extra=()
many=()
for i in $(seq 127); do
    mkdir -p "$work/many/$i"
    echo "$i" >"$work/many/$i/file-$i"
    echo "$i" >"$work/many/$i/last"
    many+=("$work/many/$i")
done
add_image docker.io/library/many:1 "${many[@]}"
mkdir "$work/big"
for i in 1 2 3 4; do
    mkdir "$work/big/$i"
    head -c 2000000 /dev/urandom >"$work/big/$i/data"
done
add_image docker.io/library/big:1 "$work"/big/*

# ---- plain -------------------------------------------------------------------------------------

serve
push
export MIRROR=$address REGISTRY=${address#*://}
for kind in gz zstd none; do
    id=$(image pull "$kind:1")
    image get "$id" >"$work/got"
    grep -qx "tag docker.io/library/$kind:1" "$work/got" || fail "$kind: tag: $(cat "$work/got")"
    grep -q "${address#*://}" "$work/got" && fail "$kind: the mirror's name shows"
done
[ "$(files layers)" -eq 2 ] || fail "three images of two layers share them: $(files layers)"
mapfile -t layers < <(sed -n 's/^layer //p' "$work/got")
unsquashfs -quiet -no-progress -d "$work/u1" "${layers[0]}" >/dev/null
unsquashfs -quiet -no-progress -d "$work/u2" "${layers[1]}" >/dev/null
diff -r "$work/l1" "$work/u1" || fail "the lower layer differs"
[ "$(stat -c '%F %t %T' "$work/u2/etc/a")" = 'character special file 0 0' ] || fail "no whiteout"
[ "$(cat "$work/u2/etc/b")" = B ] || fail "etc/b"
[ "$(getfattr --only-values -n trusted.overlay.opaque "$work/u2/dir" 2>/dev/null || echo y)" = y ] || fail "not opaque"
[ ! -e "$work/u2/dir/.wh..wh..opq" ] || fail "the opaque mark is a file"
echo "ok: gzip, zstd and plain layers, through a mirror, are the same two files"

image pull arch:1 >/dev/null
image pull foreign:1 2>"$work/error" && fail "an image for arm64 was pulled"
grep -q '^UNSUPPORTED: .*linux/' "$work/error" || fail "$(cat "$work/error")"
image pull "$REGISTRY/library/gz:1" >/dev/null
image get "$REGISTRY/library/gz:1" | has -x "tag $REGISTRY/library/gz:1" || fail "name with a port"
image pull nosuch:1 2>"$work/error" && fail "pulled what is not there"
grep -q '^NOT_FOUND\|^UNAVAILABLE' "$work/error" || fail "$(cat "$work/error")"
image pull many:1 >/dev/null
[ "$(image get many:1 | grep -c '^layer ')" -eq 127 ] || fail "127 layers"
echo "ok: platform choice, names, 127 layers"

# used: bytes and inodes as ImageFsInfo says them; du counts the same.
used() {
    image fsinfo | cut -d ' ' -f 1,2
}
counted() {
    echo "$(du -s --block-size=1 "$state/images" | cut -f 1) $(du -s --inodes "$state/images" | cut -f 1)"
}
[ "$(used)" = "$(counted)" ] || fail "ImageFsInfo says $(used), du $(counted)"
# An image that shares all its layers but one costs that one.
mkdir "$work/own"
head -c 300000 /dev/urandom >"$work/own/own"
add_image docker.io/library/share:1 "${many[@]:0:126}" "$work/own"
push
before=$(used)
image pull share:1 >/dev/null
own=$(stat -c '%b' "$(image get share:1 | sed -n 's/^layer //p' | tail -n 1)")
[ "$(($(used | cut -d ' ' -f 1) - ${before% *}))" -le $((own * 512 + 8192)) ] || # the folder may grow by a block
    fail "a shared image costs more than its own layer: $before, $(used), $own blocks"
[ "$(($(used | cut -d ' ' -f 2) - ${before#* }))" -eq 1 ] || fail "more than one file for one new layer"
image remove share:1
[ "$(used)" = "$(counted)" ] || fail "after a removal ImageFsInfo says $(used), du $(counted)"
echo "ok: ImageFsInfo is what du counts; an image that shares 126 of 127 layers costs one"

for name in gz:1 zstd:1 none:1 arch:1 many:1 "$REGISTRY/library/gz:1"; do
    image remove "$name"
done
[ -z "$(image list)" ] || fail "left: $(image list)"
[ "$(files layers)" -eq 0 ] || fail "layers are left"
echo "ok: removing everything leaves nothing"

# ---- killed ------------------------------------------------------------------------------------

kills=${KILLS:-200} whole=0 span=400
mkfifo "$work/never"
image pull big:1 >/dev/null
image get big:1 | sed -n 's/^layer //p' >"$work/layers"
xargs sha256sum <"$work/layers" >"$work/sums" # a layer is converted to the same bytes every time
image remove big:1
for i in $(seq "$kills"); do
    # Any moment of a pull, from its start to a little after its end, however fast this machine is just now.
    printf -v delay '0.%03d' $((1 + RANDOM % span))
    "$driver" "$state" pull big:1 >/dev/null 2>&1 &
    pid=$!
    read -r -t "$delay" _ <>"$work/never" || true # nobody writes there: only the time passes
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    wait_for 10 no_converter
    image collect || fail "collect after kill $i"
    [ "$(files ingest)" -eq 0 ] || fail "kill $i: temporary files are left"
    image get big:1 >"$work/got" 2>/dev/null || true
    if [ -s "$work/got" ]; then
        whole=$((whole + 1)) span=$((span > 20 ? span * 9 / 10 : span))
        sed -n 's/^layer //p' "$work/got" | cmp -s - "$work/layers" || fail "kill $i: half an image: $(cat "$work/got")"
        [ "$(files layers)" -eq 4 ] || fail "kill $i: half the layers"
        sha256sum --quiet -c "$work/sums" || fail "kill $i: a layer is damaged"
        image remove big:1
    else
        span=$((span < 900 ? span * 11 / 10 : span))
    fi
    [ "$(files layers)" -eq 0 ] || fail "kill $i: layers are left without an image"
done
image pull big:1 >/dev/null || fail "the pull after the kills"
unsquashfs -quiet -no-progress -d "$work/ub" "$(image get big:1 | sed -n 's/^layer //p' | tail -n 1)" >/dev/null
cmp "$work/big/4/data" "$work/ub/data" || fail "content after the kills"
image remove big:1
[ "$whole" -lt "$kills" ] || fail "no kill met a pull that was under way"
echo "ok: killed $kills times ($whole of them after the commit), each time all or nothing"
stop_registry

# ---- import ------------------------------------------------------------------------------------

rm -rf "$layout"
extra=()
add_image docker.io/library/gz:1 "$work/l1" "$work/l2"
id=$(image import "$layout")
tar -C "$layout" -cf "$work/layout.tar" .
[ "$(image import "$work/layout.tar" other.host/gz:2)" = "$id" ] || fail "the tar of a layout is another image"
if command -v skopeo >/dev/null; then
    skopeo --insecure-policy copy -q "oci:$layout:docker.io/library/gz:1" "docker-archive:$work/docker.tar:some/name:3"
    image import "$work/docker.tar" >/dev/null
    image get some/name:3 | has -x 'tag docker.io/some/name:3' || fail "docker archive"
    [ "$(files layers)" -eq 2 ] || fail "the archive's layers are others"
else
    echo "SKIP: docker archive: skopeo is not installed"
fi
gzip -k "$work/layout.tar"
image import "$work/layout.tar.gz" 2>"$work/error" && fail "imported a compressed archive"
grep -q 'gunzip' "$work/error" || fail "$(cat "$work/error")"
no_converter || fail "a converter is left"
echo "ok: import of a layout, of its tar and of a docker archive"
