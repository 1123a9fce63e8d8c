# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type process_count on real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import engine, processes
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

# A master that replaces a worker that has ended, as gunicorn does.
CARING_MASTER = """
import os, time
def worker():
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)
for _ in range(3):
    worker()
print("ready", flush=True)
while True:
    os.wait()
    worker()
"""

# A master that never looks after its workers, so that a dead one stays a zombie.
MASTER = """
import os, sys, time
for _ in range(3):
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def master(request):
    """A process with three children, in a session of its own."""
    code = getattr(request, "param", MASTER)
    process = subprocess.Popen([sys.executable, "-c", code, "canary-master"], stdout=subprocess.PIPE, start_new_session=True)
    process.stdout.readline()
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


@pytest.fixture
def unit(master, tmp_path, monkeypatch):
    """A stand-in systemctl that names the master as the unit's main process."""
    says = tmp_path / "says"
    says.write_text(f"LoadState=loaded\nActiveState=active\nMainPID={master.pid}\nControlGroup=\n")
    (tmp_path / "systemctl").write_text(f'#!/bin/sh\ncat "{says}"\n')
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return says


def kill_a_worker(master):
    worker = next(each.pid for each in processes.everything() if each.parent == master.pid)
    os.kill(worker, signal.SIGKILL)
    give_up = time.monotonic() + 5
    while (each := processes.process(worker)) and each.lives and time.monotonic() < give_up:
        time.sleep(0.01)


def test_one_dead_worker_of_three_is_found_though_its_zombie_is_there(master, unit, check):
    assert check(type="process_count", unit="shop", exact=3).verdict == "pass"
    kill_a_worker(master)
    verdict = check(type="process_count", unit="shop", exact=3)
    assert verdict.verdict == "fail" and "There are 2 child processes" in verdict.evidence and "exactly 3" in verdict.evidence


@pytest.mark.parametrize("master", [CARING_MASTER], indirect=True)
@pytest.mark.parametrize(
    "deaths,allowed,verdict", [(0, 0, "pass"), (1, 0, "fail"), (1, 1, "pass"), (3, 1, "fail"), (3, 3, "pass"), (3, None, "pass")]
)
def test_workers_that_were_replaced_are_counted_one_by_one(master, unit, check, deaths, allowed, verdict):
    """Fails without the memory of every process that was ever counted: one worker that crashes three times is one new process each time."""

    def crash():
        for _death in range(deaths):
            time.sleep(0.2)
            kill_a_worker(master)

    crashing = threading.Thread(target=crash)
    crashing.start()
    found = check(type="process_count", unit="shop", min=2, max_replaced=allowed, hold=1.5, interval=0.02, tolerate=1)
    crashing.join()
    assert found.verdict == verdict, found
    if verdict == "fail":
        assert f"expected at most {allowed}" in found.evidence


@pytest.mark.parametrize(
    "bounds,verdict",
    [({"min": 3}, "pass"), ({"min": 4}, "fail"), ({"max": 3}, "pass"), ({"max": 2}, "fail"), ({"min": 1, "max": 5}, "pass")],
)
def test_bounds(master, unit, check, bounds, verdict):
    assert check(type="process_count", unit="shop", **bounds).verdict == verdict


def test_a_unit_that_does_not_run_has_none(unit, check):
    """Its main process is 0 then, whose children are the first processes of the system."""
    unit.write_text("LoadState=loaded\nActiveState=inactive\nMainPID=0\nControlGroup=\n")
    for of in ("children", "all"):
        assert check(type="process_count", unit="shop", of=of, exact=0).verdict == "pass"


def test_a_unit_that_does_not_exist_is_a_fail(unit, check):
    unit.write_text("LoadState=not-found\nActiveState=inactive\nMainPID=0\nControlGroup=\n")
    assert check(type="process_count", unit="shop", exact=0).verdict == "fail"


def test_all_of_the_control_group_count(master, unit, check, tmp_path, monkeypatch):
    members = [master.pid] + [each.pid for each in processes.everything() if each.parent == master.pid]
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in members))
    monkeypatch.setattr(processes.in_control_group, "__defaults__", ((str(tmp_path),),))
    unit.write_text(f"LoadState=loaded\nActiveState=active\nMainPID={master.pid}\nControlGroup=/shop\n")
    assert check(type="process_count", unit="shop", of="all", exact=4).verdict == "pass"
    kill_a_worker(master)
    assert check(type="process_count", unit="shop", of="all", exact=3).verdict == "pass"


def test_by_command_line(master, check):
    assert check(type="process_count", pattern="canary-master$", exact=4).verdict == "pass"
    assert check(type="process_count", pattern="canary-master$", user=str(os.geteuid()), exact=4).verdict == "pass"
    assert check(type="process_count", pattern="canary-master$", user="65533", exact=0).verdict == "pass"
    assert check(type="process_count", pattern="canary-master$", user="nonesuch", exact=4).verdict == "unknown"


def test_the_check_does_not_count_itself(python):
    code = f"""
from {engine.__name__} import run_checks
print(run_checks([{{"type": "process_count", "pattern": "canary-self", "exact": 0}}])[0].verdict)
"""
    done = python(code, "canary-self", under=["sh", "-c", '"$@"; exit', "sh"])
    assert done.stdout == "pass\n", done


@pytest.mark.parametrize("line", ["7 (a b) c) S 1 7 7", "7 (x\n(y)) S 1 7"])
def test_a_name_may_hold_anything(line):
    assert processes.parse_stat(line) == processes.Process(7, 1, "S")


@pytest.mark.parametrize(
    "options,said",
    [
        ({"unit": "x"}, "min, max, exact: found none"),
        ({"exact": 1}, "unit, pattern: found none"),
        ({"unit": "x", "pattern": "x", "exact": 1}, "unit, pattern: found both"),
        ({"unit": "x", "exact": 1, "min": 1}, "exact: found beside min or max"),
        ({"unit": "x", "min": 3, "max": 1}, "min: found 3, allowed: at most 1"),
        ({"unit": "x", "min": 3, "user": "x"}, "user: it goes with pattern"),
        ({"pattern": "x", "min": 3, "of": "all"}, "of: it goes with unit"),
        ({"pattern": "(", "min": 3}, "regular expression"),
        ({"pattern": "x", "min": 3, "max_replaced": 1}, "max_replaced: it goes with unit"),
    ],
)
def test_mistakes(options, said):
    with pytest.raises(Failure) as failure:
        engine.validate([{"type": "process_count", **options}])
    assert said in failure.value.message()
