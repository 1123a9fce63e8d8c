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
from ansible_collections.bulletproof.deploy.plugins.modules import artefact as documented
from unit.artefact.sources import GitServer, commit_all, git

COLLECTIONS = str(Path(__file__).parents[3] / ".cache" / "collections")


def play(directory: Path, tasks: t.Sequence[t.Mapping[str, object]], *options: str) -> t.Tuple[str, t.List[t.Dict[str, t.Any]]]:
    """Run tasks on a host that nobody can reach; returns what was printed, and their results."""
    built = [
        {"bulletproof.deploy.artefact": dict(arguments), "register": f"built{number}", "ignore_errors": True}
        for number, arguments in enumerate(tasks)
    ]
    results = ", ".join(f"built{number}" for number in range(len(tasks)))
    kept = {"content": f"{{{{ [{results}] | to_json }}}}", "dest": str(directory / "results.json")}
    keep = {"ansible.builtin.copy": kept, "delegate_to": "localhost", "check_mode": False, "diff": False}
    (directory / "play.yml").write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": [*built, keep]}]))
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "unreachable.invalid,", "-vvvv", "--diff", *options, "play.yml"],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": COLLECTIONS, "XDG_CACHE_HOME": str(directory / "xdg")},
    )
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed
    return printed, json.loads((directory / "results.json").read_text())


def test_a_deployable_answer_without_its_secrets(git_server: GitServer, app: Path, tmp_path: Path) -> None:
    commit = commit_all(app)
    git(app, "tag", "1.4.2")
    git(app, "clone", "--quiet", "--bare", str(app), str(git_server.root / "shop.git"))
    source = git_server.url("shop.git", f"deploy:{quote(git_server.password, safe='')}@")
    (tmp_path / "vars.json").write_text(json.dumps({"where": source, "environment": {"KEY": "1nput-canary"}}))
    arguments = {"source": "{{ where }}", "version": "1.4.2", "exclude": ["run"], "inputs": {"environment": "{{ environment }}"}}
    printed, (result,) = play(tmp_path, [arguments], "--extra-vars", "@vars.json", "--check")
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


def test_failures_are_for_a_person(tmp_path: Path, app: Path) -> None:
    printed, (pattern, option, number, literal) = play(
        tmp_path,
        [
            {"source": str(app), "version": "1", "exclude": ["liib/"]},
            {"source": str(app), "version": "1", "exlude": []},
            {"source": str(app), "version": 1.10},
            {"source": "http://user:c4nary@127.0.0.1:1/x.git", "version": "1"},
        ],
    )
    assert all(result["failed"] for result in (pattern, option, number, literal))
    assert "The exclude pattern 'liib/' matches nothing" in pattern["msg"]
    assert "What to do: Correct the pattern" in pattern["msg"]
    assert "exlude" in option["msg"]
    assert "version is the number 1.1, not text." in number["msg"]
    assert "could not be read from 127.0.0.1" in literal["msg"]
    assert "c4nary" not in json.dumps(literal)
    assert "Traceback" not in printed
