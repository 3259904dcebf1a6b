#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A daemon that is told to end while a machine is being made ahead ends well, and leaves no machine.
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
isolate "$0" "$@"
need_tools

start_daemon '[pod]' 'spares = 1'
touch "$work/crictl.yaml"
for i in 1 2 3; do
    [ "$i" = 1 ] || launch_daemon
    pod=$(crictl runp "$(pod_json "p$i")")
    crictl rmp -f "$pod" >/dev/null
    stop_daemon
    [ -z "$(pgrep qemu-system || true)" ] || fail "a machine is left"
done
