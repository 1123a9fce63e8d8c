# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Connections that are opened while the controller has other things to do."""

from __future__ import annotations

import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest
from ansible import constants
from ansible_collections.bulletproof.deploy.plugins.plugin_utils import _early


class Connection:
    """Takes as long as a connection does, and leaves a mark when it is open."""

    def __init__(self, mark: Path, transport: str = "ssh", ssh_args: str = "-o ControlPersist=60s", fails: bool = False) -> None:
        self.mark, self.transport, self.ssh_args, self.fails = mark, transport, ssh_args, fails
        self.takes, self.reset_at = 0.3, t.cast("list[float]", [])

    def get_option(self, name: str) -> str:
        assert name == "ssh_args"
        return self.ssh_args

    def reset(self) -> None:
        self.reset_at.append(time.monotonic())

    def exec_command(self, command: str, sudoable: bool) -> None:
        time.sleep(self.takes)
        if self.fails:
            raise RuntimeError("unreachable")
        self.mark.write_text(command)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path))


def test_nobody_waits_for_it_but_who_needs_it(tmp_path: Path) -> None:
    """Fails when the first phase does not wait: it would open a connection of its own beside the one that is on its way."""
    mark = tmp_path / "open"
    connection = Connection(mark)
    _early.connect(connection, "web/1")
    assert not mark.exists()
    _early.wait(connection, "web/1")
    assert not connection.reset_at
    assert mark.read_text() == "true"


def test_who_reads_the_output_of_the_run_does_not_wait_for_it(tmp_path: Path) -> None:
    """Fails when the child keeps the standard output: a pipe ends with the last who can write to it."""
    script = f"""
import sys, time
sys.path[:] = {sys.path!r}
from ansible import constants
from ansible_collections.bulletproof.deploy.plugins.plugin_utils import _early
constants.DEFAULT_LOCAL_TMP = {str(tmp_path)!r}
class Slow:
    transport = "ssh"
    def get_option(self, name):
        return "-o ControlPersist=60s"
    def exec_command(self, command, sudoable):
        time.sleep(20)
_early.connect(Slow(), "web1")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=15)
    assert (done.returncode, done.stderr) == (0, "")


def test_one_that_fails_is_waited_for_no_longer(tmp_path: Path) -> None:
    connection = Connection(tmp_path / "open", fails=True)
    _early.connect(connection, "web1")
    _early.wait(connection, "web1")
    assert not (tmp_path / "open").exists()


def test_one_on_its_way_is_not_opened_twice(tmp_path: Path) -> None:
    connection = Connection(tmp_path / "first")
    _early.connect(connection, "web1")
    _early.connect(Connection(tmp_path / "second"), "web1")
    _early.wait(connection, "web1")
    assert (tmp_path / "first").exists() and not (tmp_path / "second").exists()


@pytest.mark.parametrize("other", [{"transport": "local"}, {"ssh_args": "-C"}])
def test_a_connection_that_would_not_be_kept_is_not_opened(tmp_path: Path, other: dict[str, str]) -> None:
    connection = Connection(tmp_path / "open", **other)
    _early.connect(connection, "web1")
    _early.wait(connection, "web1")
    time.sleep(0.4)
    assert not (tmp_path / "open").exists()


def test_who_began_none_waits_for_none(tmp_path: Path) -> None:
    _early.wait(Connection(tmp_path / "open"), "web1")
    assert list(tmp_path.iterdir()) == []


def test_one_that_does_not_answer_is_taken_by_nobody_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when each phase gives up anew: the second one's connection is the run's own."""
    monkeypatch.setattr(_early, "PATIENCE", 0.2)
    connection = Connection(tmp_path / "open")
    connection.takes = 3
    _early.connect(connection, "web1")
    _early.wait(connection, "web1")
    assert len(connection.reset_at) == 1
    began = time.monotonic()
    _early.wait(connection, "web1")
    assert len(connection.reset_at) == 1 and time.monotonic() - began < 0.2
