# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The agent as one file: it needs nothing but Python."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils import _agent_package, _lock, _state
from ansible_collections.bulletproof.deploy.plugins.module_utils._layout import Layout

MINE = "ansible_collections/bulletproof/deploy/plugins/module_utils/"


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    path = tmp_path_factory.mktemp("agent") / "agent.pyz"
    _agent_package.install(str(path), _agent_package.build())
    return path


def run(agent, *arguments, options=("-W", "error")):
    """With an interpreter that sees neither this environment nor the checkout, and dies of any warning."""
    return subprocess.run(
        [sys._base_executable, "-I", "-S", *options, str(agent), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
        check=False,
    )


def test_the_same_code_makes_the_same_bytes(agent):
    assert _agent_package.build() == agent.read_bytes() == _agent_package.installed(str(agent))
    assert {entry.date_time for entry in zipfile.ZipFile(agent).infolist()} == {_agent_package.EPOCH}, "the time of the build is in it"


def test_nobody_else_can_change_what_root_runs(agent):
    assert agent.stat().st_mode & 0o777 == 0o700


def test_it_runs_by_itself(agent):
    done = run(agent)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "usage: agent.pyz APP ROOT expire|boot\n")


def test_it_has_all_that_it_imports_and_nothing_of_ansible(agent):
    """A check type or a helper that is imported late would be missing on the day of the revert."""
    names = [name for name in zipfile.ZipFile(agent).namelist() if name.endswith(".py")]
    modules = [name.removesuffix(".py").replace("/", ".") for name in names if name.startswith(MINE) and not name.endswith("__init__.py")]
    assert {"_agent", "_unfinished", "_transition", "_verify", "_lock"} <= {module.rpartition(".")[2] for module in modules}
    code = f"import sys; sys.path.insert(0, {str(agent)!r})\n" + "".join(f"import {module}\n" for module in modules)
    code += "print([name for name in sys.modules if name == 'ansible' or name.startswith('ansible.')])"
    done = subprocess.run([sys._base_executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "[]\n", done.stderr


def test_it_has_what_it_imports_only_when_it_needs_it(agent):
    """Fails when only what is imported at the top of a file is packed: going back asks with a check."""
    script = (
        f"import sys; sys.path.insert(0, sys.argv[1]); from {_agent_package.PACKAGE}._checks import registry; print(len(registry.every()))"
    )
    done = subprocess.run([sys._base_executable, "-I", "-S", "-c", script, str(agent)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "") and int(done.stdout) > 10


def test_on_a_host_that_serves_nothing_it_says_so_in_one_line(agent, tmp_path):
    done = run(agent, "shop", str(tmp_path / "nowhere"), "boot")
    assert done.returncode == 1 and "never provisioned" in done.stderr and "Traceback" not in done.stderr


def test_while_the_run_is_well_it_loads_no_more_than_it_takes_to_see_that(agent, tmp_path):
    """The timer starts it every few seconds, beside an app that is on trial. Fails when it imports at once what it takes to go back."""
    layout = Layout("shop", str(tmp_path))
    (tmp_path / ".deploy").mkdir()
    _lock.hold(layout, "run", "me", "deploy", 300)
    _state.save(layout, _state.State().arm("run", _state.Position("blue", "1-a"), 0.0))
    done = run(agent, "shop", str(tmp_path), "expire", options=("-X", "importtime"))
    loaded = {line.rpartition("|")[2].strip().rpartition(".")[2] for line in done.stderr.splitlines()}
    assert done.returncode == 0 and {"_agent", "_state", "_lock"} <= loaded
    assert not {"_unfinished", "_transition", "_audit", "_systemd", "subprocess", "tempfile"} & loaded
