# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is installed works alone: without the checkout, from any directory."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from e2e.conftest import NewApp

from lab.deployment import BIN, REPOSITORY
from lab.hosts import Host

ROLES = ("app", "permissions", "proxy", "systemd_gunicorn", "tools")


def test_the_installed_collection_documents_itself(new_shop: NewApp, host: Host, collection: Path) -> None:
    project = new_shop("undeployed", [host]).project

    def ask(*arguments: str) -> dict[str, object]:
        said = subprocess.run(
            [str(BIN / "ansible-doc"), "--json", *arguments],
            cwd=project.directory,
            env=project.environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        answer: dict[str, object] = json.loads(said.stdout)
        return answer

    roles = ask("--type", "role", *(f"bulletproof.deploy.{role}" for role in ROLES))
    assert sorted(roles) == sorted(f"bulletproof.deploy.{role}" for role in ROLES)
    assert REPOSITORY / "roles" not in [Path(str(role["path"])).parent for role in roles.values() if isinstance(role, dict)]
    modules = [f"bulletproof.deploy.{path.stem}" for path in (collection / "plugins" / "modules").glob("*.py")]
    assert sorted(ask("--type", "module", *modules)) == sorted(modules)


def test_the_status_of_what_was_never_deployed(new_shop: NewApp, host: Host) -> None:
    told = new_shop("never", [host]).status()
    assert "never has never been deployed to this host." in told
    assert str(REPOSITORY / "plugins") not in told
