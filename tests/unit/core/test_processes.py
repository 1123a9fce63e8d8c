# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processes beside the web server, without systemd: what is asked of it, in which order, and what a declaration may say."""

from __future__ import annotations

import os
import subprocess
import types

import pytest
from ansible_collections.bulletproof.deploy.plugins.action.declaration import home_of
from ansible_collections.bulletproof.deploy.plugins.module_utils import (
    _manifest,
    _processes,
    _state,
    _systemd,
    _transition,
    _unfinished,
    _verify,
)
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._manifest import Manifest
from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import stage, switch
from ansible_collections.bulletproof.deploy.plugins.module_utils._state import Position, State
from ansible_collections.bulletproof.deploy.plugins.plugin_utils import _declaration, _declared_processes

from .test_declaration import mistakes
from .test_plans import OPTIONS


def declared(**processes):
    return _declared_processes.complete(processes, 30)


BOTH = declared(worker={"command": "python -m worker", "count": 2}, clock={"command": ["python", "-m", "clock"], "singleton": True})


class Systemd:
    """What systemd runs, and in which order it was asked to start and stop; with the release that the link showed then."""

    def __init__(self, layout):
        self.layout = layout
        self.units: dict[str, _systemd.Unit] = {}
        self.story: list[str] = []
        self.stubborn: set[str] = set()

    def short(self, unit):
        return unit.partition("@")[2].partition(".")[0]

    def shown(self):
        return os.path.basename(os.readlink(self.layout.slot("processes")))

    def show_all(self, pattern):
        assert pattern == "shop-process@*.service"
        return dict(self.units)

    def start(self, units, timeout):
        for unit in units:
            self.story.append(f"start {self.short(unit)} of {self.shown()}")
            self.units[unit] = _systemd.Unit("loaded", "active", "running", 1, 0, "success")

    def stop(self, units):
        for unit in (one for one in units if one.startswith("shop-process@")):
            self.story.append(f"stop {self.short(unit)} of {self.shown()}")
            if self.short(unit) not in self.stubborn:
                self.units.pop(unit, None)

    def run(self, argv, timeout=60):
        if argv[1] == "kill":
            self.story.append(f"kill {self.short(argv[-1])}")
            self.units.pop(argv[-1])


@pytest.fixture
def systemd(layout, monkeypatch):
    fake = Systemd(layout)
    for name in ("show_all", "start", "stop"):
        monkeypatch.setattr(_systemd, name, getattr(fake, name))
    monkeypatch.setattr(_processes, "run_command", fake.run)
    os.makedirs(layout.slots)
    return fake


def have(layout, release, processes=BOTH, **more):
    os.makedirs(os.path.join(layout.release(release), ".release"))
    _manifest.save(layout.release(release), Manifest(release, release, "", "", "", {}, processes=processes, **more))
    return Position("blue", release)


def test_all_of_before_end_before_one_of_the_next_begins(layout, systemd):
    """Fails when what runs is left to be restarted one by one: a worker of before would be beside a clock of the next."""
    first, second = have(layout, "1-a"), have(layout, "2-b")
    _processes.run(layout, first)
    assert systemd.story == ["start clock-1 of 1-a", "start worker-1 of 1-a", "start worker-2 of 1-a"]
    systemd.story.clear()
    _processes.run(layout, second)
    assert systemd.story == [
        "stop clock-1 of 1-a",
        "stop worker-1 of 1-a",
        "stop worker-2 of 1-a",
        "start clock-1 of 2-b",
        "start worker-1 of 2-b",
        "start worker-2 of 2-b",
    ]


def test_what_runs_as_it_should_is_left_alone_and_what_is_missing_is_started(layout, systemd):
    position = have(layout, "1-a")
    _processes.run(layout, position)
    systemd.story.clear()
    _processes.run(layout, position)
    assert systemd.story == [] and _processes.problems(layout, position) == []
    del systemd.units["shop-process@worker-2.service"]
    assert _processes.problems(layout, position) == ["the process worker-2 does not run"]
    _processes.run(layout, position)
    assert systemd.story == ["start worker-2 of 1-a"]
    systemd.story.clear()
    _processes.run(layout, position, fresh=True)
    assert len(systemd.story) == 6 and systemd.story[0].startswith("stop")


