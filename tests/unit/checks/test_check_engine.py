# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine: when a check becomes good, stays good, is given up, hangs or breaks."""

from __future__ import annotations

import ast
import json
import pathlib
import threading
import time

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils import _checks
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import engine, registry
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.contract import (
    FAIL,
    PASS,
    TEXT,
    UNKNOWN,
    UNSEEN,
    Answer,
    CannotTell,
    CheckType,
    Option,
)
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure


@pytest.fixture
def scripted(monkeypatch):
    """Run one check whose attempts answer as written: + good, - bad, . no answer, x bad for ever, ? unknown, ! breaks, h hangs; the last letter goes on."""
    release = threading.Event()

    def run(script, stop=None, others=(), remembers=False, to_the_end=True, **common):
        run.memories = []
        left = iter(script)
        last = [""]

        def attempt(options, timeout, memory):
            letter = last[0] = next(left, last[0])
            run.memories.append(memory.get("good", 0))
            if letter == "?":
                raise CannotTell("nobody knows")
            if letter == "!":
                raise RuntimeError("canary\nbroke")
            if letter == "h":
                release.wait(30)
            if letter == "+":
                memory["good"] = memory.get("good", 0) + 1
            return Answer(PASS if letter == "+" else FAIL, f"it was {letter}", final=letter == "x", silent=letter == ".")

        secrets = {"secrets": lambda options: ["canary"], "remembers": remembers}
        kind = CheckType("scripted", {"word": Option(TEXT)}, lambda options: "x", attempt, **secrets)
        known = registry.type_of
        monkeypatch.setattr(registry, "type_of", lambda name: kind if name == "scripted" else known(name))
        run.verdicts = engine.run_checks([{"type": "scripted", "interval": 0.02, **common}, *others], stop, to_the_end)
        return run.verdicts[0]

    yield run
    release.set()


def test_one_attempt_without_a_deadline(scripted):
    verdict = scripted("-+")
    assert (verdict.verdict, verdict.attempts) == (FAIL, 1)


def test_it_is_attempted_until_it_is_good(scripted):
    verdict = scripted("--?!+", deadline=5)
    assert (verdict.verdict, verdict.attempts) == (PASS, 5)


def test_the_deadline_ends_it(scripted):
    verdict = scripted("-", deadline=0.2)
    assert verdict.verdict == FAIL and 3 < verdict.attempts < 20
    assert f"Tried {verdict.attempts} times" in verdict.evidence
    assert 0.2 <= verdict.elapsed < 1


def test_wrong_answers_are_borne_for_a_while_and_silence_for_as_long_as_it_lasts(scripted):
    verdict = scripted("-", deadline=30, patience=0.1)
    assert verdict.verdict == FAIL and 2 <= verdict.attempts < 20
    assert scripted("." * 20 + "+", deadline=30, patience=0.1).verdict == PASS
    assert scripted(".?" * 10 + "-+", deadline=30, patience=5).verdict == PASS
    assert scripted("-", deadline=0.1, patience=30).verdict == FAIL


def test_the_last_attempt_is_made_at_the_deadline(scripted):
    verdict = scripted("-+", deadline=0.2, interval=100)
    assert (verdict.verdict, verdict.attempts) == (PASS, 2)


def test_successes_have_to_come_in_a_row(scripted):
    verdict = scripted("++-++-+++", deadline=5, successes=3)
    assert (verdict.verdict, verdict.attempts) == (PASS, 9)


def test_a_row_that_began_before_the_deadline_may_end(scripted):
    assert scripted("+", successes=3).verdict == PASS
    assert scripted("+-+", successes=3).verdict == FAIL


def test_a_good_check_has_to_stay_good(scripted):
    verdict = scripted("+++-", hold=5)
    assert (verdict.verdict, verdict.attempts) == (FAIL, 4)
    assert "has to stay good" in verdict.evidence and "it was -" in verdict.evidence


def test_staying_good_takes_its_time(scripted):
    verdict = scripted("+", hold=0.3)
    assert verdict.verdict == PASS and verdict.elapsed >= 0.3 and "stayed good for 0.3 s" in verdict.evidence


def test_one_bad_attempt_of_many_is_forgiven_when_tolerated(scripted):
    assert scripted("++-+-+", hold=0.2, tolerate=1).verdict == PASS
    assert scripted("++--+", hold=0.2, tolerate=1).verdict == FAIL
    assert scripted("++-+", hold=0.2).verdict == FAIL


def test_the_last_word_of_the_watch_is_a_good_one(scripted):
    """A check that goes bad at the very end has used up its tolerance before it passes."""
    assert scripted("+-", hold=0.05, interval=0.05, tolerate=3).verdict == FAIL
    assert scripted("+--+", hold=0.05, interval=0.05, tolerate=3).verdict == PASS


