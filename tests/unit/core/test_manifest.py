# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a rollback goes, and what pruning leaves, as data."""

from __future__ import annotations

import itertools
import pathlib

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils import _manifest
from ansible_collections.bulletproof.deploy.plugins.module_utils._layout import reserved


def release(text):
    """ "b<a@2" is the good release b, committed at 2, when a served; "b!bad" never was good."""
    name, _bang, state = text.partition("!")
    name, _at, committed = name.partition("@")
    name, _from, previous = name.partition("<")
    return _manifest.Manifest(name, name, "", "", "", {}, state=state or "good", previous=previous, committed=float(committed or 0))


def releases(texts):
    return [release(text) for text in texts.split()]


def name(manifest):
    return manifest.release if manifest else None


@pytest.mark.parametrize(
    "have,live,back",
    [
        pytest.param("a@1 b<a@2 c<b@3", "c", "b", id="to the one before"),
        pytest.param("a@1 b<a@2 c<b@3", "b", "a", id="a second time, from where the first one went: not forth again"),
        pytest.param("a@1 b<a@2 c<b@3", "a", None, id="from the first: nowhere"),
        pytest.param("a@1 b<a@2!bad c<b@3", "c", "a", id="past a bad one"),
        pytest.param("a@1 b<a@2!staged c<b@3", "c", "a", id="past one that is staged only"),
        pytest.param("a@1 c<b@3", "c", "a", id="over a gap that pruning left: the newest committed before"),
        pytest.param("a@1 b@2 d<c@4", "d", "b", id="over a gap, not to the oldest"),
        pytest.param("a@1 c<b@3 d<c@4", "c", "a", id="over a gap, never to a newer one"),
        pytest.param("a<b@3 b<a@2", "a", "b", id="redeployed after a rollback: a cycle"),
        pytest.param("a<b@3!bad b<a@2!bad", "a", None, id="a cycle of bad ones ends"),
        pytest.param("a<a@1", "a", None, id="its own predecessor"),
        pytest.param("a@1 b<a@2", "x", "b", id="from one that is not there: to the newest good one"),
        pytest.param("a@1 b<a!live", "b", "a", id="from one on trial"),
        pytest.param("a@1 x!bad", "a", None, id="never to a bad one"),
        pytest.param("", "a", None, id="from nothing"),
    ],
)
def test_back_from(have, live, back):
    assert name(_manifest.back_from(releases(have), live)) == back


@pytest.mark.parametrize(
    "have,keep,live,pruned",
    [
        pytest.param("a@1 b<a@2 c<b@3", 5, "c", "", id="few enough"),
        pytest.param("a@1 b<a@2 c<b@3 d<c@4", 2, "d", "a b", id="the newest stay"),
        pytest.param("a@1 b<a@2 c<b@3", 1, "c", "a", id="the one that a rollback goes to stays beside"),
        pytest.param("a@1 b<a@2 x!bad y!bad c<b@3", 2, "c", "a x y", id="bad ones take no good one's place"),
        pytest.param("a@1 b<a@2 c<b@3 d<c@4", 1, "b", "c", id="after a rollback: the live one, its predecessor, and the newest"),
        pytest.param("a@1 b<a@2!bad c<b@3", 1, "c", "b", id="the rollback's target past a bad one"),
        pytest.param("a@1 b<a@2 c<b@3", 0, "c", "a", id="keep nothing: what is needed stays"),
        pytest.param("a@1 b!staged", 1, "a", "b", id="staged and never used"),
    ],
)
def test_to_prune(have, keep, live, pruned):
    assert [one.release for one in _manifest.to_prune(releases(have), keep, {live})] == pruned.split()


def histories():
    """All of up to four releases, each good or bad, each after one that was committed before it, or after none."""
    names = "abcd"
    for states in itertools.product(["good", "bad"], repeat=4):
        for previous in itertools.product(*(["", *names[:at]] for at in range(4))):
            yield [
                _manifest.Manifest(own, own, "", "", "", {}, state=state, previous=before, committed=at)
                for at, (own, state, before) in enumerate(zip(names, states, previous), 1)
            ]


def test_pruning_never_takes_what_is_needed():
    for have in histories():
        for live in "abcd":
            gone = {one.release for one in _manifest.to_prune(have, 1, {live})}
            back = _manifest.back_from(have, live)
            assert live not in gone
            assert back is None or (back.state == "good" and back.release not in gone | {live})


def test_a_manifest_remembers_what_became_of_it(layout):
    directory = layout.release("a-1")
    kept = pathlib.Path(reserved(directory, "manifest.json"))
    kept.parent.mkdir(parents=True)
    _manifest.save(directory, release("a-1!building"))
    _manifest.mark(layout, "a-1", "staged", "run1", "whole")
    _manifest.mark(layout, "a-1", "good", "run2", "committed", committed=7.0, previous="a-0")
    found = _manifest.need(layout, "a-1")
    assert (found.state, found.committed, found.previous) == ("good", 7.0, "a-0")
    assert [(event["state"], event["run"]) for event in found.history] == [("staged", "run1"), ("good", "run2")]
    kept.write_text('{"release": ')
    assert _manifest.load(layout, "a-1") is None, "half a manifest is no manifest"
    _manifest.mark(layout, "a-1", "bad", "run3", "cannot be read")


def test_the_history_is_bounded():
    manifest = release("a")
    for number in range(3 * _manifest.HISTORY):
        manifest = manifest.become("staged", str(number), "")
    assert len(manifest.history) == _manifest.HISTORY and manifest.history[-1]["run"] == str(3 * _manifest.HISTORY - 1)
