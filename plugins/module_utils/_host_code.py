# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collection's code for the hosts, kept on a host from one phase to the next.

A module brings its code along and Python compiles it anew, Ansible's library with it: about 0.2 s a phase that nothing is done in. So the first
phase of a run leaves its code under its digest, and those that follow find it there, compiled. It lies in ``/run``, where only root can write: in
memory, gone with a restart, never half on a disk. Whoever finds nothing brings the code along, as ever.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import typing as t
import zipfile

PLACE = "/run/bulletproof-deploy/code"
# Of other versions of the collection, from other controllers.
KEPT = 4
OURS = "ansible_collections/bulletproof/deploy/"
ENTRY = "from ansible_collections.bulletproof.deploy.plugins.module_utils._phases.launch import main\n\nmain()\n"


def place_of(digest: str) -> str:
    return os.path.join(PLACE, digest)


def keep(digest: str, archive: t.Optional[str]) -> None:
    """Leave the code that this module came with. Nothing depends on it, so a host that cannot keep it goes without.

    :param digest: Of all code for the hosts, as the controller has it.
    :param archive: The zip file that Ansible sent this module in; None where it came in another way.
    """
    if archive is None or os.path.isdir(place_of(digest)):
        return
    with contextlib.suppress(OSError):
        os.makedirs(PLACE, mode=0o700, exist_ok=True)
        building = tempfile.mkdtemp(prefix=".building-", dir=PLACE)
        try:
            unpack(archive, building)
            os.rename(building, place_of(digest))
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        prune()


def unpack(archive: str, directory: str) -> None:
    with zipfile.ZipFile(archive) as source:
        names = [name for name in source.namelist() if name.startswith(OURS) and name.endswith(".py")]
        source.extractall(directory, names)
    for here, _directories, _files in os.walk(os.path.join(directory, "ansible_collections")):
        # Ansible's own packages for these are not ours to take.
        with open(os.path.join(here, "__init__.py"), "a", encoding="utf-8"):
            pass
    with open(os.path.join(directory, "__main__.py"), "w", encoding="utf-8") as stream:
        stream.write(ENTRY)


def prune() -> None:
    """Keep the newest few. What is half built belongs to somebody, or to a run that died: the next restart takes it."""
    kept = [entry for entry in os.scandir(PLACE) if not entry.name.startswith(".")]
    for entry in sorted(kept, key=lambda one: one.stat().st_mtime, reverse=True)[KEPT:]:
        shutil.rmtree(entry.path, ignore_errors=True)
