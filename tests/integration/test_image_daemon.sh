#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Images as an operator and a kubelet meet them, with the real daemon: the pull with its progress, the daemon's memory
# whatever the layers' size, pinned images, a collector that removes what is unused by id and looks at ImageFsInfo, an
# image that goes while its container runs, a pull that is given up, export and the way back.
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
isolate "$0" "$@"
need jq python3 busybox docker-registry
need_tools
touch "$work/crictl.yaml"
layout=$work/layout

# add_image NAME OPTIONS...
add_image() {
    local name=$1
    shift
    python3 "$repo/scripts/oci-layout.py" --out "$layout" --ref "test.local/$name:1" --add-to-index "$@" >/dev/null
}
mkdir -p "$work/base/bin" "$work/big1" "$work/big2"
cp "$(command -v busybox)" "$work/base/bin/busybox"
ln -s busybox "$work/base/bin/sh"
head -c 120000000 /dev/urandom >"$work/big1/random"
truncate -s 400M "$work/big2/zeros" && head -c 40000000 /dev/urandom >>"$work/big2/zeros"
add_image base --layer "$work/base" --cmd /bin/sh
add_image big --layer "$work/base" --layer "$work/big1" --layer "$work/big2" --compress none
rm -r "$work/big1" "$work/big2"
address=$(bash "$repo/tests/images/serve.sh" --data "$work/registry" --port 0 --pidfile "$work/registry.pid")
registry_pid=$(cat "$work/registry.pid")
python3 "$repo/tests/images/push.py" "$layout" "${address#*://}" >/dev/null
rm -r "$layout"
start_daemon '[image]' 'pinned = test.local/base:1' '[registry "test.local"]' "mirror = $address"

ids() { crictl images -q | sort; }
files() { find "$state/images/$1" -type f | wc -l; }
used() { crictl imagefsinfo | jq -r '.status.imageFilesystems[0].usedBytes.value'; }
no_transfer() { ! pgrep -x casemate-conver && [ "$(files ingest)" -eq 0 ]; }
peak_kib() { awk '/^VmHWM/ { print $2 }' "/proc/$daemon_pid/status"; }

# ---- the pull ----------------------------------------------------------------------------------

base=$("$bin/casemate" pull -q test.local/base:1)
empty=$(used)
echo 5 >"/proc/$daemon_pid/clear_refs" # the peak counts from here
"$bin/casemate" pull test.local/big:1 >"$work/id" 2>"$work/progress"
big=$(cat "$work/id")
[ "$(peak_kib)" -lt 40960 ] || fail "the daemon's memory went up to $(peak_kib) KiB"
grep -q '^Pulling test.local/big:1$' "$work/progress" || fail "progress: $(cat "$work/progress")"
grep -qE '^Pulled test.local/big:1: 5[0-9]{2}\.[0-9] MiB in [0-9.]+ s$' "$work/progress" || fail "progress: $(cat "$work/progress")"
python3 - "$bin/casemate" >"$work/terminal" <<'PYTHON' # the same on a terminal is a bar that is redrawn
import pty, sys
pty.spawn([sys.argv[1], "pull", "test.local/big:1"])
PYTHON
grep -q 'test.local/big:1' "$work/terminal" || fail "no progress on a terminal"
echo "ok: a pull of $(($(stat -c %s "$state"/images/layers/* | paste -sd+) >> 20)) MiB, the daemon's peak $(peak_kib) KiB"

# ---- collecting, as the kubelet does -------------------------------------------------------------

crictl images -o json | jq -e '[.images[] | {id, pinned}] | map(select(.pinned)) | length == 1' >/dev/null || fail "pinned"
crictl images -o json | jq -r '.images[] | select(.pinned) | .id' | has -x "$base" || fail "another one is pinned"
full=$(used)
for id in $(crictl images -o json | jq -r '.images[] | select(.pinned | not) | .id'); do
    crictl rmi "$id" >/dev/null
done
[ "$(ids)" = "$base" ] || fail "after collecting: $(ids)"
[ "$(used)" -eq "$empty" ] || fail "ImageFsInfo: $empty before, $full with the image, $(used) after"
[ "$(files layers)" -eq 1 ] || fail "layers are left"
echo "ok: the collector's loop ends where it began: $empty bytes"

# ---- in use ------------------------------------------------------------------------------------

pod=$(crictl runp "$(pod_json one)")
c=$(crictl create "$pod" "$(IMAGE=test.local/base:1 container_json c c.log /bin/busybox sleep 1000)" "$work/pod-one.json")
crictl start "$c" >/dev/null
crictl rmi test.local/base:1 >/dev/null
[ -z "$(ids)" ] || fail "a removed image is listed"
[ "$(crictl exec --sync "$c" /bin/busybox echo here)" = here ] || fail "the container lost its image"
kill_daemon
launch_daemon
[ "$(files layers)" -eq 1 ] || fail "a restart took the layer of a running container"
[ "$(crictl exec --sync "$c" /bin/busybox echo here)" = here ] || fail "the container lost its image at a restart"
crictl rmp -f "$pod" >/dev/null
[ "$(files layers)" -eq 0 ] || fail "the last user is gone and the layer is not"
echo "ok: a removed image stays for its container, over a restart, and goes with it"

# ---- given up ----------------------------------------------------------------------------------

kill -STOP "$registry_pid"
"$bin/casemate" pull -q test.local/big:1 >/dev/null 2>&1 &
pull=$!
wait_for 10 grep -q . /proc/$pull/status
kill -CONT "$registry_pid"
has_transfer() { [ "$(files ingest)" -gt 0 ] || ! kill -0 "$pull"; }
wait_for 20 has_transfer
kill -9 "$pull"
wait "$pull" 2>/dev/null || true
wait_for 10 no_transfer
[ -z "$(ids)" ] || [ "$(ids)" = "$big" ] || fail "half an image"
crictl rmi "$big" >/dev/null 2>&1 || true
wait_for 10 test "$(files layers)" -eq 0
echo "ok: a pull that nobody waits for ends"

# ---- export ------------------------------------------------------------------------------------

"$bin/casemate" pull -q test.local/base:1 >/dev/null
(cd "$work" && "$bin/casemate" image export test.local/base:1 exported) >"$work/id" 2>"$work/progress"
new=$(cat "$work/id")
jq -e '.imageLayoutVersion == "1.0.0"' "$work/exported/oci-layout" >/dev/null || fail "no layout"
if "$bin/casemate" image export test.local/base:1 "$work/exported" 2>"$work/error"; then fail "it wrote over a layout"; fi
grep -q 'exists' "$work/error" || fail "$(cat "$work/error")"
crictl rmi test.local/base:1 >/dev/null
[ "$("$bin/casemate" image import -q "$work/exported")" = "$new" ] || fail "imported as another image"
"$bin/casemate" run test.local/base:1 /bin/busybox echo from-the-export >"$work/out" 2>"$work/error" ||
    fail "$(cat "$work/error")"
grep -q from-the-export "$work/out" || fail "the exported image does not run: $(cat "$work/out")"
if command -v skopeo >/dev/null; then
    skopeo --insecure-policy copy -q "oci:$work/exported:test.local/base:1" "dir:$work/dir" || fail "skopeo cannot read it"
fi
stop_daemon
echo "ok: export, import and run"
