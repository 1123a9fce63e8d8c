# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An application that nobody here wrote, deployed as it comes from the package index: Radicale, a calendar server."""

from __future__ import annotations

import base64
import http.client
import subprocess
import sys
from pathlib import Path

import pytest
from e2e.apps import App
from e2e.conftest import NewApp

from lab.hosts import Host

REQUIREMENT = "radicale==3.5.4"
SETTINGS = """
[auth]
type = none
[storage]
filesystem_folder = /opt/calendar/shared/collections
[web]
type = {web}
"""
CALENDAR = """<?xml version="1.0"?>
<mkcol xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><set><prop>
<resourcetype><collection/><C:calendar/></resourcetype><displayname>Work</displayname>
</prop></set></mkcol>"""
EVENT = (
    "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//e2e//EN\r\nBEGIN:VEVENT\r\nUID:{uid}\r\nDTSTAMP:20260101T000000Z\r\n"
    "DTSTART:20260101T090000Z\r\nDTEND:20260101T100000Z\r\nSUMMARY:{summary}\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*pip, "--dest", str(directory), REQUIREMENT], check=True)
    (path,) = directory.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def calendar(new_app: NewApp, host: Host, wheel: Path) -> App:
    app = new_app(
        "calendar",
        [host],
        app_source={"wheel": str(wheel)},
        app_version="3.5.4",
        app_entrypoint="radicale:application",
        app_extra_requirements=["gunicorn==23.0.0"],
        app_environment={"RADICALE_CONFIG": "/opt/calendar/shared/radicale.conf"},
        app_health_path="/",
        app_health_status=[302],
    )
    app.project.must("provision")
    host.write("/opt/calendar/shared/radicale.conf", SETTINGS.format(web="internal"))
    host.write("/opt/calendar/shared/plain.conf", SETTINGS.format(web="none"))
    return app


def dav(app: App, method: str, path: str, content: str = "", kind: str = "text/xml") -> tuple[int, str]:
    """One request of Anna's calendar program."""
    headers = {"Authorization": "Basic " + base64.b64encode(b"anna:any").decode(), "Content-Type": f"{kind}; charset=utf-8"}
    connection = http.client.HTTPConnection(app.host.address, app.port, timeout=30)
    try:
        connection.request(method, path, body=content.encode() or None, headers=headers)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def write_event(app: App, uid: str) -> None:
    event = EVENT.format(uid=uid, summary=f"Written by {uid}")
    status, said = dav(app, "PUT", f"/anna/work/{uid}.ics", event, "text/calendar")
    assert status == 201, said


def test_real_application(calendar: App) -> None:
    """Deployed, then with another setting, then back: each time what was written before is there, and more can be."""
    calendar.project.must("deploy")
    with_pages = calendar.live()
    status, said = dav(calendar, "MKCOL", "/anna/work/", CALENDAR)
    assert status == 201, said
    assert calendar.ask("/.web/").status == 200
    write_event(calendar, "first")

    calendar.declare(app_environment={"RADICALE_CONFIG": "/opt/calendar/shared/plain.conf"})
    calendar.project.must("deploy")
    assert calendar.live() != with_pages
    assert calendar.ask("/.web").body == "Radicale works!"
    write_event(calendar, "second")

    calendar.roll_back()
    assert calendar.live() == with_pages
    assert calendar.ask("/.web/").status == 200
    write_event(calendar, "third")
    _status, everything = dav(calendar, "GET", "/anna/work/")
    for uid in ("first", "second", "third"):
        assert f"SUMMARY:Written by {uid}" in everything

    print(f"calendar: {with_pages}, process proof: {calendar.processes()}")
