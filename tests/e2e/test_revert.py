# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A broken version goes back by itself, while users are on the good one."""

from __future__ import annotations

import json

import pytest
from e2e.apps import App
from e2e.conftest import NewApp
from e2e.traffic import under_load

from lab.deployment import Played
from lab.hosts import Host


@pytest.fixture(scope="module", params=["blue_green", "direct"])
def shop(request: pytest.FixtureRequest, new_shop: NewApp, host: Host) -> App:
    app = new_shop(f"revert-{request.param.replace('_', '-')}", [host], app_strategy=request.param, app_watch=8)
    app.deploy("1.1.0", app_watch=0)
    return app


def went_back(shop: App, played: Played, broken: str, last_words: str) -> None:
    """The old version serves as before, and the person is told everything."""
    assert shop.version() == "1.1.0"
    assert shop.state()["way_back"] is None
    release, manifest = next((name, one) for name, one in shop.manifests().items() if one["version"] == broken)
    assert manifest["state"] == "bad"
    for told in ("The application's last log lines:", last_words, "What to do:"):
        assert told in played.output, f"{told!r} is not in:\n{played.output}"
    assert played.ended()[shop.host.name][:2] == [shop.live()] * 2
    status = shop.status()
    assert f"serves {shop.live()}" in status
    assert f"{release}: bad ({manifest['why']}" in " ".join(status.split()), status
    assert manifest["why"]
    assert "The lock is free." in status
    assert shop.only_unit()


def test_a_version_that_does_not_start_never_sees_a_user(shop: App) -> None:
    with under_load(shop, f"{shop.name}: crash on boot") as traffic:
        played = shop.broken_deploy("1.2.0-crash-on-boot")
    assert traffic.versions() == ["1.1.0"]
    assert traffic.errors == 0
    went_back(shop, played, "1.2.0-crash-on-boot", "crash-on-boot: the metrics of this worker could not be registered")


def watched(shop: App) -> list[float]:
    """Seconds of each watch, as the host wrote them down."""
    lines = [json.loads(line) for line in shop.host.read(f"/var/log/{shop.name}/deployment.log").splitlines()]
    return [float(line["seconds"]) for line in lines if line["phase"] == "watch"]


def test_a_version_that_fails_later_is_seen_and_goes_back(shop: App) -> None:
    window = 20
    with under_load(shop, f"{shop.name}: fails after 5 s") as traffic:
        played = shop.broken_deploy("1.2.0-fails-after-5s", app_watch=window)
    assert traffic.versions() == ["1.1.0", "1.2.0-fails-after-5s"]
    # It fails 5 s after its start, and a few probes are enough to know. On a slow machine that may be before it is watched.
    for seconds in watched(shop):
        assert seconds < 0.75 * window and "not seen to the end" in played.output
    # From the first error to the last: the new version was noticed, and gone back from.
    failing = [outcome.ended for outcome in traffic.outcomes if outcome.status == 500]
    if failing:
        print(f"{shop.name}: the app itself answered 500 for {max(failing) - min(failing):.1f} s")
    went_back(shop, played, "1.2.0-fails-after-5s", "fails-after-5s: the price list has expired")
