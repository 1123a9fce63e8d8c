# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A directory of backups: what stays, what a name says, and what makes a file a backup."""

from __future__ import annotations

import datetime
import json
import os

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._database import backups
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.backups import Backup, Policy
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure


def moment(text):
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.timezone.utc).timestamp()


def backup(text, name=""):
    return Backup(name or text, "app.db", "sqlite", moment(text), 1, "0")


NOW = moment("2026-03-31T12:00")
HOURLY = [backup(f"2026-03-31T{hour:02}:00") for hour in range(8, 12)]
DAILY = [backup(f"2026-03-{day:02}T03:00") for day in range(20, 31)]
MONTHLY = [backup(text) for text in ("2025-12-31T23:59", "2026-01-01T00:01", "2026-01-31T03:00", "2026-02-28T03:00")]
ALL = [*MONTHLY, *DAILY, *HOURLY]


@pytest.mark.parametrize(
    ("there", "policy", "stays"),
    [
        ([], Policy(), []),
        (HOURLY[:1], Policy(last=0), ["2026-03-31T08:00"]),
        (HOURLY, Policy(last=3), ["2026-03-31T09:00", "2026-03-31T10:00", "2026-03-31T11:00"]),
        (HOURLY, Policy(last=0), ["2026-03-31T11:00"]),
        (HOURLY, Policy(last=99), [one.name for one in HOURLY]),
        # Two hours old is young enough, one second more is not.
        (HOURLY, Policy(last=1, within=2 * 3600), ["2026-03-31T10:00", "2026-03-31T11:00"]),
        (HOURLY, Policy(last=1, within=2 * 3600 - 1), ["2026-03-31T11:00"]),
        # The newest of each day stands for it, today included.
        (ALL, Policy(last=0, daily=3), ["2026-03-29T03:00", "2026-03-30T03:00", "2026-03-31T11:00"]),
        # Weeks begin on Monday; the 30th and the 31st of March are of one week.
        (ALL, Policy(last=0, weekly=3), ["2026-03-22T03:00", "2026-03-29T03:00", "2026-03-31T11:00"]),
        # Days with no backup are not counted, and the year changes.
        (
            ALL,
            Policy(last=0, monthly=9),
            ["2025-12-31T23:59", "2026-01-31T03:00", "2026-02-28T03:00", "2026-03-31T11:00"],
        ),
        # ISO's week 1 of 2026 has begun in 2025.
        (MONTHLY[:2], Policy(last=0, weekly=2), ["2026-01-01T00:01"]),
        # A backup stays when one rule keeps it.
        (
            ALL,
            Policy(last=2, daily=2, monthly=2),
            ["2026-02-28T03:00", "2026-03-30T03:00", "2026-03-31T10:00", "2026-03-31T11:00"],
        ),
    ],
)
def test_what_stays(there, policy, stays):
    leaving = backups.superfluous(there, policy, NOW)
    assert [one.taken for one in leaving] == sorted(one.taken for one in leaving), "the oldest goes first"
    assert sorted(one.name for one in there if one not in leaving) == stays
    # The order in which they are found does not matter.
    assert backups.superfluous(list(reversed(there)), policy, NOW) == leaving


def test_two_of_the_same_moment_are_told_apart_by_name():
    twins = [backup("2026-03-31T08:00", "a"), backup("2026-03-31T08:00", "b")]
    assert [one.name for one in backups.superfluous(twins, Policy(last=1), NOW)] == ["a"]


@pytest.mark.parametrize(("text", "seconds"), [(None, 0), ("", 0), ("36h", 129600), ("14d", 1209600), ("8w", 4838400)])
def test_keep_within(text, seconds):
    options = {"keep_within": text, "keep_last": 3, "keep_daily": 0, "keep_weekly": 0, "keep_monthly": 0}
    assert backups.policy_of(options) == Policy(within=seconds)


@pytest.mark.parametrize(
    ("name", "value", "said"), [("keep_within", "3 days", "'3 days'"), ("keep_last", -1, "found -1"), ("keep_daily", -2, "found -2")]
)
def test_policies_that_are_none(name, value, said):
    options = {"keep_within": None, "keep_last": 3, "keep_daily": 0, "keep_weekly": 0, "keep_monthly": 0, name: value}
    with pytest.raises(Failure, match=said):
        backups.policy_of(options)


def test_names_sort_like_their_moments_and_hold_no_path():
    early, late = (backups.name_for("app.db", NOW + microseconds / 1e6, "db") for microseconds in (0, 1))
    assert early == "app.db-20260331T120000.000000Z.db"
    assert early < late
    assert backups.name_for("../a b/ü", NOW, "dump") == ".._a_b__-20260331T120000.000000Z.dump"


def make(directory, name, content=b"content", **other):
    (directory / (backups.PARTIAL + name)).write_bytes(content)
    return backups.publish(str(directory), name, **{"database": "app.db", "kind": "sqlite", "taken": NOW, "facts": {"rows": {}}, **other})


NAME = "app.db-20260331T120000.000000Z.db"
LATER = "app.db-20260331T120001.000000Z.db"


