# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One host and one shop for each worker of pytest-xdist, so that no fault meets another test."""

from __future__ import annotations

import os
import random
import sys

import pytest
from fault.world import Shop

from lab import up
from lab.deployment import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "examples"))


def pytest_addoption(parser):
    parser.addoption("--reuse-hosts", action="store_true", help="take the hosts as an earlier run has left them")
    parser.addoption("--start-timeout", type=int, default=15, help="seconds that an app may take to start: more on a busy machine")
    parser.addoption("--fault-seed", type=int, help="the seed of the sample")


def pytest_configure(config):
    if hasattr(config, "workerinput"):
        config.option.fault_seed = config.workerinput["fault_seed"]
    elif config.option.fault_seed is None:
        config.option.fault_seed = random.randrange(10000)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    """All workers have to choose the same sample, and xdist hands them no option that was not on the command line."""
    node.workerinput["fault_seed"] = node.config.option.fault_seed


def pytest_report_header(config):
    return "faults: all" if config.option.matrix else f"faults: a sample, --fault-seed={config.option.fault_seed}"


@pytest.fixture(scope="session")
def repository(tmp_path_factory):
    from versions import make_repository

    path = tmp_path_factory.mktemp("repository") / "shop"
    make_repository(path)
    return path


@pytest.fixture(scope="session")
def host(request):
    """This worker's host, made anew: what an earlier run has left must not help."""
    name = f"fault-{os.environ.get('PYTEST_XDIST_WORKER', 'one')}"
    return up([name], fresh=not request.config.option.reuse_hosts)[0]


@pytest.fixture(scope="session")
def deployed(tmp_path_factory, host, repository, request):
    shop = Shop(tmp_path_factory.mktemp("shop"), host, repository, request.config.option.start_timeout)
    shop.deploy("1.0.0")
    shop.deploy("1.1.0")
    return shop


@pytest.fixture
def shop(deployed):
    """The shop, well. Whatever a test did to it, the test has to end with it well again, without help."""
    yield deployed
    assert not deployed.armed
    assert not deployed.json("lock")
    deployed.serving()
