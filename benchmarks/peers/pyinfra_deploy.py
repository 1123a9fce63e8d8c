# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The same deploy with pyinfra's own operations: pyinfra HOSTS pyinfra_deploy.py --data version=...; the version "back" goes to the release before."""

from __future__ import annotations

import time

from pyinfra import host
from pyinfra.operations import files, pip, server, systemd

APP = host.data.app
ROOT = f"/srv/{APP}"
HEALTHY = f"for attempt in $(seq 100); do curl --silent --fail --output /dev/null http://127.0.0.1:{host.data.port}/health && exit 0; sleep 0.1; done; exit 1"
BACK = f'cd {ROOT} && ln -sfn "$(printf "%s\\n" {ROOT}/releases/* | grep -B 1 -x "$(readlink current)" | head -n 1)" current'

if host.data.version == "back":
    server.shell(name="Point at the release before", commands=[BACK])
else:
    release = f"{ROOT}/releases/{time.time_ns()}"
    for directory in (f"{ROOT}/shared", release):
        files.directory(name=f"Have {directory}", path=directory)
    server.shell(
        name="Fetch the code",
        commands=[
            f"test -d {ROOT}/repo || git clone --quiet --mirror {host.data.repository} {ROOT}/repo",
            f"git -C {ROOT}/repo fetch --quiet",
            f"git -C {ROOT}/repo archive {host.data.version} | tar -x -C {release}",
        ],
    )
    pip.venv(name="Have a virtual environment", path=f"{ROOT}/venv", python="python3")
    pip.packages(name="Install the packages", requirements=f"{release}/requirements.txt", virtualenv=f"{ROOT}/venv")
    files.link(name="Point at the release", path=f"{ROOT}/current", target=release)

systemd.service(name="Restart", service=APP, restarted=True, _sudo=True)
server.shell(name="Wait until it answers", commands=[HEALTHY])

if host.data.version != "back":
    server.shell(name="Remove old releases", commands=[f"cd {ROOT} && printf '%s\\n' releases/* | head -n -5 | xargs -r rm -rf"])