def test_another_environment_is_another_process(layout, systemd):
    position = have(layout, "1-a")
    _processes.run(layout, position)
    systemd.story.clear()
    changed = Position("blue", "1-a", environment="0123")
    assert _processes.problems(layout, changed) == ["the processes clock-1, worker-1, worker-2 are not of 1-a, or have another environment"]
    _processes.run(layout, changed)
    assert [one.split()[0] for one in systemd.story] == ["stop"] * 3 + ["start"] * 3
    assert os.readlink(layout.slot_environment("processes")) == "../.deploy/environments/0123"


def test_a_release_without_any_leaves_none_and_without_any_nobody_asks_systemd(layout, systemd, monkeypatch):
    _processes.run(layout, have(layout, "1-a"))
    _processes.run(layout, have(layout, "2-b", {}))
    assert systemd.units == {} and os.listdir(layout.slots) == []
    monkeypatch.setattr(_systemd, "show_all", None)
    _processes.run(layout, Position("blue", "2-b"))
    _processes.run(layout, None)
    assert _processes.problems(layout, Position("blue", "2-b")) == []


def test_what_does_not_end_is_killed_when_its_own_time_is_over(layout, systemd, monkeypatch):
    """Fails when everybody gets the time of the slowest."""
    processes = declared(quick={"command": "a", "stop_timeout": 1}, slow={"command": "b", "stop_timeout": 5})
    _processes.run(layout, have(layout, "1-a", processes))
    systemd.story.clear()
    systemd.stubborn = {"quick-1", "slow-1"}
    clock = types.SimpleNamespace(now=0.0)

    def sleep(seconds):
        clock.now += seconds

    monkeypatch.setattr(_processes, "time", types.SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep))
    killed = []
    monkeypatch.setattr(_processes, "run_command", lambda argv: (killed.append((argv[-1], int(clock.now))), systemd.run(argv)))
    _processes.run(layout, None)
    assert killed[:2] == [("shop-process@quick-1.service", 1), ("shop-process@slow-1.service", 5)]


def test_what_cannot_even_be_killed_has_no_successor(layout, systemd, monkeypatch):
    first, second = have(layout, "1-a"), have(layout, "2-b")
    _processes.run(layout, first)
    systemd.story.clear()
    systemd.stubborn = {"clock-1"}
    times = iter(range(0, 10000, 20))
    monkeypatch.setattr(_processes, "time", types.SimpleNamespace(monotonic=lambda: next(times), sleep=lambda seconds: None))
    monkeypatch.setattr(_processes, "run_command", lambda argv: None)
    with pytest.raises(Failure, match=r"shop-process@clock-1\.service does not end"):
        _processes.run(layout, second)
    assert not [one for one in systemd.story if one.startswith("start")]


def test_a_singleton_runs_at_home_alone(layout, systemd):
    """Fails when each host starts it."""
    position = have(layout, "1-a", singletons=False)
    _processes.run(layout, position)
    assert systemd.story == ["start worker-1 of 1-a", "start worker-2 of 1-a"]
    assert _processes.problems(layout, position) == []


@pytest.mark.parametrize(
    "release,home,refused",
    [("2-b", False, True), ("2-b", True, False), ("1-a", False, False)],
)
def test_two_homes_are_refused_before_anything_is_touched(layout, systemd, release, home, refused):
    position = have(layout, "1-a")
    _processes.run(layout, position)
    if refused:
        with pytest.raises(Failure, match="This host runs clock-1, which must run only once") as told:
            _processes.refuse_a_second_home(layout, position, release, home)
        assert "systemctl stop shop-process@clock-1.service" in told.value.fix
    else:
        _processes.refuse_a_second_home(layout, position, release, home)


@pytest.mark.parametrize("state,processes,home,planned", [("good", BOTH, False, ["singletons"]), ("good", BOTH, True, [])])
def test_a_staged_release_learns_of_another_home(state, processes, home, planned):
    manifest = Manifest("2-b", "2", "", "", "", {}, state=state, processes=processes)
    options = {"app": "shop", "root": "/opt/shop", "release": "2-b", "run": "r", "prove": "start", "singletons": home}
    changes = stage.Stage().plan(options, stage.Observed(manifest, "", ()))
    assert [one.target for one in changes] == planned
    served = stage.Observed(manifest, "", (), Position("blue", "2-b"))
    assert stage.Stage().plan(options, served) == [], "what serves is not changed by staging"


