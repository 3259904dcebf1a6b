#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Odd tars, and a comparison of two folders entry by entry.

image_corpus.py make DIR      writes DIR/*.tar, plain tars without whiteouts, each of which GNU tar can unpack
image_corpus.py stacks DIR    writes DIR/*/*.tar, stacks of layers, lowest first, that change what is below
image_corpus.py apply DIR TAR...  unpacks layers into DIR one after another, as the image specification says
image_corpus.py compare A B   exits with 1 and names the entries that differ (type, mode, owner, time of everything but
                              directories, size, content, target, device, attributes, and which names share an inode)
"""

import hashlib
import io
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile

D, F, S, H = tarfile.DIRTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
C, B, P = tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE


def entry(name, kind=F, data=b"", mode=0o644, **more):
    """Everything lies below t/, where a container has no mounts of its own."""
    info = tarfile.TarInfo("./" if name == "./" else "t/" + name)
    if kind == H:
        more["linkname"] = "t/" + more["linkname"]
    info.type, info.mode, info.mtime = kind, mode, 1234567890
    for key, value in more.items():
        setattr(info, key, value)
    info.size = len(data)
    return info, data


def write(path, entries, form=tarfile.PAX_FORMAT):
    with tarfile.open(path, "w", format=form, encoding="utf-8", errors="surrogateescape") as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))


def plain_entries():
    return [
        entry("./", D, mode=0o755),
        entry("", D, mode=0o755),
        entry("dir/", D, mode=0o1777),
        entry("dir/setuid", F, b"#!/bin/sh\n", mode=0o4755),
        entry("dir/setgid", F, b"x", mode=0o2755),
        entry("dir/nobody", F, b"x", mode=0o000, uid=65534, gid=65534),
        entry("dir/block-sized", F, b"b" * 131072),
        entry("dir/over-block", F, os.urandom(131073)),
        entry("dir/empty"),
        entry("dir/zeros", F, b"\0" * 300000),
        entry("link", S, linkname="dir/setuid"),
        entry("dangling", S, linkname="/no/such/target"),
        entry("long-target", S, linkname="t/" * 900),
        entry("null", C, devmajor=1, devminor=3, mode=0o666),
        entry("disk", B, devmajor=8, devminor=200, mode=0o660),  # unsquashfs knows 8 bits of each
        entry("fifo", P),
        entry("hard", H, linkname="dir/setgid"),
        entry("hard2", H, linkname="hard"),
        entry("null2", H, linkname="null"),
    ]


def capabilities_source(folder):
    """What python's tarfile cannot write: an attribute whose value is bytes."""
    os.makedirs(os.path.join(folder, "t"))
    path = os.path.join(folder, "t", "ping")
    with open(path, "wb") as f:
        f.write(b"ping")
    os.chmod(path, 0o755)
    # vfs_cap_data, revision 2: cap_net_raw+ep
    os.setxattr(path, "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))


def sparse_source(folder):
    path = os.path.join(folder, "t", "sparse")
    os.makedirs(os.path.dirname(path))
    with open(path, "wb") as f:
        f.truncate(5 << 20)
        for offset in (0, 70000, 1 << 20, (5 << 20) - 3):
            f.seek(offset)
            f.write(b"abc")
    os.chmod(path, 0o644)


def gnu_tar(out, options, make_source):
    with tempfile.TemporaryDirectory(dir=os.path.dirname(out)) as source:
        make_source(source)
        subprocess.run(["tar", *options, "-C", source, "-cf", out, "--mtime=@1234567890", "--owner=0", "--group=0", "t"],
                       check=True)


def make(folder):
    os.makedirs(folder, exist_ok=True)
    at = lambda name: os.path.join(folder, name + ".tar")
    for form, name in ((tarfile.PAX_FORMAT, "pax"), (tarfile.GNU_FORMAT, "gnu")):
        write(at("types-" + name), plain_entries(), form)
        write(at("names-" + name), [
            entry("n" * 255, F, b"1"),
            entry("/".join(["d" * 100] * 20) + "/f", F, b"2"),
            entry("\u00e4\u20ac\U0001f600", F, b"3"),
            entry("new\nline\ttab", F, b"4"),
            entry("back\\slash", F, b"5"),
            entry(" blank ", F, b"6"),
            entry("-dash", F, b"7"),
            entry("h" * 200, H, linkname="n" * 255),
        ], form)
    write(at("latin1"), [entry("latin\udce4\udcff", F, b"x"), entry("s", S, linkname="latin\udce4")],
          tarfile.GNU_FORMAT)
    write(at("owners"), [
        entry("a", uid=2097152, gid=4294967294), entry("b", uid=4000000000, gid=0),
        entry("c", uname="root", gname="daemon", uid=77, gid=88),
    ])
    write(at("xattrs"), [
        entry("f", F, b"x", pax_headers={"SCHILY.xattr.user.one": "1", "SCHILY.xattr.user.two": "zwei"}),
        entry("d/", D, mode=0o755, pax_headers={"SCHILY.xattr.user.dir": "d"}),
        entry("t", F, b"x", pax_headers={"SCHILY.xattr.trusted.t": "t"}),
    ])
    gnu_tar(at("capabilities"), ["--format=pax", "--xattrs", "--xattrs-include=security.*"], capabilities_source)
    write(at("duplicates"), [
        entry("a", F, b"first"), entry("a", F, b"second"), entry("d/", D, mode=0o755), entry("d/x", F, b"x"),
        entry("d/", D, mode=0o700), entry("f", F, b"f"), entry("f", S, linkname="a"), entry("s", S, linkname="a"),
        entry("s", F, b"no link"), entry("h", H, linkname="a"), entry("h", F, b"own"),
    ])
    write(at("through-symlink"), [
        entry("usr/", D, mode=0o755), entry("usr/lib/", D, mode=0o755), entry("lib", S, linkname="usr/lib"),
        entry("lib/x", F, b"x"), entry("lib/sub/", D, mode=0o755), entry("lib/sub/y", H, linkname="lib/x"),
    ])
    write(at("reversed"), [entry("p/q/r/f", F, b"f"), entry("p/q/r/", D, mode=0o750), entry("p/q/", D, mode=0o705),
                           entry("p/", D, mode=0o711)])
    write(at("many"), [entry("d/", D, mode=0o755)] + [entry(f"d/{i * 7919 % 6000:05}", F, b"%d" % i)
                                                     for i in range(6000)])
    write(at("global-pax"), [entry("g", F, b"g", pax_headers={"comment": "c" * 3000})])
    for name, options in (("old-gnu", ["--format=gnu"]), ("0.0", ["--format=pax", "--sparse-version=0.0"]),
                          ("0.1", ["--format=pax", "--sparse-version=0.1"]),
                          ("1.0", ["--format=pax", "--sparse-version=1.0"])):
        gnu_tar(at("sparse-" + name), [*options, "-S"], sparse_source)


# ---- stacks: what layers do to those below ----

def base_entries():
    return [
        entry("tmp/", D, mode=0o1777), entry("d/", D, mode=0o750, uid=5, gid=6), entry("d/old", F, b"old"),
        entry("d/sub/", D, mode=0o755), entry("d/sub/deep", F, b"deep"), entry("f", F, b"f", mode=0o4755, uid=7),
        entry("f2", H, linkname="f"), entry("link", S, linkname="d"), entry("e/", D, mode=0o711),
        entry("e/one", F, b"1"), entry("e/two", F, b"2"),
    ]


def whiteout(path):
    folder, name = os.path.split(path)
    return entry(os.path.join(folder, ".wh." + name), F)


def opaque(folder):
    return entry(os.path.join(folder, ".wh..wh..opq"), F)


STACKS = {
    "whiteouts": [[whiteout("f"), whiteout("d/sub"), whiteout("no-such"), whiteout("link")]],
    "whiteout-first": [[whiteout("d"), entry("d/", D, mode=0o700), entry("d/new", F, b"n")]],
    "whiteout-last": [[entry("d/", D, mode=0o700), entry("d/new", F, b"n"), whiteout("d")]],
    "opaque-first": [[entry("e/", D, mode=0o755), opaque("e"), entry("e/new", F, b"n")]],
    "opaque-last": [[entry("e/", D, mode=0o755), entry("e/new", F, b"n"), opaque("e")]],
    "opaque-undescribed": [[opaque("d"), entry("d/sub/new", F, b"n")]],
    "whiteout-and-back": [[whiteout("d"), whiteout("f")], [entry("d/back", F, b"b"), entry("f", F, b"again")]],
    "types": [[entry("d", F, b"was a directory"), entry("f/", D, mode=0o755), entry("f/in", F, b"i"),
               entry("link/", D, mode=0o700), entry("link/x", F, b"x"), entry("e", S, linkname="tmp")],
              [entry("e/", D, mode=0o755), entry("d/", D, mode=0o755), entry("d/x", F, b"x"), entry("f", P)]],
    "undescribed": [[entry("tmp/x", F, b"x"), entry("d/sub/x", F, b"x"), entry("new/dir/x", F, b"x")],
                    [entry("tmp/y", F, b"y")]],
    # f2 goes first: in an overlay other names of a lower file stay behind when one of them is copied up by link(2)
    "links-below": [[whiteout("f2"), entry("hard", H, linkname="f"), entry("d/hard", H, linkname="hard")],
                    [entry("hard3", H, linkname="hard"), whiteout("d/old")]],
    "links-gone": [[entry("hard", H, linkname="d/old"), entry("through", H, linkname="link/sub/deep")],
                   [whiteout("d")]],
    "nothing": [[], [entry("e/", D, mode=0o755)], []],
    "deep": [[entry(f"l{i % 7}/", D, mode=0o755), entry(f"l{i % 7}/{i}", F, b"%d" % i), entry("last", F, b"%d" % i),
              whiteout(f"l{(i + 3) % 7}/{i - 4}"), entry("tmp/x", F, b"%d" % i)] for i in range(124)],
}


def make_stacks(folder):
    for name, uppers in STACKS.items():
        stack = os.path.join(folder, name)
        os.makedirs(stack)
        for i, entries in enumerate([base_entries()] + uppers):
            write(os.path.join(stack, f"{i:03}.tar"), entries)
    # a layer of no bytes at all, which is an empty tar to some tools
    open(os.path.join(folder, "nothing", "009.tar"), "wb").close()


def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def apply(root, layer):
    """One layer on top of what is there: whiteouts first, since they speak of lower layers only, then what changes its
    type, which GNU tar would not remove, then GNU tar."""
    if os.path.getsize(layer) == 0:
        return
    with tarfile.open(layer, errors="surrogateescape") as tar:
        infos = tar.getmembers()
    for info in infos:
        folder, name = os.path.split(os.path.join(root, info.name))
        if name == ".wh..wh..opq":
            for child in os.listdir(folder) if os.path.isdir(folder) else []:
                remove(os.path.join(folder, child))
        elif name.startswith(".wh."):
            remove(os.path.join(folder, name[4:]))
    for info in infos:
        path = os.path.join(root, info.name)
        if os.path.lexists(path) and info.isdir() != (os.path.isdir(path) and not os.path.islink(path)):
            remove(path)
    subprocess.run(["tar", "--exclude=.wh.*", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", layer,
                    "-C", root], check=True)


def describe(root):
    found, inodes = {}, {}
    for folder, dirs, files in os.walk(os.fsencode(root)):
        for name in [b"."] + dirs + files:
            path = os.path.join(folder, name)
            rel = os.path.relpath(path, os.fsencode(root))
            st = os.lstat(path)
            kind = stat.S_IFMT(st.st_mode)
            what = {"mode": oct(st.st_mode), "owner": (st.st_uid, st.st_gid)}
            if rel == b".":
                continue
            if kind != stat.S_IFDIR:
                what["time"] = int(st.st_mtime)
                inodes.setdefault(st.st_ino, []).append(rel)
            if kind == stat.S_IFREG:
                with open(path, "rb") as f:
                    what["content"] = (st.st_size, hashlib.sha256(f.read()).hexdigest())
            elif kind == stat.S_IFLNK:
                what["target"] = os.readlink(path)
            elif kind in (stat.S_IFCHR, stat.S_IFBLK):
                what["device"] = (os.major(st.st_rdev), os.minor(st.st_rdev))
            what["attributes"] = sorted(
                (x, os.getxattr(path, x, follow_symlinks=False)) for x in os.listxattr(path, follow_symlinks=False)
                if not x.startswith(("trusted.casemate.", "trusted.overlay.", "security.selinux")))
            found[rel] = what
    for names in inodes.values():
        for name in names:
            found[name]["together"] = sorted(names)
    return found


def compare(a, b):
    left, right = describe(a), describe(b)
    bad = 0
    for name in sorted(left.keys() | right.keys()):
        if left.get(name) != right.get(name):
            bad += 1
            print(f"{name!r}:\n  {left.get(name)}\n  {right.get(name)}")
    return 1 if bad else 0


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "make":
        return make(sys.argv[2])
    if len(sys.argv) == 3 and sys.argv[1] == "stacks":
        return make_stacks(sys.argv[2])
    if len(sys.argv) > 3 and sys.argv[1] == "apply":
        for layer in sys.argv[3:]:
            apply(sys.argv[2], layer)
        return 0
    if len(sys.argv) == 4 and sys.argv[1] == "compare":
        return compare(sys.argv[2], sys.argv[3])
    sys.exit(__doc__)


if __name__ == "__main__":
    sys.exit(main())
