#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From a bare Debian machine to a container that prints its own kernel: installs what is missing, builds, makes an image
# from Debian's busybox-static, starts casemated on a private folder, runs one container in a VM, and removes everything.
#   scripts/demo.sh [--no-deps] [COMMAND...]      default command: uname -a
set -euo pipefail
cd "$(dirname "$0")/.."

deps=yes
case ${1:-} in
-h | --help) sed -n '3,5s/^# \{0,1\}//p' "$0" && exit 0 ;;
--no-deps) deps=no && shift ;;
esac
[ $# -gt 0 ] || set -- uname -a

if [ "$(id -u)" -ne 0 ]; then
    echo "demo.sh: needs root: each VM runs under an unprivileged user of its own, which only root can give it" >&2
    exit 1
fi

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

if [ "$deps" = yes ]; then
    say "1. What building and running need (Debian packages)"
    bash scripts/deps.sh build
    bash scripts/deps.sh run
fi
say "2. Build: daemon, command, guest kernel and initrd"
make -s -j"$(nproc)" all guest >/dev/null
stat -c '  %n: %s bytes' build/bin/casemated build/bin/casemate build/guest/vmlinux build/guest/initrd.img

work=$(mktemp -d /tmp/casemate-demo.XXXXXX)
daemon=
cleanup() {
    if [ -n "$daemon" ]; then
        kill "$daemon" 2>/dev/null || true
        wait "$daemon" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

say "3. An image: Debian's busybox-static, as an OCI layout"
mkdir -p "$work/rootfs/bin" "$work/rootfs/tmp"
cp "$(command -v busybox)" "$work/rootfs/bin/busybox"
for applet in sh uname ls cat echo ps hostname id mount free sleep dmesg env; do
    ln -s busybox "$work/rootfs/bin/$applet"
done
python3 scripts/oci-layout.py --out "$work/layout" --ref casemate.demo/busybox:latest --layer "$work/rootfs" >/dev/null
echo "  casemate.demo/busybox:latest"

say "4. casemated, in $work"
cat >"$work/casemate.conf" <<CONF
[casemated]
socket = $work/casemate.sock
state_dir = $work/state
run_dir = $work/run
[network]
loopback_only = yes
CONF
build/bin/casemated --config "$work/casemate.conf" 2>"$work/casemated.log" &
daemon=$!
export CASEMATE_SOCKET=$work/casemate.sock
for _ in $(seq 300); do
    build/bin/casemate version >/dev/null 2>&1 && break
    if ! kill -0 "$daemon" 2>/dev/null; then
        cat "$work/casemated.log" >&2
        exit 1
    fi
    sleep 0.1
done
build/bin/casemate image import "$work/layout"

say "5. The host"
uname -a
say "   and a container in a VM of its own: casemate run casemate.demo/busybox $*"
status=0
build/bin/casemate run casemate.demo/busybox:latest "$@" || status=$?
if [ "$status" -ne 0 ]; then
    echo "casemate run exited with $status; the daemon said:" >&2
    tail -n 30 "$work/casemated.log" >&2
    exit "$status"
fi
say "6. What ran it: casemate version"
build/bin/casemate version | sed 's/^/  /'
say "7. Nothing is left: daemon stopped, folder removed"
