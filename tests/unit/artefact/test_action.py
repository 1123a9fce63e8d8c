# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action plugin as a playbook runs it: no connection, no secret in the most talkative output, check mode."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import typing as t
from pathlib import Path
from urllib.parse import quote

import yaml
from ansible_collections.bulletproof.deploy.plugins.action.artefact import ARGUMENT_SPEC
from ansible_collections.bulletproof.deploy.plugins.modules import artefact as documented
from unit.artefact.sources import GitServer, commit_all, git

COLLECTIONS = str(Path(__file__).parents[3] / ".cache" / "collections")


def play(directory: Path, arguments: t.Mapping[str, object], *options: str) -> t.Tuple[int, str, t.Dict[str, t.Any]]:
    """Run one task on a host that nobody can reach; returns the status, what was printed, and the result."""
    playbook = [
        {
            "hosts": "all",
            "gather_facts": False,
            "tasks": [
                {"name": "Build", "bulletproof.deploy.artefact": dict(arguments), "register": "built", "ignore_errors": True},
                {"name": "Keep", "ansible.builtin.copy": {"content": "{{ built | to_json }}", "dest": str(directory / "result.json")},
                 "delegate_to": "localhost", "check_mode": False},
                {"name": "End", "ansible.builtin.fail": {"msg": "it failed"}, "when": "built is failed"},
            ],
        }
    ]
    (directory / "play.yml").write_text(yaml.safe_dump(playbook, sort_keys=False))
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "unreachable.invalid,", "-vvvv", "--diff", *options, "play.yml"],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": COLLECTIONS, "XDG_CACHE_HOME": str(directory / "xdg")},
    )
    return done.returncode, done.stdout + done.stderr, json.loads((directory / "result.json").read_text())


def test_a_deployable_answer_without_its_secrets(git_server: GitServer, app: Path, tmp_path: Path) -> None:
    commit = commit_all(app)
    git(app, "tag", "1.4.2")
    git(app, "clone", "--quiet", "--bare", str(app), str(git_server.root / "shop.git"))
    source = git_server.url("shop.git", f"deploy:{quote(git_server.password, safe='')}@")
    variables = json.dumps({"where": source, "environment": {"KEY": "1nput-canary"}})
    arguments = {"source": "{{ where }}", "version": "1.4.2", "exclude": ["run"], "inputs": {"environment": "{{ environment }}"}}
    (tmp_path / "vars.json").write_text(variables)
    status, printed, result = play(tmp_path, arguments, "--extra-vars", "@vars.json", "--check")
    assert status == 0, printed
    assert result["changed"] is False
    assert result["commit"] == commit
    assert result["release"].startswith("1.4.2-")
    assert result["files"] == 4
    assert result["size"] == os.path.getsize(result["path"])
    assert result["path"] == str(tmp_path / "xdg" / "bulletproof-deploy" / "artefacts" / f"{result['digest']}.tar.gz")
    assert result["requirements"] == {"kind": "none"}
    assert set(result) - {"changed", "failed"} == set(yaml.safe_load(documented.RETURN))
    for secret in (git_server.password, quote(git_server.password, safe=""), "1nput-canary"):
        assert secret not in printed
        assert secret not in json.dumps(result)


def test_a_failure_is_one_for_a_person(tmp_path: Path, app: Path) -> None:
    status, printed, result = play(tmp_path, {"source": str(app), "version": "1", "exclude": ["liib/"]})
    assert status == 2
    assert "The exclude pattern 'liib/' matches nothing" in result["msg"]
    assert "What to do: Correct the pattern" in result["msg"]
    assert "Traceback" not in printed


def test_wrong_options(tmp_path: Path, app: Path) -> None:
    status, printed, result = play(tmp_path, {"source": str(app), "version": "1", "exlude": []})
    assert status == 2
    assert "exlude" in result["msg"]
    assert "Traceback" not in printed


def test_documentation_says_what_the_plugin_takes() -> None:
    told = {
        name: {key: option[key] for key in ("type", "required", "elements", "default") if key in option}
        for name, option in yaml.safe_load(documented.DOCUMENTATION)["options"].items()
    }
    assert told == ARGUMENT_SPEC
