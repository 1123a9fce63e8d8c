# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where everything of an app is on its host, and what its units are called."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """The names and paths that follow from an app's name and root.

    :param app: The app's name; also the prefix of its units.
    :param root: Absolute path; ``/opt/<app>`` unless the declaration says otherwise.
    """

    app: str
    root: str

    @property
    def releases(self) -> str:
        return os.path.join(self.root, "releases")

    @property
    def venvs(self) -> str:
        return os.path.join(self.root, "venvs")

    @property
    def slots(self) -> str:
        return os.path.join(self.root, "slots")

    @property
    def shared(self) -> str:
        return os.path.join(self.root, "shared")

    @property
    def backups(self) -> str:
        return os.path.join(self.root, "backups")

    @property
    def current(self) -> str:
        return os.path.join(self.root, "current")

    @property
    def private(self) -> str:
        """What only root reads: the host's memory of runs, and the agent."""
        return os.path.join(self.root, ".deploy")

    @property
    def state(self) -> str:
        return os.path.join(self.private, "state.json")

    @property
    def cursors(self) -> str:
        """Where logs ended before the switch, for the checks of a release on trial."""
        return os.path.join(self.private, "cursors.json")

    @property
    def lock(self) -> str:
        return os.path.join(self.private, "lock.json")

    @property
    def configuration(self) -> str:
        return os.path.join(self.private, "configuration.json")

    @property
    def agent(self) -> str:
        return os.path.join(self.private, "agent.pyz")

    @property
    def runtime(self) -> str:
        return os.path.join("/run", self.app)

    @property
    def doors(self) -> str:
        """How many live sockets there are; without this file, one."""
        return os.path.join(self.private, "doors.json")

    def door(self, number: int) -> str:
        """A live socket, by its number from 1: what the proxy knows, a link to the socket of a slot that serves."""
        return os.path.join(self.runtime, "live.sock" if number == 1 else f"live-{number}.sock")

    @property
    def live_socket(self) -> str:
        return self.door(1)

    @property
    def logs(self) -> str:
        return os.path.join("/var/log", self.app)

    @property
    def audit_log(self) -> str:
        return os.path.join(self.logs, "deployment.log")

    @property
    def safety_net_timer(self) -> str:
        return f"{self.app}-safety-net.timer"

    @property
    def dotenv(self) -> str:
        return os.path.join(self.shared, ".env")

    @property
    def environments(self) -> str:
        """The versions of ``shared/.env`` that releases run with."""
        return os.path.join(self.private, "environments")

    @property
    def current_environment(self) -> str:
        return os.path.join(self.private, "current.env")

    def environment(self, name: str) -> str:
        return os.path.join(self.environments, name)

    def slot_environment(self, slot: str) -> str:
        return os.path.join(self.slots, f"{slot}.env")

    def release(self, release: str) -> str:
        return os.path.join(self.releases, release)

    def slot(self, slot: str) -> str:
        return os.path.join(self.slots, slot)

    def socket(self, slot: str) -> str:
        return os.path.join(self.runtime, f"{slot}.sock")

    def service_unit(self, slot: str) -> str:
        return f"{self.app}@{slot}.service"

    def socket_unit(self, slot: str) -> str:
        return f"{self.app}@{slot}.socket"


# What the deploy adds to a release, in one reserved directory of its tree.
RESERVED = ".release"


def reserved(release_directory: str, name: str) -> str:
    """A file of ours inside a release: ``manifest.json``, ``gunicorn.conf.py``, ``environment``, ``venv``."""
    return os.path.join(release_directory, RESERVED, name)
