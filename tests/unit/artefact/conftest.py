# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sources and caches for the tests of artefacts."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from ansible_collections.bulletproof.deploy.plugins.plugin_utils._cache import Cache
from ansible_collections.bulletproof.deploy.plugins.plugin_utils._source import Built, Options, build, parse_source
from unit.artefact.sources import GitServer, plant


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(str(tmp_path / "cache"))


@pytest.fixture
def make(cache: Cache) -> t.Callable[..., Built]:
    def make(source: object, version: str = "1.0", **options: t.Any) -> Built:
        chosen = {"exclude": (), "max_size": 1 << 24, "timeout": 30.0, **options}
        return build(parse_source(source), version, Options(**chosen), cache)

    return make


@pytest.fixture
def app(tmp_path: Path) -> Path:
    return plant(
        tmp_path / "app",
        {"app.py": "app = 1\n", "run*": "#!/bin/sh\n", "lib/a.py": "a\n", "lib/deep/b.py": "b\n", "current": "-> lib/a.py"},
    )


@pytest.fixture
def git_server(tmp_path: Path) -> t.Iterator[GitServer]:
    (tmp_path / "served").mkdir()
    server = GitServer(tmp_path / "served")
    yield server
    server.stop()