def test_a_check_remembers_only_the_row_of_successes_that_made_it_good(scripted):
    assert scripted("+-++-+", deadline=5, successes=2, hold=0.1, tolerate=1).verdict == PASS
    assert scripted.memories[:6] == [0, 1, 0, 1, 2, 2]


def test_a_final_answer_ends_it_at_once_and_a_type_that_remembers_does(scripted, monkeypatch):
    """A word in a log that must never be there will not go away; what an attempt has read, the next one does not read again."""
    verdict = scripted("--x-", deadline=5)
    assert (verdict.verdict, verdict.attempts) == (FAIL, 3)
    verdict = scripted("++x+", hold=5, tolerate=9)
    assert (verdict.verdict, verdict.attempts) == (FAIL, 3) and "has to stay good" in verdict.evidence
    assert scripted("+-+-++", deadline=5, successes=2, remembers=True).verdict == PASS
    assert scripted.memories == [0, 1, 1, 2, 2, 3]


def test_unknown_is_no_pass(scripted):
    verdict = scripted("?")
    assert verdict.verdict == UNKNOWN and verdict.evidence == "nobody knows"
    assert engine.failed([verdict]) == [verdict]
    assert scripted("+?", hold=1).verdict == UNKNOWN


def test_a_broken_check_type_is_unknown_and_tells_no_secret(scripted):
    verdict = scripted("!")
    assert verdict.verdict == UNKNOWN
    assert verdict.evidence == "The check itself broke: RuntimeError: ******** broke."


def test_a_check_that_hangs_does_not_hang_the_engine(scripted, monkeypatch, tmp_path):
    monkeypatch.setattr(engine, "GRACE", 0.2)
    began = time.monotonic()
    verdict = scripted("-h", deadline=0.2, timeout=0.2)
    assert verdict.verdict == UNKNOWN and "hangs" in verdict.evidence and "it was -" in verdict.evidence
    assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    "script,verdict,said",
    [("-", FAIL, "Stopped early: the lease is gone"), ("?", UNKNOWN, "Stopped before"), ("h", UNKNOWN, "Stopped before")],
)
def test_it_can_be_stopped(scripted, script, verdict, said):
    began = time.monotonic()
    result = scripted(script, stop=lambda: "the lease is gone" if time.monotonic() - began > 0.3 else None, deadline=30)
    assert result.verdict == verdict and said in result.evidence and "the lease is gone" in result.evidence
    assert time.monotonic() - began < 2


def test_a_watch_that_is_stopped_is_no_pass(scripted):
    began = time.monotonic()
    result = scripted("+", stop=lambda: "enough" if time.monotonic() - began > 0.2 else None, hold=30)
    assert result.verdict == UNKNOWN


def test_what_was_finished_before_the_stop_keeps_its_verdict(scripted):
    assert scripted("+", stop=lambda: "enough" if time.sleep(0.2) is None else None).verdict == PASS


@pytest.mark.parametrize("script", ["+", "+-", "h"])
def test_the_first_that_fails_for_good_ends_all_where_only_a_yes_counts(scripted, script):
    """Not even an attempt that is under way is waited for; and what was not seen to the end has neither passed nor failed."""
    began = time.monotonic()
    gone = {"type": "path", "path": "/nonesuch", "name": "the file", "deadline": 0.3}
    verdict = scripted(script, others=[gone], to_the_end=False, name="the other", hold=30, tolerate=10**6)
    assert time.monotonic() - began < 5
    assert verdict.verdict == UNSEEN and verdict.evidence.startswith("Not seen to the end: the file did not pass.")
    assert ("Before that: it was" in verdict.evidence) is (script != "h")
    assert [one.name for one in engine.failed(scripted.verdicts)] == ["the file"]
    said = engine.summary(scripted.verdicts)
    assert said.startswith("0 of 2 checks passed, 1 not seen to the end.\n- the file: fail: ") and "the other" not in said


def test_a_check_that_could_not_be_made_ends_them_too(scripted):
    verdict = scripted("?", others=[{"type": "path", "path": "/", "hold": 30}], to_the_end=False)
    assert [one.verdict for one in scripted.verdicts] == [UNKNOWN, UNSEEN] and engine.failed(scripted.verdicts) == [verdict]


def test_what_may_still_become_good_ends_nothing(scripted):
    steady = {"type": "path", "path": "/", "hold": 0.3}
    scripted("---+-+", others=[steady], to_the_end=False, deadline=5, hold=0.3, tolerate=1)
    assert [one.verdict for one in scripted.verdicts] == [PASS, PASS]


def test_where_every_verdict_is_wanted_a_failure_ends_no_other(scripted):
    verdict = scripted("+", others=[{"type": "path", "path": "/nonesuch"}], hold=0.5)
    assert verdict.verdict == PASS and verdict.elapsed >= 0.5


