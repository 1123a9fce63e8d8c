# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab on the command line: ``PYTHONPATH=tests python3 -m lab --help``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from lab import image
from lab.fleet import down_fleet, up_fleet
from lab.hosts import Host, down, known, up
from lab.inventory import inventory
from lab.shell import LabError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the answer is on standard output, everything else on standard error."""
    options = parser().parse_args(arguments)
    try:
        return int(COMMANDS[options.command](options) or 0)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    """What can be typed."""
    top = argparse.ArgumentParser(prog="lab", description="Real systemd hosts in Docker, reached over SSH.")
    commands = top.add_subparsers(dest="command", required=True)

    def command(name: str, help: str, names: str | None = "+") -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        if names:
            sub.add_argument("names", nargs=names, metavar="NAME", help="short name of a host")
        return sub

    sub = command("up", "start hosts; one that is up already stays as it is")
    sub.add_argument("--release", choices=image.RELEASES, default="bookworm", help="Debian release (default: %(default)s)")
    sub.add_argument("--small-disk", type=int, metavar="MB", help="make /opt a file system of this size, emptied by a reboot")
    sub.add_argument("--fresh", action="store_true", help="make the hosts anew")
    sub = command("down", "remove hosts and all that is on them", "*")
    sub.add_argument("--all", action="store_true", help="every host of the lab")
    sub = command("inventory", "print the Ansible inventory of hosts", "*")
    sub.add_argument("--output", metavar="FILE", help="write it to a file instead")
    sub = command("ssh", "log in to a host as the user deploy", None)
    sub.add_argument("name", metavar="NAME")
    sub.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    command("restart", "reboot hosts")
    command("status", "list the hosts", None)
    sub = command("fleet", "app hosts, a load balancer and a database on a network of their own", None)
    sub.add_argument("direction", choices=("up", "down"), help="start it, or remove it with all that is on it")
    sub.add_argument("--hosts", type=int, default=8, metavar="N", help="app hosts (default: %(default)s)")
    sub.add_argument("--fresh", action="store_true", help="make the hosts anew")
    return top


def do_up(options: argparse.Namespace) -> None:
    up(options.names, options.release, small_disk=options.small_disk, fresh=options.fresh)


def do_down(options: argparse.Namespace) -> None:
    down([host.name for host in known()] if options.all else options.names)


def do_inventory(options: argparse.Namespace) -> None:
    hosts = [Host(name) for name in options.names] or known()
    text = inventory(hosts, options.output)
    if not options.output:
        print(text, end="")


def do_ssh(options: argparse.Namespace) -> None:
    argv = Host(options.name).ssh(*options.words)
    os.execvp(argv[0], argv)


def do_restart(options: argparse.Namespace) -> None:
    for name in options.names:
        Host(name).reboot()


def do_status(options: argparse.Namespace) -> None:
    for host in known():
        print(f"{host.name:20} {host.state:10} {host.address}")


def do_fleet(options: argparse.Namespace) -> None:
    if options.direction == "up":
        up_fleet(options.hosts, fresh=options.fresh)
    else:
        down_fleet()


COMMANDS = {
    "up": do_up,
    "down": do_down,
    "inventory": do_inventory,
    "ssh": do_ssh,
    "restart": do_restart,
    "status": do_status,
    "fleet": do_fleet,
}

if __name__ == "__main__":
    sys.exit(main())
