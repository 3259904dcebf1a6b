#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What is said wrongly to the real socket is refused with the right code, and the connection lives on: no protobuf, too
# much of it, bad text, missing fields, ids of nothing, a pod twice (tests/tools/cribad has the cases). And peers that
# speak no HTTP/2 at all harm nobody. Afterwards the daemon has the descriptors that it had before.
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
isolate "$0" "$@"
need jq python3 busybox
need_tools
start_daemon '[guest]'
touch "$work/crictl.yaml"
busybox_image test.local/busybox:latest
pod=$(crictl runp "$(pod_json one)")
c=$(crictl create "$pod" "$(container_json c c.log sleep 1000)" "$work/pod-one.json")
crictl start "$c" >/dev/null

descriptors() { find "/proc/$daemon_pid/fd" -mindepth 1 | wc -l; }
before=$(descriptors)
"$tools/cribad" --socket "$socket" --pod "$pod" --container "$c" || fail "a case above"

# Not HTTP/2: noise, another protocol, a preface and then nothing or nonsense, half a frame. Each of these connections
# may be closed; none of them may take anything else along.
python3 - "$socket" <<'PEERS' || fail "a peer was not got rid of"
import os, socket, sys
preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
settings = b"\0\0\0\4\0\0\0\0\0"
for said in (b"", b"\0" * 5000, os.urandom(70000), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", preface, preface + settings,
             preface + settings + b"\xff\xff\xff\0\0\0\0\0\1", preface + b"\0\0\5\1\4\0\0\0\1\x82",
             preface + settings + b"\0\0\4\3\0\0\0\0\0\0\0\0\0", preface + settings * 20000):
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(30)
        peer.connect(sys.argv[1])
        try:
            peer.sendall(said)
            peer.shutdown(socket.SHUT_WR)
            while peer.recv(65536):
                pass
        except (BrokenPipeError, ConnectionResetError):
            pass
PEERS

crictl inspect "$c" | jq -e '.status.state == "CONTAINER_RUNNING"' >/dev/null || fail "the container does not run any more"
[ "$(crictl exec --sync "$c" echo alive)" = alive ] || fail "exec afterwards"
same_descriptors() { [ "$(descriptors)" -le "$before" ]; }
wait_for 20 same_descriptors
crictl rmp -f "$pod" >/dev/null
stop_daemon
