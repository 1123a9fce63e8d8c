# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every play says of itself, whatever a user's ansible.cfg says."""

from __future__ import annotations

import pathlib

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[3]
PLAYBOOKS = ROOT / "playbooks"
PLAYS = [
    pytest.param(play, id=f"{path.stem}: {play['name']}")
    for path in sorted(PLAYBOOKS.glob("*.yml"))
    for play in yaml.safe_load(path.read_text())
    if "hosts" in play
]


@pytest.mark.parametrize("play", PLAYS)
def test_hosts_keep_step(play):
    """With ``strategy = free`` in ansible.cfg, each host would name a run of its own, and switch before the others have answered."""
    assert play["strategy"] == "ansible.builtin.linear"
    assert play["gather_facts"] is False


def patient(tasks, fatal=True):
    """Of each task that goes on where a host is unreachable: its name, and whether any_errors_fatal is in force for it."""
    for task in tasks:
        here = task.get("any_errors_fatal", fatal)
        if task.get("ignore_unreachable"):
            yield task["name"], here
        for part in ("block", "rescue", "always"):
            yield from patient(task.get(part) or [], here)


def test_what_goes_on_without_an_unreachable_host_does_go_on():
    """Where any_errors_fatal is in force, as in the plays of a run, an unreachable host ends the play even if it is to be ignored."""
    files = sorted(ROOT.glob("roles/*/tasks/*.yml"))
    found = [(file.name, *one) for file in files for one in patient(yaml.safe_load(file.read_text()) or [])]
    assert len(found) >= 4 and not [one for one in found if one[2]]
