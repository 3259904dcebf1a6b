#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Push every image of an OCI layout to a registry, and print where each went.

Theory of operation. The names in index.json are full references (registry.k8s.io/pause:3.9); the host part is dropped,
so that one registry stands in for all of them, as a mirror does. Blobs first (skipped where the registry has them),
then manifests from the leaves up, the top one under its tag. One line of output for each image:
REFERENCE DIGEST MEDIA-TYPE. API: the distribution specification 1.0, monolithic uploads.
"""

import http.client
import json
import os
import sys
import urllib.parse

REF_NAME = "org.opencontainers.image.ref.name"
TIMEOUT_S = 30


class PushError(Exception):
    """The registry refused something."""


class Registry:
    def __init__(self, address):
        self.address = address
        self.conn = http.client.HTTPConnection(address, timeout=TIMEOUT_S)

    def call(self, method, url, body=None, content_type=None, want=(200,)):
        parts = urllib.parse.urlsplit(url)
        target = parts.path + ("?" + parts.query if parts.query else "")
        headers = {"Content-Type": content_type} if content_type else {}
        self.conn.request(method, target, body=body, headers=headers)
        reply = self.conn.getresponse()
        text = reply.read()
        if reply.status not in want:
            raise PushError(f"{method} {target}: {reply.status} {text[:300].decode(errors='replace')}")
        return reply

    def put_blob(self, repo, digest, data):
        if self.call("HEAD", f"/v2/{repo}/blobs/{digest}", want=(200, 404)).status == 200:
            return
        where = self.call("POST", f"/v2/{repo}/blobs/uploads/", body=b"", want=(202,)).getheader("Location")
        where += ("&" if "?" in where else "?") + urllib.parse.urlencode({"digest": digest})
        self.call("PUT", where, body=data, content_type="application/octet-stream", want=(201,))

    def put_manifest(self, repo, name, data, media_type):
        reply = self.call("PUT", f"/v2/{repo}/manifests/{name}", body=data, content_type=media_type, want=(201,))
        return reply.getheader("Docker-Content-Digest")


def split_reference(ref):
    """'host/path:tag' to (path, tag)."""
    host, _, rest = ref.partition("/")
    if "." not in host and ":" not in host and host != "localhost":
        raise PushError(f"{ref}: not a full reference")
    path, colon, tag = rest.rpartition(":")
    return (path, tag) if colon else (rest, "latest")


def push_image(registry, layout, repo, name, entry):
    def blob(digest):
        with open(os.path.join(layout, "blobs", "sha256", digest.split(":", 1)[1]), "rb") as f:
            return f.read()

    data = blob(entry["digest"])
    manifest = json.loads(data)
    for child in manifest.get("manifests", []):
        push_image(registry, layout, repo, child["digest"], child)
    for part in manifest.get("layers", []) + [manifest[k] for k in ("config",) if k in manifest]:
        registry.put_blob(repo, part["digest"], blob(part["digest"]))
    digest = registry.put_manifest(repo, name, data, entry["mediaType"])
    if digest != entry["digest"]:
        raise PushError(f"{repo}:{name}: stored as {digest}, not {entry['digest']}")


def main():
    if len(sys.argv) != 3:
        print("usage: push.py LAYOUT HOST:PORT", file=sys.stderr)
        return 2
    layout, address = sys.argv[1:]
    registry = Registry(address)
    try:
        with open(os.path.join(layout, "index.json"), encoding="utf-8") as f:
            entries = json.load(f)["manifests"]
        for entry in entries:
            ref = entry["annotations"][REF_NAME]
            repo, tag = split_reference(ref)
            push_image(registry, layout, repo, tag, entry)
            print(ref, entry["digest"], entry["mediaType"])
    except (PushError, OSError, http.client.HTTPException, KeyError, ValueError) as e:
        print(f"push: {type(e).__name__}: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
