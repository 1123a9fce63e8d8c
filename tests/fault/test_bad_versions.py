# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""New versions that are bad, each in its own way: the old process serves on, and the message says what and why."""

from __future__ import annotations

# A window that is long enough for what happens 5 s after the start, and a lease that goes with it.
WATCHED = {"app_watch": 7, "app_lease": 55}

# version: what has to be said, and what to deploy it with.
BAD = {
    "1.2.0-crash-on-import": (["does not import", "crash-on-import: the price list is not where"], {}),
    "1.2.0-crash-on-start": (["does not import", "crash-on-start: the price list could not be read"], {}),
    "1.2.0-crash-on-boot": (["crashed", "crash-on-boot: the metrics of this worker"], {}),
    "1.2.0-crash-after-5s": (["was not deployed", "crash-after-5s: the price list is corrupt"], WATCHED),
    "1.2.0-always-500": (["on the socket of slot", "500", "always-500: there is no price list"], {}),
    "1.2.0-fails-from-third-request": (["on the socket of slot", "500", "the connections to the price list are used up"], {}),
    "1.2.0-no-health-path": (["on the socket of slot", "404"], {}),
    "1.2.0-tells-old-version": (["version on the socket of slot", "1.0.0"], {}),
    "1.2.0-one-worker-hangs": (["is not healthy", "no complete answer within 2 s"], {"app_health_timeout": 2}),
    "1.2.0-one-worker-crashes": (["have ended and were replaced", "one-worker-crashes: the share of this worker"], WATCHED),
}
MORE = {
    "1.2.0-workers-crash-after-5s": (["was not deployed", "workers-crash-after-5s: the price list is corrupt"], WATCHED),
    "1.2.0-fails-after-5s": (["500", "fails-after-5s: the price list has expired"], WATCHED),
}


def pytest_generate_tests(metafunc):
    if "bad" in metafunc.fixturenames:
        metafunc.parametrize("bad", [*BAD, *(MORE if metafunc.config.option.matrix else ())])


def test_a_bad_version(shop, bad):
    """Fails without the check that this version is there for: import, crash, status, a row of answers, version, timeout, watch, max_replaced."""
    said, extra = {**BAD, **MORE}[bad]
    shop.refused(*said, app_version=bad, **extra)
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


def test_an_old_process_that_answers(shop):
    """The unit runs, but from the old release, of an app that does not tell its version. Fails without runs_from."""
    old = shop.json("state")["live"]["release"]
    idle = "green" if shop.slot() == "blue" else "blue"
    drop_in = f"/etc/systemd/system/{shop.name}@{idle}.service.d/old.conf"
    inside = f"cd {shop.root}/releases/{old} && exec .release/venv/bin/python .release/venv/bin/gunicorn --config .release/gunicorn.conf.py"
    shop.host.write(drop_in, f"[Service]\nExecStart=\nExecStart=/bin/sh -c '{inside}'\n")
    shop.systemctl("daemon-reload")
    shop.refused("is not healthy", old, app_version=shop.other, app_health_version={})
    shop.host.run(["rm", "-r", drop_in.rpartition("/")[0]])
    shop.systemctl("daemon-reload")
    shop.deploy(shop.other)


def test_a_process_that_holds_the_sockets_path(shop):
    """A gunicorn that somebody started by hand answers where the new release will: it must not be taken for it."""
    old = shop.json("state")["live"]["release"]
    path = f"/run/{shop.name}/{'green' if shop.slot() == 'blue' else 'blue'}.sock"
    stray = f"cd {shop.root}/releases/{old} && exec .release/venv/bin/gunicorn --bind unix:{path} --umask 0 shop.wsgi:app"
    environment = [f"--setenv={name}={value}" for name, value in shop.declaration["app_environment"].items()]
    shop.host.run(["systemd-run", "--unit=stray", "--collect", *environment, "/bin/sh", "-c", stray])
    shop.wait_until(lambda: shop.host.exists(path), 20, "the stray gunicorn listens")
    try:
        shop.deploy(shop.other)
    finally:
        shop.systemctl("stop", "stray.service")
    shop.expect(shop.serving().version)


def test_one_probe_of_many_fails_by_chance(shop):
    """Fails without tolerate in the watch: the release is well, and goes back."""
    rule = [
        "INPUT",
        "-i",
        "lo",
        "-p",
        "tcp",
        "--dport",
        "80",
        "--syn",
        "-m",
        "statistic",
        "--mode",
        "nth",
        "--every",
        "100000",
        "--packet",
        "5",
        "-j",
        "REJECT",
        "--reject-with",
        "tcp-reset",
    ]
    version = shop.other
    deploy = shop.start("deploy", app_version=version, app_watch=4, app_lease=50)
    deploy.wait_for("Watch it")
    shop.host.run(["iptables", "-I", *rule])
    try:
        played = deploy.wait()
        packets = shop.host.run(["iptables", "-L", "INPUT", "-v", "-n", "-x"]).stdout.splitlines()[2].split()[0]
    finally:
        shop.host.run(["iptables", "-D", *rule])
    assert played.ok, played.output
    assert packets == "1", "no probe failed, so nothing was tried"
    shop.expect(version)


def test_an_app_that_needs_longer_than_it_may(shop, request):
    """Fails without the advice in the message."""
    shop.refused("app_start_timeout", app_version="1.2.0-very-slow-start")
    if request.config.option.matrix:
        shop.deploy("1.2.0-very-slow-start", app_start_timeout=100, app_lease=200)
        shop.must("rollback")
        shop.deploy(shop.other)
