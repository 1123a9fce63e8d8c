# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Globs, modes and rules as data."""

from __future__ import annotations

import stat
import typing as t

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._permissions import Repair, Rule, RuleSet, Target, mode_bits, rules_of

FILE, DIRECTORY, LINK = stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK


def matched(rules: RuleSet, path: str) -> t.Optional[t.Tuple[int, ...]]:
    """The rules for a path, asked for as the walk does; None when the walk does not come there or passes it over."""
    if path == ".":
        return rules.root()
    state = rules.start
    *directories, name = path.split("/")
    for directory in directories:
        if state is None or rules.match(state, directory) is None:
            return None
        state = rules.step(state, directory)
    return None if state is None else rules.match(state, name)


@pytest.mark.parametrize(
    ("glob", "path", "matches"),
    [
        (".", ".", True),
        (".", "a", False),
        ("./", ".", True),
        ("**", ".", False),
        ("**", "a", True),
        ("**", "a/b/c", True),
        ("*", "a", True),
        ("*", "a/b", False),
        ("*", ".hidden", True),
        ("shared/.env", "shared/.env", True),
        ("shared/.env", "shared/.environment", False),
        ("shared/.env", "shared/x/.env", False),
        ("./shared//.env", "shared/.env", True),
        ("shared/*.db", "shared/app.db", True),
        ("shared/*.db", "shared/app.db-wal", False),
        ("shared/*.db", "shared/app.db.bak", False),
        ("shared/*.db", "shared/line\nbreak.db", True),
        ("shared/*.db", "shared/a/app.db", False),
        ("shared/**/*.db", "shared/app.db", True),
        ("shared/**/*.db", "shared/a/b/app.db", True),
        ("shared/**/*.db", "app.db", False),
        ("shared/*.db-*", "shared/app.db-wal", True),
        ("releases/**", "releases", False),
        ("releases/**", "releases/1", True),
        ("releases/**", "releases/1/a/b", True),
        ("releases/**/**", "releases/1", True),
        ("releases/*/bin/*", "releases/1/bin/run", True),
        ("releases/*/bin/*", "releases/1/2/bin/run", False),
        ("**/bin/*", "bin/run", True),
        ("**/bin/*", "a/b/bin/run", True),
        ("**/bin/**", "bin/bin/bin", True),
        ("a?c/[x-z]", "abc/y", True),
        ("a?c/[x-z]", "abc/a", False),
        ("a?c/[!x-z]", "abc/a", True),
        ("a.c", "abc", False),
    ],
)
def test_glob(glob: str, path: str, matches: bool) -> None:
    assert bool(matched(RuleSet([Rule(glob)]), path)) is matches


@pytest.mark.parametrize(
    ("exclude", "path", "seen"),
    [
        ("a", "a", False),
        ("a", "a/b", False),
        ("a/**", "a", True),
        ("a/**", "a/b", False),
        ("**/cache", "a/cache", False),
        ("**/cache", "a/cached", True),
        ("**/*.log", "a/b.log", False),
    ],
)
def test_what_is_excluded_is_passed_over_with_all_beneath(exclude: str, path: str, seen: bool) -> None:
    assert (matched(RuleSet([Rule("**")], [exclude]), path) is not None) is seen


def test_directories_that_no_rule_reaches_are_not_entered() -> None:
    rules = RuleSet([Rule("a/*"), Rule("b/**/c")])
    assert rules.start is not None
    assert rules.step(rules.start, "x") is None
    inner = rules.step(rules.start, "a")
    assert inner is not None and rules.step(inner, "y") is None
    deep = rules.step(rules.start, "b")
    assert deep is not None and rules.step(deep, "y") is not None


def test_directories_that_are_alike_share_a_state() -> None:
    rules = RuleSet([Rule("releases/**"), Rule("shared/*.db")])
    assert rules.start is not None
    releases = rules.step(rules.start, "releases")
    assert releases is not None and rules.step(releases, "1") is rules.step(releases, "2") is releases
    assert releases.special is None


