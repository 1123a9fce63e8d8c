# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""New versions that are bad, each in its own way: the old process serves on, and the message says what and why."""

from __future__ import annotations

# Long enough for what happens 5 s after the start.
WATCHED = {"app_watch": 7}

# version: what has to be said, and what to deploy it with.
BAD = {
    "1.2.0-crash-on-import": (["crashed", "crash-on-import: the price list is not where"], {}),
    "1.2.0-crash-on-start": (["crashed", "crash-on-start: the price list could not be read"], {}),
    "1.2.0-crash-on-boot": (["crashed", "crash-on-boot: the metrics of this worker"], {}),
    "1.2.0-crash-after-5s": (["was not deployed", "crash-after-5s: the price list is corrupt"], WATCHED),
    "1.2.0-always-500": (["on the socket of slot", "500", "always-500: there is no price list"], {}),
    "1.2.0-fails-from-third-request": (["on the socket of slot", "500", "the connections to the price list are used up"], {}),
    "1.2.0-no-health-path": (["on the socket of slot", "404"], {}),
    "1.2.0-tells-old-version": (["version on the socket of slot", "1.0.0"], {}),
    "1.2.0-one-worker-crashes": (["workers of shop@", "one-worker-crashes: the share of this worker"], WATCHED),
}
MORE = {
    "1.2.0-workers-crash-after-5s": (["was not deployed", "workers-crash-after-5s: the price list is corrupt"], WATCHED),
    "1.2.0-fails-after-5s": (["500", "fails-after-5s: the price list has expired"], WATCHED),
}


def pytest_generate_tests(metafunc):
    if "bad" in metafunc.fixturenames:
        metafunc.parametrize("bad", [*BAD, *(MORE if metafunc.config.option.matrix else ())])


def test_a_bad_version(shop, bad):
    """Fails without the check that this version is there for: crash, status, a row of answers, version, timeout, watch, max_replaced."""
    said, extra = {**BAD, **MORE}[bad]
    played = shop.refused(*said, app_version=bad, **extra)
    assert "needs longer to start" not in played.output, "it crashed, or answered: time does not mend it"
    shop.expect(shop.serving().version)
    assert not shop.json("lock")
    assert {one["state"] for one in shop.releases().values() if one["version"] == bad} == {"bad"}


def test_several_bad_ones_then_a_good_one_then_back(shop):
    """Fails when a bad release takes the place of a good one in the history."""
    before, version = shop.serving().version, shop.other
    for bad in ("1.2.0-crash-on-boot", "1.2.0-crash-on-import"):
        shop.refused(app_version=bad)
    shop.deploy(version)
    shop.must("rollback")
    shop.expect(before)
