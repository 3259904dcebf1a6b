#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# `make bench`: casemated against Debian's containerd + runc, in turn, on this machine, in one run.
#
# Writes build/bench/results.json, and beside it raw/: every sample of every call, and what versions
# they are of. A metric that could not be measured is null there, with the reason. README.md has
# the method. It takes about a quarter of an hour; what is late is measured fewer times, and said so.
#
#   ONLY=a,b      measure these metrics anew, and keep what raw/ has of the others
#   RESUME=1      measure what raw/ does not have yet (after an interruption)
#   PAGE=DIR      write a page with tables and plots there (docs/bench is the project's)
#   N=40          pods of the latency metrics, each round     ROUNDS=2   turns of each runtime (exec: twice as many)
#   PEER=0        casemate alone (no ratios)                  BENCH_OUT=DIR instead of build/bench
#   BENCH_NETWORK=none|cni  the pods' network, the same for both (default cni: a bridge)
#   BENCH_CASEMATE_CONF=FILE   more configuration for casemated, to compare settings
#   BENCH_LIMIT=1500        seconds after which nothing more is begun
#   BENCH_QUICK=1 few repetitions, to see that it works; its figures mean nothing
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
repo=$(cd "$here/../.." && pwd)
# shellcheck source=tests/bench/runtimes.sh
. "$here/runtimes.sh"

die() {
    echo "bench: $*" >&2
    exit 1
}

quick=${BENCH_QUICK:-0}
if [ "$quick" = 1 ]; then
    defaults=(5 1 10 1 5 40 20 5)
else
    defaults=(40 2 100 3 100 500 300 20)
fi
export BENCH_N=${N:-${defaults[0]}} BENCH_EXEC_N=${EXEC_N:-${defaults[2]}} BENCH_PULLS=${PULLS:-${defaults[3]}}
export BENCH_PODS=${PODS:-${defaults[4]}} BENCH_CONTAINERS=${CONTAINERS:-${defaults[5]}}
export BENCH_LISTS=${LISTS:-${defaults[6]}} BENCH_PARALLEL=${PARALLEL:-${defaults[7]}}
export BENCH_END=$((SECONDS + ${BENCH_LIMIT:-1500}))
rounds=${ROUNDS:-${defaults[1]}}
only=${ONLY:-}

case "$bench_network" in none | cni) ;; *) die "BENCH_NETWORK is none or cni" ;; esac
[ "$(id -u)" = 0 ] || die "needs root (namespaces, cgroups, containers)"
for tool in go docker-registry unshare setpriv jq python3 zstd curl ip; do
    command -v "$tool" >/dev/null || die "$tool is missing"
done

cache=${CASEMATE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/casemate}
results=${BENCH_OUT:-$repo/build/bench}
raw=$results/raw
commit=$(git -C "$repo" describe --always --dirty 2>/dev/null || true)

