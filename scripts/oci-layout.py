#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write one image into an OCI image layout, from directories or tar files, with nothing but the standard library.

Theory of operation. Each --layer becomes one tar, made reproducible when it comes from a directory: entries sorted,
owner root, one fixed time (SOURCE_DATE_EPOCH, else 0). The tar's digest is the diff id, the compressed bytes' digest
names the blob. The configuration and the manifest follow, and index.json names the manifest by --ref in the annotation
org.opencontainers.image.ref.name. Nothing in the layout depends on the time or on the machine.

Without --add-to-index the layout is made anew. With it the image joins an existing layout; where the same ref is there
already for another platform, the two become one image index under that ref, and for the same platform the new one
replaces the old.

Formats: OCI image-spec 1.1, and with --format docker the Docker "image manifest version 2, schema 2" media types.
zstd goes through the zstd command. Extended attributes are not carried.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import shlex
import shutil
import stat
import subprocess
import sys
import tarfile
import time

MEDIA = {
    "oci": {
        "index": "application/vnd.oci.image.index.v1+json",
        "manifest": "application/vnd.oci.image.manifest.v1+json",
        "config": "application/vnd.oci.image.config.v1+json",
        "none": "application/vnd.oci.image.layer.v1.tar",
        "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
        "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
    },
    "docker": {
        "index": "application/vnd.docker.distribution.manifest.list.v2+json",
        "manifest": "application/vnd.docker.distribution.manifest.v2+json",
        "config": "application/vnd.docker.container.image.v1+json",
        "none": "application/vnd.docker.image.rootfs.diff.tar",
        "gzip": "application/vnd.docker.image.rootfs.diff.tar.gzip",
    },
}
REF_NAME = "org.opencontainers.image.ref.name"
EPOCH = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))


class LayoutError(Exception):
    """A mistake of the caller or of the input, told in one line."""


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


class Layout:
    """The directory: blobs by digest, and index.json."""

    def __init__(self, path, keep):
        self.path = path
        self.blobs = os.path.join(path, "blobs", "sha256")
        self.index = {"schemaVersion": 2, "mediaType": MEDIA["oci"]["index"], "manifests": []}
        name = os.path.join(path, "index.json")
        if keep and os.path.exists(name):
            with open(name, encoding="utf-8") as f:
                self.index = json.load(f)
        elif os.path.isdir(path) and os.listdir(path) and not os.path.exists(name):
            raise LayoutError(f"{path}: not empty and not an OCI layout")
        else:
            shutil.rmtree(self.blobs, ignore_errors=True)
        os.makedirs(self.blobs, exist_ok=True)

    def put(self, data):
        """Store bytes; returns (digest, size)."""
        digest = hashlib.sha256(data).hexdigest()
        self._write(os.path.join(self.blobs, digest), data)
        return "sha256:" + digest, len(data)

    def get(self, digest):
        with open(os.path.join(self.blobs, digest.split(":", 1)[1]), "rb") as f:
            return f.read()

    def save(self):
        self._write(os.path.join(self.path, "oci-layout"), canonical({"imageLayoutVersion": "1.0.0"}))
        self._write(os.path.join(self.path, "index.json"), canonical(self.index))

    @staticmethod
    def _write(name, data):
        with open(name + ".tmp", "wb") as f:
            f.write(data)
        os.replace(name + ".tmp", name)


def tar_directory(root, keep_owner):
    """A reproducible tar of what is below root, as bytes."""
    names = []
    for top, dirs, files in os.walk(root):
        names += [os.path.relpath(os.path.join(top, n), root) for n in dirs + files]
    links = {}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(names):
            full = os.path.join(root, name)
            st = os.lstat(full)
            info = tarfile.TarInfo(name)
            info.mode = stat.S_IMODE(st.st_mode)
            info.mtime = EPOCH
            if keep_owner:
                info.uid, info.gid = st.st_uid, st.st_gid
            if stat.S_ISSOCK(st.st_mode):
                raise LayoutError(f"{full}: a socket cannot be in a layer")
            if stat.S_ISLNK(st.st_mode):
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, os.readlink(full), 0o777
            elif stat.S_ISDIR(st.st_mode):
                info.type = tarfile.DIRTYPE
            elif stat.S_ISFIFO(st.st_mode):
                info.type = tarfile.FIFOTYPE
            elif stat.S_ISCHR(st.st_mode) or stat.S_ISBLK(st.st_mode):
                info.type = tarfile.CHRTYPE if stat.S_ISCHR(st.st_mode) else tarfile.BLKTYPE
                info.devmajor, info.devminor = os.major(st.st_rdev), os.minor(st.st_rdev)
            elif st.st_nlink > 1 and (st.st_dev, st.st_ino) in links:
                info.type, info.linkname = tarfile.LNKTYPE, links[(st.st_dev, st.st_ino)]
            else:
                links[(st.st_dev, st.st_ino)] = name
                info.size = st.st_size
                with open(full, "rb") as f:
                    tar.addfile(info, f)
                continue
            tar.addfile(info)
    return out.getvalue()


def zstd(data, *options):
    try:
        return subprocess.run(["zstd", "-q", "-c", *options], input=data, stdout=subprocess.PIPE, check=True).stdout
    except FileNotFoundError:
        raise LayoutError("the zstd command is missing (package zstd)") from None
    except subprocess.CalledProcessError as e:
        raise LayoutError(f"zstd exited with {e.returncode}") from None


