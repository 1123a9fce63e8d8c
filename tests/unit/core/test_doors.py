# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The live sockets: wherever slots come and go, each leads to one that serves."""

from __future__ import annotations

import os
import pathlib

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils import _doors, _transition
from ansible_collections.bulletproof.deploy.plugins.module_utils._state import Position


@pytest.fixture
def host(layout, monkeypatch):
    monkeypatch.setattr(type(layout), "runtime", property(lambda self: f"{self.root}/run"))
    pathlib.Path(layout.runtime).mkdir()
    return layout


def seen(layout):
    return {name: os.readlink(f"{layout.runtime}/{name}") for name in sorted(os.listdir(layout.runtime))}


def test_an_app_has_one_unless_more_are_wanted(host):
    assert _doors.every(host) == [host.live_socket]
    _doors.lead(host, ["blue"])
    assert seen(host) == {"live.sock": "blue.sock"}


def test_the_proxy_may_know_a_new_one_at_once(host):
    _doors.lead(host, ["blue"])
    _doors.record(host, 3)
    assert seen(host) == {"live-2.sock": "blue.sock", "live-3.sock": "blue.sock", "live.sock": "blue.sock"}
    _doors.lead(host, ["1", "2", "3"])
    assert seen(host) == {"live-2.sock": "2.sock", "live-3.sock": "3.sock", "live.sock": "1.sock"}
    assert _doors.lead_to(host, ["1", "2", "3"]) and not _doors.lead_to(host, ["1", "3", "2"])


def test_nothing_is_opened_where_nothing_is_served(host):
    _doors.record(host, 2)
    assert seen(host) == {}


def test_fewer_slots_than_doors_share_them_out(host):
    _doors.record(host, 3)
    _doors.lead(host, ["1", "2"])
    assert seen(host) == {"live-2.sock": "2.sock", "live-3.sock": "1.sock", "live.sock": "1.sock"}


def test_the_users_of_a_slot_go_away_and_come_back(host):
    _doors.record(host, 3)
    _doors.lead(host, ["1", "2", "3"])
    _doors.away(host, "2", "3")
    assert seen(host) == {"live-2.sock": "3.sock", "live-3.sock": "3.sock", "live.sock": "1.sock"}
    _doors.away(host, "1", "3")
    _doors.lead(host, ["1", "2", "3"], "2")
    assert seen(host) == {"live-2.sock": "2.sock", "live-3.sock": "3.sock", "live.sock": "3.sock"}


def test_what_the_proxy_has_forgotten_is_closed_and_nothing_else(host):
    _doors.record(host, 3)
    _doors.lead(host, ["1", "2", "3"])
    pathlib.Path(host.runtime, "blue.sock").symlink_to("anything")
    _doors.record(host, 1)
    _doors.close(host, keep=_doors.every(host))
    assert seen(host) == {"blue.sock": "anything", "live.sock": "1.sock"}
    _doors.close(host)
    assert seen(host) == {"blue.sock": "anything"}


def test_on_the_way_back_users_are_sent_only_to_what_was_before(host, monkeypatch):
    """All have moved: the first to be taken back keeps its users at its socket, and then has those of all others until they are back, too."""
    back, story = [], []
    monkeypatch.setattr(_transition, "serves_from", lambda layout, place: place.slot in back)
    monkeypatch.setattr(_transition._processes, "run", lambda layout, position: None)

    def run_slot(layout, place):
        story.append((place.slot, [seen(layout)[name].partition(".")[0] for name in ("live.sock", "live-2.sock", "live-3.sock")]))
        back.append(place.slot)

    monkeypatch.setattr(_transition, "run_slot", run_slot)
    _doors.record(host, 3)
    _doors.lead(host, ["1", "2", "3"])
    _transition.serve(host, Position("1..3", "1-a"))
    assert story == [("1", ["1", "2", "3"]), ("2", ["1", "1", "1"]), ("3", ["1", "2", "1"])]
    assert _doors.lead_to(host, ["1", "2", "3"])
