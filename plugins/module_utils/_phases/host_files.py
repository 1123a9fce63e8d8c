# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Have directories and files on a host, all with one execution."""

from __future__ import annotations

import os
import re
import tempfile
import typing as t
from dataclasses import dataclass
from functools import partial

from ansible_collections.bulletproof.deploy.plugins.module_utils import _command, _places, _runner
from ansible_collections.bulletproof.deploy.plugins.module_utils._accounts import gid_of, uid_of
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._files import read_text, write_atomically
from ansible_collections.bulletproof.deploy.plugins.module_utils._runner import Change, Options

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

ENTRY: t.Dict[str, t.Any] = {
    "path": {"type": "path", "required": True},
    "kind": {"type": "str", "choices": ["file", "directory"], "default": "file"},
    "text": {"type": "str"},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
    "mode": {"type": "str", "required": True},
    "validate": {"type": "list", "elements": "str", "default": []},
}
SPEC: t.Dict[str, t.Any] = {"entries": {"type": "list", "elements": "dict", "required": True, "options": ENTRY}}

Entry = t.Dict[str, t.Any]


@dataclass(frozen=True)
class Observed:
    """What each entry is to be, what it is, and its text where that matters."""

    wanted: t.Sequence[_places.Place]
    found: t.Sequence[t.Optional[_places.Place]]
    texts: t.Sequence[t.Optional[str]]


def wanted(entry: Entry) -> _places.Place:
    if not re.fullmatch("0[0-7]{3}", entry["mode"]):
        raise Failure(f"{entry['path']}: the mode is {entry['mode']!r}.", fix='Write it in octal, in quotes: "0644".')
    return (uid_of(entry["owner"]), gid_of(entry["group"]), int(entry["mode"], 8))


def read(options: Options) -> Observed:
    entries = options["entries"]
    return Observed(
        wanted=[wanted(entry) for entry in entries],
        found=[_places.found(entry["path"]) for entry in entries],
        texts=[None if entry["text"] is None else read_text(entry["path"], "surrogateescape") for entry in entries],
    )


def write(entry: Entry, place: _places.Place) -> None:
    """Replace a file, unless the program that reads it refuses the new text."""
    if entry["validate"]:
        with tempfile.TemporaryDirectory(prefix="files-") as directory:
            judged = os.path.join(directory, os.path.basename(entry["path"]))
            write_atomically(judged, entry["text"], place[2])
            said = _command.run([*entry["validate"], judged])
        if not said.ok:
            raise Failure(
                f"{entry['validate'][0]} does not accept the new {entry['path']}:\n{said.last_words()}", fix="It was not written."
            )
    write_atomically(entry["path"], entry["text"], place[2], place[:2])


def plan(options: Options, observed: Observed) -> t.List[Change]:
    changes = []
    for entry, place, found, text in zip(options["entries"], observed.wanted, observed.found, observed.texts):
        path, kind = entry["path"], entry["kind"]
        if text != entry["text"]:
            changes.append(Change(path, text, entry["text"], partial(write, entry, place)))
        elif found != place:
            make = _places.make_directory if kind == "directory" else _places.make_file
            changes.append(Change(path, _places.words(kind, found), _places.words(kind, place), partial(make, path, place)))
    return changes


def run(module: AnsibleModule) -> None:
    _runner.run(module, read, plan, lambda options, observed: {})
