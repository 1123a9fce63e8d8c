# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One application, whatever it comes from; and one file of it taken out of service, and put back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ansible_collections.bulletproof.deploy.examples import versions
from e2e.apps import App
from e2e.conftest import NewApp

from lab.hosts import Host

# A plugin that the application greets with, where it is there.
PLUGIN = 'GREETING = "Everything at half price!"\n'
BEHAVIOUR = """
from .hooks import Hooks

try:
    from .discount import GREETING
except ImportError:
    GREETING = "Welcome!"


class Behaviour(Hooks):
    greeting = GREETING
"""


@pytest.fixture(scope="module")
def shop(new_shop: NewApp, host: Host) -> App:
    app = new_shop("sources", [host], app_watch=0)
    app.deploy("1.0.0")
    return app


def tree(directory: Path, version: str) -> Path:
    path = directory / f"shop-{version}"
    versions.make_tree(path, "flask", version)
    return path


def test_every_source_of_one_content_is_one_release(shop: App, tmp_path: Path) -> None:
    """From a directory and from archives comes the same release as from Git, so that nothing is left to do."""
    from_git = shop.live()
    directory = tree(tmp_path, "1.0.0")
    same = shop.deploy("1.0.0", app_source=str(directory))
    assert same.recap(shop.host.name)["changed"] == 0, same.output
    assert shop.live() == from_git

    newer = tree(tmp_path, "1.1.0")
    archives = [shutil.make_archive(str(newer), kind, root_dir=newer) for kind in ("gztar", "zip")]
    shop.deploy("1.1.0", app_source=archives[0])
    from_archive = shop.live()
    assert shop.version() == "1.1.0"
    same = shop.deploy("1.1.0", app_source={"archive": archives[1]})
    assert same.recap(shop.host.name)["changed"] == 0, same.output
    assert shop.live() == from_archive


def test_a_file_is_left_out_and_taken_in_again(shop: App, tmp_path: Path) -> None:
    directory = tree(tmp_path, "2.0.0")
    (directory / "shop" / "discount.py").write_text(PLUGIN)
    (directory / "shop" / "behaviour.py").write_text(BEHAVIOUR)
    shop.declare(app_source={"directory": str(directory)})

    shop.deploy("2.0.0")
    whole = shop.live()
    assert shop.ask("/").json["greeting"] == "Everything at half price!"
    venv = shop.manifests()[whole]["venv"]
    built = shop.host.run(["stat", "--format=%i %Z", venv, f"{venv}/pyvenv.cfg"]).stdout

    shop.deploy("2.0.0", app_exclude=["shop/discount.py"])
    without = shop.live()
    assert without != whole
    assert shop.ask("/").json["greeting"] == "Welcome!"
    assert not shop.host.exists(f"{shop.root}/releases/{without}/shop/discount.py")
    assert shop.version() == "2.0.0"

    shop.deploy("2.0.0")
    assert shop.live() == whole
    assert shop.ask("/").json["greeting"] == "Everything at half price!"
    assert {one["venv"] for one in shop.manifests().values() if one["version"] == "2.0.0"} == {venv}
    assert shop.host.run(["stat", "--format=%i %Z", venv, f"{venv}/pyvenv.cfg"]).stdout == built
