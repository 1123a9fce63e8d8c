# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long the module ``permissions`` takes on a large tree, beside what a shell script would do.

Whole processes, one after another in turns, so that a busy machine is as busy for all. The processor time is given too:
the module walks on all cores, which gains nothing where other programs already use them. Needs root, because files are
given away. Two questions:

- all wrong: ``chown -R`` and one ``find`` with ``-exec chmod {} +`` for directories and files, against one run of the module;
- all right: ``find`` for whatever is not so, against one run of the module.

The module is measured as a phase runs on the host (a process with its arguments on standard input, which finds its code compiled), and its
walk alone, as the agent runs it without Ansible.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import typing as t
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
COLLECTIONS = CHECKOUT / ".cache" / "collections"
UID, OTHER = 12345, 23456
MODE, DIRECTORY_MODE = "0640", "0750"

WALK = """
import json, sys
from ansible_collections.bulletproof.deploy.plugins.module_utils import _permissions as permissions
tree = permissions.read(json.load(sys.stdin)["ANSIBLE_MODULE_ARGS"])
for change in permissions.plan(tree):
    change.apply()
json.dump(permissions.report(tree), sys.stdout)
"""


def make_tree(root: Path, files: int) -> None:
    """A hundred files a directory, ten directories in each above: the shape of a virtual environment, roughly."""
    for number in range(0, files, 100):
        directory = root / f"package{number // 1000}" / f"part{number // 100}"
        directory.mkdir(parents=True)
        for name in range(number, min(number + 100, files)):
            os.close(os.open(directory / f"module_{name}.py", os.O_CREAT | os.O_WRONLY, 0o644))


def spoil(root: Path) -> None:
    subprocess.run(["chown", "-R", f"{OTHER}:{OTHER}", str(root)], check=True)
    modes = ["-type", "d", "-exec", "chmod", "0755", "{}", "+", "-o", "-exec", "chmod", "0644", "{}", "+"]
    subprocess.run(["find", str(root), *modes], check=True)


# The code of phases lies on a host with its bytecode, whatever this machine does with that of its own programs.
BYTECODE = tempfile.TemporaryDirectory()
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
ENVIRONMENT.update(PYTHONPATH=str(COLLECTIONS), PYTHONPYCACHEPREFIX=BYTECODE.name)


def timed(argv: t.Sequence[str], stdin: str = "") -> t.Tuple[float, str]:
    began = time.perf_counter()
    done = subprocess.run(
        argv,
        input=stdin,
        stdout=subprocess.PIPE,
        env=ENVIRONMENT,
        encoding="utf-8",
        check=True,
    )
    return time.perf_counter() - began, done.stdout


def shell_repair(root: Path) -> float:
    owner, _said = timed(["chown", "-R", f"{UID}:{UID}", str(root)])
    modes = ["-type", "d", "-exec", "chmod", DIRECTORY_MODE, "{}", "+", "-o", "-exec", "chmod", MODE, "{}", "+"]
    return owner + timed(["find", str(root), *modes])[0]


def shell_look(root: Path) -> float:
    def unless(mode: str) -> t.List[str]:
        return ["!", "(", "-uid", str(UID), "-gid", str(UID), "-perm", mode, ")"]

    seconds, said = timed(["find", str(root), "(", "-type", "d", *unless(DIRECTORY_MODE), "-o", "-type", "f", *unless(MODE), ")", "-print"])
    assert not said, "the tree was not right"
    return seconds


def ours(root: Path, argv: t.Sequence[str], wrong: int) -> float:
    attributes = {"owner": str(UID), "group": str(UID), "mode": MODE, "directory_mode": DIRECTORY_MODE}
    rules = [{"path": ".", **attributes}, {"path": "**", **attributes}]
    options = {"path": str(root), "rules": rules, "exclude": [], "hard_links": False}
    seconds, said = timed(argv, json.dumps({"ANSIBLE_MODULE_ARGS": options}))
    found = json.loads(said)["drift_total"]
    assert found == wrong, f"{found} entries were wrong, {wrong} were expected"
    return seconds


def line(name: str, seconds: t.Sequence[float], peer: t.Sequence[float]) -> str:
    ratios = sorted(mine / theirs for mine, theirs in zip(seconds, peer))
    return (
        f"  {name:<34}{statistics.median(seconds):7.3f} s [{min(seconds):.3f}-{max(seconds):.3f}]"
        f"   ratio {statistics.median(ratios):5.2f} [{ratios[0]:.2f}-{ratios[-1]:.2f}]"
    )


def processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def compare(root: Path, python: str, repeats: int, wrong: int) -> None:
    peer_name, peer = ("chown -R + find -exec chmod", shell_repair) if wrong else ("find for mismatches", shell_look)
    candidates = {
        "module": lambda: ours(root, [python, str(CHECKOUT / "plugins" / "modules" / "permissions.py")], wrong),
        "walk without Ansible": lambda: ours(root, [python, "-c", WALK], wrong),
        peer_name: lambda: peer(root),
    }
    seconds: t.Dict[str, t.List[float]] = {name: [] for name in candidates}
    busy: t.Dict[str, t.List[float]] = {name: [] for name in candidates}
    for number in range(repeats + 1):
        for name, run in candidates.items():
            if wrong:
                spoil(root)
            before = processor_seconds()
            took = run()
            if number:  # the first round warms the caches
                seconds[name].append(took)
                busy[name].append(processor_seconds() - before)
    print(f"{'all wrong' if wrong else 'all right'}, n={repeats}, median [min-max], ratio to {peer_name}:")
    for name in candidates:
        print(line(name, seconds[name], seconds[peer_name]))
    for name in candidates:
        print(line(f"{name}, CPU", busy[name], busy[peer_name]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000, help="files in the tree (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="measured runs of each (default: %(default)s)")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the host; it needs ansible-core (default: this one)")
    parser.add_argument("--directory", help="where to make the tree (default: the directory for temporary files)")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("This benchmark gives files to other users, which only root may do. Run it as root.")
        return
    with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
        root = Path(name) / "tree"
        root.mkdir()
        make_tree(root, arguments.files)
        entries = sum(len(directories) + len(files) for _here, directories, files in os.walk(root)) + 1
        print(f"{arguments.files} files, {entries - arguments.files} directories, {len(os.sched_getaffinity(0))} cores")
        compare(root, arguments.python, arguments.repeats, wrong=entries)
        shell_repair(root)
        compare(root, arguments.python, arguments.repeats, wrong=0)


if __name__ == "__main__":
    main()
