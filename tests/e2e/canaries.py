# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Looks for canaries: while something runs, in the arguments of processes and in files that come and go; afterwards, everywhere.

Run as a script, so that it can run on a host as well: the first line of standard input is JSON, ``{"canaries": {name: value}, "directories": [...]}``;
at the end of standard input it prints as JSON where it saw which. It needs nothing but the standard library of Python 3.9.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lab.hosts import Host

INTERVAL = 0.05
LARGEST = 8 * 1024 * 1024


def contents(path: str) -> bytes:
    try:
        if os.path.islink(path) or not os.path.isfile(path) or os.path.getsize(path) > LARGEST:
            return b""
        with open(path, "rb") as stream:
            return stream.read()
    except OSError:
        return b""


def arguments() -> t.Iterator[t.Tuple[str, bytes]]:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as stream:
                said = stream.read()
        except OSError:
            continue
        yield f"arguments of {said.split(bytes(1))[0].decode(errors='replace')}", said


def files(directories: t.Iterable[str], read: t.Dict[str, t.Tuple[int, int]]) -> t.Iterator[t.Tuple[str, bytes]]:
    """The files that are new or have changed since the last time."""
    for directory in directories:
        for where, _names, names in os.walk(directory):
            for path in (os.path.join(where, name) for name in names):
                try:
                    status = os.lstat(path)
                except OSError:
                    continue
                version = (status.st_mtime_ns, status.st_size)
                if read.get(path) != version:
                    read[path] = version
                    yield path, contents(path)


def watch() -> None:
    told = json.loads(sys.stdin.readline())
    canaries = {name: value.encode() for name, value in told["canaries"].items()}
    ended = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    seen: t.Set[t.Tuple[str, str]] = set()
    read: t.Dict[str, t.Tuple[int, int]] = {}
    looks = 0
    while True:
        last = ended.is_set()
        for source in (arguments(), files(told["directories"], read)):
            for where, content in source:
                seen.update((where, name) for name, canary in canaries.items() if canary in content)
        looks += 1
        if last:
            break
        time.sleep(INTERVAL)
    print(json.dumps({"seen": sorted(f"{name} in {where}" for where, name in seen), "looks": looks, "files": len(read)}))


class Watcher:
    """Watches this machine, or a lab host, while the block runs."""

    def __init__(self, canaries: Mapping[str, str], directories: Sequence[str], host: Host | None = None) -> None:
        self.seen: list[str] = []
        self.looks = 0
        self._told = json.dumps({"canaries": dict(canaries), "directories": list(directories)}) + "\n"
        code = Path(__file__).read_text()
        self._argv = (
            [sys.executable, "-c", code] if host is None else ["docker", "exec", "--interactive", host.container, "python3", "-c", code]
        )

    def __enter__(self) -> Watcher:
        self._process = subprocess.Popen(self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdin
        self._process.stdin.write(self._told)
        self._process.stdin.flush()
        return self

    def __exit__(self, *_error: object) -> None:
        said, _nothing = self._process.communicate(timeout=60)
        report = json.loads(said)
        self.seen, self.looks = report["seen"], report["looks"]


def found_in(host: Host, canaries: Mapping[str, str], roots: Sequence[str]) -> dict[str, list[str]]:
    """Path to names of canaries, for every file on a host below the roots. The canaries are in no process's arguments here, either."""
    script = "import json, os, sys\n" + "\n".join(
        [
            "told = json.load(sys.stdin)",
            "paths = [os.path.join(where, name) for root in told['roots'] for where, _dirs, names in os.walk(root) for name in names]",
            "found = {}",
            "for path in paths:",
            "    if os.path.islink(path) or not os.path.isfile(path): continue",
            "    content = open(path, 'rb').read()",
            "    names = [name for name, value in told['canaries'].items() if value.encode() in content]",
            "    if names: found[path] = names",
            "print(json.dumps(found))",
        ]
    )
    said = host.run(["python3", "-c", script], stdin=json.dumps({"canaries": dict(canaries), "roots": list(roots)})).stdout
    return t.cast("dict[str, list[str]]", json.loads(said))


if __name__ == "__main__":
    watch()
