# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Sourced by the integration tests. A test calls `isolate "$0" "$@"` first: it then runs again as PID 1's child in network,
# mount and PID namespaces of its own, so that whatever a failing test leaves behind ends with it; and it has `work`,
# a folder that is removed at the end. Exit status 77 is a named skip; anything else but 0 is a failure.
#
# With a daemon: start_daemon [EXTRA CONFIG LINES], kill_daemon, stop_daemon, and the variables socket, state, run.

set -euo pipefail
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bin=${CASEMATE_BIN:-$repo/build/bin}
work='' daemon_pid='' registry_pid=''

skip() {
    echo "$*"
    exit 77
}

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# grep -q for the end of a pipe: it reads everything, so that the writer never meets a closed pipe (pipefail).
has() {
    local text
    text=$(cat)
    grep -q "$@" <<<"$text"
}

need() {
    local tool
    for tool in "$@"; do
        command -v "$tool" >/dev/null || skip "$tool is not installed"
    done
}

# What a test takes from outside goes into the cache before it is cut off: inside there is no network. What cannot be had is
# named where it is needed.
fetch_outside() {
    local test=$1
    if grep -q '^need_tools' "$test"; then
        bash "$repo/tests/tools/build.sh" >/dev/null || true
    fi
    if grep -q 'tests/images/build.sh' "$test"; then
        local images
        images=$(mktemp -d "${TMPDIR:-/tmp}/casemate-images.XXXXXX")
        bash "$repo/tests/images/build.sh" "$images" >/dev/null || true
        rm -rf "$images"
    fi
}

isolate() {
    if [ "${CASEMATE_ISOLATED:-}" != 1 ]; then
        [ "$(id -u)" -eq 0 ] || skip "needs root"
        fetch_outside "$1"
        CASEMATE_ISOLATED=1 exec unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private \
            bash "$@"
    fi
    unset CASEMATE_ISOLATED
    ip link set lo up
    work=$(mktemp -d "${TMPDIR:-/tmp}/casemate-test.XXXXXX")
    trap finish EXIT
    trap 'exit 143' TERM INT
}

finish() {
    local status=$?
    set +e
    if [ "$status" -ne 0 ] && [ "$status" -ne 77 ] && [ -s "$work/casemated.log" ]; then
        echo "--- casemated.log (last lines)"
        tail -n "${DAEMON_LOG_LINES:-40}" "$work/casemated.log"
    fi
    [ -z "$daemon_pid" ] || kill -9 "$daemon_pid" 2>/dev/null
    [ -z "$registry_pid" ] || kill -9 "$registry_pid" 2>/dev/null
    # Everything else in this PID namespace: machines of the daemon under test.
    kill -9 -1 2>/dev/null
    wait 2>/dev/null
    awk -v below="$work/" 'index($2, below) == 1 {print $2}' /proc/self/mounts | sort -r | xargs -r umount -l
    rm -rf "$work"
    exit "$status"
}

# wait_for SECONDS COMMAND...: until the command succeeds. What an idle machine does in a second a busy one may need a
# minute for, and whoever waits for an event loses nothing by patience: two minutes at least.
wait_for() {
    local end=$((SECONDS + ($1 < 120 ? 120 : $1)))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || fail "waited in vain for: $*"
        sleep 0.05
    done
}

write_config() {
    socket=$work/casemate.sock state=$work/state run=$work/run
    export CASEMATE_SOCKET=$socket
    {
        printf '[casemated]\nsocket = %s\nstate_dir = %s\nrun_dir = %s\nlog_level = %s\n' "$socket" "$state" "$run" \
            "${DAEMON_LOG_LEVEL:-info}"
        # No machine that no pod has asked for: tests count them.
        printf '[pod]\nspares = %s\n' "${SPARES:-0}"
        printf '[network]\nconf_dir = %s\nloopback_only = yes\n[vmm]\naccel = tcg\n' "$work/net.d"
        printf '%s\n' "$@"
    } >"$work/casemate.conf"
}

launch_daemon() {
    "$bin/casemated" --config "$work/casemate.conf" >>"$work/casemated.log" 2>&1 &
    daemon_pid=$!
    wait_for 30 daemon_is_ready
}

daemon_is_ready() {
    kill -0 "$daemon_pid" || fail "casemated has ended"
    "$bin/casemate" version --json | jq -e '.daemon.problem == ""'
}

start_daemon() {
    [ -x "$bin/casemated" ] || fail "$bin/casemated is not built"
    [ -r "$repo/build/guest/vmlinux" ] || fail "the guest is not built: make guest"
    need qemu-system-x86_64 jq
    write_config "$@"
    launch_daemon
}

