# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who is compared: this collection, a plain shell script over SSH, pyinfra, Capistrano.

Each is a few command lines: deploy a version, go back. All deploy the same application to the same hosts, each under a name and a port of its own.
The peers fetch the code from a Git repository on the host itself, which favours them: no network is in their way.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from e2e.apps import forget

from lab import access
from lab.deployment import BIN, REPOSITORY, SHOP, Project
from lab.hosts import Host

PEERS = Path(__file__).resolve().parent / "peers"
PLACE = REPOSITORY / ".cache" / "bench"
SSH_CONFIG = PLACE / "ssh_config"
KNOWN_HOSTS = PLACE / "known_hosts"
ON_HOST = "/srv/git/shop.git"
BACK = "back"

REMOVE_PEER = 'systemctl stop "$1"; find "/srv/$1" -mindepth 1 -delete'


class CannotMeasure(Exception):
    """Something that is to be measured did not work."""


@dataclass(frozen=True)
class Command:
    """What a person types, where, and with which variables."""

    argv: list[str]
    cwd: Path = PLACE
    variables: dict[str, str] = field(default_factory=dict)

    def run(self, **more: str) -> str:
        """Run it to its end; what it said."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        done = subprocess.run(
            self.argv,
            cwd=self.cwd,
            env={**inherited, **self.variables, **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if done.returncode:
            raise CannotMeasure(f"{' '.join(self.argv)} ended with status {done.returncode}:\n{done.stdout[-4000:]}")
        return done.stdout


class Contender:
    """Somebody who can deploy."""

    name: str
    app: str
    port: int

    def provision(self, hosts: Sequence[Host]) -> None:
        """Make hosts ready, which is not timed."""
        raise NotImplementedError

    def remove(self, hosts: Sequence[Host]) -> None:
        """Take the app off, and leave the hosts provisioned and their caches filled."""
        raise NotImplementedError

    def deploy(self, hosts: Sequence[Host], version: str) -> Command:
        raise NotImplementedError

    def roll_back(self, hosts: Sequence[Host]) -> Command:
        raise NotImplementedError

    def url(self, host: Host) -> str:
        return f"http://{host.address}:{self.port}/"


class Ours(Contender):
    name, app, port = "bulletproof.deploy", "shop", 8100

    def __init__(self, repository: Path) -> None:
        self.declaration = {
            **SHOP,
            "app_name": self.app,
            "app_source": {"git": str(repository)},
            "app_server_names": ["_"],
            "app_listen": self.port,
            "app_watch": 0,
            # As the peers have it. Slow requests must not hold all workers, or gaps tell of them and not of the deploy.
            "app_threads": 4,
        }

    def project(self, hosts: Sequence[Host]) -> Project:
        return Project(PLACE / f"project-{len(hosts)}", hosts, self.declaration)

    def provision(self, hosts: Sequence[Host]) -> None:
        self.project(hosts).must("provision")

    def remove(self, hosts: Sequence[Host]) -> None:
        for host in hosts:
            forget(host, self.app)
        self.provision(hosts)

    def deploy(self, hosts: Sequence[Host], version: str) -> Command:
        return self._play(hosts, "deploy", "-e", f"app_version={version}")

    def roll_back(self, hosts: Sequence[Host]) -> Command:
        return self._play(hosts, "rollback")

    def module(self, host: Host, name: str, **options: str) -> Command:
        """One module by itself."""
        arguments = " ".join(f"{option}={value}" for option, value in {"app": self.app, "root": f"/opt/{self.app}", **options}.items())
        argv = [str(BIN / "ansible"), "-i", "hosts.yml", host.name, "-m", f"bulletproof.deploy.{name}", "-a", arguments]
        return Command(argv, self.project([host]).directory)

    def _play(self, hosts: Sequence[Host], *arguments: str) -> Command:
        project = self.project(hosts)
        return Command(project.command(*arguments), project.directory, {"PATH": f"{BIN}:{os.environ['PATH']}"})


class Peer(Contender):
    """One of the others: on the host, they find the same, and leave the same."""

    def provision(self, hosts: Sequence[Host]) -> None:
        for host in hosts:
            host.run(["sh", "-s", self.app, str(self.port)], stdin=(PEERS / "provision.sh").read_text(), timeout=300)

    def remove(self, hosts: Sequence[Host]) -> None:
        for host in hosts:
            host.run(["sh", "-c", REMOVE_PEER, "sh", self.app])

    def roll_back(self, hosts: Sequence[Host]) -> Command:
        return self.deploy(hosts, BACK)


class Shell(Peer):
    name, app, port = "shell script", "by-shell", 8101

    def deploy(self, hosts: Sequence[Host], version: str) -> Command:
        names = [host.name for host in hosts]
        return Command(["sh", str(PEERS / "deploy.sh"), str(SSH_CONFIG), self.app, str(self.port), ON_HOST, version, *names])


class Pyinfra(Peer):
    name, app, port = "pyinfra", "by-pyinfra", 8102
    environment = PLACE / "pyinfra"

    def __init__(self) -> None:
        if not (self.environment / "bin" / "pyinfra").exists():
            subprocess.run(["python3", "-m", "venv", "--clear", str(self.environment)], check=True)
            subprocess.run([str(self.environment / "bin" / "pip"), "install", "--quiet", "pyinfra==3.10.0"], check=True)

    def deploy(self, hosts: Sequence[Host], version: str) -> Command:
        data = {
            "ssh_config_file": SSH_CONFIG,
            "ssh_known_hosts_file": KNOWN_HOSTS,
            "app": self.app,
            "port": self.port,
            "repository": ON_HOST,
            "version": version,
        }
        given = [argument for key, value in data.items() for argument in ("--data", f"{key}={value}")]
        inventory = PLACE / f"inventory-{len(hosts)}.py"
        inventory.write_text(f"app = {[host.name for host in hosts]}\n")
        return Command([str(self.environment / "bin" / "pyinfra"), "-y", str(inventory), str(PEERS / "pyinfra_deploy.py"), *given])


class Capistrano(Peer):
    name, app, port = "Capistrano", "by-capistrano", 8103

    def __init__(self) -> None:
        packages = ["capistrano", "ruby-ed25519", "ruby-bcrypt-pbkdf"]
        if not shutil.which("cap"):
            if os.geteuid() != 0:
                raise CannotMeasure(f"Capistrano is missing. As root: apt-get install {' '.join(packages)}")
            subprocess.run(["apt-get", "install", "-q", "-y", "--no-install-recommends", *packages], stdout=subprocess.DEVNULL, check=True)
        # It writes a log beside its configuration.
        shutil.copytree(PEERS / "capistrano", PLACE / "capistrano", dirs_exist_ok=True)

    def deploy(self, hosts: Sequence[Host], version: str) -> Command:
        return self._cap(hosts, "deploy", VERSION=version)

    def roll_back(self, hosts: Sequence[Host]) -> Command:
        return self._cap(hosts, "deploy:rollback")

    def _cap(self, hosts: Sequence[Host], task: str, **variables: str) -> Command:
        given = {
            "TARGETS": " ".join(host.name for host in hosts),
            "SSH_CONFIG": str(SSH_CONFIG),
            "APP": self.app,
            "PORT": str(self.port),
            "REPOSITORY": ON_HOST,
        }
        return Command(["cap", "production", task], PLACE / "capistrano", {**given, **variables})


def write_ssh_config(hosts: Sequence[Host]) -> None:
    """How the peers reach the hosts: by name, with the lab's key."""
    # The lab's own file vouches for any host, which net-ssh does not understand.
    public = access.key("host").with_suffix(".pub").read_text()
    KNOWN_HOSTS.write_text("".join(f"{name} {public}" for host in hosts for name in (host.name, host.address)))
    shared = {"User": access.USER, "IdentityFile": access.key("client"), "UserKnownHostsFile": KNOWN_HOSTS}
    shared.update({"IdentitiesOnly": "yes", "StrictHostKeyChecking": "yes", "LogLevel": "ERROR"})
    blocks = [f"Host {host.name}\n    HostName {host.address}\n" for host in hosts]
    common = "".join(f"    {key} {value}\n" for key, value in shared.items())
    SSH_CONFIG.write_text("".join(block + common for block in blocks))


def contenders(repository: Path) -> list[Contender]:
    return [Ours(repository), Shell(), Pyinfra(), Capistrano()]
