# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Sourced by run.sh and session.sh, which set repo: how each runtime of the benchmark is started and
# stopped. All that differs between them is here.
#
# A start function is given a private, empty folder on a real disk, the registry's address and the
# repository's root. It sets runtime_socket and runtime_pid, and returns when the process runs (the
# load generator waits for its answer). It runs in network, mount and process namespaces of its own,
# with a tmpfs on /run, so that nothing of it can outlive the session or meet another runtime of the
# machine.

runtime_pid=''
runtime_socket=''

# Registries that the images come from; each is mirrored by the local one.
bench_registries=(registry.k8s.io k8s.gcr.io gcr.io public.ecr.aws)

# casemate_knows SECTION KEY VALUE: whether this casemated has that key.
casemate_knows() {
    local file=/proc/self/fd/3
    "${repo:?}/build/bin/casemated" --check-config --config "$file" 3<<<"[$1]"$'\n'"$2 = $3" >/dev/null 2>&1
}

# The pods' network, the same for both runtimes: BENCH_NETWORK=none (loopback only) or cni.
bench_network=${BENCH_NETWORK:-$(casemate_knows network conf_dir /x && echo cni || echo none)}

# bench_cni DIR: writes DIR/cni, the configuration, and DIR/cni-bin, the plugins. "cni" is what
# containerd's documentation has a node begin with: a bridge, masquerading, host-local addresses,
# port mappings.
bench_cni() {
    mkdir -p "$1/cni" "$1/cni-bin"
    ln -s /usr/lib/cni/* "${repo:?}/tests/bench/cni-none" "$1/cni-bin/"
    case "$bench_network" in
        none) echo '{"cniVersion": "0.4.0", "name": "bench", "plugins": [{"type": "cni-none"}]}' ;;
        cni)
            cat <<CNI
{
  "cniVersion": "0.4.0",
  "name": "bench",
  "plugins": [
    {
      "type": "bridge", "bridge": "bench0", "isGateway": true, "ipMasq": true, "promiscMode": true,
      "ipam": {
        "type": "host-local", "dataDir": "$1/ipam",
        "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
CNI
            ;;
    esac >"$1/cni/10-bench.conflist"
}

# runtime_available NAME: fails and prints a reason when this runtime cannot run here.
runtime_available() {
    local tool
    case "$1" in
        peer)
            for tool in containerd containerd-shim-runc-v2 runc iptables /usr/lib/cni/bridge; do
                command -v "$tool" >/dev/null || { echo "$tool is missing"; return 1; }
            done
            ;;
        casemate)
            [ -x "${repo:?}/build/bin/casemated" ] || { echo "build/bin/casemated is not built"; return 1; }
            command -v qemu-system-x86_64 >/dev/null || { echo "qemu-system-x86_64 is missing"; return 1; }
            if [ "$bench_network" = cni ] && ! casemate_knows network conf_dir /x; then
                echo "this casemated has no pod network"
                return 1
            fi
            ;;
    esac
}

runtime_start() {
    "_start_$1" "$2" "$3"
}

# runtime_stop: end the daemon; its pods are gone by then, and the namespace takes whatever is not.
runtime_stop() {
    local deadline=$((SECONDS + 20))
    [ -n "$runtime_pid" ] || return 0
    kill "$runtime_pid" 2>/dev/null || true
    while kill -0 "$runtime_pid" 2>/dev/null; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            kill -KILL "$runtime_pid" 2>/dev/null || true
            break
        fi
        sleep 0.05
    done
    wait "$runtime_pid" 2>/dev/null || true
    runtime_pid=''
}

# ---- containerd + runc -----------------------------------------------------------------------------------------------

_peer_config() {
    local registry
    cat <<CONFIG
version = 2
root = "$1/root"
state = "/run/containerd"
oom_score = 0
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "$runtime_socket"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.k8s.io/pause:3.6"
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "$1/cni-bin"
  conf_dir = "$1/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
  default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "$1/certs.d"
CONFIG
    for registry in "${bench_registries[@]}"; do
        mkdir -p "$1/certs.d/$registry"
        printf 'server = "%s"\n[host."%s"]\n  capabilities = ["pull", "resolve"]\n' "$2" "$2" \
            >"$1/certs.d/$registry/hosts.toml"
    done
}

_start_peer() {
    runtime_socket=/run/containerd.sock
    bench_cni "$1"
    _peer_config "$1" "$2" >"$1/config.toml"
    containerd --config "$1/config.toml" --log-level warn >"$1/log" 2>&1 &
    runtime_pid=$!
}

# ---- casemated -------------------------------------------------------------------------------------------------------

_casemate_config() {
    local registry
    cat <<CONFIG
[casemated]
socket = $runtime_socket
state_dir = $1/state
run_dir = /run/casemate
CONFIG
    case "$bench_network" in
        none) printf '[network]\nloopback_only = yes\n' ;;
        cni) printf '[network]\nconf_dir = %s/cni\nbin_dirs = %s/cni-bin\n' "$1" "$1" ;;
    esac
    for registry in "${bench_registries[@]}"; do
        printf '[registry "%s"]\nmirror = %s\n' "$registry" "$2"
    done
    [ -z "${BENCH_SPARES:-}" ] || printf '[pod]\nspares = %s\n' "$BENCH_SPARES"
    [ -z "${BENCH_CASEMATE_CONF:-}" ] || cat "$BENCH_CASEMATE_CONF"
}

_start_casemate() {
    runtime_socket=/run/casemate/casemate.sock
    bench_cni "$1"
    _casemate_config "$1" "$2" >"$1/casemate.conf"
    "$repo/build/bin/casemated" --config "$1/casemate.conf" >"$1/log" 2>&1 &
    runtime_pid=$!
}