kill_daemon() {
    kill -9 "$daemon_pid"
    wait "$daemon_pid" 2>/dev/null || true
    daemon_pid=''
}

stop_daemon() {
    local status=0
    kill -TERM "$daemon_pid"
    wait "$daemon_pid" || status=$?
    daemon_pid=''
    [ "$status" -eq 0 ] || fail "casemated exited with $status on SIGTERM"
}

# The tools of the Go module proxy: sets `tools`, the folder with crictl and critest.
need_tools() {
    tools=$(bash "$repo/tests/tools/build.sh") || skip "crictl and critest could not be built"
}

crictl() {
    "$tools/crictl" --config "$work/crictl.yaml" --timeout 120s --runtime-endpoint "unix://$socket" \
        --image-endpoint "unix://$socket" "$@"
}

# busybox_image NAME: Debian's busybox-static as an image, imported into the daemon under test.
busybox_image() {
    local root=$work/busybox-rootfs applet
    mkdir -p "$root/bin" "$root/tmp" "$root/etc"
    cp "$(command -v busybox)" "$root/bin/busybox"
    for applet in $("$root/bin/busybox" --list); do
        [ "$applet" = busybox ] || ln -sf busybox "$root/bin/$applet"
    done
    echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
    echo 'root:x:0:' >"$root/etc/group"
    python3 "$repo/scripts/oci-layout.py" --out "$work/busybox-layout" --ref "$1" --layer "$root" >/dev/null
    "$bin/casemate" image import "$work/busybox-layout" >/dev/null
}

# A machine that was made ahead is there for the next pod: more were made than pods have taken.
spare_is_at_hand() {
    local made taken
    made=$(grep -c 'msg="a machine was made ahead"' "$work/casemated.log") || true
    taken=$(grep -c 'is ready (made ahead)' "$work/casemated.log") || true
    [ "$made" -gt "$taken" ]
}

# pod_json NAME / container_json NAME LOG CMD...: what crictl reads.
pod_json() {
    jq -n --arg n "$1" --arg d "$work/logs/$1" '{metadata: {name: $n, namespace: "test", uid: $n, attempt: 1},
        log_directory: $d, linux: {}}' >"$work/pod-$1.json"
    mkdir -p "$work/logs/$1"
    echo "$work/pod-$1.json"
}

container_json() {
    local name=$1 log=$2
    shift 2
    jq -n --arg n "$name" --arg l "$log" --arg i "${IMAGE:-test.local/busybox:latest}" \
        '{metadata: {name: $n, attempt: 1}, image: {image: $i}, command: $ARGS.positional, log_path: $l, linux: {}}' \
        --args -- "$@" >"$work/container-$name.json"
    echo "$work/container-$name.json"
}

# For a test with a function begin NAME FILTER CMD..., which starts a container and sets c.
c='' out=''
# out NAME FILTER SCRIPT: what a container whose process is this shell script writes; sets out (its lines) and c.
is_exited() { [ "$(crictl inspect "$c" | jq -r .status.state)" = CONTAINER_EXITED ]; }
out() {
    begin "$1" "$2" /bin/sh -c "$3"
    wait_for 60 is_exited
    out=$(crictl logs "$c" 2>&1)
}
# says LINE: out holds it; says_not WORDS: nothing in it has them.
says() { grep -qxF -- "$1" <<<"$out" || fail "no line '$1' in:"$'\n'"$out"; }
says_not() { if grep -qF -- "$1" <<<"$out"; then fail "there is '$1' in:"$'\n'"$out"; fi; }

# What a daemon must not leave behind, as one sorted text: processes, namespaces by name, links, mounts, loop devices,
# cgroups of ours, files (but for what is kept on purpose), and the daemon's open files.
footprint() {
    {
        pgrep -a qemu-system || true
        ip -o link | awk '{print "link", $2}'
        ip netns list | sed 's/^/netns /'
        grep -c . /proc/self/mounts | sed 's/^/mounts /'
        losetup -a | sed 's/^/loop /'
        find /sys/fs/cgroup -name '*casemate*' -type d 2>/dev/null | sed 's/^/cgroup /'
        find "$run" "$state/pods" "$state/net" -mindepth 1 2>/dev/null | grep -v -e accel.json -e '/pods/scratch-[a-z0-9-]*\.ext4$' | sed 's/^/file /'
        [ -z "$daemon_pid" ] || find "/proc/$daemon_pid/fd" -mindepth 1 -printf 'fd %l\n' | sed 's/\[[0-9]*\]//'
    } | sort
}
