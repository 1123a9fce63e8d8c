# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the lab logs in to its hosts: its keys, and the SSH options that go with them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from lab import engine
from lab.shell import CACHE, LabError, lock, run

USER = "deploy"


def key(owner: str) -> Path:
    """The private key of the `client` or of the `host`, made on first use; the public one lies beside it.

    All hosts share one key, so that a host made anew at an old address is no stranger.
    """
    path = CACHE / f"{owner}_ed25519"
    with lock("keys"):
        if not path.exists():
            engine.install("ssh-keygen", "openssh-client")
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"bulletproof-lab {owner}", "-f", str(path)])
    path.chmod(0o600)
    return path


def known_hosts() -> Path:
    """The file that vouches for the one key that all lab hosts have."""
    path = CACHE / "known_hosts"
    content = f"* {key('host').with_suffix('.pub').read_text()}"
    if not path.exists() or path.read_text() != content:
        fresh = path.with_suffix(f".{os.getpid()}")
        fresh.write_text(content)
        fresh.replace(path)
    return path


def control_path(name: str) -> Path:
    """The socket of the shared connection to a host; in the temporary directory because such a path must be short."""
    directory = Path(tempfile.gettempdir()) / f"bulletproof-lab-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.stat().st_uid != os.getuid():
        raise LabError(f"{directory} belongs to somebody else.", "remove it, or set TMPDIR to another directory.")
    return directory / f"{name}.ssh"


def ssh_options(name: str) -> dict[str, str]:
    """The options for every connection to a host, by hand or by Ansible."""
    return {
        "UserKnownHostsFile": str(known_hosts()),
        "StrictHostKeyChecking": "yes",
        "IdentitiesOnly": "yes",
        "LogLevel": "ERROR",
        "ControlMaster": "auto",
        "ControlPersist": "60s",
        "ControlPath": str(control_path(name)),
    }


def forget_connection(name: str) -> None:
    """Close the shared connection to a host, if there is one."""
    path = control_path(name)
    if path.exists():
        run(["ssh", "-o", f"ControlPath={path}", "-O", "exit", name], check=False, timeout=10)
        path.unlink(missing_ok=True)
