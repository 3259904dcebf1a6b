#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The commands for people against a real daemon: what they print, in words and as JSON, and their exit codes; of several
# operands each is tried and each failure told.
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
need jq python3 busybox
need_tools
isolate "$0" "$@"
casemate() { "$bin/casemate" "$@"; }
# fails CODE WORDS COMMAND...: it exits with that, and says so on standard error.
fails() {
    local code=$1 words=$2 status=0
    shift 2
    "$@" >"$work/out" 2>"$work/err" || status=$?
    [ "$status" -eq "$code" ] || fail "exit code $status, not $code: $*: $(cat "$work/err")"
    grep -q -e "$words" "$work/err" || fail "no '$words' from $*: $(cat "$work/err")"
}

export CASEMATE_SOCKET=$work/nobody
for command in ps images metrics 'logs x' 'rmp x' 'timeline x' 'pull x' 'image rm x'; do
    # shellcheck disable=SC2086
    fails 1 'no daemon at' casemate $command
    # shellcheck disable=SC2086
    fails 2 "unknown option '--bogus'" casemate $command --bogus
    # shellcheck disable=SC2086
    casemate $command --help | has -e --socket || fail "$command --help does not name --socket"
done
for command in rmp logs timeline pull 'image rm' 'image import' 'image export'; do
    # shellcheck disable=SC2086
    fails 2 'something is missing' casemate $command
done
fails 2 "unexpected argument 'y'" casemate logs x y

start_daemon '[guest]'
touch "$work/crictl.yaml"
busybox_image test.local/busybox:latest
casemate images | has '^test.local/busybox' || fail "images: $(casemate images)"
casemate images --json | jq -e '.[0].id | startswith("sha256:")' >/dev/null || fail "images --json: $(casemate images --json)"

pod=$(crictl runp "$(pod_json one)" 2>/dev/null)
c=$(crictl create "$pod" "$(container_json c c.log /bin/sh -c 'echo said; exit 3')" "$work/pod-one.json" 2>/dev/null)
crictl start "$c" >/dev/null
has_ended() { crictl inspect "$c" | jq -e '.status.state == "CONTAINER_EXITED"'; }
wait_for 60 has_ended
[ "$(casemate logs "$c")" = said ] || fail "logs: $(casemate logs "$c")"
[ "$(casemate logs --follow "$c")" = said ] || fail "logs --follow"
casemate ps --all | has "${c:0:12}" || fail "ps --all: $(casemate ps --all)"
casemate ps --all --json | jq -e --arg p "$pod" 'tostring | contains($p)' >/dev/null || fail "ps --json: $(casemate ps --all --json)"
casemate timeline "$pod" | has machine || fail "timeline: $(casemate timeline "$pod")"
casemate timeline "$pod" --json | jq -e . >/dev/null || fail "timeline --json"
casemate timeline --svg "$pod" | has '^<svg' || fail "timeline --svg: $(casemate timeline --svg "$pod" | head -n 1)"
casemate metrics | has casemate_template_bytes || fail "metrics: $(casemate metrics)"

# The first one is not there, the second one is done all the same.
fails 1 nonesuch casemate rmp nonesuch "$pod"
[ "$(cat "$work/out")" = "$pod" ] || fail "rmp says $(cat "$work/out")"
[ -z "$(crictl pods -q)" ] || fail "the pod is still there"
fails 1 "'$work/nowhere'" casemate image import "$work/nowhere"
(cd "$work" && casemate image export test.local/busybox:latest exported >/dev/null 2>&1) || fail "image export"
[ -e "$work/exported/index.json" ] || fail "no layout was written"
fails 1 nonesuch casemate image rm test.local/nonesuch:1 test.local/busybox:latest
[ "$(casemate images --json | jq length)" -eq 0 ] || fail "the image is still there"
# What cannot be written is no success.
# shellcheck disable=SC2016
fails 1 'No space' bash -c '"$1" images --json >/dev/full' bash "$bin/casemate"
echo "the commands do what they say"
