# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs on a host: what it serves, by everything that could tell, as JSON. Standard library only."""

from __future__ import annotations

import json
import os
import subprocess
import sys


def content(path):
    try:
        with open(path) as stream:
            return json.load(stream)
    except (FileNotFoundError, ValueError):
        return None


def link(path):
    try:
        return os.readlink(path)
    except OSError:
        return None


def directory_of(pid):
    """From where a process runs; root without the right to trace others has to ask as its owner."""
    try:
        process = os.stat(f"/proc/{pid}")
    except OSError:
        return None
    asked = subprocess.run(
        ["readlink", f"/proc/{pid}/cwd"],
        stdout=subprocess.PIPE,
        text=True,
        user=process.st_uid,
        group=process.st_gid,
        extra_groups=[],
        check=False,
    )
    return asked.stdout.strip() or None


def unit(name):
    shown = subprocess.run(
        ["systemctl", "show", "--property=ActiveState,SubState,MainPID", name], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    found = dict(line.split("=", 1) for line in shown.splitlines())
    pid = int(found["MainPID"])
    return {"active": found["ActiveState"], "sub": found["SubState"], "pid": pid, "cwd": directory_of(pid) if pid else None}


def entries(path):
    return sorted(os.listdir(path)) if os.path.isdir(path) else []


def main(name, root):
    releases = entries(f"{root}/releases")
    slots = entries(f"{root}/slots")
    return {
        "state": content(f"{root}/.deploy/state.json"),
        "lock": content(f"{root}/.deploy/lock.json"),
        "live_socket": link(f"/run/{name}/live.sock"),
        "current": link(f"{root}/current"),
        "units": {slot: unit(f"{name}@{slot}.service") for slot in slots if not slot.endswith(".env")},
        "manifests": {
            one: (content(f"{root}/releases/{one}/.release/manifest.json") or {}).get("state")
            for one in releases
            if not one.startswith(".")
        },
        "leftovers": [one for one in [*releases, *entries(f"{root}/venvs")] if one.startswith((".building-", ".removing-"))],
    }


print(json.dumps(main(*sys.argv[1:])))