def read_tar(name):
    """An uncompressed tar's bytes from a tar file that may be gzip or zstd compressed."""
    with open(name, "rb") as f:
        data = f.read()
    if data[:2] == b"\x1f\x8b":
        return gzip.decompress(data)
    if data[:4] == b"\x28\xb5\x2f\xfd":
        return zstd(data, "-d")
    return data


def compress(data, how):
    if how == "gzip":
        return gzip.compress(data, compresslevel=6, mtime=0)
    if how == "zstd":
        return zstd(data, "-3")
    return data


def command_words(text):
    """A JSON array of strings, or words split as a shell splits them."""
    if text.startswith("["):
        words = json.loads(text)
        if not all(isinstance(w, str) for w in words):
            raise LayoutError(f"not an array of strings: {text}")
        return words
    return shlex.split(text)


def image_config(args, diff_ids):
    run = {}
    for key, value in (("Env", args.env), ("User", args.user), ("WorkingDir", args.workdir),
                       ("StopSignal", args.stop_signal)):
        if value:
            run[key] = value
    for key, value in (("Entrypoint", args.entrypoint), ("Cmd", args.cmd)):
        if value is not None:
            run[key] = command_words(value)
    for key, value in (("ExposedPorts", args.expose), ("Volumes", args.volume)):
        if value:
            run[key] = {v: {} for v in value}
    if args.label:
        run["Labels"] = dict(pair.split("=", 1) for pair in args.label)
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(EPOCH))
    config = {
        "created": created,
        "architecture": args.arch,
        "os": args.os,
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created": created, "created_by": f"layer {n + 1}"} for n in range(len(diff_ids))],
    }
    if args.variant:
        config["variant"] = args.variant
    return config


def add_to_index(layout, fmt, ref, entry):
    """Name the manifest in index.json; several platforms of one ref share an image index below it."""
    manifests = layout.index["manifests"]
    old = next((m for m in manifests if m.get("annotations", {}).get(REF_NAME) == ref), None)
    named = dict(entry, annotations={REF_NAME: ref})
    if old is None:
        manifests.append(named)
        return
    if old["mediaType"] in (MEDIA["oci"]["index"], MEDIA["docker"]["index"]):
        platforms = json.loads(layout.get(old["digest"]))["manifests"]
    else:
        platforms = [{k: v for k, v in old.items() if k != "annotations"}]
    platforms = [m for m in platforms if m["platform"] != entry["platform"]] + [entry]
    if len(platforms) > 1:
        media = MEDIA[fmt]["index"]
        digest, size = layout.put(canonical({"schemaVersion": 2, "mediaType": media, "manifests": platforms}))
        named = {"mediaType": media, "digest": digest, "size": size, "annotations": {REF_NAME: ref}}
    manifests[manifests.index(old)] = named


def build(args):
    if args.format == "docker" and args.compress == "zstd":
        raise LayoutError("the Docker media types have no zstd layers")
    media = MEDIA[args.format]
    layout = Layout(args.out, args.add_to_index)
    layers, diff_ids = [], []
    for source in args.layer:
        data = tar_directory(source, args.keep_owner) if os.path.isdir(source) else read_tar(source)
        diff_ids.append("sha256:" + hashlib.sha256(data).hexdigest())
        digest, size = layout.put(compress(data, args.compress))
        layers.append({"mediaType": media[args.compress], "digest": digest, "size": size})
    config = canonical(image_config(args, diff_ids))
    digest, size = layout.put(config)
    manifest = {
        "schemaVersion": 2,
        "mediaType": media["manifest"],
        "config": {"mediaType": media["config"], "digest": digest, "size": size},
        "layers": layers,
    }
    digest, size = layout.put(canonical(manifest))
    platform = {"architecture": args.arch, "os": args.os}
    if args.variant:
        platform["variant"] = args.variant
    for ref in args.ref:
        add_to_index(layout, args.format, ref,
                     {"mediaType": media["manifest"], "digest": digest, "size": size, "platform": platform})
    layout.save()
    return digest


def main():
    p = argparse.ArgumentParser(description="Write one image into an OCI image layout.")
    p.add_argument("--out", required=True, metavar="DIR", help="the layout; made anew unless --add-to-index")
    p.add_argument("--ref", required=True, action="append", metavar="NAME:TAG", help="its name (repeatable)")
    p.add_argument("--layer", required=True, action="append", metavar="DIR|TAR", help="lowest first (repeatable)")
    p.add_argument("--add-to-index", action="store_true", help="keep what the layout holds; join platforms of a ref")
    p.add_argument("--compress", choices=("gzip", "zstd", "none"), default="gzip")
    p.add_argument("--format", choices=("oci", "docker"), default="oci", help="media types")
    p.add_argument("--arch", default="amd64", help="GOARCH name (default amd64)")
    p.add_argument("--variant", default="")
    p.add_argument("--os", default="linux")
    p.add_argument("--env", action="append", metavar="K=V")
    p.add_argument("--entrypoint", metavar="WORDS", help="a JSON array, or words as a shell splits them")
    p.add_argument("--cmd", metavar="WORDS", help="likewise")
    p.add_argument("--user", metavar="USER[:GROUP]")
    p.add_argument("--workdir")
    p.add_argument("--stop-signal")
    p.add_argument("--expose", action="append", metavar="PORT/PROTO")
    p.add_argument("--volume", action="append", metavar="PATH")
    p.add_argument("--label", action="append", metavar="K=V")
    p.add_argument("--keep-owner", action="store_true", help="owners of directory layers as they are, not root")
    try:
        print(build(p.parse_args()))
    except (LayoutError, OSError, ValueError, tarfile.TarError) as e:
        print(f"oci-layout: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
