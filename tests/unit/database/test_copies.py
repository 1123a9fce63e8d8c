# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which copies are sent and which leave, as data."""

from __future__ import annotations

import json

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._database import copies
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.backups import Backup, Policy, name_for
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.copies import Copy, Plan, There
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._object_store import Stored

NOW = 1_900_000_000.0
DAY = 86400


def backup(days_ago: float, sha256: str = "a") -> Backup:
    taken = NOW - days_ago * DAY
    return Backup(name_for("shop", taken, "dump"), "shop", "postgresql", taken, 10, sha256, {"tables": {"orders": 3}})


def copy(days_ago: float, why: str = "", sha256: str = "a") -> Copy:
    one = backup(days_ago, sha256)
    return Copy(one, {one.name: {"size": 10, "sha256": sha256, "etag": "e"}}, why)


def planned(local: list[Backup], there: There, **policy: float) -> Plan:
    return copies.plan(local, there, Policy(**{"last": 2, **policy}), NOW)


@pytest.mark.parametrize(
    ("local", "there", "expected"),
    [
        ([], There(), Plan()),
        ([backup(1)], There((copy(1),)), Plan()),
        ([backup(1)], There(), Plan(send=((backup(1), ""),))),
        # The newest first; what would leave at once is not sent.
        ([backup(3), backup(1), backup(2)], There(), Plan(send=((backup(1), ""), (backup(2), "")))),
        # What is to be sent counts, what it pushes out leaves.
        ([backup(1)], There((copy(2), copy(3))), Plan(send=((backup(1), ""),), leave=(copy(3),))),
        # More may be kept there than here.
        ([backup(1)], There((copy(1), copy(2))), Plan()),
        ([backup(1)], There((copy(1, "torn"),)), Plan(send=((backup(1), "torn"),))),
        ([backup(1)], There((copy(1, sha256="b"),)), Plan(send=((backup(1), "it is of another backup of the same name"),))),
        # Nothing takes the place of a damaged copy, and it takes no sound one's.
        ([], There((copy(1, "torn"), copy(2), copy(3))), Plan(lost={copy(1).name: "torn"})),
        ([backup(1)], There((copy(1), copy(2), copy(9, "torn"))), Plan(leave=(copy(9, "torn"),))),
        ([], There((copy(9, "torn"),)), Plan(lost={copy(9).name: "torn"})),
        ([], There(unreadable={"x": "torn"}), Plan(lost={"x": "torn"})),
        ([backup(1)], There(unreadable={backup(1).name: "torn"}), Plan(send=((backup(1), "torn"),))),
        # What the sending writes over is not removed before.
        ([backup(1)], There(strays=(f"p/{backup(1).name}", "p/y")), Plan(send=((backup(1), ""),), strays=("p/y",))),
    ],
)
def test_a_plan(local, there, expected):
    assert planned(local, there) == expected


def test_the_newest_sound_copy_never_leaves():
    assert planned([], There((copy(100),)), last=0).leave == ()
    assert planned([], There((copy(1, "torn"), copy(100))), last=0).leave == ()


def test_a_record_comes_back_as_it_was():
    one = copy(1)
    assert copies.parse(one.name, copies.record_of(one)) == one
    assert json.loads(copies.record_of(one))["sha256"] == "a", "By hand it can be taken for the record of a backup, which it is."


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("n.dump", True),
        ("n.dump/toc.dat", True),
        ("n.dump/blobs/1.dat", True),
        ("n.dump/../../etc/cron.d/x", False),
        ("n.dump/", False),
        ("n.dump//x", False),
        ("n.dumpling", False),
        ("/etc/passwd", False),
    ],
)
def test_a_record_names_only_its_own_objects(key, allowed):
    """Fails without the check of keys: a bucket could have a host write anywhere."""
    one = Copy(Backup("n.dump", "shop", "postgresql", 1.0, 10, "a"), {key: {"size": 10, "sha256": "a", "etag": "e"}})
    if allowed:
        assert copies.parse("n.dump", copies.record_of(one)) == one
    else:
        with pytest.raises(ValueError, match="not its own"):
            copies.parse("n.dump", copies.record_of(one))


@pytest.mark.parametrize("record", [b"", b"[]", b"{}", b"\xff", json.dumps(backup(1).__dict__).encode()])
def test_a_record_that_proves_nothing_is_none(record):
    with pytest.raises(ValueError, match="nothing of what was proven"):
        copies.parse(backup(1).name, record)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ({"size": 10, "etag": "e"}, ""),
        ({"size": 9, "etag": "e"}, "has 9 bytes, not 10"),
        ({"size": 10, "etag": "f"}, "has the ETag f, not e"),
        (None, "is not there"),
    ],
)
def test_what_the_listing_shows(found, why):
    one = copy(1)
    listed = {one.name: Stored(one.name, **found)} if found else {}
    assert why in copies.difference(one, listed) and bool(why) == bool(copies.difference(one, listed))


@pytest.mark.parametrize(("text", "prefix"), [("", ""), ("/", ""), ("a", "a/"), ("/a/b/", "a/b/")])
def test_a_prefix_is_a_folder(text, prefix):
    assert copies.prefix_of(text) == prefix


@pytest.mark.parametrize("text", ["a//b", "../a", "a/./b"])
def test_a_prefix_that_is_none(text):
    with pytest.raises(Failure, match="prefix: found"):
        copies.prefix_of(text)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        (backup(1).name, True),
        (f"{backup(1).name}.json", True),
        (f"shop-x{backup(1).name[4:]}", False),
        ("shop-notes.txt", False),
        ("app_dev.db.backup.1", False),
        (f"old-{backup(1).name}", False),
    ],
)
def test_only_names_of_backups_of_the_database_are_ours(name, ours):
    assert bool(copies.pattern_of("shop").fullmatch(name)) is ours


def test_a_database_may_be_called_as_the_epoch_is():
    assert copies.pattern_of("shop-1970").fullmatch(name_for("shop-1970", NOW, "dump"))


def test_the_copy_to_bring_back():
    there = There((copy(1, "torn"), copy(2), copy(3)))
    assert copies.choose("newest", there, "here") == copy(2)
    assert copies.choose(copy(3).name, there, "here") == copy(3)
    with pytest.raises(Failure, match="is damaged: torn"):
        copies.choose(copy(1).name, there, "here")
    with pytest.raises(Failure, match="There is no copy x"):
        copies.choose("x", there, "here")
    with pytest.raises(Failure, match="There is no sound copy"):
        copies.choose("newest", There((copy(1, "torn"),)), "here")
