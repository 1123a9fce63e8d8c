# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Modules of the checkout, run on a lab host as Ansible runs them."""

from __future__ import annotations

import json
import os
import subprocess
import typing as t
from pathlib import Path

from lab.deployment import BIN, REPOSITORY
from lab.hosts import Host
from lab.inventory import inventory

Result = dict[str, t.Any]


class Module:
    """Runs modules on one host."""

    def __init__(self, host: Host, directory: Path) -> None:
        self.host = host
        self.directory = directory
        inventory([host], directory / "hosts.yml")
        (directory / "ansible.cfg").write_text(
            f"[defaults]\ncollections_path = {REPOSITORY / '.cache' / 'collections'}\ncallback_result_format = json\n[ssh_connection]\npipelining = true\n"
        )

    def __call__(self, name: str, /, *flags: str, environment: t.Mapping[str, str] | None = None, **options: object) -> Result:
        """What the module returns, failed or not.

        :param name: Of this collection, unless it has a dot.
        :param flags: For ansible, such as ``--check`` and ``--diff``.
        """
        qualified = name if "." in name else f"bulletproof.deploy.{name}"
        argv = [
            str(BIN / "ansible"),
            "-i",
            "hosts.yml",
            self.host.name,
            "-m",
            qualified,
            "-a",
            json.dumps(options),
            "--tree",
            "results",
            *flags,
        ]
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
        done = subprocess.run(
            argv,
            cwd=self.directory,
            env={**inherited, "ANSIBLE_NOCOLOR": "1", **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        written = self.directory / "results" / self.host.name
        assert written.exists(), f"{name} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        result = t.cast(Result, json.loads(written.read_text()))
        written.unlink()
        # What is written leaves it out.
        result["failed"] = done.returncode != 0
        # Whatever was said to the person, for tests that look for secrets.
        result["said"] = done.stdout + done.stderr
        return result

    def must(self, name: str, /, *flags: str, **options: t.Any) -> Result:
        result = self(name, *flags, **options)
        assert not result.get("failed"), result.get("msg") or result
        return result

    def refused(self, name: str, /, *said: str, **options: t.Any) -> Result:
        """Run what has to fail and say certain things."""
        result = self(name, **options)
        assert result.get("failed"), f"{name} did not fail: {result}"
        missing = [text for text in said if text not in result["msg"]]
        assert not missing, f"It did not say {missing}:\n{result['msg']}"
        return result

    def install_tools(self, *requirements: str) -> None:
        """The tools environment, as the role tools makes it."""
        built = self.must("virtualenv", kind="none", venvs="/opt/bulletproof/venvs", extra=list(requirements))
        self.host.run(["ln", "-sfn", built["path"], "/opt/bulletproof/tools"])