# build_crbench: the load generator, kept under the hash of its source; prints its path.
build_crbench() {
    local hash dir
    hash=$(cat "$here"/crbench/* <(go version) | sha256sum | cut -c 1-16)
    dir=$cache/crbench/$hash
    if [ ! -x "$dir/crbench" ]; then
        mkdir -p "$dir"
        (cd "$here/crbench" && GOTOOLCHAIN=${GOTOOLCHAIN:-auto} GOWORK=off CGO_ENABLED=0 \
            go build -buildvcs=false -trimpath -o "$dir/crbench.$$" .) >&2 || return 1
        mv "$dir/crbench.$$" "$dir/crbench"
    fi
    echo "$dir/crbench"
}

# build_pull_image: a layout with the big image and another that shares nine of its ten layers, kept
# likewise; prints its path.
build_pull_image() {
    local hash dir layers n
    hash=$(cat "$here/make_image.py" "$repo/scripts/oci-layout.py" "$here/run.sh" | sha256sum | cut -c 1-16)
    dir=$cache/bench-image/$hash
    if [ ! -d "$dir" ]; then
        echo "bench: making the 150 MB image" >&2
        mkdir -p "$work/image"
        "$here/make_image.py" "$work/image" >&2
        layers=()
        for n in 0 1 2 3 4 5 6 7 8; do
            layers+=(--layer "$work/image/layer$n.tar")
        done
        for n in 1 2; do
            "$repo/scripts/oci-layout.py" --out "$work/image/layout" --ref "registry.k8s.io/bench/pull:$n" --add-to-index \
                --arch "$(dpkg --print-architecture)" "${layers[@]}" --layer "$work/image/layer$((n + 8)).tar" \
                --cmd '["/app0"]' >&2 || return 1
        done
        mkdir -p "${dir%/*}"
        mv -T "$work/image/layout" "$dir" || [ -d "$dir" ] || return 1
        rm -rf "$work/image"
    fi
    echo "$dir"
}

# build_net_image: the program that makes traffic, for the host and as an image.
build_net_image() {
    mkdir -p "$work/net/root"
    "${CC:-cc}" -std=gnu17 -O2 -static -o "$work/net/nettool" "$here/nettool.c" &&
        cp "$work/net/nettool" "$work/net/root/" &&
        "$repo/scripts/oci-layout.py" --out "$work/net/layout" --ref registry.k8s.io/bench/net:1 \
            --arch "$(dpkg --print-architecture)" --layer "$work/net/root" --cmd '["/nettool"]' >/dev/null
}

# fill_registry: a registry's storage of this run, with the test images and, where it is needed, the
# big one.
fill_registry() {
    local address rc=0
    local layouts=() layout
    "$repo/tests/images/build.sh" "$work/registry"
    case " $* " in *" pull "*) layouts+=("$(build_pull_image)") || return 1 ;; esac
    case " $* " in *" network "*) build_net_image && layouts+=("$work/net/layout") || return 1 ;; esac
    [ "${#layouts[@]}" -gt 0 ] || return 0
    address=$("$repo/tests/images/serve.sh" --data "$work/registry" --port 0 --pidfile "$work/registry.pid")
    for layout in "${layouts[@]}"; do
        "$repo/tests/images/push.py" "$layout" "${address#http://}" >/dev/null || rc=$?
    done
    kill "$(cat "$work/registry.pid")"
    return "$rc"
}

# versions: what was measured, where and when.
versions() {
    version_of() { "$@" 2>/dev/null | head -n 1 || true; }
    jq -n --arg date "$(date -u +%FT%TZ)" --arg kernel "$(uname -r)" --arg cores "$(nproc)" \
        --arg cpu "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)" \
        --arg memory_mib "$(awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo)" \
        --arg qemu "$(version_of qemu-system-x86_64 --version)" --arg containerd "$(version_of containerd --version)" \
        --arg runc "$(version_of runc --version)" --arg casemate "$(version_of "$repo/build/bin/casemated" --version)" \
        --arg commit "$commit" --arg guest "$(jq -r .kernel_source "$repo/build/guest/guest.json" 2>/dev/null || true)" \
        --arg load "$(cut -d ' ' -f 1-3 /proc/loadavg)" \
        --arg network "$bench_network" --arg rounds "$rounds" --arg n "$BENCH_N" --arg quick "$quick" '$ARGS.named'
}

session_pid=''
cgroup_name=casemate-bench.$$
made_cni=0
# remove_cgroups: those that the pods of this run were given, and those of runs that were killed.
# shellcheck disable=SC2317  # called by a trap
remove_cgroups() {
    local group
    for group in /sys/fs/cgroup/casemate-bench.* /sys/fs/cgroup/*/casemate-bench.*; do
        if [ -d "$group" ] && { [ "${group##*.}" = $$ ] || ! kill -0 "${group##*.}" 2>/dev/null; }; then
            find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
        fi
    done
}

# Leaves nothing: no session, no registry, none of the cgroups that pods were given.
# shellcheck disable=SC2317  # a trap runs it
cleanup() {
    trap '' INT TERM
    if [ -n "$session_pid" ] && kill -0 "$session_pid" 2>/dev/null; then
        kill -KILL "$session_pid" 2>/dev/null || true
        wait "$session_pid" 2>/dev/null || true
    fi
    if [ -s "$work/registry.pid" ]; then
        kill "$(cat "$work/registry.pid")" 2>/dev/null || true
    fi
    remove_cgroups
    if [ "$made_cni" = 1 ]; then
        rmdir /var/lib/cni 2>/dev/null || true
    fi
    rm -rf "$work"
}

# session RUNTIME ROUND SUBCOMMAND...: waits for it; an interrupt goes to the session, which ends in
# good order.
session() {
    local rc=0
    # pdeathsig and --kill-child: should this script be killed, so is the session's first process,
    # and with it its namespace. setsid: the terminal's interrupt is for this script, which passes it
    # on in order.
    BENCH_SESSION_TIME=$((BENCH_END - SECONDS)) BENCH_COMMIT=$commit \
        setsid setpriv --pdeathsig KILL unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private -- \
        bash "$here/session.sh" "$1" "$2" "$work" "$raw" "$crbench" "/$cgroup_name" "${@:3}" &
    session_pid=$!
    wait "$session_pid" || rc=$?
    session_pid=''
    rm -rf "${work:?}/$1" "$work"/registry/run.*
    return "$rc"
}
# shellcheck disable=SC2317  # a trap runs it
on_signal() {
    if [ -n "$session_pid" ]; then
        # unshare does not pass signals on; its only child is the session.
        pkill -TERM -P "$session_pid" || true
        wait "$session_pid" || true
    fi
    exit 130
}

work=$(mktemp -d "${TMPDIR:-/var/tmp}/casemate-bench.XXXXXX")
chmod 0711 "$work" # what a runtime runs unprivileged may reach what it is handed
trap cleanup EXIT
trap on_signal INT TERM

crbench=$(build_crbench) || die "the load generator does not build"
commands=$("$crbench" report --list --only "$only") || exit 2
"${CC:-cc}" -std=gnu17 -O2 -o "$work/cachelat" "$here/cachelat.c" || die "cachelat.c does not build"
mkdir -p "$raw"
[ -n "$only" ] || [ "${RESUME:-0}" = 1 ] || rm -f "$raw"/*.json
# shellcheck disable=SC2086  # one word a line
fill_registry $commands
versions >"$raw/versions.json"
if [ ! -d /var/lib/cni ]; then
    mkdir -p /var/lib/cni
    made_cni=1
fi

absent='' runtimes=()
for runtime in casemate peer; do
    if [ "$runtime" = peer ] && [ "${PEER:-1}" = 0 ]; then
        absent+="peer=left out (PEER=0);"
    elif reason=$(runtime_available "$runtime"); then
        runtimes+=("$runtime")
    else
        absent+="$runtime=$reason;"
    fi
done

# have RUNTIME ROUND COMMAND: raw/ has samples of it.
have() {
    jq -e '.samples | length > 0' "$raw/$1-$2-$3.json" >/dev/null 2>&1
}

# due RUNTIME ROUND: of the commands, those that this turn has to run. What does not change from round to round is
# measured once.
due() {
    local command name
    for command in $commands; do
        name=$1
        case $command in
            latency | parallel) ;;
            coldboot)
                if [ "$2" != 1 ] || [ "$1" != casemate ]; then continue; fi
                name=qemu
                ;;
            plugins | network) if [ "$2" != 1 ] || [ "$bench_network" != cni ]; then continue; fi ;;
            exec | loopback | clone | nospares) continue ;;
            *) if [ "$2" != 1 ]; then continue; fi ;;
        esac
        if [ "${RESUME:-0}" = 1 ] && have "$name" "$2" "$command"; then continue; fi
        echo "$command"
    done
}

status=0
for ((round = 1; round <= rounds; round++)); do
    for runtime in "${runtimes[@]}"; do
        mapfile -t now < <(due "$runtime" "$round")
        [ "${#now[@]}" -eq 0 ] || session "$runtime" "$round" "${now[@]}" || status=1
    done
done
# A few milliseconds of processor time: what the machine's own host does meanwhile moves them by half within minutes, so
# the turns are short and right after each other.
for ((round = 1; round <= 2 * rounds; round++)); do
    grep -qx exec <<<"$commands" || break
    for runtime in "${runtimes[@]}"; do
        if [ "${RESUME:-0}" = 1 ] && have "$runtime" "$round" exec; then continue; fi
        session "$runtime" "$round" exec || status=1
    done
done
# What a pod costs that finds no machine made ahead, and a clone by itself.
now=()
for command in clone nospares; do
    if ! grep -qx "$command" <<<"$commands"; then continue; fi
    if [ "${RESUME:-0}" = 1 ] && have casemate 1 "$command"; then continue; fi
    now+=("$command")
done
if [[ ${#now[@]} -gt 0 && " ${runtimes[*]} " = *" casemate "* ]]; then
    BENCH_SPARES=0 session casemate 1 "${now[@]}" || status=1
fi
# The same pods without the network: what it adds is the difference.
if [ "$bench_network" = cni ] && grep -qx loopback <<<"$commands"; then
    for runtime in "${runtimes[@]}"; do
        if [ "${RESUME:-0}" = 1 ] && have "$runtime" 1 loopback; then continue; fi
        BENCH_NETWORK=none session "$runtime" 1 loopback || status=1
    done
fi

if [ -s "$work/accelerator" ]; then
    jq --arg a "$(cat "$work/accelerator")" '.accelerator = $a' "$raw/versions.json" >"$work/versions" &&
        mv "$work/versions" "$raw/versions.json"
fi
"$crbench" report --raw "$raw" --out "$results/results.json" --absent "$absent" ${PAGE:+--page "$PAGE"}
exit "$status"