def test_a_published_backup_is_found_and_verified(tmp_path):
    made = make(tmp_path, NAME)
    assert backups.backups_of(str(tmp_path), "app.db") == [made]
    assert backups.load(str(tmp_path), NAME) == made
    assert backups.problem(str(tmp_path), made) == ""
    assert backups.unfinished(str(tmp_path), "app.db") == []
    assert sorted(os.listdir(tmp_path)) == [NAME, f"{NAME}.json"]


def test_record_and_data_have_the_same_owner_and_mode(tmp_path):
    partial = tmp_path / (backups.PARTIAL + NAME)
    partial.write_bytes(b"x")
    backups.Ownership(uid=4711, gid=4712, mode=0o640).give(str(partial))
    backups.publish(str(tmp_path), NAME, "app.db", "sqlite", NOW, {})
    seen = [os.stat(tmp_path / one) for one in (NAME, f"{NAME}.json")]
    assert [(one.st_uid, one.st_gid, one.st_mode & 0o777) for one in seen] == [(4711, 4712, 0o640)] * 2


@pytest.mark.parametrize(
    "spoil", [lambda data: data[:-1], lambda data: data + b"x", lambda data: bytes([data[0] ^ 1]) + data[1:], lambda data: b""]
)
def test_data_that_has_changed_is_told(tmp_path, spoil):
    """Fails without the comparison in ``problem``."""
    made = make(tmp_path, NAME)
    (tmp_path / NAME).write_bytes(spoil((tmp_path / NAME).read_bytes()))
    assert "has changed since it was verified" in backups.problem(str(tmp_path), made)


def test_data_that_is_gone_is_no_backup(tmp_path):
    made = make(tmp_path, NAME)
    (tmp_path / NAME).unlink()
    assert backups.backups_of(str(tmp_path), "app.db") == []
    assert "cannot be read" in backups.problem(str(tmp_path), made)


def test_what_was_cut_short_is_found_and_nothing_else(tmp_path):
    make(tmp_path, NAME)
    cut = [
        f".partial-{LATER}",
        f".partial-{LATER}-journal",
        LATER,
        f".{LATER}.json.k3x9",
    ]
    others = [
        "app.db",
        "app.db.backup.1",
        "other.db-20260331T120001.000000Z.db",
        ".partial-other.db-20260331T120001.000000Z.db",
        "app.db-2026.db",
        "notes.json",
    ]
    for name in [*cut, *others]:
        (tmp_path / name).write_text("{}")
    assert sorted(backups.unfinished(str(tmp_path), "app.db")) == sorted(cut)


@pytest.mark.parametrize("record", ["", "{", "[]", '{"name": "another"}', json.dumps({"unknown": 1})])
def test_a_backup_whose_record_cannot_be_read_is_left_to_a_person(tmp_path, record):
    """Fails when ``unfinished`` takes whatever ``load`` does not know for unfinished: a bit flipped in a record would cost the backup."""
    make(tmp_path, NAME)
    (tmp_path / f"{NAME}.json").write_text(record)
    assert backups.backups_of(str(tmp_path), "app.db") == []
    assert backups.unfinished(str(tmp_path), "app.db") == []
    assert backups.unreadable(str(tmp_path), "app.db") == [NAME]


def test_a_directory_is_a_backup_as_well(tmp_path):
    partial = tmp_path / (backups.PARTIAL + NAME)
    (partial / "deep").mkdir(parents=True)
    (partial / "a").write_bytes(b"one")
    (partial / "deep" / "b").write_bytes(b"two")
    made = backups.publish(str(tmp_path), NAME, "app.db", "postgresql", NOW, {})
    assert made.size == 6
    assert backups.problem(str(tmp_path), made) == ""
    (tmp_path / NAME / "deep" / "b").rename(tmp_path / NAME / "deep" / "c")
    assert backups.problem(str(tmp_path), made) != ""
    backups.remove(str(tmp_path), made)
    assert os.listdir(tmp_path) == []


def test_what_one_file_ends_with_is_not_what_another_begins_with(tmp_path):
    """Fails without the lengths in ``digest``: a name and the content before it could be shifted against each other."""
    for name, first, second in (("x", b"1b\x002", None), ("y", b"1", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_bytes(first)
        if second is not None:
            (tmp_path / name / "b").write_bytes(second)
    assert backups.digest(str(tmp_path / "x"))[0] != backups.digest(str(tmp_path / "y"))[0]


def test_one_at_a_time(tmp_path):
    """Fails without the mutex."""
    directory = str(tmp_path / "new" / "backups")
    with backups.alone(directory, 1):
        assert os.stat(directory).st_mode & 0o777 == 0o700
        with pytest.raises(Failure, match="working on backups"), backups.alone(directory, 0):
            pass


@pytest.mark.parametrize(("owner", "mode"), [(4711, 0o700), (0, 0o770), (0, 0o777)])
def test_a_directory_that_others_can_change_is_refused(tmp_path, owner, mode):
    """Fails without ``trusted``: who can rename a file there can have root write where a link leads."""
    os.chmod(tmp_path, mode)
    os.chown(tmp_path, owner, -1)
    with pytest.raises(Failure, match="can be changed by others than root"), backups.alone(str(tmp_path), 0):
        pass


@pytest.mark.parametrize("mode", ["rw", "9", "0888", "06000", ""])
def test_modes_that_are_none(mode):
    with pytest.raises(Failure, match="octal mode"):
        backups.mode_of(mode)
