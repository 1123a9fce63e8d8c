# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The versions of shared/.env that releases run with."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils import _environment_file, _environments
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._layout import Layout


@pytest.fixture
def layout(tmp_path):
    layout = Layout("shop", str(tmp_path))
    for directory in (layout.shared, layout.private, layout.slots):
        os.makedirs(directory)
    return layout


def write(layout, text):
    with open(layout.dotenv, "wb") as stream:
        stream.write(text)


def test_a_version_stays_what_it_was(layout):
    assert (_environments.now(layout), _environments.keep(layout), _environments.kept(layout)) == ("", "", [])
    write(layout, b"KEY=one\nACCENT=\xc3\xa9\n")
    first = _environments.keep(layout)
    assert first == _environments.now(layout) == _environments.keep(layout)
    write(layout, b"KEY=two\n")
    second = _environments.keep(layout)
    assert _environments.kept(layout) == [first, second]
    with open(layout.environment(first), "rb") as stream:
        assert stream.read() == f"BULLETPROOF_ENVIRONMENT={first}\nKEY=one\nACCENT=é\n".encode()
    assert oct(os.stat(layout.environment(first)).st_mode & 0o777) == "0o600"
    _environments.give(layout, "blue", first)
    _environments.give(layout, "green", second)
    assert [_environment_file.read([layout.slot_environment(slot)])["KEY"] for slot in ("blue", "green")] == ["one", "two"]
    _environments.give(layout, "blue", "")
    assert not os.path.lexists(layout.slot_environment("blue"))
    assert _environments.unused(layout, 1, {second}) == [layout.environment(first)]
    assert _environments.unused(layout, 1, {first}) == []


def test_a_link_is_not_followed(layout, tmp_path):
    """Fails when the file is opened as any other: root would copy what the app's account may not read."""
    (tmp_path / "secret").write_text("SECRET=1\n")
    os.symlink(tmp_path / "secret", layout.dotenv)
    for ask in (_environments.now, _environments.keep):
        with pytest.raises(Failure, match=r"is a link to .*secret"):
            ask(layout)


def test_a_process_tells_what_it_was_started_with():
    said = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(said, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"BULLETPROOF_ENVIRONMENT": "abc"}) as started:
        try:
            # Before its first word it may not be what it is to become (execve(2) sets the environment late).
            assert started.stdout.readline() == b"\n"
            assert _environments.of_process(started.pid) == "abc"
        finally:
            started.communicate(b"\n")
    assert _environments.of_process(os.getpid()) == ""
