# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type disk."""

from __future__ import annotations

import os

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import disk, engine
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure


def usage(frsize=4096, blocks=0, bfree=0, bavail=0, files=0, ffree=0, favail=0):
    return os.statvfs_result((4096, frsize, blocks, bfree, bavail, files, ffree, favail, 0, 255))


def test_the_blocks_reserved_for_root_do_not_count():
    free = disk.free_of(usage(blocks=1000, bfree=300, bavail=256, files=100, ffree=10, favail=10))
    assert free == {"free_mb": 1.0, "free_percent": 26.8, "free_inodes_percent": 10.0}


def test_full_is_zero_and_no_inodes_are_not_none_left():
    assert disk.free_of(usage(blocks=1000, files=100)) == {"free_mb": 0.0, "free_percent": 0.0, "free_inodes_percent": 0.0}
    assert disk.free_of(usage())["free_inodes_percent"] is None
    assert disk.free_of(usage())["free_percent"] == 0.0


def test_a_filesystem_without_a_number_of_inodes_passes(check):
    assert os.statvfs("/proc").f_files == 0
    verdict = check(type="disk", path="/proc", min_free_inodes_percent=50)
    assert verdict.verdict == "pass" and "without a fixed number" in verdict.evidence


@pytest.mark.parametrize(
    "limit,verdict",
    [
        ({"min_free_mb": 0.1}, "pass"),
        ({"min_free_mb": 1e12}, "fail"),
        ({"min_free_percent": 100}, "fail"),
        ({"min_free_percent": 0}, "pass"),
    ],
)
def test_limits(tmp_path, check, limit, verdict):
    assert check(type="disk", path=str(tmp_path), **limit).verdict == verdict


def test_all_that_is_short_is_told(check):
    verdict = check(type="disk", path="/proc", min_free_mb=5, min_free_percent=7)
    assert "0 MB free, expected at least 5" in verdict.evidence and "0 % free, expected at least 7" in verdict.evidence


def test_a_place_that_does_not_exist_is_unknown(check):
    assert check(type="disk", path="/nonesuch", min_free_mb=1).verdict == "unknown"


@pytest.mark.parametrize(
    "options,said",
    [
        ({"path": "/"}, "found none"),
        ({"path": "x", "min_free_mb": 1}, "absolute"),
        ({"min_free_mb": 1}, "path: it is missing"),
        ({"path": "/", "min_free_percent": 101}, "from 0 to 100"),
    ],
)
def test_mistakes(options, said):
    with pytest.raises(Failure) as failure:
        engine.validate([{"type": "disk", **options}])
    assert said in failure.value.message()
