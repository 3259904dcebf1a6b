#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# proto/cri/cri.proto is wire-compatible with the published CRI: everything in it equals runtime.v1
# of the Go module that tests/tools/go.mod pins, and runtime.v1alpha2 is contained in it.
# tests/tools/cricompat says what is compared.
#
# A comparison that finds nothing proves little, so the same comparison then runs over copies with
# one mistake each, and has to name every one of them.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."

for program in go protoc; do
    if ! command -v "$program" >/dev/null; then
        echo "SKIP: $program is not installed"
        exit 77
    fi
done

tmp="$(mktemp -d)"
trap 'rm -rf "$tmp"' EXIT
failures=0

# As in tests/tools/build.sh; a cold module cache is filled first, so that only this step depends on
# the network.
export GOTOOLCHAIN="${GOTOOLCHAIN:-auto}" GOWORK=off CGO_ENABLED=0
cd tests/tools
if ! go list -deps ./cricompat >/dev/null 2>"$tmp/list"; then
    if grep -qiE 'checksum mismatch|security error|missing go.sum entry|updates to go.mod needed' "$tmp/list"; then
        cat "$tmp/list"
        exit 1
    fi
    echo "SKIP: the Go modules are not to be had: $(tail -n 1 "$tmp/list")"
    exit 77
fi
go build -buildvcs=false -o "$tmp/cricompat" ./cricompat
cd ../..

# compare FILE: 0 when FILE is compatible, 1 when it differs, with the differences in $tmp/report; 2
# when it is not read.
compare() {
    protoc -I"$(dirname "$1")" --descriptor_set_out="$tmp/descriptors" "$1" || return 2
    "$tmp/cricompat" "$tmp/descriptors" >"$tmp/report"
}

if compare proto/cri/cri.proto; then
    echo "ok: $(tail -n 1 "$tmp/report")"
else
    echo "FAIL: proto/cri/cri.proto differs from the published definition:"
    cat "$tmp/report"
    failures=$((failures + 1))
fi

# mutant NAME EXPECTED SED-EXPRESSION: the comparison must refuse this change and print a line that
# matches EXPECTED.
mutant() {
    local name="$1" expected="$2" expression="$3" status=0
    sed -e "$expression" proto/cri/cri.proto >"$tmp/cri.proto"
    if cmp -s proto/cri/cri.proto "$tmp/cri.proto"; then
        echo "FAIL: $name: the edit does not apply to cri.proto any more"
        failures=$((failures + 1))
        return
    fi
    compare "$tmp/cri.proto" || status=$?
    if [[ $status -ne 1 ]] || ! grep -qE "$expected" "$tmp/report"; then
        echo "FAIL: $name: want status 1 and /$expected/, got status $status:"
        cat "$tmp/report"
        failures=$((failures + 1))
        return
    fi
    echo "ok: refused: $name"
}

mutant "a field with another number" '^v1: message Mount field readonly: ours: = 33,' \
    's/bool readonly = 3;/bool readonly = 33;/'
mutant "a number given to another field" '^v1alpha2: message DNSConfig number 2: ours: is options;' \
    's/repeated string searches = 2;/repeated string searches = 3;/; s/repeated string options = 3;/repeated string options = 2;/'
mutant "a field of another type" '^v1: message StopContainerRequest field timeout: .*int32.*published: .*int64' \
    '/^message StopContainerRequest/,/^}/s/int64 timeout/int32 timeout/'
mutant "a field of another message type" '^v1: message CpuUsage field psi: .*PsiData.*published: .*PsiStats' \
    '/^message CpuUsage/,/^}/s/PsiStats psi/PsiData psi/'
mutant "a field with another label" '^v1: message ExecRequest field cmd: .*optional.*published: .*repeated' \
    '/^message ExecRequest/,/^}/s/repeated string cmd/string cmd/'
mutant "a list that is not packed" '^v1: message PortForwardRequest field port: .*not packed;' \
    's/repeated int32 port = 2;/repeated int32 port = 2 [packed = false];/'
mutant "a field that is missing" '^v1: message Image field pinned: ours: \(none\);' '/bool pinned = 8;/d'
mutant "a field that is not published" '^v1: message PodIP field port: .*published: \(none\)' \
    's/^message PodIP {/message PodIP { int32 port = 9;/'
mutant "a map with other values" '^v1: message PodSandboxConfig.LabelsEntry field value: .*bytes' \
    '/^message PodSandboxConfig/,/^}/s/map<string, string> labels/map<string, bytes> labels/'
mutant "an enum value with another number" '^v1: enum Signal value SIGKILL: ours: 99; published: 13' \
    's/SIGKILL = 13;/SIGKILL = 99;/'
mutant "a nested enum value with another number" '^v1: enum SecurityProfile.ProfileType value Localhost: ours: 7;' \
    's/Localhost = 2;/Localhost = 7;/'
mutant "a message that is missing" '^v1: message UpdateRuntimeConfigResponse: ours: \(none\);' \
    '/^message UpdateRuntimeConfigResponse/d; s/returns (UpdateRuntimeConfigResponse)/returns (StatusResponse)/'
mutant "a call that is missing" '^v1alpha2: service RuntimeService rpc ExecSync: ours: \(none\);' '/rpc ExecSync(/d'
mutant "a call that is not streamed" '^v1: service RuntimeService rpc GetContainerEvents: .*published: .*stream' \
    's/returns (stream ContainerEventResponse)/returns (ContainerEventResponse)/'

if [[ $failures -gt 0 ]]; then
    echo "$failures failures"
    exit 1
fi
