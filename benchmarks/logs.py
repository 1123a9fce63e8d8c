# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long a log check takes, beside grep on the same file: from the start, and from a cursor.

.venv/bin/python benchmarks/logs.py --megabytes 1024
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import typing as t
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / ".cache" / "collections"))

from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import engine
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.log import SETS

ROUNDS = 3
CASES = {
    "one word": ["DB_DOWN"],
    "four words": ["DB_DOWN", "Using local filesystem storage", "Attribute name 'metadata' is reserved", "permission denied for"],
    "the set python": ["python"],
    "words around a number": [r"user \d+ is locked out"],
}


def written(path: Path, size: int) -> None:
    """A log as an app writes it: lines of all lengths, times, numbers, paths and now and then a warning."""
    chosen = random.Random(1)
    lines = []
    for number in range(50000):
        stamp = f"2025-01-02 {chosen.randrange(24):02}:{chosen.randrange(60):02}:{chosen.randrange(60):02},{chosen.randrange(1000):03}"
        what = chosen.choice(
            [
                f"INFO shop.views GET /orders/{chosen.getrandbits(24)} 200 in {chosen.randrange(900)} ms",
                f"INFO shop.views POST /attachments 201 in {chosen.randrange(900)} ms for Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101",
                f"DEBUG shop.pool [DB_POOL] {chosen.randrange(20)} of 20 in use",
            ]
        )
        if number % 1000 == 0:
            what = f"WARNING shop.payments the gateway answered {chosen.randrange(500, 600)}, trying again"
        lines.append(f"{stamp} [{chosen.getrandbits(16)}] {what}\n")
    part = "".join(lines).encode()
    with open(path, "wb") as stream:
        while stream.tell() < size:
            stream.write(part)


def fastest(work: t.Callable[[], object]) -> float:
    times = []
    for _round in range(ROUNDS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def check(path: Path, **declared: t.Any) -> engine.Verdict:
    verdict = engine.run_checks([{"type": "log", "files": [str(path)], "timeout": 600, **declared}])[0]
    if verdict.verdict != "pass":
        raise SystemExit(f"The check did not pass: {verdict.evidence}")
    return verdict


def read_by_this_process() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure log checks beside grep -c.")
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--directory", help="where to write the log; the system's directory for temporary files by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        path = Path(directory) / "error.log"
        written(path, options.megabytes << 20)
        print(f"{path.stat().st_size / 1e6:.0f} MB, the fastest of {ROUNDS} rounds")
        print(f"{'':24} {'check':>8} {'grep -c':>8} {'ratio':>6}")
        for name, never in CASES.items():
            alternation = (
                "|".join(f"({pattern})" for one in never for pattern in SETS.get(one, (one,))).replace("(?:", "(").replace(r"\d", "[0-9]")
            )
            grep = fastest(lambda: subprocess.run(["grep", "-cE", alternation, path], stdout=subprocess.DEVNULL, check=False))  # noqa: B023
            ours = fastest(lambda: check(path, never=never))  # noqa: B023
            print(f"{name:24} {ours:7.2f}s {grep:7.2f}s {ours / grep:6.2f}")
        cursor = check(path, **{"from": "end"}).found["cursor"]
        with open(path, "ab") as stream:
            stream.write(b"Bucket access verified\n")
        before = read_by_this_process()
        ours = fastest(lambda: check(path, cursor=cursor, must=["Bucket access verified"], never=["python"]))
        print(f"{'from a cursor':24} {1000 * ours:6.2f}ms, {(read_by_this_process() - before) // ROUNDS} bytes read")
        print(f"memory at its most: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB; {os.cpu_count()} processors")


if __name__ == "__main__":
    main()
