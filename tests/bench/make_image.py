#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write the layers of the images that the pull benchmark uses: eleven tars, the same bytes wherever this runs.

Ten layers are an image, and the two images that are made of them share nine. Shape of one: about 11,000 files of
log-normal size in a tree three deep, 400 MB in all, of which a part does not compress and the rest is text; gzip makes
about 150 MB of it. That is the shape of a large application image, not of a best case.
"""

import io
import os
import random
import sys
import tarfile

LAYERS = 11
LAYER_BYTES = 40_000_000
INCOMPRESSIBLE = 0.045
POOL_BYTES = 4 << 20


def text_pool(rng):
    """Words drawn with a skew, which deflate packs to about a third."""
    words = ["".join(rng.choice("etaoinshrdlucmfw") for _ in range(rng.randint(2, 9))) for _ in range(4000)]
    out = bytearray()
    while len(out) < POOL_BYTES:
        line = (words[int(rng.random() ** 6 * len(words))] for _ in range(12))
        out += " ".join(line).encode() + b"\n"
    return bytes(out[:POOL_BYTES])


def content(rng, pool, size):
    out = bytearray(rng.randbytes(int(size * INCOMPRESSIBLE)))
    while len(out) < size:
        start = rng.randrange(len(pool) - 65536)
        out += pool[start:start + min(65536, size - len(out))]
    return bytes(out)


def write_layer(path, number, pool):
    rng = random.Random(1000 + number)
    total = 0
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for top in range(8):
            for name in (f"app{number}/part{top}",) + tuple(f"app{number}/part{top}/dir{n}" for n in range(16)):
                entry = tarfile.TarInfo(name)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(entry)
        serial = 0
        while total < LAYER_BYTES:
            size = min(int(rng.lognormvariate(9.2, 1.6)) + 1, 4_000_000)
            entry = tarfile.TarInfo(f"app{number}/part{rng.randrange(8)}/dir{rng.randrange(16)}/file{serial}")
            entry.size, entry.mode = size, 0o644
            tar.addfile(entry, io.BytesIO(content(rng, pool, size)))
            total += size
            serial += 1
    return serial


def main():
    if len(sys.argv) != 2:
        print("usage: make_image.py DIR", file=sys.stderr)
        return 2
    os.makedirs(sys.argv[1], exist_ok=True)
    pool = text_pool(random.Random(7))
    files = sum(write_layer(os.path.join(sys.argv[1], f"layer{n}.tar"), n, pool) for n in range(LAYERS))
    print(f"{files} files", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
