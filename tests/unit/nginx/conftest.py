# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A configuration directory as Debian lays it out, judged by the real nginx."""

from __future__ import annotations

import pathlib
import shutil

import pytest

MAIN = """\
pid {place}/nginx.pid;
error_log {place}/error.log;
events {{ }}
http {{
    access_log off;
    include {directory}/conf.d/*.conf;
    include {directory}/sites-enabled/*;
}}
"""
DEFAULT = "server {\n    listen 127.0.0.1:18080 default_server;\n    return 200;\n}\n"


@pytest.fixture
def nginx() -> str:
    found = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if found is None:
        pytest.skip("there is no nginx on this machine")
    return found


@pytest.fixture
def directory(tmp_path: pathlib.Path) -> pathlib.Path:
    place = tmp_path / "etc-nginx"
    for name in ("conf.d", "sites-available", "sites-enabled", "snippets"):
        (place / name).mkdir(parents=True)
    (place / "nginx.conf").write_text(MAIN.format(place=tmp_path, directory=place))
    (place / "sites-available/default").write_text(DEFAULT)
    (place / "sites-enabled/default").symlink_to(place / "sites-available/default")
    return place
