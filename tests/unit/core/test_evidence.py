# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The application's last words, without its secrets."""

from __future__ import annotations

import pathlib

import pytest
from ansible_collections.bulletproof.deploy.plugins.action.release_stage import environment_text
from ansible_collections.bulletproof.deploy.plugins.module_utils import _evidence
from ansible_collections.bulletproof.deploy.plugins.module_utils._layout import reserved


def kept(layout, environment="", dotenv=""):
    path = pathlib.Path(reserved(layout.release("1-a"), "environment"))
    path.parent.mkdir(parents=True)
    path.write_text(environment)
    pathlib.Path(layout.shared).mkdir()
    (pathlib.Path(layout.shared) / ".env").write_text(dotenv)
    return _evidence.secrets_of(layout, "1-a")


@pytest.mark.parametrize(
    "value", ["canary-12345", 'canary"quoted"', "canary$dollar", "canary`tick", "canary\\backslash", "canary with blanks", "canary='x'"]
)
def test_whatever_is_in_the_environment_is_not_shown(layout, value):
    secrets = kept(layout, environment=environment_text({"TOKEN": value}))
    assert _evidence.redact(f"cannot log in with {value}!", secrets) == "cannot log in with <TOKEN>!"


@pytest.mark.parametrize(
    "line", ["TOKEN=canary-12345", "export TOKEN=canary-12345", " TOKEN = canary-12345 ", 'TOKEN="canary-12345"', "TOKEN='canary-12345'"]
)
def test_whatever_is_in_the_shared_dotenv_is_not_shown(layout, line):
    assert _evidence.redact("canary-12345", kept(layout, dotenv=line)) == "<TOKEN>"


def test_the_longest_secret_goes_first():
    assert _evidence.redact("canary-12345-more", {"canary-12345": "A", "canary-12345-more": "B"}) == "<B>"


def test_what_is_short_or_no_secret_stays(layout):
    assert kept(layout, environment=environment_text({"DEBUG": "1", "LEVEL": "INFO", "APP_VERSION": "2025.01.01"})) == {}


def test_a_cause_that_is_told_a_hundred_times_is_in_the_last_lines():
    """Fails when a repeated traceback goes and the line that announces it stays."""
    told = 'Traceback (most recent call last):\n  File "/opt/shop/shop/views.py", line 7, in index\n    raise RuntimeError\nRuntimeError: no price list\n'
    log = "".join(f"[{second}] ERROR in app: Exception on /health [GET]\n{told}" for second in range(100)).splitlines()
    assert _evidence.condense(log)[-_evidence.LINES :] == log[:5]


def test_every_different_cause_stays():
    log = [line for name in "ab" for line in (f"[{name}] ERROR", "Traceback (most recent call last):", f"{name}: broken")]
    assert _evidence.condense(log) == log


def test_last_words_are_those_since_the_cursor_also_in_a_log_that_was_rotated(layout, monkeypatch):
    """Fails when the cursor is a number of bytes alone: what was said just before the rotation is then in another file."""
    monkeypatch.setattr(type(layout), "logs", property(lambda self: f"{self.root}/logs"))
    monkeypatch.setattr(_evidence._systemd, "journal", lambda unit, since, lines: ["said to the journal"])
    log = pathlib.Path(layout.logs) / "error.log"
    log.parent.mkdir()
    nothing = _evidence.cursor(layout)
    log.write_text("long ago\n")
    before = _evidence.cursor(layout)
    with log.open("a") as stream:
        stream.write("x\n" * _evidence.READ + "the cause\n")
    log.rename(f"{log}.1")
    log.write_text("Worker failed to boot.\n")
    told = _evidence.last_words(layout, ["blue"], "1-a", 0, before)
    assert told[-3:] == ["the cause", "Worker failed to boot.", "said to the journal"] and "long ago" not in told
    assert _evidence.last_words(layout, ["blue"], "1-a", 0, nothing)[-3:] == told[-3:]
    assert _evidence.last_words(layout, ["blue"], "1-a", 0, _evidence.NOTHING) == ["said to the journal"]