def test_what_was_not_seen_is_never_taken_for_a_pass(scripted):
    """Whatever else is lost on the way."""
    scripted("+", others=[{"type": "path", "path": "/nonesuch"}], to_the_end=False, hold=30)
    assert engine.failed(scripted.verdicts[:1]) == scripted.verdicts[:1]


def test_checks_run_at_the_same_time_and_keep_their_order(tmp_path, serve, check):
    def slow(handler):
        time.sleep(0.5)
        handler.answer(200)

    url = serve(slow).url
    began = time.monotonic()
    checks = [{"type": "http", "url": url, "name": f"n{number}"} for number in range(6)]
    checks.insert(3, {"type": "path", "path": str(tmp_path), "name": "quick"})
    verdicts = engine.run_checks(checks)
    assert [verdict.name for verdict in verdicts] == ["n0", "n1", "n2", "quick", "n3", "n4", "n5"]
    assert all(verdict.verdict == PASS for verdict in verdicts)
    assert time.monotonic() - began < 2


def test_a_verdict_is_data(tmp_path, check):
    verdict = check(type="path", path=str(tmp_path))
    assert json.loads(json.dumps(verdict.as_dict())) == verdict.as_dict()
    assert sorted(verdict.as_dict()) == ["attempts", "elapsed", "evidence", "expected", "found", "name", "silent", "type", "verdict"]
    with pytest.raises(AttributeError):
        verdict.verdict = "fail"


def test_the_summary_counts_and_names_what_is_wrong(tmp_path):
    verdicts = engine.run_checks([{"type": "path", "path": str(tmp_path)}, {"type": "path", "path": "/nonesuch", "name": "the file"}])
    assert engine.summary(verdicts).splitlines()[0] == "1 of 2 checks passed."
    assert engine.summary(verdicts).splitlines()[1].startswith("- the file: fail: /nonesuch")


def mistakes(checks):
    with pytest.raises(Failure) as failure:
        engine.validate(checks)
    return failure.value.message()


def test_all_mistakes_are_told_at_once_in_the_words_of_the_declaration():
    told = mistakes(
        [
            {"type": "htpp", "url": "http://x/"},
            {"type": "http", "name": "site", "url": "http://x/", "timeuot": 5, "exact": 3},
            {"type": "disk", "path": "opt", "deadline": "soon", "tolerate": -1, "min_free_percent": 101},
            "http://x/?token=s3cr3t",
            {"path": "/"},
            {"type": "systemd"},
            {"type": "path", "path": "/", "state": "dir"},
        ]
    )
    for said in (
        "11 mistakes",
        f'check 1 (htpp): type: found "htpp", allowed: one of {", ".join(sorted(registry.NAMES))}; did you mean http?',
        "check 2 (site): timeuot: there is no such option for http; did you mean timeout?",
        "check 2 (site): exact: an option of process_count, not of http",
        'check 3 (disk): path: found "opt", allowed: an absolute path',
        'check 3 (disk): deadline: found "soon", allowed: a number of 0 or more',
        "check 3 (disk): tolerate: found -1, allowed: a whole number of 0 or more",
        "check 4: found text, allowed: a mapping of options",
        "check 5: type: it is missing",
        "check 6 (systemd): unit: it is missing",
        'check 7 (path): state: found "dir", allowed: one of exists, absent, file, directory, link',
    ):
        assert said in told
    assert "s3cr3t" not in told


@pytest.mark.parametrize("checks,said", [([], "the list is empty"), ({"body": "s3cr3t"}, "found a mapping"), (None, "found nothing")])
def test_no_checks_are_a_mistake(checks, said):
    assert said in mistakes(checks) and "s3cr3t" not in mistakes(checks)


@pytest.mark.parametrize("value", [True, "1", float("nan"), float("inf"), [1], -0.1])
def test_what_is_no_number_of_seconds(value):
    assert "deadline" in mistakes([{"type": "path", "path": "/", "deadline": value}])


def test_an_option_that_ansible_hands_over_as_none_was_not_given():
    assert engine.validate([{"type": "path", "path": "/", "url": None, "name": None, "deadline": None}])[0].name == "path /"


def test_the_registry_holds_every_type_there_is_and_imports_it_statically():
    """Ansible sends only what is imported statically."""
    home = pathlib.Path(_checks.__file__).parent
    with_check = {file.stem for file in home.glob("*.py") if "\nCHECK = CheckType(" in file.read_text()}
    tree = ast.parse((home / "registry.py").read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert with_check <= imported
    assert {kind.name for kind in registry.every()} == set(registry.NAMES) and len(registry.NAMES) == len(with_check)


def test_importing_the_engine_leaves_out_what_only_some_checks_need(python):
    code = f"import sys; import {engine.__name__}; print(*sys.modules)"
    loaded = python(code).stdout.split()
    assert engine.__name__ in loaded
    assert not {"http.client", "email", "ssl", "difflib", "urllib.parse", "ansible"} & set(loaded)
