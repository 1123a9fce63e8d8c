# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processes beside the web server: workers, schedulers, what must run only once.

They are part of a release, and run from one place at a time, ``slots/processes``: a link to their release, beside the version of ``shared/.env``
that they have. The link is moved only while none of them runs. So what runs is of the release that the link shows, and no successor starts
before all that it succeeds has ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import time
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils import _environments, _evidence, _manifest, _systemd
from ansible_collections.bulletproof.deploy.plugins.module_utils._command import run as run_command
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._files import read_link, replace_link
from ansible_collections.bulletproof.deploy.plugins.module_utils._layout import Layout
from ansible_collections.bulletproof.deploy.plugins.module_utils._manifest import Manifest
from ansible_collections.bulletproof.deploy.plugins.module_utils._state import Position

# Beside the slots that serve; no strategy has one of this name.
SLOT = "processes"

# Where a release keeps what starts them, one executable each.
SCRIPTS = "processes"

# Seconds that a process has to run by itself before a switch is believed; watching goes on from there.
SETTLE = 2.0

STARTING = 60.0
# For a process whose release has gone, or never said how long it may take; systemd's own bound is the longest that was declared.
STOPPING = 30.0
# What the kernel may need for a process that was killed.
DYING = 10.0
LOOK_AGAIN = 0.05

Declared = t.Mapping[str, t.Mapping[str, t.Any]]


def unit(layout: Layout, instance: str) -> str:
    return f"{layout.app}-process@{instance}.service"


def name_of(instance: str) -> str:
    return instance.rpartition("-")[0]


def instances(declared: Declared, singletons: bool) -> t.List[str]:
    """The processes of a release on a host, as ``<name>-<number>``.

    :param singletons: Whether this is the one host of those that must run only once.
    """
    return [
        f"{name}-{number}"
        for name, one in sorted(declared.items())
        if singletons or not one["singleton"]
        for number in range(1, one["count"] + 1)
    ]


def of(manifest: t.Optional[Manifest]) -> t.List[str]:
    """The processes that have to run on this host when the release is served."""
    return instances(manifest.processes, manifest.singletons) if manifest else []


def script(command: t.Sequence[str], interpreted: bool) -> str:
    """What starts a process: the command, from the release's directory, with the programs of its virtual environment first.

    :param interpreted: The program is a Python script of the virtual environment. It is given to the interpreter, since its first line names the place
        where it was installed.
    """
    program = (
        f'"$PWD/.release/venv/bin/python" "$PWD/.release/venv/bin/"{shlex.quote(command[0])}' if interpreted else shlex.quote(command[0])
    )
    words = " ".join([program, *map(shlex.quote, command[1:])])
    return f'#!/bin/sh\nPATH="$PWD/.release/venv/bin:$PATH"\nexport PATH\nexec {words}\n'


def is_script(venv: str, program: str) -> bool:
    """Whether a program is a Python script of the virtual environment."""
    if "/" in program:
        return False
    try:
        with open(os.path.join(venv, "bin", program), "rb") as stream:
            return re.match(rb"#!.*python|#!/bin/sh\n'''exec' ", stream.read(300)) is not None
    except OSError:
        return False


def alive(layout: Layout) -> t.Dict[str, _systemd.Unit]:
    """The processes that systemd runs, is about to run again, or waits for to end."""
    if not os.path.lexists(layout.slot(SLOT)):
        # None was ever started, or all were stopped: without them they cost nothing.
        return {}
    found = _systemd.show_all(unit(layout, "*"))
    prefix, suffix = unit(layout, "*").split("*")
    return {name[len(prefix) : -len(suffix)]: one for name, one in found.items() if one.active not in ("inactive", "failed")}


def run_as(layout: Layout, position: Position) -> bool:
    """Whether processes that run are those of this position."""
    return read_link(layout.slot(SLOT)) == _target(layout, layout.release(position.release)) and read_link(
        layout.slot_environment(SLOT)
    ) == (_target(layout, layout.environment(position.environment)) if position.environment else None)


def _target(layout: Layout, path: str) -> str:
    return os.path.relpath(path, layout.slots)


def run(layout: Layout, position: t.Optional[Position], fresh: bool = False) -> None:
    """Have the processes of a position running, and no others; those that already do are left alone.

    :param position: None for none at all.
    :param fresh: Begin anew with those that seem to be right, too.
    """
    wanted = of(_manifest.load(layout, position.release)) if position else []
    now = alive(layout)
    right = position is not None and not fresh and run_as(layout, position)
    stop(layout, [instance for instance in now if not right or instance not in wanted])
    if position is None or not wanted:
        for link in (layout.slot(SLOT), layout.slot_environment(SLOT)):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(link)
        return
    if not right:
        _environments.give(layout, SLOT, position.environment)
        replace_link(layout.slot(SLOT), _target(layout, layout.release(position.release)))
    missing = [instance for instance in wanted if not (right and instance in now and now[instance].running)]
    if missing:
        _systemd.start([unit(layout, instance) for instance in missing], timeout=STARTING)


