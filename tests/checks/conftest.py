# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A lab host, and a way to run checks on it as a playbook does."""

from __future__ import annotations

import os

import pytest
from database.server import Module

from lab import up
from lab.hosts import Host

NAME = os.environ.get("BULLETPROOF_CHECKS_HOST", f"checks-{os.environ.get('PYTEST_XDIST_WORKER', 'one')}")
RELEASE = os.environ.get("BULLETPROOF_CHECKS_RELEASE", "bookworm")


@pytest.fixture(scope="session")
def host() -> Host:
    return up([NAME], RELEASE)[0]


@pytest.fixture(scope="session")
def module(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Module:
    """Run one module of the checkout on the host, over SSH and as root, and get what it returns."""
    return Module(host, tmp_path_factory.mktemp("modules"))
