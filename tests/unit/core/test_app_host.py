# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of app_host: how many live sockets there are before the proxy knows them, and after it has forgotten some."""

from __future__ import annotations

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import app_host

OPTIONS = {"app": "shop", "root": "/opt/shop", "user": "root", "group": "root"}


def planned(there, instances, configuration=None, agent=b"new", places=((0, 0, 0o755),)):
    wanted = {"/opt/shop": (0, 0, 0o755)}
    observed = app_host.Observed(wanted, dict(zip(wanted, places)), agent, b"new", there, "old")
    changes = app_host.plan({**OPTIONS, "instances": instances, "configuration": configuration}, observed)
    return [(change.target, change.before, change.after) for change in changes]


@pytest.mark.parametrize(
    "there,instances,configuration,sockets",
    [
        (1, 1, None, []),
        (1, 3, None, [("live sockets", "1", "3")]),
        (3, 1, None, []),
        (3, 1, "old", [("live sockets", "3", "1")]),
        (3, 3, "old", []),
    ],
)
def test_more_live_sockets_come_first_and_fewer_last(there, instances, configuration, sockets):
    """Fails when one that the proxy still knows is given up before it is configured."""
    assert planned(there, instances, configuration) == sockets


def test_what_differs_is_changed_and_the_configuration_is_recorded_last():
    assert planned(1, 1, "new", agent=None, places=((0, 0, 0o700),)) == [
        ("/opt/shop", "directory, owner 0, group 0, mode 0700", "directory, owner 0, group 0, mode 0755"),
        ("/opt/shop/.deploy/agent.pyz", None, "this collection's"),
        ("configured for declaration", "old", "new"),
    ]
