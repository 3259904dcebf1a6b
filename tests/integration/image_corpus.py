#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Odd tars, and a comparison of two folders entry by entry.

image_corpus.py make DIR      writes DIR/*.tar, plain tars without whiteouts, each of which GNU tar can unpack
image_corpus.py compare A B   exits with 1 and names the entries that differ (type, mode, owner, time of everything but
                              directories, size, content, target, device, attributes, and which names share an inode)
"""

import hashlib
import io
import os
import stat
import subprocess
import sys
import tarfile

D, F, S, H = tarfile.DIRTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
C, B, P = tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE


def entry(name, kind=F, data=b"", mode=0o644, **more):
    info = tarfile.TarInfo(name)
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
    sparse = os.path.join(folder, "sparse-source")
    with open(sparse, "wb") as f:
        f.truncate(5 << 20)
        for offset in (0, 70000, 1 << 20, (5 << 20) - 3):
            f.seek(offset)
            f.write(b"abc")
    os.chmod(sparse, 0o644)
    for name, options in (("old-gnu", ["--format=gnu"]), ("0.0", ["--format=pax", "--sparse-version=0.0"]),
                          ("0.1", ["--format=pax", "--sparse-version=0.1"]),
                          ("1.0", ["--format=pax", "--sparse-version=1.0"])):
        subprocess.run(["tar", *options, "-S", "-C", folder, "-cf", at("sparse-" + name), "--mtime=@1234567890",
                        "sparse-source"], check=True)
    os.unlink(sparse)


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
    if len(sys.argv) == 4 and sys.argv[1] == "compare":
        return compare(sys.argv[2], sys.argv[3])
    sys.exit(__doc__)


if __name__ == "__main__":
    sys.exit(main())
