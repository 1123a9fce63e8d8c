# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Modules of the checkout on a host, started there without Ansible's own second: for tests that run one many times."""

from __future__ import annotations

import io
import json
import tarfile
import typing as t
from pathlib import Path

import ansible.module_utils

from lab.deployment import REPOSITORY
from lab.hosts import Host
from lab.modules import Module, Result

PLACE = "/srv/direct"
COLLECTION = "ansible_collections/bulletproof/deploy/plugins"


class Direct(Module):
    """The same as ``Module``: a module is a program that reads its options as JSON and prints its result."""

    def __init__(self, host: Host) -> None:
        self.host = host
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:

            def without_cache(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
                return None if "__pycache__" in entry.name else entry

            tar.add(ansible.module_utils.__path__[0], "ansible/module_utils", filter=without_cache)
            for part in ("module_utils", "modules"):
                tar.add(REPOSITORY / "plugins" / part, f"{COLLECTION}/{part}", filter=without_cache)
        archive.seek(0)
        host.run(
            ["sh", "-c", f"rm -rf {PLACE} && mkdir -p {PLACE} && tar -x -C {PLACE} && touch {PLACE}/ansible/__init__.py"],
            stdin=archive.getvalue(),
        )

    def __call__(self, name: str, *flags: str, environment: t.Mapping[str, str] | None = None, **options: object) -> Result:
        asked = {"_ansible_check_mode": "--check" in flags, "_ansible_diff": "--diff" in flags, "_ansible_remote_tmp": "/tmp"}
        given = [f"{key}={value}" for key, value in {"PYTHONPATH": PLACE, **(environment or {})}.items()]
        module = f"{COLLECTION}/modules/{name}".replace("/", ".")
        done = self.host.run(
            ["env", *given, "python3", "-m", module], stdin=json.dumps({"ANSIBLE_MODULE_ARGS": {**options, **asked}}), check=False
        )
        lines = done.stdout.strip().splitlines()
        assert lines, f"{name} ended with {done.returncode}:\n{done.stderr}"
        result = t.cast(Result, json.loads(lines[-1]))
        result["said"] = done.stdout + done.stderr
        return result

    def killed(self, **request: object) -> Result:
        """Rounds of a migration that is killed; see ``killed_migrations``."""
        program = f"{PLACE}/killed_migrations.py"
        self.host.write(program, Path(__file__).with_name("killed_migrations.py").read_text())
        done = self.host.run(["env", f"PYTHONPATH={PLACE}", "python3", program], stdin=json.dumps(request), timeout=3600)
        return t.cast(Result, json.loads(done.stdout))
