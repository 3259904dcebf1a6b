#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Odd tars through the confined converter: what it makes of each, unpacked by unsquashfs, is entry by entry what GNU tar
# unpacks.
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
isolate "$0" "$@"
need unsquashfs tar python3

convert=$bin/casemate-convert
[ -x "$convert" ] || fail "$convert is not built"
python3 "$repo/tests/integration/image_corpus.py" make "$work/corpus"
n=0
for tar in "$work"/corpus/*.tar; do
    name=$(basename "$tar" .tar)
    for compression in zstd lz4 none; do
        [ "$compression" = zstd ] || [ "$name" = types-pax ] || continue
        rm -rf "$work/theirs" "$work/ours" "$work/image"
        mkdir "$work/theirs"
        tar --xattrs --xattrs-include='*' --numeric-owner -xpf "$tar" -C "$work/theirs"
        "$convert" --compression "$compression" <"$tar" 3<>"$work/image" >"$work/result" ||
            fail "$name: $(strings "$work/result")"
        unsquashfs -quiet -no-progress -d "$work/ours" "$work/image" >/dev/null || fail "$name: unsquashfs"
        python3 "$repo/tests/integration/image_corpus.py" compare "$work/theirs" "$work/ours" ||
            fail "$name ($compression): theirs above, ours below"
        # and back into a tar, which is what an export holds
        rm -rf "$work/ours" "$work/tar"
        mkdir "$work/ours"
        "$convert" --retar 3<>"$work/tar" 5<"$work/image" </dev/null >"$work/result" ||
            fail "$name: $(strings "$work/result")"
        tar --xattrs --xattrs-include='*' --numeric-owner -xpf "$work/tar" -C "$work/ours" || fail "$name: retar"
        python3 "$repo/tests/integration/image_corpus.py" compare "$work/theirs" "$work/ours" ||
            fail "$name ($compression), made a tar again: theirs above, ours below"
        n=$((n + 1))
    done
done
[ "$n" -ge 15 ] || fail "only $n tars"
echo "ok: $n conversions are what GNU tar unpacks"
