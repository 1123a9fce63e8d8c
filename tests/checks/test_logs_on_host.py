# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks that need a real host: the journal, logrotate, and an import as another account in a sandbox of systemd's."""

from __future__ import annotations

import json
import typing as t

import pytest
from database.server import Module

from lab.hosts import Host

UNIT = "chatty@.service"
# It says what it is told, and then what no log should have to take.
CHATTY = r"""
import os, sys, time
print(open("/run/chatty").read(), flush=True)
os.write(1, b"caf\xc3\xa9 \xff\xfe not UTF-8\n")
os.write(1, b"z" * 200000 + b" the end of a long line\n")
time.sleep(600)
"""


@pytest.fixture
def check(module: Module) -> t.Callable[..., dict[str, t.Any]]:
    def one(**declared: t.Any) -> dict[str, t.Any]:
        result = module.must("health_check", checks=[declared], must_be_healthy=False)
        return t.cast("dict[str, t.Any]", result["verdicts"][0])

    return one


@pytest.fixture(scope="module")
def chatty(host: Host) -> t.Iterator[t.Callable[[str], None]]:
    """Restart a unit that says something."""
    host.write("/usr/local/lib/chatty.py", CHATTY)
    host.write("/etc/systemd/system/chatty@.service", "[Service]\nExecStart=/usr/bin/python3 /usr/local/lib/chatty.py\n")
    host.run(["systemctl", "daemon-reload"])

    def say(text: str) -> None:
        host.write("/run/chatty", text)
        host.run(["systemctl", "restart", "chatty@blue.service"])

    yield say
    host.run(["systemctl", "stop", "chatty@blue.service"], check=False)


def test_the_journal_from_a_cursor_that_was_taken_before(check: t.Callable[..., t.Any], chatty: t.Callable[[str], None]) -> None:
    """What the old release said is not the new one's; and what is no text, or very long, is read all the same."""
    chatty("Using local filesystem storage")
    logs = {"type": "log", "unit": "chatty@blue.service", "deadline": 5, "timeout": 10}
    assert check(**logs, must=["Using local filesystem storage"])["verdict"] == "pass"
    cursor = check(type="log", unit="chatty@blue.service", **{"from": "end"})["found"]["cursor"]

    chatty("Bucket access verified")
    verdict = check(
        **logs,
        cursor=cursor,
        must=["Bucket access verified", "café .* not UTF-8", "the end of a long line$"],
        never=["python", "Using local"],
    )
    assert verdict["verdict"] == "pass", verdict
    assert json.loads(verdict["found"]["cursor"])["journal"] != json.loads(cursor)["journal"]
    verdict = check(**logs, cursor=verdict["found"]["cursor"], must=["Bucket access verified"], never=["python"])
    assert verdict["verdict"] == "fail", "from there on, it was not said"

    chatty("NameError: name 'db' is not defined")
    verdict = check(**{**logs, "deadline": 60}, cursor=cursor, must=["never said"], never=["python"])
    assert verdict["verdict"] == "fail" and "name 'db' is not defined" in verdict["evidence"] and verdict["elapsed"] < 10
    verdict = check(type="log", unit="chatyt@blue.service", never=["python"])
    assert verdict["verdict"] == "unknown" or "0 new bytes" in verdict["evidence"]
    verdict = check(type="log", unit="nonesuch.service", never=["python"])
    assert verdict["verdict"] == "unknown" and "There is no unit nonesuch.service" in verdict["evidence"]


@pytest.mark.parametrize("how", ["create", "copytruncate", "create\n compress", "dateext\n create\n compress"])
def test_what_logrotate_moves_away_is_read_to_its_end(host: Host, check: t.Callable[..., t.Any], how: str) -> None:
    host.run(["sh", "-c", "command -v logrotate || apt-get install --yes --no-install-recommends logrotate"])
    host.run(
        ["sh", "-c", "rm -rf /var/log/chatty && mkdir -m 0755 /var/log/chatty && echo 'Using local storage' >/var/log/chatty/error.log"]
    )
    host.write("/etc/chatty-rotate.conf", f"/var/log/chatty/error.log {{\n rotate 3\n missingok\n {how}\n}}\n")
    logs = {"type": "log", "files": ["/var/log/chatty/error.log"]}
    cursor = check(**logs, **{"from": "end"})["found"]["cursor"]
    rotate = "logrotate --force --state /run/chatty-rotate.state /etc/chatty-rotate.conf"
    said = "echo 'the last words' >>/var/log/chatty/error.log"
    host.run(["sh", "-c", f"{said}; {rotate} && echo 'the first words' >>/var/log/chatty/error.log"])
    verdict = check(**logs, cursor=cursor, must=["the last words", "the first words"], never=["Using local"])
    assert verdict["verdict"] == "pass", verdict
    assert verdict["found"]["bytes"] == len("the last words\nthe first words\n")


def test_an_account_of_its_own_imports(host: Host, check: t.Callable[..., t.Any]) -> None:
    """In the app's directory, with its variables, and with nowhere to write to."""
    host.run(["sh", "-c", "mkdir -p /opt/chatty/shop && python3 -m venv --without-pip /opt/chatty/venv"])
    host.write("/opt/chatty/.env", 'TOKEN="canary 12345"\nMODE=test\n', "0600")
    host.write("/opt/chatty/shop/__init__.py", "")
    host.write("/opt/chatty/shop/wsgi.py", "import os\nassert os.environ['TOKEN'] == 'canary 12345'\ndef app(): ...\n")
    host.write("/opt/chatty/shop/who.py", "import os, pwd\nraise ValueError(pwd.getpwuid(os.geteuid()).pw_name, os.environ['TOKEN'])\n")
    host.write("/opt/chatty/shop/writes.py", "open('/opt/chatty/shop/x', 'w')\n")
    asked = {"type": "import", "python": "/opt/chatty/venv/bin/python", "directory": "/opt/chatty", "user": "daemon", "timeout": 30}
    asked["environment_files"] = ["/opt/chatty/.env"]
    verdict = check(**asked, entrypoint="shop.wsgi:app")
    assert verdict["verdict"] == "pass", verdict
    verdict = check(**asked, modules=["shop.who", "shop.writes"], requires=["bcrypt<5"])
    assert verdict["verdict"] == "fail"
    for said in (
        "ValueError: ('daemon', '<TOKEN>')",
        "shop.writes cannot be imported: OSError: [Errno 30] Read-only",
        "bcrypt is not installed",
    ):
        assert said in verdict["evidence"], verdict["evidence"]
