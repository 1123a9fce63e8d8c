# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is wrong before anything begins is told before anything is touched."""

from __future__ import annotations

import io
import tarfile
import time


def test_nginx_broken_by_hand(shop):
    """Fails without nginx -t in the preflight."""
    path = "/etc/nginx/conf.d/by-hand.conf"
    shop.host.write(path, "server {\n    lisen 81;\n}\n")
    try:
        shop.refused(f"{path}:2", "lisen", "Nothing was touched", app_version=shop.other)
    finally:
        shop.host.run(["rm", path])
    shop.deploy(shop.other)


def test_all_mistakes_of_a_declaration_in_one_message(shop):
    """Fails when the first mistake ends the search."""
    wrong = {"app_workers": "three", "app_strategy": "green_blue", "app_health_pathh": "/", "app_root": "/", "app_lease": 3}
    said = [
        "app_workers",
        '"three"',
        "a whole number from 1 to 256",
        "blue_green, direct",
        "did you mean app_health_path?",
        "app_root",
        "app_lease",
    ]
    played = shop.refused(*said, "5 mistakes", "no host was touched", app_version="1.0.0", **wrong)
    assert "changed=0" in played.output


def test_a_ref_that_is_not_there(shop):
    """Fails without the list of the nearest."""
    shop.refused("has no branch, tag or commit", "1.1.0", app_version="1.1.1")


def test_a_repository_that_cannot_be_reached(shop):
    shop.refused("could not be read from 127.0.0.1", "git ls-remote", app_version="1.1.0", app_source="https://127.0.0.1:9/shop.git")


def test_an_archive_that_leaves_its_tree(shop, tmp_path):
    path = tmp_path / "evil.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in ("shop/wsgi.py", "../../etc/cron.d/evil"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    shop.refused("../../etc/cron.d/evil", app_version="1.1.0", app_source=str(path))
    assert not shop.host.exists("/etc/cron.d/evil")


def test_requirements_that_do_not_resolve(shop):
    shop.refused("packages cannot be installed", "99.99.99", "lock again", app_version="1.2.0-unresolvable")
    assert not shop.leftovers()


def test_hashes_that_are_not_those_of_the_packages(shop):
    """Fails without the hashes in the installer's hands."""
    shop.refused("packages cannot be installed", "ash", app_version="1.2.0-damaged-lock")
    assert not shop.leftovers()


def test_a_damaged_environment(shop):
    """It is rebuilt beside; who runs in the damaged one runs on. Fails without the check of an environment before its use."""
    before, version = shop.serving(), shop.other
    damaged = shop.releases()[shop.json("state")["live"]["release"]]["venv"]
    victim = shop.host.run(["find", damaged, "-path", "*/site-packages/click/core.py"]).stdout.strip()
    shop.host.run(["rm", victim])
    running = shop.start("deploy", app_version=version, app_environment=shop.fresh(ONCE=str(time.time())))
    running.wait_for("Switch to the release")
    assert shop.main_pid(before.slot) == before.main_pid
    assert running.wait().ok, running.output()
    shop.expect(version)
    rebuilt = shop.releases()[shop.json("state")["live"]["release"]]["venv"]
    assert rebuilt != damaged
    assert not shop.host.exists(victim), "it was repaired in place"
    shop.deploy(shop.other)


def test_a_file_of_the_live_release_edited_by_hand(shop):
    """Deploying the same version again is not nothing: it restores the file. Fails without the digest of the tree."""
    live = shop.serving()
    path = f"{shop.root}/current/shop/views.py"
    good = shop.host.read(path)
    shop.host.run(["sh", "-c", f"echo '# just a quick fix' >> {path}"])
    played = shop.deploy(live.version)
    assert played.recap(shop.host.name)["changed"] > 0
    assert shop.host.read(path) == good
    assert shop.must("deploy", app_version=live.version).recap(shop.host.name)["changed"] == 0
