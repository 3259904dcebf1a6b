#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what building, running and testing Casemate need, from Debian's packages (Debian 12 and 13).
#   scripts/deps.sh [build|run|test|all]     default: all
# Does nothing, quickly, when everything is there. Needs root for anything that is missing.
set -euo pipefail

usage() {
    sed -n '3,5s/^# \{0,1\}//p' "$0"
}

build=(gcc libc6-dev make pkg-config protobuf-c-compiler libprotobuf-c-dev libnghttp2-dev libjansson-dev
    libcurl4-openssl-dev libarchive-dev libsquashfs-dev libsqlite3-dev libseccomp-dev libcap-dev zlib1g-dev libzstd-dev
    libssl-dev libwslay-dev libinih-dev uthash-dev libcmocka-dev squashfs-tools cpio lz4 zstd xz-utils kmod python3 git ca-certificates dpkg)
run=(qemu-system-x86 e2fsprogs busybox-static iproute2 iputils-ping util-linux)
test=(clang clang-tidy clang-format llvm cppcheck shellcheck protobuf-compiler libprotobuf-dev docker-registry
    containernetworking-plugins containerd runc iptables jq openssl apache2-utils skopeo strace procps
    curl acl attr flex bison bc libelf-dev binutils perl)

case ${1:-all} in
build) wanted=("${build[@]}") ;;
run) wanted=("${run[@]}") ;;
test) wanted=("${test[@]}") ;;
all) wanted=("${build[@]}" "${run[@]}" "${test[@]}") ;;
-h | --help) usage && exit 0 ;;
*) usage >&2 && exit 2 ;;
esac

missing=()
for p in "${wanted[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null || true)" = installed ] || missing+=("$p")
done
# clang's sanitizer and fuzzer runtime is a package of the compiler's major version.
if [ "${1:-all}" = all ] || [ "${1:-}" = test ]; then
    if ! command -v clang >/dev/null || ! ls /usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer* >/dev/null 2>&1; then
        need_rt=1
    fi
    # Test clients are built from the Go module proxy. A Go of 1.21 or later fetches the toolchain that a module asks for.
    command -v go >/dev/null || missing+=(golang-go)
fi
# The guest's kernel and the test images are made of packages that are fetched and not installed: apt must know them.
lists_known() {
    [ "$(id -u)" -ne 0 ] || [[ $(apt-cache policy linux-image-cloud-amd64) =~ Candidate:\ [0-9] ]]
}
if [ "${#missing[@]}" -eq 0 ] && [ -z "${need_rt:-}" ] && lists_known; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "deps.sh: missing: ${missing[*]} ${need_rt:+libclang-rt-dev}; run as root: scripts/deps.sh" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
if [[ " ${missing[*]} " == *" golang-go "* ]] && [[ ! $(apt-cache policy golang-go) =~ Candidate:\ 2:1\.(2[1-9]|[3-9]) ]]; then
    # Debian 12's own Go is too old to fetch toolchains; its backports have one that can.
    if [[ $(apt-cache policy golang-1.23-go) =~ Candidate:\ [0-9] ]]; then
        missing=("${missing[@]/golang-go/golang-1.23-go}")
    else
        echo "deps.sh: no Go >= 1.21 among the configured suites; enable bookworm-backports for the test clients" >&2
        mapfile -t missing < <(printf '%s\n' "${missing[@]}" | grep -vx golang-go)
    fi
fi
if [ "${#missing[@]}" -gt 0 ]; then
    apt-get install -y -q --no-install-recommends "${missing[@]}"
fi
if [ -n "${need_rt:-}" ]; then
    major=$(clang -dumpversion | cut -d. -f1)
    apt-get install -y -q --no-install-recommends "libclang-rt-$major-dev"
fi
