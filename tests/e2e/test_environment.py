# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""shared/.env on its way: a change is deployed like code, and goes back like code."""

from __future__ import annotations

import pytest
from e2e.apps import App
from e2e.conftest import NewApp
from e2e.traffic import under_load

from lab.hosts import Host


def write(shop: App, value: str) -> None:
    shop.host.write(f"{shop.root}/shared/.env", f"FROM_DOTENV={value}\n", mode="0600")


def runs_with(shop: App) -> str:
    """What the processes of the slot that serves have; their own account may look."""
    unit = f"{shop.name}@{shop.state()['live']['slot']}.service"
    pid = shop.host.run(["systemctl", "show", "--property=MainPID", "--value", unit]).stdout.strip()
    seen = shop.host.run(["cat", f"/proc/{pid}/environ"], user="www-data").stdout.split("\0")
    return next((one.partition("=")[2] for one in seen if one.startswith("FROM_DOTENV=")), "")


@pytest.mark.parametrize("strategy", ["blue_green", "direct"])
def test_a_change_arrives_and_goes_back(new_shop: NewApp, host: Host, strategy: str) -> None:
    """Fails without the version in the way back: the old release comes back with the new environment."""
    shop = new_shop(f"dotenv-{strategy[:4]}", [host], app_watch=0, app_strategy=strategy)
    shop.deploy("1.0.0")
    assert runs_with(shop) == ""
    write(shop, "one")
    with under_load(shop, f"{shop.name}: another .env, the same release"):
        shop.deploy("1.0.0")
    assert runs_with(shop) == "one"
    assert shop.deploy("1.0.0").recap(host.name)["changed"] == 0

    write(shop, "two")
    shop.broken_deploy("1.2.0-crash-on-start")
    assert (shop.version(), runs_with(shop)) == ("1.0.0", "one")
    shop.deploy("1.1.0")
    assert (shop.version(), runs_with(shop)) == ("1.1.0", "two")

    shop.roll_back()
    assert (shop.version(), runs_with(shop)) == ("1.0.0", "one")
    shop.roll_back(app_version="1.1.0", app_rollback_environment="now")
    assert (shop.version(), runs_with(shop)) == ("1.1.0", "two")
