# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the declaration wants looked at beside the health of a release, as data."""

from __future__ import annotations

import json
import os

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils import _verify
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.engine import run_checks
from ansible_collections.bulletproof.deploy.plugins.module_utils._layout import Layout, reserved
from ansible_collections.bulletproof.deploy.plugins.module_utils._manifest import Manifest

HEALTH = {"path": "/health", "url": "http://127.0.0.1:8080/health", "headers": {"Host": "shop.example.com"}}
MANIFEST = Manifest("1-a", "1", "", "", "", HEALTH)


@pytest.fixture
def layout(tmp_path):
    layout = Layout("shop", str(tmp_path))
    os.makedirs(reserved(layout.release("1-a"), ""))
    return layout


def declare(layout, *checks):
    with open(reserved(layout.release("1-a"), "checks.json"), "w", encoding="utf-8") as stream:
        json.dump(checks, stream)


def test_a_release_from_before_has_none(layout):
    assert _verify.declared(layout, MANIFEST, "blue", "before") == []


def test_each_at_its_time_and_over_http_to_the_release(layout):
    burst = {"type": "burst", "path": "/", "requests": 10}
    declare(layout, burst, {**burst, "when": "after"}, {"type": "port", "host": "127.0.0.1", "port": 25, "when": "watch"})
    before, after, watch = (_verify.declared(layout, MANIFEST, "blue", when) for when in ("before", "after", "watch"))
    assert before == [{**burst, "unix_socket": "/run/shop/blue.sock", "headers": HEALTH["headers"]}]
    assert after == [{**burst, "unix_socket": "/run/shop/live.sock", "headers": HEALTH["headers"]}]
    assert watch == [{"type": "port", "host": "127.0.0.1", "port": 25}]


def test_words_are_filled_in_wherever_they_are(layout):
    steps = [{"url": "{url}/login", "body": "{token} {unit}"}, {"path": ["{release}/x", 3]}]
    declare(layout, {"type": "smoke", "url": "{url}", "steps": steps}, {"type": "log", "files": ["{logs}/error.log"]})
    smoke, log = _verify.declared(layout, MANIFEST, "blue", "before", {"1": "here"})
    assert smoke == {
        "type": "smoke",
        "url": "http://127.0.0.1:8080",
        "steps": [{"url": "http://127.0.0.1:8080/login", "body": "{token} shop@blue.service"}, {"path": [f"{layout.release('1-a')}/x", 3]}],
    }
    # Keys, and what must not be shown, are looked for where the slot has them.
    files = [layout.slot_environment("blue"), reserved(layout.release("1-a"), "environment")]
    assert log == {"type": "log", "files": ["/var/log/shop/error.log"], "from": "cursor", "cursor": "here", "environment_files": files}


def test_only_what_is_said_from_the_switch_on_counts(layout, tmp_path):
    """Fails without the cursor: what the release before has said would be held against this one."""
    said = tmp_path / "error.log"
    said.write_text("NameError of yesterday\n")
    declare(
        layout,
        {"type": "log", "files": [str(said)], "never": ["NameError"], "when": "watch"},
        {"type": "log", "files": [str(said)], "never": ["NameError"], "when": "watch", "from": "start"},
    )
    cursors = _verify.cursors_of(layout, MANIFEST, "blue")
    fresh, old = run_checks(_verify.declared(layout, MANIFEST, "blue", "watch", cursors))
    assert (fresh.verdict, old.verdict) == ("pass", "fail")
    said.write_text("NameError of yesterday\nNameError of today\n")
    fresh, old = run_checks(_verify.declared(layout, MANIFEST, "blue", "watch", cursors))
    assert (fresh.verdict, old.verdict) == ("fail", "fail")
