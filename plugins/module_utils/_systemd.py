# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""systemd as the deploy uses it: commands built by pure functions, properties parsed by one.

Sources: systemctl(1), journalctl(1), systemd.service(5).
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ansible_collections.bulletproof.deploy.plugins.module_utils._command import must, run

PROPERTIES = ("LoadState", "ActiveState", "SubState", "MainPID", "NRestarts", "Result")


@dataclass(frozen=True)
class Unit:
    """What ``systemctl show`` tells of a unit."""

    load: str
    active: str
    sub: str
    main_pid: int
    restarts: int
    result: str

    @property
    def running(self) -> bool:
        return self.active == "active"

    @property
    def crashed(self) -> bool:
        """Its process ended although nobody asked it to: it failed, or is between two automatic restarts."""
        return self.active == "failed" or self.sub == "auto-restart" or self.restarts > 0


def parse_show(text: str) -> t.Dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def show(unit: str) -> Unit:
    said = must(["systemctl", "show", f"--property={','.join(PROPERTIES)}", unit], f"systemd does not answer for {unit}")
    return _unit(parse_show(said.stdout))


def show_all(pattern: str) -> t.Dict[str, Unit]:
    """All units of a pattern that systemd knows at the moment, by name; one that has ended well it forgets."""
    said = must(["systemctl", "show", f"--property={','.join(('Id', *PROPERTIES))}", pattern], f"systemd does not answer for {pattern}")
    found = [parse_show(block) for block in said.stdout.split("\n\n")]
    return {value["Id"]: _unit(value) for value in found if "Id" in value}


def _unit(value: t.Mapping[str, str]) -> Unit:
    return Unit(
        load=value.get("LoadState", ""),
        active=value.get("ActiveState", ""),
        sub=value.get("SubState", ""),
        main_pid=int(value.get("MainPID") or 0),
        restarts=int(value.get("NRestarts") or 0),
        result=value.get("Result", ""),
    )


def start(units: t.Sequence[str], timeout: float) -> None:
    """Start units and wait for them. A unit that systemd gave up on before is allowed a new start."""
    run(["systemctl", "reset-failed", *units])
    must(["systemctl", "start", *units], f"{units[-1]} does not start", timeout=timeout)


def restart(unit: str, timeout: float) -> None:
    run(["systemctl", "reset-failed", unit])
    must(["systemctl", "restart", unit], f"{unit} does not restart", timeout=timeout)


def stop(units: t.Sequence[str]) -> None:
    """Let units end, in their own time: the caller goes on while they finish their requests."""
    must(["systemctl", "stop", "--no-block", *units], f"{units[0]} does not stop")


def journal(unit: str, since: float, lines: int) -> t.List[str]:
    """The newest lines a unit wrote since a moment (seconds since the epoch)."""
    said = run(["journalctl", "--unit", unit, f"--since=@{since:.0f}", f"--lines={lines}", "--output=cat", "--no-pager", "--quiet"])
    return said.stdout.splitlines()
