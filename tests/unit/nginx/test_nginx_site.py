# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module's plan as data, whose fault it says it is, and that it puts everything back."""

from __future__ import annotations

import dataclasses
import pathlib
import typing as t

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.modules import nginx_site

GOOD = "server { listen 127.0.0.1:18081; server_name shop.example.com; }\n"


def options(nginx: str, directory: pathlib.Path, **given: t.Any) -> dict[str, t.Any]:
    place = {"directory": str(directory), "executable": nginx, "service": "no-such-nginx.service"}
    return {"files": {}, "absent": [], "worker_connections": 0, "running": False, **place, **given}


def test_what_is_there_already_is_no_change(nginx: str, directory: pathlib.Path) -> None:
    (directory / "conf.d/shop.conf").write_text(GOOD)
    asked = options(nginx, directory, files={"conf.d/shop.conf": GOOD}, absent=["conf.d/never.conf"])
    assert nginx_site.plan(asked, nginx_site.Site().read(asked)) == []


def test_a_running_nginx_is_reloaded_last(nginx: str, directory: pathlib.Path) -> None:
    asked = options(nginx, directory, files={"conf.d/shop.conf": GOOD}, absent=["sites-enabled/default"])
    observed = dataclasses.replace(nginx_site.Site().read(asked), running=True)
    changes = nginx_site.plan(asked, observed)
    assert [change.target for change in changes] == [
        str(directory / "conf.d/shop.conf"),
        str(directory / "sites-enabled/default"),
        "no-such-nginx.service",
    ]


def test_an_nginx_that_does_not_run_is_started_with_its_new_files(nginx: str, directory: pathlib.Path) -> None:
    asked = options(nginx, directory, files={"conf.d/shop.conf": GOOD}, running=True)
    observed = nginx_site.Site().read(asked)
    assert [(change.target, change.after) for change in nginx_site.plan(asked, observed)] == [
        (str(directory / "conf.d/shop.conf"), GOOD),
        ("no-such-nginx.service", "running"),
        ("no-such-nginx.service at boot", "enabled"),
    ]
    well = dataclasses.replace(observed, places=observed.wanted, running=True, enabled=True)
    assert nginx_site.plan(asked, well) == []


DEBIANS = "worker_processes auto;\npid /run/nginx.pid;\n\nevents {\n\tworker_connections 768;\n\t# multi_accept on;\n}\n"
ROOMY = "worker_processes auto;\nworker_rlimit_nofile 16384;\npid /run/nginx.pid;\n\nevents {\n\tworker_connections 4096;\n\t# multi_accept on;\n}\n"


@pytest.mark.parametrize(
    "text, expected",
    [
        (DEBIANS, ROOMY),
        (ROOMY, ROOMY),
        (DEBIANS.replace("768", "1024"), DEBIANS.replace("768", "1024")),
        ("worker_rlimit_nofile 9000;\n" + DEBIANS, "worker_rlimit_nofile 9000;\n" + DEBIANS.replace("768", "4096")),
    ],
)
def test_nginx_gets_room_unless_somebody_has_chosen_a_number(text: str, expected: str) -> None:
    assert nginx_site.roomy(text, 4096) == expected


def test_the_room_is_judged_and_taken_with_the_files(nginx: str, directory: pathlib.Path) -> None:
    main = directory / "nginx.conf"
    main.write_text("worker_processes 1;\n" + main.read_text().replace("events { }", "events {\nworker_connections 768;\n}"))
    asked = options(nginx, directory, files={"conf.d/shop.conf": GOOD}, worker_connections=1024)
    for change in nginx_site.plan(asked, nginx_site.Site().read(asked)):
        change.apply()
    assert "worker_connections 1024;" in main.read_text() and "worker_rlimit_nofile 4096;" in main.read_text()
    assert nginx_site.plan(asked, nginx_site.Site().read(asked)) == []


def test_what_failed_midway_is_put_back(nginx: str, directory: pathlib.Path) -> None:
    (directory / "conf.d/shop.conf").write_text(GOOD)
    target = (directory / "sites-enabled/default").readlink()
    asked = options(
        nginx, directory, files={"conf.d/shop.conf": GOOD + "# 2\n", "snippets/shop.conf": "# new\n"}, absent=["sites-enabled/default"]
    )
    site = nginx_site.Site()
    for change in nginx_site.plan(asked, site.read(asked)):
        change.apply()
    assert not (directory / "sites-enabled/default").exists()

    failure = site.rescue(asked, Failure("nginx did not take it.", fix="Free the port."))

    assert (directory / "conf.d/shop.conf").read_text() == GOOD
    assert (directory / "sites-enabled/default").readlink() == target
    assert not (directory / "snippets/shop.conf").exists()
    assert failure.fix.startswith("Free the port.")


def test_a_configuration_broken_by_hand_is_not_blamed_on_the_new_file(nginx: str, directory: pathlib.Path) -> None:
    (directory / "conf.d/hand.conf").write_text("serrver { }\n")
    with pytest.raises(Failure, match=r"(?s)was broken before.*hand\.conf:1"):
        nginx_site.Site().read(options(nginx, directory, files={"conf.d/shop.conf": GOOD}))


def test_nothing_to_change_is_no_reason_not_to_look(nginx: str, directory: pathlib.Path) -> None:
    (directory / "conf.d/hand.conf").write_text("serrver { }\n")
    with pytest.raises(Failure, match="was broken before"):
        nginx_site.Site().read(options(nginx, directory))


def test_a_bad_new_file_is_blamed(nginx: str, directory: pathlib.Path) -> None:
    with pytest.raises(Failure, match=r"(?s)with the new files in it.*shop\.conf:1"):
        nginx_site.Site().read(options(nginx, directory, files={"conf.d/shop.conf": "serrver { }\n"}))


def test_a_site_behind_one_of_the_same_name_is_refused(nginx: str, directory: pathlib.Path) -> None:
    (directory / "sites-available/default").write_text(GOOD)
    with pytest.raises(Failure, match="Another site has the name"):
        nginx_site.Site().read(options(nginx, directory, files={"conf.d/shop.conf": "# first in the alphabet\n" + GOOD}))


def test_a_collision_that_was_there_before_is_none_of_ours(nginx: str, directory: pathlib.Path) -> None:
    (directory / "conf.d/one.conf").write_text(GOOD)
    (directory / "conf.d/two.conf").write_text(GOOD)
    nginx_site.Site().read(options(nginx, directory, files={"snippets/shop.conf": "# fine\n"}))


@pytest.mark.parametrize("name", ["../passwd", "/etc/passwd", "conf.d/../../passwd", "."])
def test_a_path_outside_is_refused(nginx: str, directory: pathlib.Path, name: str) -> None:
    with pytest.raises(Failure, match="is not below"):
        nginx_site.Site().read(options(nginx, directory, files={name: ""}))