@pytest.mark.parametrize(
    "found,hosts,home",
    [
        (["a", "b"], ["a", "b"], "a"),
        # With --limit b, a still runs it.
        (["a", "b"], ["b"], "a"),
        ([], ["b", "a"], "b"),
        # A playbook of one's own, for another group.
        (["a"], ["x", "y"], "x"),
    ],
)
def test_the_home_is_the_first_of_the_inventory_whatever_the_limit(found, hosts, home):
    assert home_of(found, hosts) == home


def test_going_back_and_booting_bring_them_along(layout, systemd, monkeypatch):
    """Fails when go_back, or the boot, forgets them."""
    first, second = have(layout, "1-a"), have(layout, "2-b")
    monkeypatch.setattr(_transition, "serves_from", lambda *arguments: False)
    for name in ("run_slot", "flip", "retire"):
        monkeypatch.setattr(_transition, name, lambda *arguments: None)
    _processes.run(layout, second)
    _state.save(layout, State(live=first).arm("run", second, 1.0))
    _transition.go_back(layout, "why", "run", blame=True)
    assert systemd.shown() == "1-a" and len(systemd.units) == 3
    systemd.units.clear()
    _unfinished.boot(layout)
    assert len(systemd.units) == 3
    _state.save(layout, State().arm("run", first, 1.0))
    _transition.go_back(layout, "why", "run", blame=True)
    assert systemd.units == {}


def planned(running=(), processes=BOTH, live="1-a", wanted="2-b", **more):
    one = Manifest(live, "1", "", "", "", {}, state="good", committed=1.0, **more)
    two = Manifest(wanted, "2", "", "", "", {}, state="good", committed=0.5, processes=processes)
    chosen = switch.Switch(dry=False)
    observed = switch.Observed(State(live=Position("blue", live)), True, (two, one), processes=tuple(running))
    return [(change.target, change.before, change.after) for change in chosen.plan({**OPTIONS, "release": wanted}, observed)]


def test_a_switch_moves_them_after_the_flip_and_before_the_last_look():
    plan = planned(running=["worker-1"])
    assert plan[3:] == [
        ("/run/shop/live.sock", "blue", "green"),
        ("processes", "worker-1", "clock-1, worker-1, worker-2"),
        ("verify through the proxy", None, "2-b"),
    ]
    assert ("processes", "worker-1", None) in planned(running=["worker-1"], processes={})
    assert "processes" not in [target for target, _before, _after in planned(processes={})]


def test_a_rollback_keeps_the_home():
    """Fails when the older release is started as it was staged: its home may have been another host."""
    older = Manifest("1-a", "1", "", "", "", {}, state="good", committed=1.0, processes=BOTH)
    live = Manifest("2-b", "2", "", "", "", {}, state="good", committed=2.0, previous="1-a", singletons=False)
    observed = switch.Observed(State(live=Position("blue", "2-b")), True, (older, live))
    assert switch.choose({**OPTIONS, "back": True}, observed, dry=False).singletons is False


def test_they_are_looked_at_when_the_release_is_watched(layout):
    health = {"path": "/", "status": [200], "version": {}, "headers": {}, "timeout": 5, "workers": 1, "replaced": 1, "url": ""}
    manifest = Manifest("1-a", "1", "", "", "", health, processes=BOTH)
    units = [
        check["unit"] for check in _verify.watch_checks(layout, manifest, "blue", 10.0) if check.get("name", "").startswith("process ")
    ]
    assert units == [f"shop-process@{one}.service" for one in ("clock-1", "worker-1", "worker-2")]


def test_a_check_of_a_singleton_is_made_at_home_alone():
    away = Manifest("1-a", "1", "", "", "", {}, processes=BOTH, singletons=False)
    clock, worker = ({"type": "log", "unit": f"{{process:{name}}}", "must": ["x"]} for name in ("clock", "worker-2"))
    assert _processes.elsewhere(away, clock) and not _processes.elsewhere(away, worker)
    assert not _processes.elsewhere(Manifest("1-a", "1", "", "", "", {}, processes=BOTH), clock)


@pytest.mark.parametrize("interpreted", [False, True])
def test_a_command_gets_its_words_as_they_are(tmp_path, interpreted):
    """Fails when the words are put into the script unquoted."""
    words = ["a b", "$HOME", "it's", "`id`", "ü", ""]
    programs = tmp_path / ".release" / "venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "show").write_text('#!/bin/sh\nfor one; do echo "<$one>"; done\n')
    (programs / "show").chmod(0o755)
    # An interpreter that gets the program's path first.
    (programs / "python").write_text('#!/bin/sh\nprogram=$1; shift; [ "${program##*/}" = show ] && exec "$program" "$@"\n')
    (programs / "python").chmod(0o755)
    script = tmp_path / "script"
    script.write_text(_processes.script(["show", *words], interpreted))
    done = subprocess.run(["sh", str(script)], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"<{word}>" for word in words]


