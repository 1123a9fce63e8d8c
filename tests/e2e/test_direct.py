# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The direct strategy: one slot, restarted behind its socket. Requests wait; none is lost."""

from __future__ import annotations

import pytest
from e2e.apps import App
from e2e.conftest import NewApp
from e2e.traffic import RATE, long_requests, under_load

from lab.hosts import Host


@pytest.fixture(scope="module")
def shop(new_shop: NewApp, host: Host) -> App:
    app = new_shop("direct", [host], app_strategy="direct")
    app.deploy("1.0.0")
    return app


def test_direct_updates_and_rollbacks_lose_no_request(shop: App) -> None:
    assert shop.only_unit() == "direct@main.service"
    with under_load(shop, "direct deploy") as traffic:
        shop.deploy("1.1.0")
    assert traffic.versions() == ["1.0.0", "1.1.0"]
    assert not traffic.returned("1.0.0", "1.1.0")
    assert shop.only_unit() == "direct@main.service"
    with under_load(shop, "direct rollback") as traffic:
        shop.roll_back()
    assert traffic.versions() == ["1.1.0", "1.0.0"]
    assert not traffic.returned("1.1.0", "1.0.0")
    assert shop.version() == "1.0.0"
    assert shop.only_unit() == "direct@main.service"


def test_an_app_changes_its_strategy_without_losing_a_request(shop: App) -> None:
    with under_load(shop, "direct to blue-green, and back") as traffic:
        shop.project.must("blue_green", app_version="1.1.0")
        assert shop.only_unit() == "direct@blue.service"
        shop.project.must("direct", app_version="2.0.0")
        assert shop.only_unit() == "direct@main.service"
    assert traffic.versions() == ["1.0.0", "1.1.0", "2.0.0"]
    assert not traffic.returned("1.0.0", "1.1.0") + traffic.returned("1.1.0", "2.0.0")


def test_a_release_that_does_not_import_restarts_nothing(shop: App, host: Host) -> None:
    """With one slot, its start would be the end of what serves: so it is proved before."""
    serves = host.run(["systemctl", "show", "--property", "MainPID,NRestarts", "direct@main.service"]).stdout
    played = shop.broken_deploy("1.2.0-crash-on-import")
    assert "does not import" in played.output and "crash-on-import: the price list is not where" in played.output
    assert host.run(["systemctl", "show", "--property", "MainPID,NRestarts", "direct@main.service"]).stdout == serves


def test_a_release_that_answers_wrongly_is_not_waited_for(shop: App) -> None:
    """Its users are on it. It has 60 s to start, and not to answer 500."""
    served = shop.version()
    with under_load(shop, "direct, always 500") as traffic:
        played = shop.broken_deploy("1.2.0-always-500")
    assert "not healthy in slot main" in played.output
    assert shop.version() == served
    assert 0 < traffic.errors < 30 * RATE, "users had half a minute of it"


def test_a_changed_unit_takes_effect_although_the_release_is_live(shop: App, host: Host) -> None:
    """The one slot runs from the release already; what is new is how."""
    serves = shop.processes()
    shop.declare(systemd_gunicorn_service_extra={"Environment": "UNIT=changed"})
    with under_load(shop, "direct, the same on a changed unit") as traffic:
        shop.deploy(shop.version())
    assert len(traffic.versions()) == 1 and shop.processes() != serves
    environ = host.read(f"/proc/{shop.processes()['direct@main.service']}/environ")
    assert "UNIT=changed" in environ.split("\0")
    assert shop.deploy(shop.version()).recap(host.name)["changed"] == 0


def test_what_is_in_flight_is_finished(shop: App) -> None:
    """The one slot is stopped in the middle of its longest requests; they end well, and only then the other release begins."""
    with long_requests(shop):
        shop.project.must("direct", app_version="1.0.0", app_watch=0)
    assert shop.version() == "1.0.0"
