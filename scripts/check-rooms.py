#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fails when a file includes a header of a room that its own room may not know (docs/ARCHITECTURE.md, "Rooms"), or when
headers include each other in a circle."""
import re
import subprocess
import sys

MAY = {
    "common/base": [],
    "common/loop": ["common/base"],
    "common/rpc": ["common/base", "common/loop"],
    "host/store": ["common/base"],
    "host/vmm": ["common/base", "common/loop"],
    "host/guest": ["common", "proto/agent"],
    "host/image": ["common/base", "host/store"],
    "host/net": ["common/base"],
    "host/volume": ["common", "host/guest", "host/vmm"],
    "host/stream": ["common", "host/guest", "proto"],
    "host/sandbox": ["common", "proto", "host/vmm", "host/net", "host/volume", "host/store", "host/guest", "host/image"],
    "host/cri": ["common", "proto", "host/sandbox", "host/image", "host/stream"],
    "host/cli": ["common", "proto"],
    "host/daemon": ["common", "proto", "host"],
    "agent": ["common", "proto/agent", "agent"],
}


def room_of(path):
    return next((r for r in sorted(MAY, key=len, reverse=True) if path.startswith(r + "/")), None)


def find_cycle(graph):
    """A list of headers that include each other in a circle, or None."""
    done, path = set(), []

    def visit(node):
        if node in path:
            return path[path.index(node):] + [node]
        if node in done or node not in graph:
            return None
        path.append(node)
        for target in graph[node]:
            cycle = visit(target)
            if cycle:
                return cycle
        path.pop()
        done.add(node)
        return None

    return next((c for c in map(visit, sorted(graph)) if c), None)


def main():
    graph = {}
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "*.c", "*.h"], capture_output=True,
                           text=True, check=True).stdout.split()
    bad = 0
    for path in files:
        room = room_of(path)
        if room is None:
            continue
        with open(path, encoding="utf-8") as f:
            text = f.read()
        includes = re.findall(r'^\s*#\s*include\s+"([^"]+)"', text, flags=re.M)
        if path.endswith(".h"):
            graph[path] = includes
        for inc in includes:
            if inc.startswith(room + "/"):
                continue
            if not any(inc.startswith(m + "/") for m in MAY[room]):
                print(f"{path}: room {room} may not include \"{inc}\"")
                bad += 1
    cycle = find_cycle(graph)
    if cycle:
        print("include cycle: " + " -> ".join(cycle))
        bad += 1
    return 1 if bad else 0


sys.exit(main())