@pytest.mark.parametrize(
    "first,told",
    [
        ("#!/opt/x/bin/python3.11\n", True),
        ("#!/bin/sh\n'''exec' /opt/x/python \"$0\" \"$@\"\n", True),
        ("#!/bin/sh\n", False),
        ("\x7fELF", False),
    ],
)
def test_what_is_a_script_of_the_environment(tmp_path, first, told):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "celery").write_text(first)
    assert _processes.is_script(str(tmp_path), "celery") is told
    assert not _processes.is_script(str(tmp_path), "/usr/bin/env") and not _processes.is_script(str(tmp_path), "rq")


@pytest.mark.parametrize(
    "processes,said",
    [
        ({"Worker": {"command": "x"}}, 'app_processes: found the name "Worker"; allowed: lower-case letters, digits and hyphens'),
        ({"worker": "python -m worker"}, 'app_processes: worker: found "python -m worker"; allowed: a dictionary of command, count'),
        ({"worker": {}}, "app_processes: worker: command: missing; allowed: text or a list of texts"),
        ({"worker": {"command": "  "}}, 'app_processes: worker: command: found "  "; allowed'),
        ({"worker": {"command": "it's"}}, "app_processes: worker: command: found"),
        ({"worker": {"command": []}}, "app_processes: worker: command: found []"),
        ({"worker": {"command": ["sleep", 5]}}, 'app_processes: worker: command: found ["sleep", 5]'),
        ({"worker": {"command": "x", "count": 0}}, "app_processes: worker: count: found 0; allowed: a whole number from 1 to 64."),
        ({"worker": {"command": "x", "count": True}}, "app_processes: worker: count: found true; allowed: a whole number from 1 to 64."),
        ({"worker": {"command": "x", "cuont": 2}}, "app_processes: worker: cuont: unknown; did you mean count?"),
        ({"clock": {"command": "x", "count": 2, "singleton": True}}, "app_processes: clock: count: found 2; allowed with singleton: 1"),
        ({"clock": {"command": "x", "singleton": "perhaps"}}, 'app_processes: clock: singleton: found "perhaps"; allowed: true or false.'),
        (
            {"clock": {"command": "x", "stop_timeout": 0}},
            "app_processes: clock: stop_timeout: found 0; allowed: a whole number from 1 to 3600.",
        ),
        ({"a": {"command": "x"}, "a-1": {"command": "x"}}, "app_processes: a-1: the processes of a have such names themselves"),
        (
            {"clock": {"command": "x", "stop_timeout": 250}},
            "app_lease: found 300; allowed: at least 340 (app_start_timeout + the longest stop_timeout",
        ),
        (["worker"], 'app_processes: found ["worker"]; allowed: a dictionary.'),
    ],
)
def test_one_mistake(processes, said):
    found = mistakes(app_processes=processes)
    assert len(found) == 1 and said in found[0], found


def test_all_mistakes_at_once():
    assert len(mistakes(app_processes={"X": {}, "y": {"command": "", "count": 99, "z": 1}}, app_workers=0)) == 5


def test_an_app_cannot_be_called_like_the_units_of_another():
    assert 'app_name: found "shop-process"' in mistakes(app_name="shop-process")[0]
    assert mistakes(app_name="process") == []


def test_a_check_may_name_a_process():
    check = {"type": "log", "unit": "{process:clock}", "must": ["ticks"], "when": "after"}
    assert mistakes(app_processes={"clock": {"command": "x"}}, app_checks=[check]) == []
    assert mistakes(app_processes={}, app_checks=[check]) != []


def test_what_a_release_keeps_of_them():
    assert BOTH["worker"] == {"command": ["python", "-m", "worker"], "count": 2, "singleton": False, "stop_timeout": 30}
    assert _processes.instances(BOTH, True) == ["clock-1", "worker-1", "worker-2"]
    assert _declaration.processes({"app_stop_timeout": 7, "app_processes": {"a": {"command": "b", "count": "3"}}})["a"]["count"] == 3
