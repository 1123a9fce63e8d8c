# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What becomes of a fleet, from what its hosts have told."""

from __future__ import annotations

import pytest
from ansible_collections.bulletproof.deploy.plugins.plugin_utils import _fleet

LEFT = {"switch_left": {"task": "Switch to the release", "why": "Release 2-b is not healthy.\nMore."}}
MOVED = {"switch_done": {"release": "2-b", "before": "1-a"}, "preflight_answer": {"live": "1-a"}}
WENT_BACK = {"switch_revert": {"serves": "1-a", "problem": ""}, "preflight_answer": {"live": "1-a"}}


def rows(text):
    return [[cell for cell in line.split("  ") if cell.strip()] for line in text.splitlines()]


def test_all_are_well():
    assert _fleet.judge({"web1": MOVED, "web2": {}}, ["web1", "web2"], 0) == {
        "left": [],
        "go_on": True,
        "why": {},
        "why_all": "",
        "spread": 0.0,
        "peers": {},
    }


def declared(url, **more):
    return {**MOVED, "app_declaration": {"health": {"url": url}}, **more}


@pytest.mark.parametrize(
    "facts,url",
    [
        (declared("http://127.0.0.1:80/health"), "http://web1:80/health"),
        (declared("http://127.0.0.1:80/health", ansible_host="192.0.2.11"), "http://192.0.2.11:80/health"),
        (declared("https://127.0.0.1:443/h", ansible_host="2001:db8::1"), "https://[2001:db8::1]:443/h"),
        (declared("http://127.0.0.1:80/h", ansible_host="bastion", load_balancer_member_address="10.0.0.1"), "http://10.0.0.1:80/h"),
        (declared("http://192.0.2.99:80/health", ansible_host="192.0.2.11"), "http://192.0.2.99:80/health"),
    ],
)
def test_where_the_others_ask_a_host_for_its_health(facts, url):
    assert _fleet.judge({"web1": facts, "web2": LEFT}, ["web1", "web2"], 1)["peers"] == {"web1": url}


def test_who_has_no_proxy_of_ours_and_who_has_not_moved_is_not_asked():
    known = {"web1": declared(""), "web2": {"app_declaration": {"health": {"url": "http://127.0.0.1:80/health"}}}}
    assert _fleet.judge(known, list(known), 0)["peers"] == {}


@pytest.mark.parametrize("allow,go_on", [(0, False), (1, True)])
def test_one_that_failed_stays_behind_or_takes_all_back(allow, go_on):
    judged = _fleet.judge({"web1": MOVED, "web2": LEFT, "web3": {}}, ["web1", "web2", "web3"], allow)
    assert (judged["left"], judged["go_on"]) == (["web2"], go_on)
    assert judged["why"] == {"web2": '"Switch to the release": Release 2-b is not healthy.'}
    assert judged["why_all"] == "It goes back with web2."


def test_one_that_does_not_answer_counts():
    judged = _fleet.judge({"web1": MOVED, "web2": {}}, ["web1"], 0)
    assert (judged["left"], judged["go_on"]) == (["web2"], False)


def test_how_far_apart_the_hosts_moved():
    moved = [{"switch_done": {"release": "2-b", "flipped": moment}} for moment in (1000.25, 1000.0, 0.0, 1000.125)]
    known = {f"web{number}": facts for number, facts in enumerate(moved)}
    assert _fleet.judge(known, list(known), 0)["spread"] == 0.25


def test_nobody_is_no_fleet():
    """However many failures are allowed: a release that no host has is none."""
    assert not _fleet.judge({"web1": LEFT}, ["web1"], 1)["go_on"]


def test_hosts_that_would_not_agree_go_no_further():
    other = {"switch_done": {"release": "0-z"}}
    judged = _fleet.judge({"web1": MOVED, "web2": other}, ["web1", "web2"], 0)
    assert not judged["go_on"]
    assert judged["why_all"] == "The hosts would not agree: web1 to 2-b; web2 to 0-z. Name the version (-e app_version=VERSION)."


def test_the_end_of_a_run_that_went_back():
    known = {"web1": {**WENT_BACK, **MOVED}, "web2": {**LEFT, **WENT_BACK}, "web3": {"preflight_answer": {"live": "1-a"}}}
    why = _fleet.failures(known)
    assert list(why) == ["web2", "web3"]
    head, web1, web2, web3 = rows(_fleet.ended(known, why))
    assert [cell.strip() for cell in head] == ["host", "before", "now", "why"]
    assert [cell.strip() for cell in web1] == ["web1", "1-a", "1-a"]
    assert [cell.strip() for cell in web2[:3]] == ["web2", "1-a", "1-a"] and "not healthy" in web2[3]
    assert [cell.strip() for cell in web3[:3]] == ["web3", "1-a", "unknown"] and "does so by itself" in web3[3]


