# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host makes of what the others serve, when its run fell silent in the midst of the commit. The others are servers of this test."""

from __future__ import annotations

import os

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils import _manifest, _peers, _state, _unfinished
from ansible_collections.bulletproof.deploy.plugins.module_utils._layout import reserved
from ansible_collections.bulletproof.deploy.plugins.module_utils._state import Position

OLD, NEW = Position("blue", "1-a"), Position("green", "2-b")
NOBODY = "http://127.0.0.1:1/health"


@pytest.fixture
def peer(serve):
    """Starts a host that answers with these bodies, one after the other, and the last one from then on; gives its URL."""

    def start(*bodies, status=200):
        left = list(bodies)
        return serve(lambda handler: handler.answer(status, left.pop(0) if len(left) > 1 else left[0])).url + "/health"

    return start


def serves(version):
    return {"version": version}


@pytest.fixture
def ask(layout, monkeypatch):
    """What is heard by a host that has called 2-b good, before which it served 1-a."""
    monkeypatch.setattr(_peers, "CONFIRMED", 0.1)

    def ask(*urls, tells=("json", "version"), old="1"):
        health = {
            "version": dict([tells]) if tells else {},
            "expected": ["2", "v2"],
            "headers": {"Host": "shop.example"},
            "timeout": 2,
            "status": [200],
        }
        for position, version in ((OLD, old), (NEW, "2")):
            directory = layout.release(position.release)
            os.makedirs(reserved(directory, ""))
            _manifest.save(directory, _manifest.Manifest(position.release, version, "", "", "", health, state="good"))
        state = _state.State(live=OLD).arm("run1", NEW, 1.0).call_good({f"web{number}": url for number, url in enumerate(urls, 2)})
        return _peers.gone_back(layout, state)

    return ask


def test_all_serve_it(ask, peer):
    assert ask(peer(serves("2")), peer(serves("v2"))) == ""


def test_one_has_gone_back_whatever_the_others_do(ask, peer):
    assert ask(peer(serves("2")), peer(serves("1")), NOBODY) == "web3 serves version 1"


def test_one_that_was_about_to_go_back_is_seen_to(ask, peer):
    """Fails when the first answer is believed."""
    assert ask(peer(serves("2"), serves("1"))) == "web2 serves version 1"


@pytest.mark.parametrize("answer", [None, {"body": {}, "status": 200}, {"body": serves("1"), "status": 503}])
def test_no_answer_is_neither_yes_nor_no(ask, peer, answer):
    url = peer(answer["body"], status=answer["status"]) if answer else NOBODY
    with pytest.raises(_peers.Silent, match="web3: "):
        ask(peer(serves("2")), url)


def test_an_address_that_is_none_is_no_answer(ask):
    """Fails when it ends the agent, which would then never come to an end."""
    with pytest.raises(_peers.Silent, match="not a url"):
        ask("not a url")


@pytest.mark.parametrize("told", [{"tells": None}, {"old": "2"}])
def test_who_cannot_tell_two_releases_apart_is_not_asked(ask, peer, told):
    assert ask(peer(serves("1")), **told) == ""


def test_a_host_that_knows_of_no_other_asks_nobody(ask):
    assert ask() == ""


@pytest.mark.parametrize("now_or_never,age,ends", [(False, 10, ""), (True, 10, "finish"), (False, 7200, "finish")])
def test_silence_is_borne_for_an_hour_by_who_can_wait(layout, monkeypatch, now_or_never, age, ends, capsys):
    done = []
    state = _state.State(live=OLD).arm("run1", NEW, 10_000.0).call_good({"web2": NOBODY})
    _state.save(layout, state)
    monkeypatch.setattr(_unfinished.time, "time", lambda: 10_000.0 + age)
    monkeypatch.setattr(_peers, "gone_back", _silent)
    monkeypatch.setattr(_unfinished._transition, "finish", lambda layout, run: done.append("finish"))
    monkeypatch.setattr(_unfinished, "revert", lambda layout, why: done.append(f"revert: {why}"))
    monkeypatch.setattr(_unfinished._audit, "append", lambda *arguments, **more: None)
    _unfinished.settle(layout, "its lease ended", now_or_never)
    assert "".join(done) == ends
    assert ("web2: no answer" in capsys.readouterr().err) == (not ends)


def _silent(layout, state):
    raise _peers.Silent("web2: no answer")
