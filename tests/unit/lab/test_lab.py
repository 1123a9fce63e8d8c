# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The parts of the lab that need no engine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lab import engine, hosts, image, shell
from lab.fleet import app_names
from lab.hosts import Host
from lab.inventory import lines
from lab.shell import LabError

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", ["", "Web1", "-web", "a b", "web_1", "x" * 40])
def test_a_name_that_cannot_be_a_host_name_is_refused(name: str) -> None:
    with pytest.raises(LabError, match="no name for a host"):
        Host(name)


@pytest.mark.parametrize("count", [0, -1, 65])
def test_a_fleet_of_no_hosts_or_of_too_many_is_refused(count: int) -> None:
    with pytest.raises(LabError, match=f"A fleet of {count} hosts(.|\n)*from 1 to 64"):
        app_names(count)


def test_an_inventory_is_yaml_whatever_the_values_are() -> None:
    tree = {
        "all": {
            "hosts": {"web1": {"ansible_host": "192.0.2.7"}},
            "vars": {"text": "yes: # no\n'\"", "é": "ü", "flag": True, "list": [1, "two", {"three": None}], "nothing": {}},
        }
    }
    assert yaml.safe_load("".join(f"{line}\n" for line in lines(tree))) == tree


def test_another_recipe_makes_another_image(monkeypatch: pytest.MonkeyPatch) -> None:
    before = image.digest()
    assert image.digest() == before
    monkeypatch.setattr(image, "PACKAGES", (*image.PACKAGES, "hello"))
    assert image.digest() != before


def test_an_unknown_release_is_named_with_those_there_are() -> None:
    with pytest.raises(LabError, match=r"'sarge'(.|\n)*bookworm"):
        image.ensure("sarge")


def test_process_ids_of_a_dead_engine_are_removed_and_those_of_a_live_one_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Path("/proc/self/comm").read_text().strip()
    files = {tmp_path / "gone": "dockerd", tmp_path / "reused": "dockerd", tmp_path / "live": mine}
    for file in files:
        file.write_text("4194999" if file.name == "gone" else str(os.getpid()))
    monkeypatch.setattr(engine, "PID_FILES", files)
    engine.forget_dead_engine()
    assert [file.name for file in files if file.exists()] == ["live"]


@pytest.mark.parametrize("allowed,after", [("128\n", "1024\n"), ("1024\n", "1024\n"), ("8192\n", "8192\n")])
def test_as_many_hosts_as_one_likes_may_run_where_the_lab_can_see_to_it(
    allowed: str, after: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engine, "INSTANCES", tmp_path / "max_user_instances")
    engine.INSTANCES.write_text(allowed)
    engine.allow(64)
    assert engine.INSTANCES.read_text() == after and not capsys.readouterr().err


def test_where_it_cannot_it_says_what_to_do_and_only_when_there_are_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_arguments: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(engine, "INSTANCES", tmp_path / "max_user_instances")
    engine.INSTANCES.write_text("128\n")
    monkeypatch.setattr(Path, "write_text", refuse)
    engine.allow(18)
    assert not capsys.readouterr().err
    engine.allow(19)
    assert "As root on it: sysctl fs.inotify.max_user_instances=1024" in capsys.readouterr().err


def test_a_host_that_has_booted_in_part_is_not_up_and_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails where a degraded host is up whatever it lacks, or where the next run would find it running."""
    told = []
    answers = {"is-system-running": "degraded\n", "is-active": "active\nactive\nfailed\n"}
    monkeypatch.setattr(hosts, "docker", lambda *arguments, **_options: told.append(arguments[0]) or "")
    monkeypatch.setattr(hosts.Host, "run", lambda _host, argv, **_options: subprocess.CompletedProcess(argv, 0, answers[argv[1]], ""))
    monkeypatch.setattr(hosts.Host, "_greets", lambda _host: True)
    monkeypatch.setattr(hosts.access, "forget_connection", lambda _name: None)
    monkeypatch.setattr(hosts.Host.wait_until_up, "__defaults__", (0.2,))
    with pytest.raises(LabError, match="is not up after"):
        Host("web1").start()
    assert told == ["start", "kill"]
    answers["is-active"] = "active\n" * len(hosts.ESSENTIAL)
    Host("web1").start()
    assert told == ["start", "kill", "start"]


def test_a_command_that_fails_tells_what_it_said() -> None:
    with pytest.raises(LabError, match=r"Exit status 3: sh -c(.|\n)*the reason"):
        shell.run(["sh", "-c", "echo the reason >&2; exit 3"])
    assert shell.run(["sh", "-c", "exit 3"], check=False).returncode == 3


def test_a_command_without_end_is_ended() -> None:
    with pytest.raises(LabError, match=r"No end after 0\.2 s"):
        shell.run(["sleep", "30"], timeout=0.2)


def test_without_an_engine_and_without_root_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shell, "CACHE", tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    with pytest.raises(LabError, match=r"No Docker engine answers(.|\n)*What to do: start Docker"):
        engine.ensure()


def test_every_command_explains_itself() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    for command in ([], ["up"], ["down"], ["inventory"], ["ssh"], ["restart"], ["status"], ["fleet"]):
        done = subprocess.run(
            [sys.executable, "-m", "lab", *command, "--help"], env=environment, capture_output=True, text=True, check=True
        )
        assert "usage: lab" in done.stdout
