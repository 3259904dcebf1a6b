#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# What a container sees of its image, entry by entry: every odd layer and every stack of layers of the corpus is run as an
# image whose program describes what it finds, and the text must be what the same program says on the host about the
# folder into which GNU tar unpacked the same layers.
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
isolate "$0" "$@"
need jq python3 tar cc
need_tools
touch "$work/crictl.yaml"
corpus=$repo/tests/integration/image_corpus.py

mkdir "$work/base"
cc -O2 -static -D_GNU_SOURCE -o "$work/base/describe" "$repo/tests/integration/describe_tree.c"
python3 "$corpus" make "$work/corpus"
python3 "$corpus" stacks "$work/corpus"

# add_image NAME LAYER...: the layers, over one that holds the program.
cases=()
add_image() {
    local name=$1 l layers=(--layer "$work/base")
    shift
    cases+=("$name")
    for l; do layers+=(--layer "$l"); done
    python3 "$repo/scripts/oci-layout.py" --out "$work/layout" --ref "test.local/$name:1" "${layers[@]}" --add-to-index \
        --cmd '["/describe", "/t"]' >/dev/null
    mkdir -p "$work/theirs/$name"
    python3 "$corpus" apply "$work/theirs/$name" "$@"
    "$work/base/describe" "$work/theirs/$name/t" >"$work/theirs/$name.txt"
}
for tar in "$work"/corpus/*.tar; do
    add_image "$(basename "$tar" .tar)" "$tar"
done
for stack in "$work"/corpus/*/; do
    add_image "$(basename "$stack")" "$stack"*.tar
done

# 127 mounted layers take some 130 MiB of the guest's memory.
start_daemon '[guest]' 'memory_mib = 512'
"$bin/casemate" image import -q "$work/layout" >/dev/null
pod=$(crictl runp "$(pod_json corpus)")

exited() {
    crictl inspect "$1" | jq -e '.status.state == "CONTAINER_EXITED"'
}

bad=0
for name in "${cases[@]}"; do
    # Attributes in the trusted name space are shown to CAP_SYS_ADMIN only.
    config=$(IMAGE=test.local/$name:1 container_json "$name" "$name.log" /describe /t)
    jq '.linux.security_context = {capabilities: {add_capabilities: ["SYS_ADMIN"]}}' "$config" >"$config.new"
    c=$(crictl create "$pod" "$config.new" "$work/pod-corpus.json") || fail "$name: create"
    crictl start "$c" >/dev/null || fail "$name: start"
    wait_for 300 exited "$c"
    cut -d ' ' -f 4- "$work/logs/corpus/$name.log" >"$work/ours.txt"
    if ! diff "$work/theirs/$name.txt" "$work/ours.txt" >"$work/diff"; then
        echo "$name: GNU tar (<) and the container (>):"
        head -n 10 "$work/diff"
        bad=$((bad + 1))
    fi
    crictl rm -f "$c" >/dev/null
done
[ "$bad" -eq 0 ] || fail "$bad of ${#cases[@]} images are not what they should be"
[ "${#cases[@]}" -ge 30 ] || fail "only ${#cases[@]} images"
stop_daemon
echo "ok: ${#cases[@]} images are in the guest what GNU tar unpacks"
