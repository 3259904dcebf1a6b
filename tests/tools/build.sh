#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds crictl and critest, in the version that go.mod pins, from the Go module proxy, and cribad from
# the folder beside this file, and prints the directory that holds them; in its folder cni/ are CNI
# plugins that speak 1.1, newer than Debian 12's, as cni/go.mod pins them. The directory is named after everything that decides what is built,
# so a second call finds it and returns at once, and another checkout with other pins does not
# disturb it.
#
#   PATH="$(tests/tools/build.sh):$PATH"
#
# Needs go 1.21 or later; an older one than go.mod asks for fetches that toolchain itself
# (GOTOOLCHAIN=auto). CASEMATE_CACHE names the cache; the default is
# ${XDG_CACHE_HOME:-~/.cache}/casemate.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"

fail() {
    echo "tests/tools/build.sh: $*" >&2
    exit 1
}

command -v go >/dev/null || fail "go is not installed (Debian: golang-go)"
# Distributions switch the fetching of toolchains off in go's own configuration; the environment
# overrides that.
export GOTOOLCHAIN="${GOTOOLCHAIN:-auto}" GOWORK=off CGO_ENABLED=0
go_version="$(go env GOVERSION 2>/dev/null)" || go_version=""
[[ -n "$go_version" ]] || fail "$(go version) cannot read go.mod: 1.21 or later is needed (Debian 12: from backports)"

hash="$({ cat go.mod go.sum build.sh cribad/*.go cni/go.mod cni/go.sum && echo "$go_version $(go env GOOS GOARCH | tr '\n' ' ')"; } | sha256sum)"
cache="${CASEMATE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/casemate}/tools"
dir="$cache/${hash:0:32}"
if [[ -d "$dir" ]]; then
    echo "$dir"
    exit 0
fi

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9 # a second builder waits here and then finds the work done
if [[ ! -d "$dir" ]]; then
    # One name, not a new one each time: what an interrupted build left behind is taken over, not
    # piled up.
    partial="$cache/partial"
    rm -rf "$partial"
    mkdir "$partial"
    version="$(go list -m -f '{{.Version}}' sigs.k8s.io/cri-tools)"
    ldflags="-s -w -X sigs.k8s.io/cri-tools/pkg/version.Version=${version#v}"
    go build -buildvcs=false -trimpath -ldflags "$ldflags" -o "$partial/crictl" sigs.k8s.io/cri-tools/cmd/crictl >&2
    go test -c -buildvcs=false -trimpath -ldflags "$ldflags" -o "$partial/critest" \
        sigs.k8s.io/cri-tools/cmd/critest >&2
    go build -buildvcs=false -trimpath -ldflags "-s -w" -o "$partial/cribad" ./cribad >&2
    (cd cni && mkdir "$partial/cni" && go build -buildvcs=false -trimpath -ldflags "-s -w" -o "$partial/cni/" tool >&2)
    mv "$partial" "$dir" # the only way a directory of that name comes to be: complete
fi
echo "$dir"
