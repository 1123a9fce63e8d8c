# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type systemd: parsing as data, processes and control groups as real files, the unit's state told by a stand-in systemctl."""

from __future__ import annotations

import os
import subprocess

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import engine, processes, systemd
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.contract import CannotTell
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

ACTIVE = """\
MainPID={pid}
Result=success
NRestarts={restarts}
ControlGroup=/nonesuch.slice/shop.service
LoadState=loaded
ActiveState={active}
SubState={sub}
"""


@pytest.fixture
def systemctl(tmp_path, monkeypatch):
    """A program systemctl that says what the test wrote last. Returns the writer."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "systemctl"
    program.write_text(f'#!/bin/sh\ncat "{tmp_path}/says"\nexit $(cat "{tmp_path}/status")\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    def says(text=None, status=0, pid=1, restarts=0, active="active", sub="running"):
        text = ACTIVE.format(pid=pid, restarts=restarts, active=active, sub=sub) if text is None else text
        (tmp_path / "new").write_text(text)
        (tmp_path / "status").write_text(str(status))
        (tmp_path / "new").rename(tmp_path / "says")

    says()
    return says


@pytest.fixture
def control_group(tmp_path, monkeypatch):
    """A control group of the unit whose members are the given processes."""
    top = tmp_path / "cgroup" / "nonesuch.slice" / "shop.service"
    (top / "below").mkdir(parents=True)
    monkeypatch.setattr(processes.in_control_group, "__defaults__", ((str(tmp_path / "cgroup"),),))

    def members(*pids, below=()):
        (top / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
        (top / "below" / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in below))

    members(os.getpid())
    return members


@pytest.fixture
def sleeper():
    """Start processes that sleep in a directory."""
    started = []

    def start(directory):
        started.append(subprocess.Popen(["sleep", "60"], cwd=directory))
        return started[-1].pid

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_show_is_parsed_as_data():
    parsed = systemd.parse_show("MainPID=42\nExecStart={ argv[]=a=b ; }\nResult=\n\nnonsense\n")
    assert parsed == {"MainPID": "42", "ExecStart": "{ argv[]=a=b ; }", "Result": ""}


def test_the_command_cannot_take_a_unit_for_an_option():
    assert systemd.show_command("shop.service")[-2:] == ["--", "shop.service"]


@pytest.mark.parametrize("unit", ["-h", "*", "a b", "a\nb", "x/../y"])
def test_what_is_no_unit(unit):
    with pytest.raises(Failure, match="unit: found"):
        engine.validate([{"type": "systemd", "unit": unit}])


@pytest.mark.parametrize("unit", ["shop", "shop@green.service", r"dev-disk-by\x2dlabel.device", "a-b_c.socket"])
def test_what_is_a_unit(unit):
    engine.validate([{"type": "systemd", "unit": unit}])


def test_an_active_unit_passes(systemctl, check):
    assert check(type="systemd", unit="shop").verdict == "pass"


@pytest.mark.parametrize(
    "active,sub", [("activating", "auto-restart"), ("failed", "failed"), ("inactive", "dead"), ("reloading", "reload")]
)
def test_any_other_state_fails(systemctl, check, active, sub):
    systemctl(active=active, sub=sub)
    verdict = check(type="systemd", unit="shop")
    assert verdict.verdict == "fail" and f"it is {active} ({sub})" in verdict.evidence
    assert check(type="systemd", unit="shop", active=active).verdict == "pass"


def test_a_unit_that_does_not_exist_fails_even_if_inactive_is_expected(systemctl, check):
    systemctl("LoadState=not-found\nActiveState=inactive\nSubState=dead\nMainPID=0\n")
    assert check(type="systemd", unit="shpo", active="inactive").verdict == "fail"


@pytest.mark.parametrize("text,status", [("Failed to connect to bus\n", 1), ("", 0), ("ActiveState=active\n", 1)])
def test_a_systemd_that_cannot_be_asked_is_unknown(systemctl, check, text, status):
    systemctl(text, status)
    assert check(type="systemd", unit="shop").verdict == "unknown"


def test_a_missing_systemctl_is_unknown(check, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    verdict = check(type="systemd", unit="shop")
    assert verdict.verdict == "unknown" and "systemctl" in verdict.evidence


def test_an_old_systemd_without_restarts_is_unknown(systemctl, check):
    systemctl("LoadState=loaded\nActiveState=active\nSubState=running\nMainPID=1\n")
    assert check(type="systemd", unit="shop", max_restarts=0).verdict == "unknown"
    assert check(type="systemd", unit="shop").verdict == "pass"


def test_main_process_and_restarts(systemctl, check):
    systemctl(pid=42, restarts=2)
    assert check(type="systemd", unit="shop", main_pid=42, max_restarts=2, substate="running").verdict == "pass"
    verdict = check(type="systemd", unit="shop", main_pid=41, max_restarts=1, substate="exited")
    assert verdict.verdict == "fail"
    for said in ("its main process is 42, expected 41", "it was restarted 2 times, expected at most 1", "its substate is running"):
        assert said in verdict.evidence


@pytest.mark.parametrize("later", [{"pid": 43}, {"restarts": 1}])
def test_a_unit_that_crash_loops_while_active_is_not_steady(systemctl, later):
    systemctl(pid=42)
    change = iter([None, None, later])

    def stop():
        now = next(change, None)
        if now:
            systemctl(**{"pid": 42, **now})

    steady = {"type": "systemd", "unit": "shop", "hold": 1.5, "interval": 0.05}
    verdict = engine.run_checks([{**steady, "steady": True, "tolerate": 2}], stop)[0]
    assert verdict.verdict == "fail" and "changed from" in verdict.evidence


def test_what_happened_before_it_became_good_is_not_held_against_it(systemctl):
    systemctl(active="activating", pid=41)
    change = iter([None, None, {"pid": 42, "restarts": 1}])

    def stop():
        now = next(change, None)
        if now:
            systemctl(**now)

    steady = {"type": "systemd", "unit": "shop", "steady": True}
    verdict = engine.run_checks([{**steady, "deadline": 5, "hold": 0.3, "interval": 0.05}], stop)[0]
    assert verdict.verdict == "pass" and verdict.found["main_pid"] == 42


def test_every_process_has_to_run_from_the_release(systemctl, control_group, sleeper, check, tmp_path):
    new, old = tmp_path / "releases" / "1", tmp_path / "releases" / "10"
    (new / "below").mkdir(parents=True)
    old.mkdir()
    (tmp_path / "current").symlink_to(new)
    main, worker, stray = sleeper(new), sleeper(new / "below"), sleeper(old)
    systemctl(pid=main)

    control_group(main, worker)
    for directory in (new, tmp_path / "current"):
        assert check(type="systemd", unit="shop", runs_from=str(directory)).verdict == "pass"
    control_group(main, worker, below=[stray])
    verdict = check(type="systemd", unit="shop", runs_from=str(new))
    assert verdict.verdict == "fail" and f"of its processes {stray} run from {old}, expected {new}" in verdict.evidence


def test_the_release_before_does_not_prove_this_one(systemctl, control_group, sleeper, check, tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "10").mkdir()
    main = sleeper(tmp_path / "10")
    systemctl(pid=main)
    control_group(main)
    assert check(type="systemd", unit="shop", runs_from=str(tmp_path / "1")).verdict == "fail"


def test_a_release_that_was_removed_under_the_process_is_a_fail(systemctl, control_group, sleeper, check, tmp_path):
    (tmp_path / "1").mkdir()
    main = sleeper(tmp_path / "1")
    systemctl(pid=main)
    control_group(main)
    (tmp_path / "1").rmdir()
    (tmp_path / "1").mkdir()
    verdict = check(type="systemd", unit="shop", runs_from=str(tmp_path / "1"))
    assert verdict.verdict == "fail" and "(deleted)" in verdict.evidence


def test_without_a_main_process_nothing_runs_from_anywhere(systemctl, control_group, check, tmp_path):
    systemctl(pid=0)
    assert check(type="systemd", unit="shop", runs_from=str(tmp_path)).verdict == "fail"
    systemctl(pid=2**22 + 1)
    assert check(type="systemd", unit="shop", runs_from=str(tmp_path)).verdict == "fail"


def test_a_control_group_that_is_not_there_is_unknown(systemctl, check, tmp_path):
    assert check(type="systemd", unit="shop", runs_from=str(tmp_path)).verdict == "unknown"


def test_the_control_group_is_found_in_each_layout(tmp_path):
    for name in ("systemd", "unified", "."):
        group = tmp_path / name / "system.slice" / "shop.service"
        group.mkdir(parents=True)
        (group / "cgroup.procs").write_text(f"{os.getpid()}\n")
        roots = [str(tmp_path / "nonesuch"), str(tmp_path / name)]
        assert processes.in_control_group("/system.slice/shop.service", roots) == [os.getpid()]
    with pytest.raises(CannotTell):
        processes.in_control_group("/system.slice/other.service", [str(tmp_path)])
    with pytest.raises(CannotTell):
        processes.in_control_group("", [str(tmp_path)])