def test_a_host_that_went_back_alone():
    known = {"web1": {**LEFT, "switch_alone": {"serves": "1-a", "problem": "it is slow"}, "preflight_answer": {"live": "1-a"}}}
    _head, web1 = rows(_fleet.ended(known, _fleet.left_behind(known, ["web1"])))
    assert [cell.strip() for cell in web1[:3]] == ["web1", "1-a", "1-a"] and web1[3].endswith("Look at it: it is slow")


def test_a_host_that_could_not_go_back():
    known = {"web1": {"switch_revert": {"failed": True, "problem": "The disk is full."}, "preflight_answer": {"live": "1-a"}}}
    told = _fleet.ended(known, _fleet.failures(known))
    assert "unknown" in told and "it could not go back. It does so by itself" in told and "The disk is full." in told


def test_the_way_back_that_was_not_reached_is_unknown():
    known = {"web1": {"switch_revert": {"unreachable": True, "msg": "no route"}, "preflight_answer": {"live": "1-a"}}}
    assert "unknown" in _fleet.ended(known, _fleet.failures(known))


def test_an_old_release_that_does_not_answer_is_told():
    ill = {
        "switch_revert": {"serves": "1-a", "problem": "1 of 2 checks passed."},
        "switch_failed": {"task": "Stage the release", "why": "Full.\nMore."},
    }
    told = _fleet.ended({"web1": ill}, _fleet.failures({"web1": ill}))
    assert '"Stage the release": Full.' in told and "Look at it: 1 of 2 checks passed." in told


def test_a_host_that_failed_and_could_not_go_back_tells_both():
    known = {
        "web1": {
            "switch_failed": {"task": "Stage the release", "why": "Full."},
            "switch_revert": {"failed": True, "problem": "Still full."},
        }
    }
    assert _fleet.failures(known)["web1"].startswith('"Stage the release": Full. And it could not go back. It does so by itself')


def test_a_host_that_is_silent_does_not_hide_what_failed_on_another():
    known = {"web1": {"switch_failed": {"task": "Stage the release", "why": "Full."}, **WENT_BACK}, "web2": {}}
    why = _fleet.failures(known)
    assert why["web1"] == '"Stage the release": Full.' and why["web2"].startswith(_fleet.NOT_BACK)


def test_what_fails_on_the_controller_alone_is_no_empty_table():
    """A file that is not there to be included fails before any host has a result to remember."""
    known = {"web1": WENT_BACK, "web2": WENT_BACK}
    _head, *told = rows(_fleet.ended(known, _fleet.failures(known)))
    assert [row[3] for row in told] == [_fleet.NOT_THE_HOSTS] * 2


def test_the_end_of_a_run_that_left_some_behind():
    known = {"web1": MOVED, "web2": {**LEFT, **WENT_BACK}, "web3": {"preflight_answer": {"live": "1-a"}}}
    _head, web1, web2, web3 = rows(_fleet.ended(known, _fleet.left_behind(known, ["web1", "web2"])))
    assert [cell.strip() for cell in web1] == ["web1", "1-a", "2-b"]
    assert [cell.strip() for cell in web2[:3]] == ["web2", "1-a", "1-a"]
    assert [cell.strip() for cell in web3[:3]] == ["web3", "1-a", "unknown"]


def status(release="1.0-a", **more):
    live = {"release": release, "since": 0.0} if release else None
    return {"app_status": {"live": live, "serving": True, "safety_net": None, "configuration": "c", **more}}


def test_a_fleet_that_agrees():
    table, wrong = _fleet.status({"web1": status(), "web2": status()}, "1.0", "c")
    assert wrong == []
    assert [line.split()[-1] for line in table.splitlines()[1:]] == ["none", "none"]


@pytest.mark.parametrize(
    "other,said",
    [
        (status("2.0-b"), "The hosts do not agree. web1: 1.0-a; web2: 2.0-b."),
        (status(""), "The hosts do not agree. web1: 1.0-a; web2: nothing."),
        (status(serving=False), "web2 does not serve what it should"),
        ({"app_status": {"unreachable": True, "msg": "no route to host"}}, "web2 did not answer: no route to host"),
        ({}, "web2 did not answer"),
        (status(processes=["the process clock-1 does not run"]), "web2: the process clock-1 does not run."),
    ],
)
def test_a_fleet_that_does_not(other, said):
    _table, wrong = _fleet.status({"web1": status(), "web2": other}, "", "c")
    assert any(one.startswith(said) for one in wrong), wrong


def test_drift():
    assert _fleet.drift(status()["app_status"], "1.0", "c") == "none"
    assert _fleet.drift(status()["app_status"], "1.0.1", "d") == "declared is 1.0.1, configured for another declaration"
    assert _fleet.drift(status("")["app_status"], "1.0", "c") == "none"


@pytest.mark.parametrize(
    "more,said",
    [
        ({}, "serves"),
        ({"serving": False}, "does not serve it"),
        ({"safety_net": {"good": False}}, "on trial"),
        ({"safety_net": {"good": True}}, "being committed"),
    ],
)
def test_states(more, said):
    assert _fleet.condition(status(**more)["app_status"]) == said
