# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host remembers: bad releases stand in nobody's way, good ones stay, whatever the modification times say."""

from __future__ import annotations

from pathlib import Path

from e2e.apps import App
from e2e.conftest import NewApp

from lab.hosts import Host
from lab.modules import Module

FIX_PERMISSIONS = """
- hosts: app
  gather_facts: false
  become: true
  tasks:
    - name: Read the declaration
      ansible.builtin.import_role:
        name: bulletproof.deploy.app
        rolespec_validate: false
      vars:
        __app_optional: [app_version]
    - name: Set the permissions right
      ansible.builtin.import_role:
        name: bulletproof.deploy.permissions
"""


def fix_permissions(shop: App) -> None:
    playbook = Path(shop.project.directory) / "permissions.yml"
    playbook.write_text(FIX_PERMISSIONS)
    shop.project.must("./permissions.yml")


def shuffle_times(shop: App) -> None:
    """Make the oldest release look the newest, and give the permissions role something to do."""
    for age, release in enumerate(sorted(shop.manifests())):
        directory = f"{shop.root}/releases/{release}"
        shop.host.run(["touch", "--no-dereference", "--date", f"{age + 1} days ago", directory, f"{directory}/.release/manifest.json"])
        shop.host.run(["chmod", "-R", "g+w", directory])


def test_rollback_goes_to_the_last_good_release(new_shop: NewApp, host: Host) -> None:
    shop = new_shop("history", [host], app_watch=0, app_keep=2)
    shop.deploy("1.0.0")
    first = shop.live()
    for broken in ("1.2.0-crash-on-import", "1.2.0-crash-on-start", "1.2.0-crash-on-boot"):
        shop.broken_deploy(broken)
        assert shop.live() == first
        assert shop.state_of(broken) == "bad"
    shop.deploy("1.1.0")
    second = shop.live()
    assert set(shop.manifests()) == {first, second}, "a committed deploy removes what is bad, and keeps the last good one"

    shop.roll_back()
    assert shop.version() == "1.0.0"
    refused = shop.project.play("rollback")
    assert not refused.ok
    assert shop.version() == "1.0.0"

    # Forward to a release by its version is a rollback too: it was good.
    shop.roll_back(app_version="1.1.0")
    assert shop.live() == second

    shop.broken_deploy("1.2.0-crash-on-boot")
    shuffle_times(shop)
    fix_permissions(shop)
    shop.deploy("2.0.0")
    third = shop.live()
    assert set(shop.manifests()) == {second, third}
    shop.roll_back()
    assert shop.live() == second
    assert shop.version() == "1.1.0"


def test_prune_leaves_the_way_back(new_shop: NewApp, host: Host) -> None:
    """With one release to keep, and that one being served, the one that a rollback goes to is kept all the same."""
    shop = new_shop("prune", [host], app_watch=0, app_keep=1)
    shop.deploy("1.0.0")
    shop.deploy("1.1.0")
    shop.roll_back()
    shop.deploy("2.0.0")
    assert sorted(one["version"] for one in shop.manifests().values()) == ["1.0.0", "2.0.0"]
    shop.roll_back()
    assert shop.version() == "1.0.0"


def test_prune_by_itself(new_shop: NewApp, host: Host) -> None:
    """The module on a host that has more than it is to keep: told beforehand, removed, and then there is nothing to do."""
    shop = new_shop("pruned", [host], app_watch=0)
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        shop.deploy(version)
    (oldest,) = (release for release, one in shop.manifests().items() if one["version"] == "1.0.0")
    module = Module(host, shop.project.directory)
    options = {"app": "pruned", "root": shop.root, "run": "20260102T030405-1a2b3c", "keep": 1}
    told = module.must("release_prune", "--check", "--become", **options)
    assert told["changed"] and f"{shop.root}/releases/{oldest}" in told["pruned"]
    assert len(shop.manifests()) == 3, "check mode removes nothing"
    assert module.must("release_prune", "--become", **options)["pruned"] == told["pruned"]
    assert sorted(one["version"] for one in shop.manifests().values()) == ["1.1.0", "2.0.0"]
    assert not module.must("release_prune", "--become", **options)["changed"]
    # It is a phase of a run, and the lock is the run's.
    lock = {name: options[name] for name in ("app", "root", "run")}
    assert module.must("release_lock", "--become", **lock)["was"]["run"] == options["run"]
    shop.roll_back()
    assert shop.version() == "1.1.0"