def stop(layout: Layout, some: t.Sequence[str]) -> None:
    """End processes, all at the same time and each in its own time, and wait until they have ended."""
    if not some:
        return
    units = {instance: unit(layout, instance) for instance in some}
    patience = _patience(layout, some)
    _systemd.stop(list(units.values()))
    began, killed = time.monotonic(), set()
    while True:
        seconds = time.monotonic() - began
        left = [instance for instance in alive(layout) if instance in units]
        if not left:
            break
        for instance in left:
            if seconds > patience[instance] + DYING:
                raise Failure(
                    f"{units[instance]} does not end, not even killed; its successor was not started.",
                    fix=f"Look at systemctl status {units[instance]}: what is it waiting for?",
                )
            if seconds > patience[instance] and instance not in killed:
                killed.add(instance)
                run_command(["systemctl", "kill", "--signal=KILL", units[instance]])
        time.sleep(LOOK_AGAIN)
    # One that had to be killed would be listed among the failed units for ever.
    run_command(["systemctl", "reset-failed", *units.values()])


def _patience(layout: Layout, some: t.Sequence[str]) -> t.Dict[str, float]:
    """How long each may take to end, as the release that they run from says."""
    manifest = _manifest.load(layout, os.path.basename(read_link(layout.slot(SLOT)) or "?"))
    declared = manifest.processes if manifest else {}
    return {instance: float(declared.get(name_of(instance), {}).get("stop_timeout", STOPPING)) for instance in some}


def problems(layout: Layout, position: t.Optional[Position]) -> t.List[str]:
    """What is wrong with the processes of a position that is served, one sentence each; none when all run, and no others."""
    wanted = of(_manifest.load(layout, position.release)) if position else []
    now = alive(layout)
    if position is None or not (wanted or now):
        return []
    if now and not run_as(layout, position):
        return [f"the processes {', '.join(sorted(now))} are not of {position.release}, or have another environment"]
    return [
        *(f"the process {instance} does not run" for instance in wanted if instance not in now),
        *(
            f"the process {instance} is {now[instance].active} ({now[instance].sub})"
            for instance in wanted
            if instance in now and not now[instance].running
        ),
        *(f"the process {instance} runs, and should not" for instance in sorted(now) if instance not in wanted),
    ]


def checks(layout: Layout, manifest: Manifest, hold: float = SETTLE) -> t.List[t.Dict[str, t.Any]]:
    """They run, and go on running: the same processes, for some time."""
    interval = min(1.0, hold / 4)
    common = {"type": "systemd", "max_restarts": 0, "steady": True, "hold": hold, "interval": interval, "deadline": interval}
    return [{**common, "name": f"process {instance}", "unit": unit(layout, instance)} for instance in of(manifest)]


def words(app: str, declared: Declared) -> t.Dict[str, str]:
    """What ``{process:NAME}`` stands for in a declared check: the unit of the first one; ``{process:NAME-2}`` that of the second."""
    layout = Layout(app, "/")
    every = instances(declared, singletons=True)
    return {
        **{f"{{process:{instance}}}": unit(layout, instance) for instance in every},
        **{f"{{process:{name}}}": unit(layout, f"{name}-1") for name in declared},
    }


def elsewhere(manifest: Manifest, check: t.Mapping[str, t.Any]) -> bool:
    """Whether a declared check is about a process that must run only once, and does so on another host."""
    text = json.dumps(check, default=str)
    away = set(words("app", manifest.processes)) - {
        word for instance in of(manifest) for word in (f"{{process:{instance}}}", f"{{process:{name_of(instance)}}}")
    }
    return any(word in text for word in away)


def singletons_here(layout: Layout, position: t.Optional[Position]) -> t.List[str]:
    """Those that must run only once, and run on this host."""
    manifest = _manifest.load(layout, position.release) if position else None
    return [instance for instance in alive(layout) if manifest and manifest.processes.get(name_of(instance), {}).get("singleton")]


def refuse_a_second_home(layout: Layout, position: t.Optional[Position], release: str, home: bool) -> None:
    """Raise Failure where another host would start what this one still runs: for a while, there would be two."""
    here = singletons_here(layout, position) if position and position.release != release and not home else []
    if here:
        raise Failure(
            f"This host runs {', '.join(here)}, which must run only once, and another host is now the first of the inventory, where it would be started.",
            fix=f"Stop it here (systemctl stop {' '.join(unit(layout, one) for one in here)}) and deploy again, or put this host first again.",
        )


def last_words(layout: Layout, release: str, since: float) -> t.List[str]:
    """What the processes that have crashed said since a moment, without secrets."""
    crashed = [instance for instance, one in alive(layout).items() if one.crashed]
    secrets = _evidence.secrets_of(layout, release) if crashed else {}
    return [
        _evidence.redact(f"{instance}: {line}", secrets)[: _evidence.LONGEST]
        for instance in crashed
        for line in _evidence.condense(_systemd.journal(unit(layout, instance), since, _evidence.RAW_LINES))
    ]
