# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A full disk, on an app that has a small one of its own."""

from __future__ import annotations

import pytest
from fault.world import Shop


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, host, repository, request):
    host.run(["mkdir", "-p", "/opt/tiny"])
    host.run(["mount", "-t", "tmpfs", "-o", "mode=755,size=600m", "tmpfs", "/opt/tiny"])
    shop = Shop(tmp_path_factory.mktemp("tiny"), host, repository, request.config.option.start_timeout, name="tiny", port=8081)
    shop.deploy("1.0.0")
    yield shop
    # A reboot would find an app without its disk.
    host.run(["systemctl", "stop", "tiny@*", "tiny-live.service", "tiny-safety-net.timer"])
    host.run(
        [
            "sh",
            "-c",
            "rm -f /etc/systemd/system/tiny* /etc/systemd/system/*/tiny* /etc/nginx/*/*tiny*; systemctl daemon-reload; systemctl reload nginx",
        ]
    )
    host.run(["umount", "--lazy", "/opt/tiny"])


def used(shop, column):
    return int(shop.host.run(["df", "-k", f"--output={column}", shop.root]).stdout.split()[-1])


def resize(shop, **options):
    shop.host.run(["mount", "-o", "remount," + ",".join(f"{name}={value}" for name, value in options.items()), shop.root])


def test_too_little_to_begin_with(tiny):
    """Fails without the preflight's look at the disk."""
    resize(tiny, size=f"{used(tiny, 'used') + 8000}k")
    tiny.refused("disk space of /opt/tiny", "at least 256 MB", "Nothing was touched", app_version="1.1.0")
    resize(tiny, size="600m")


@pytest.mark.parametrize("room", ["code", "environment", "inodes"])
def test_full_while_staging(tiny, room):
    """Fails without the rescue of the staging (what is half built stays), and without as_failure (nobody says that the disk is full)."""
    before = tiny.serving()
    releases = tiny.releases().keys()
    extra = {"app_extra_requirements": ["six==1.16.0"]} if room == "environment" else {}
    running = tiny.start("deploy", app_version=tiny.other, app_environment=tiny.fresh(), **extra)
    running.wait_for("Stage the release")
    if room == "inodes":
        resize(tiny, nr_inodes=used(tiny, "iused") + 12)
    else:
        resize(tiny, size=f"{used(tiny, 'used') + (64 if room == 'code' else 3000)}k")
    try:
        played = running.wait()
        assert not played.ok, played.output
        for text in ("The disk is full", "ake room", "serves 1."):
            assert text in played.output, played.output
        assert tiny.serving() == before
        assert not tiny.leftovers()
        assert tiny.releases().keys() == releases
        assert not tiny.json("lock")
    finally:
        resize(tiny, size="600m", nr_inodes=1_000_000)
    tiny.deploy(tiny.other, **extra)
