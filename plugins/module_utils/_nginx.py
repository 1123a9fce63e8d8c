# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""nginx's own judgement of a configuration that does not exist yet, and the proof that it took one over."""

from __future__ import annotations

import os
import re
import tempfile
import time
import typing as t
from dataclasses import dataclass

from ansible_collections.bulletproof.deploy.plugins.module_utils._command import run

# The files that would be there: a text, or None for a file that would be gone.
Files = t.Mapping[str, t.Optional[str]]


def redirected(text: str, directory: str, copy: str) -> str:
    """A configuration's text with the paths that lead into ``directory`` leading into ``copy``."""
    return re.sub(rf"(?<![\w./-]){re.escape(directory)}(?![\w.-])", lambda _: copy, text)


def copy_tree(directory: str, copy: str, changed: Files) -> None:
    """Stand-in of a configuration directory, with other files in it.

    Only what names the directory itself is copied, with its paths turned to the copy. Everything else is a link to the
    original: private keys have no reason to be anywhere else, not even for a moment.
    """
    for parent, directories, files in os.walk(directory):
        inside = os.path.join(copy, os.path.relpath(parent, directory))
        os.makedirs(inside, exist_ok=True)
        for name in [*files, *(name for name in directories if os.path.islink(os.path.join(parent, name)))]:
            original = os.path.join(parent, name)
            if original not in changed:
                stand_in(original, os.path.join(inside, name), directory, copy)
    for path, text in changed.items():
        if text is not None:
            place = os.path.join(copy, os.path.relpath(path, directory))
            os.makedirs(os.path.dirname(place), exist_ok=True)
            with open(place, "w", encoding="utf-8") as stream:
                stream.write(redirected(text, directory, copy))


def stand_in(original: str, place: str, directory: str, copy: str) -> None:
    if os.path.islink(original):
        os.symlink(redirected(os.readlink(original), directory, copy), place)
        return
    with open(original, "rb") as stream:
        content = stream.read()
    text = content.decode("utf-8", "surrogateescape")
    turned = redirected(text, directory, copy)
    if turned == text:
        os.symlink(original, place)
    else:
        with open(place, "w", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(turned)


@dataclass(frozen=True)
class Judgement:
    """What nginx says of a configuration."""

    accepted: bool
    words: str

    @property
    def shadowed(self) -> t.List[str]:
        """Warnings that a name is another site's already: nginx goes on, and the site that came second never answers."""
        return [line for line in self.words.splitlines() if "conflicting server name" in line]


def judge(executable: str, directory: str, changed: Files) -> Judgement:
    """Have nginx judge the configuration with these files in it.

    :param directory: Where ``nginx.conf`` is; nothing in it is touched.
    """
    with tempfile.TemporaryDirectory(prefix="nginx-") as scratch:
        copy = os.path.join(scratch, "conf")
        copy_tree(directory, copy, changed)
        said = run([executable, "-t", "-q", "-c", os.path.join(copy, "nginx.conf")])
    return Judgement(said.ok, said.last_words().replace(copy, directory))


def children(pid: int) -> t.Set[str]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as stream:
            return set(stream.read().split())
    except FileNotFoundError:
        return set()


def main_process(unit: str) -> int:
    """The process that the unit runs; 0 when it runs none."""
    said = run(["systemctl", "show", "--property=MainPID", "--value", unit])
    return int(said.stdout.strip() or 0)


def reload(unit: str, patience: float) -> bool:
    """Make nginx read its configuration again.

    :return: Whether it did. nginx refuses without a word to the caller what only shows at work, such as a port that another program
        has, and goes on with what it had; new worker processes are what it looks like when it did not.
    """
    pid = main_process(unit)
    before = children(pid)
    if not run(["systemctl", "reload", unit]).ok:
        return False
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if children(pid) - before:
            return True
        time.sleep(0.02)
    return False
