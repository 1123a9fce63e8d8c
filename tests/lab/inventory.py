# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Ansible inventory of lab hosts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from lab import access
from lab.hosts import Host


def inventory(hosts: Iterable[Host], path: str | Path | None = None, vars: Mapping[str, object] | None = None) -> str:
    """An inventory of these hosts as YAML, written to ``path`` if one is given.

    :param vars: Variables for all of them, such as an app's declaration.
    """
    tree = {"all": {"hosts": {host.name: connection(host) for host in hosts}, "vars": {**COMMON, **(vars or {})}}}
    text = "---\n" + "".join(f"{line}\n" for line in lines(tree))
    if path is not None:
        Path(path).write_text(text)
    return text


COMMON: Mapping[str, object] = {
    "ansible_user": access.USER,
    "ansible_become": True,
    "ansible_pipelining": True,
    "ansible_python_interpreter": "/usr/bin/python3",
}


def connection(host: Host) -> dict[str, object]:
    """How Ansible reaches one host."""
    options = access.ssh_options(host.name)
    control_path = options.pop("ControlPath")
    return {
        "ansible_host": host.address,
        "ansible_ssh_private_key_file": str(access.key("client")),
        "ansible_control_path": control_path,
        "ansible_ssh_args": " ".join(f"-o {key}={value}" for key, value in options.items()),
    }


def lines(tree: Mapping[str, object], indent: int = 0) -> Iterator[str]:
    """A mapping as YAML: nested mappings as blocks, everything else as JSON, which YAML includes."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield f"{' ' * indent}{key}:"
            yield from lines(value, indent + 2)
        else:
            yield f"{' ' * indent}{key}: {json.dumps(value, ensure_ascii=False)}"
