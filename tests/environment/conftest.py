# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A lab host, and a way to run one module on it."""

from __future__ import annotations

import contextlib
import os

import pytest
from database.server import Module

from lab import up
from lab.hosts import Host

NAME = os.environ.get("BULLETPROOF_ENVIRONMENT_HOST", f"environment-{os.environ.get('PYTEST_XDIST_WORKER', 'one')}")
RELEASE = os.environ.get("BULLETPROOF_ENVIRONMENT_RELEASE", "bookworm")


def pytest_addoption(parser: pytest.Parser) -> None:
    # All cases are always tried; those who run several kinds of tests have the option.
    with contextlib.suppress(ValueError):
        parser.addoption("--matrix", action="store_true", help="try all cases, not a sample of them")


@pytest.fixture(scope="session")
def host() -> Host:
    return up([NAME], RELEASE)[0]


@pytest.fixture(scope="session")
def module(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Module:
    """Run one module of the checkout on the host, over SSH and as root, and get what it returns."""
    return Module(host, tmp_path_factory.mktemp("modules"))
