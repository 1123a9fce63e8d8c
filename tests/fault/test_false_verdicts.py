# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A health check that could be wrong: an old process answers, one probe of many fails by chance, an app is only slow."""

from __future__ import annotations


def test_an_old_process_that_answers(shop):
    """The unit runs, but from the old release, of an app that does not tell its version. Fails without runs_from."""
    old = shop.json("state")["live"]["release"]
    idle = "green" if shop.slot() == "blue" else "blue"
    drop_in = f"/etc/systemd/system/{shop.name}@{idle}.service.d/old.conf"
    inside = f"cd {shop.root}/releases/{old} && exec .release/venv/bin/python .release/venv/bin/gunicorn --config .release/gunicorn.conf.py"
    shop.host.write(drop_in, f"[Service]\nExecStart=\nExecStart=/bin/sh -c '{inside}'\n")
    shop.systemctl("daemon-reload")
    try:
        shop.refused("is not healthy", old, app_version=shop.other, app_health_version={})
    finally:
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
        # In order, it would take the path of the new socket away with it.
        shop.systemctl("kill", "--signal=KILL", "stray.service")
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
        "2",
        "-j",
        "REJECT",
        "--reject-with",
        "tcp-reset",
    ]
    version = shop.other
    deploy = shop.start("deploy", app_version=version, app_watch=4)
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
    shop.refused("needs longer to start: raise app_start_timeout", app_version="1.2.0-very-slow-start")
    if request.config.option.matrix:
        shop.deploy("1.2.0-very-slow-start", app_start_timeout=100, app_lease=200)
        shop.must("rollback")
        shop.deploy(shop.other)
