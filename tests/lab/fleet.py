# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fleet: app hosts, a load balancer host and a database host on a network of their own.

On the command line ``PYTHONPATH=tests python3 -m lab fleet up --hosts 8``, then ``fleet down``; in a program ``lab.fleet.up(8)``.
Each app host has a small disk of its own at ``/opt``, which can be filled and outlives a reboot.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lab import engine
from lab.hosts import Host, down, known, up
from lab.postgresql import Server
from lab.shell import LabError, docker, run

NETWORK = "bulletproof-fleet"
DISK_MB = 1024
MOST_HOSTS = 64
ALL_ADDRESSES = "listen_addresses = '*'\n"
BY_PASSWORD = "host all all samenet scram-sha-256\n"


@dataclass(frozen=True)
class Fleet:
    """:param apps: The app hosts, in order."""

    apps: list[Host]
    balancer: Host | None
    database: Host

    @property
    def hosts(self) -> list[Host]:
        return [*self.apps, *([self.balancer] if self.balancer else []), self.database]

    @property
    def server(self) -> Server:
        """The PostgreSQL server on the database host."""
        return Server(self.database)

    def new_database(self, name: str) -> str:
        """A fresh database, and the URL by which the app hosts reach it."""
        return self.server.create(name).replace("@127.0.0.1:", f"@{self.database.address}:")


def app_names(count: int, prefix: str = "fleet") -> list[str]:
    if not 1 <= count <= MOST_HOSTS:
        raise LabError(f"A fleet of {count} hosts.", f"choose from 1 to {MOST_HOSTS}.")
    return [f"{prefix}-{number}" for number in range(1, count + 1)]


def up_fleet(count: int = 8, *, balancer: bool = True, prefix: str = "fleet", fresh: bool = False) -> Fleet:
    """A fleet of this many app hosts, up and reachable, with the database server listening.

    :param prefix: How the hosts' names begin: two fleets live side by side, on one network.
    """
    names = app_names(count, prefix)
    engine.ensure()
    if fresh:
        # A disk outlives the host that has it.
        down_fleet(prefix)
    disks = {name: disk(name) for name in names}
    # A disk in memory lives as long as a host that is up has it: the database host, which no fault reboots, keeps those of the others.
    kept = [argument for name, volume in disks.items() for argument in ("--volume", f"{volume}:/var/lib/disks/{name}")]
    (database,) = up([f"{prefix}-db"], options=kept, network=NETWORK)
    listen(database)
    others = up([f"{prefix}-lb"], network=NETWORK) if balancer else []
    # Each host has another disk, and so is made with options of its own.
    apps = [up([name], options=["--volume", f"{disks[name]}:/opt"], network=NETWORK)[0] for name in names]
    return Fleet(apps, others[0] if others else None, database)


def down_fleet(prefix: str = "fleet") -> None:
    """Remove the hosts of a fleet, their disks, and the network when nobody else is on it."""
    members = [host.name for host in known() if re.fullmatch(rf"{re.escape(prefix)}-(\d+|lb|db)", host.name)]
    down(members)
    if not engine.answers():
        return
    volumes = docker("volume", "ls", "--quiet", "--filter", f"name=^bulletproof-{prefix}-[0-9]+-disk$").split()
    if volumes:
        run(["docker", "volume", "rm", *volumes], check=False)
    run(["docker", "network", "rm", NETWORK], check=False)


def disk(name: str) -> str:
    """The volume that is a host's disk: in memory, of a size that can be filled."""
    volume = f"bulletproof-{name}-disk"
    docker("volume", "create", "--driver", "local", "--opt", "type=tmpfs", "--opt", "device=tmpfs",
           "--opt", f"o=size={DISK_MB}m,mode=755", volume)  # fmt: skip
    return volume


def listen(database: Host) -> None:
    """Have PostgreSQL accept the fleet's connections, over its network and with a password; again after a reboot."""
    (home,) = database.run(["sh", "-c", "echo /etc/postgresql/*/main"]).stdout.split()
    database.write(f"{home}/conf.d/fleet.conf", ALL_ADDRESSES)
    if BY_PASSWORD not in database.read(f"{home}/pg_hba.conf"):
        database.run(["tee", "-a", f"{home}/pg_hba.conf"], stdin=BY_PASSWORD)
        database.run(["systemctl", "restart", "postgresql"])
    database.run(["systemctl", "enable", "--quiet", "postgresql"])
    Server(database).start()