def test_the_last_rule_that_mentions_an_attribute_decides_it() -> None:
    rules = RuleSet([Rule("**", uid=0, gid=0, mode="0640"), Rule("shared/**", uid=33), Rule("shared/.env", mode="0600")])
    assert matched(rules, "shared/.env") == (0, 1, 2)
    target = rules.target((0, 1, 2))
    assert target is not None and target.judge(FILE | 0o777, 5, 5) == Repair(33, 0, 0o600)


@pytest.mark.parametrize(
    ("spec", "found", "expected"),
    [
        ("0640", FILE | 0o4777, 0o640),
        ("640", FILE | 0o600, 0o640),
        ("2750", DIRECTORY | 0o755, 0o2750),
        ("0750", DIRECTORY | 0o2755, 0o750),
        ("go-w", FILE | 0o666, 0o644),
        ("go-w", FILE | 0o4777, 0o755),
        ("go-w", DIRECTORY | 0o2777, 0o2755),
        ("u=rwX,g=rX,o=", FILE | 0o644, 0o640),
        ("u=rwX,g=rX,o=", FILE | 0o744, 0o750),
        ("u=rwX,g=rX,o=", DIRECTORY | 0o000, 0o750),
        ("a+rX,go-w", FILE | 0o620, 0o644),
        ("ug=rw,o=r", FILE | 0o777, 0o664),
        ("a=", FILE | 0o777, 0),
        ("u+x", FILE | 0o600, 0o700),
    ],
)
def test_mode(spec: str, found: int, expected: int) -> None:
    assert oct(mode_bits(spec, found)) == oct(expected)


@pytest.mark.parametrize(
    ("found", "expected"), [(FILE | 0o644, 0o640), (FILE | 0o755, 0o750), (FILE | 0o100, 0o750), (DIRECTORY | 0o777, 0o640)]
)
def test_executables_keep_their_bit_for_those_who_may_read(found: int, expected: int) -> None:
    assert oct(mode_bits("0640", found, keep_executable=True)) == oct(expected)


def test_what_is_right_needs_nothing() -> None:
    target = Target([Rule("**", uid=1, gid=2, mode="0640", directory_mode="0750")])
    assert target.judge(FILE | 0o640, 1, 2) is None
    assert target.judge(DIRECTORY | 0o750, 1, 2) is None
    assert target.judge(LINK | 0o777, 1, 9) is None


def test_only_what_is_wrong_is_touched() -> None:
    target = Target([Rule("**", uid=1, gid=2, mode="0640")])
    assert target.judge(FILE | 0o640, 9, 2) == Repair(1, -1, None)
    assert target.judge(FILE | 0o644, 1, 2) == Repair(-1, -1, 0o640)
    assert target.judge(DIRECTORY | 0o777, 1, 9) == Repair(-1, 2, None)
    assert target.judge(LINK | 0o777, 9, 9) == Repair(1, -1, None)


def test_a_setuid_bit_that_was_asked_for_is_set_again_after_chown_took_it() -> None:
    assert Target([Rule("**", uid=1, mode="4750")]).judge(FILE | 0o4750, 9, 9) == Repair(1, -1, 0o4750)


def test_numbers_are_ids() -> None:
    assert rules_of([{"path": "**", "owner": "12345", "group": "23456"}]) == [Rule("**", uid=12345, gid=23456)]


def test_all_mistakes_are_told_at_once_and_by_name() -> None:
    with pytest.raises(Failure) as caught:
        rules_of(
            [
                {"path": "/etc", "owner": "nobody-of-that-name"},
                {"path": "a/../..", "group": "no-group-of-that-name", "mode": 416},
                {"path": "b", "mode": "rw-r-----", "directory_mode": "0999"},
            ]
        )
    for part in (
        "rules[0] (/etc): path is '/etc'",
        "rules[0] (/etc): owner is 'nobody-of-that-name'; this host has no user of that name",
        "rules[1] (a/../..): path is",
        "group is 'no-group-of-that-name'",
        'rules[1] (a/../..): mode is 416; an octal mode in quotes like "0640"',
        'write "0640"',
        "mode is 'rw-r-----'",
        "directory_mode is '0999'",
    ):
        assert part in caught.value.what
