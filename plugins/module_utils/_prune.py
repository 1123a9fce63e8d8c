# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Removing what nobody needs any more, after the manifests, never after modification times."""

from __future__ import annotations

import os
import shutil
import typing as t
from dataclasses import dataclass, field

from ansible_collections.bulletproof.deploy.plugins.module_utils import _environments, _manifest, _state, _venv
from ansible_collections.bulletproof.deploy.plugins.module_utils._files import read_link
from ansible_collections.bulletproof.deploy.plugins.module_utils._layout import Layout

# What a run that died left half built, or half removed; only the holder of the lock builds and removes.
LEFTOVERS = (".building-", ".removing-")


@dataclass(frozen=True)
class Pruned:
    removed: t.List[str] = field(default_factory=list)
    problems: t.List[str] = field(default_factory=list)


def in_use(layout: Layout) -> t.Set[str]:
    """The releases that something points to: the state, ``current``, the slots' links."""
    state = _state.load(layout)
    used = {position.release for position in (state.live, state.committed) if position}
    links = [layout.current]
    if os.path.isdir(layout.slots):
        serving = {slot for position in (state.live, state.committed) if position for slot in position.slots}
        links += [layout.slot(slot) for slot in os.listdir(layout.slots) if slot in serving]
    return used | {os.path.basename(target) for target in map(read_link, links) if target}


def leftovers(layout: Layout) -> t.List[str]:
    """What a run that was cut short has half built or half removed."""
    names = os.listdir(layout.releases) if os.path.isdir(layout.releases) else []
    return [os.path.join(layout.releases, name) for name in sorted(names) if name.startswith(LEFTOVERS)]


def sweep(layout: Layout) -> None:
    """Remove that. What cannot be removed is told by the next commit."""
    for path in leftovers(layout):
        remove(layout, path)


def doomed(layout: Layout, keep: int) -> t.List[str]:
    """The paths that may go, releases before the virtual environments and the versions of ``.env`` that only they needed."""
    manifests = _manifest.every(layout)
    releases = [layout.release(one.release) for one in _manifest.to_prune(manifests, keep, in_use(layout))]
    staying = [one for one in manifests if layout.release(one.release) not in releases]
    state = _state.load(layout)
    environments = {one.environment for one in (*staying, state.live, state.committed) if one is not None}
    return [
        *leftovers(layout),
        *releases,
        *_venv.unused(layout.venvs, {one.venv for one in staying if one.venv}),
        *_environments.unused(layout, keep, environments),
    ]


def remove(layout: Layout, path: str) -> str:
    """Remove one of them; returns what was in the way, empty when nothing was.

    A release is renamed first, so that a removal cut short leaves none that looks whole.
    """
    directory, name = os.path.split(path)
    grave = path if name.startswith(LEFTOVERS) else os.path.join(directory, f".removing-{name}")
    try:
        if directory == layout.venvs:
            _venv.remove(path)
            return ""
        if directory == layout.environments:
            os.unlink(path)
            return ""
        if grave != path:
            os.rename(path, grave)
        shutil.rmtree(grave)
    except OSError as error:
        return f"{path} could not be removed: {error.strerror}."
    return ""


def prune(layout: Layout, keep: int) -> Pruned:
    """Remove what may go. What cannot be removed is reported and fails nothing."""
    pruned = Pruned()
    for path in doomed(layout, keep):
        problem = remove(layout, path)
        if problem:
            pruned.problems.append(problem)
        else:
            pruned.removed.append(path)
    return pruned
