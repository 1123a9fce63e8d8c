# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks that need a real host: the journal, logrotate, and an import as another account in a sandbox of systemd's."""

from __future__ import annotations

import json
import typing as t

import pytest

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

Checks = t.Callable[..., list[dict[str, t.Any]]]


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


def test_the_journal_from_a_cursor_that_was_taken_before(run: Checks, chatty: t.Callable[[str], None]) -> None:
    """What the old release said is not the new one's; and what is no text, or very long, is read all the same."""
    chatty("Using local filesystem storage")
    logs = {"type": "log", "unit": "chatty@blue.service", "deadline": 5, "timeout": 10}
    before, taken = run(
        {**logs, "must": ["Using local filesystem storage", "long line$"]}, {"type": "log", "unit": logs["unit"], "from": "end"}
    )
    assert before["verdict"] == "pass", before
    cursor = before["found"]["cursor"]
    assert json.loads(taken["found"]["cursor"])["journal"]

    chatty("Bucket access verified")
    must = ["Bucket access verified", "café .* not UTF-8", "the end of a long line$"]
    verdict = run({**logs, "cursor": cursor, "must": must, "never": ["python", "Using local"]})[0]
    assert verdict["verdict"] == "pass", verdict
    assert json.loads(verdict["found"]["cursor"])["journal"] != json.loads(cursor)["journal"]

    chatty("NameError: name 'db' is not defined")
    again, broken, nowhere = run(
        {**logs, "cursor": verdict["found"]["cursor"], "must": ["Bucket access verified"], "deadline": 0},
        {**logs, "cursor": cursor, "must": ["never said"], "never": ["python"], "deadline": 60},
        {"type": "log", "unit": "nonesuch.service", "never": ["python"]},
    )
    assert again["verdict"] == "fail", "from there on, it was not said"
    assert broken["verdict"] == "fail" and "name 'db' is not defined" in broken["evidence"] and broken["elapsed"] < 20
    assert nowhere["verdict"] == "unknown" and "There is no unit nonesuch.service" in nowhere["evidence"]


def test_what_logrotate_moves_away_is_read_to_its_end(host: Host, run: Checks) -> None:
    host.run(["sh", "-c", "command -v logrotate || apt-get install --yes --no-install-recommends logrotate"])
    ways = {"created": "create", "copied": "copytruncate", "compressed": "create\n compress", "dated": "dateext\n create\n compress"}
    logs = [{"type": "log", "files": [f"/var/log/chatty/{name}.log"]} for name in ways]
    host.run(
        [
            "sh",
            "-c",
            f"rm -rf /var/log/chatty && mkdir -m 0755 /var/log/chatty && cd /var/log/chatty && {each(ways, 'Using local storage')}",
        ]
    )
    rules = "".join(f"/var/log/chatty/{name}.log {{\n rotate 3\n {how}\n}}\n" for name, how in ways.items())
    host.write("/etc/chatty-rotate.conf", rules)
    cursors = [one["found"]["cursor"] for one in run(*({**one, "from": "end"} for one in logs))]
    rotate = "logrotate --force --state /run/chatty-rotate.state /etc/chatty-rotate.conf"
    host.run(["sh", "-c", f"cd /var/log/chatty; {each(ways, 'the last words')}; {rotate} && {each(ways, 'the first words')}"])
    looked = {"must": ["the last words", "the first words"], "never": ["Using local"]}
    for verdict in run(*({**one, **looked, "cursor": cursor} for one, cursor in zip(logs, cursors))):
        assert verdict["verdict"] == "pass", verdict
        assert verdict["found"]["bytes"] == len("the last words\nthe first words\n")


def each(names: t.Iterable[str], text: str) -> str:
    return "; ".join(f"echo '{text}' >>{name}.log" for name in names)


def test_an_account_of_its_own_imports(host: Host, run: Checks) -> None:
    """In the app's directory, with its variables, and with nowhere to write to."""
    host.run(["sh", "-c", "mkdir -p /opt/chatty/shop && python3 -m venv --without-pip /opt/chatty/venv"])
    host.write("/opt/chatty/.env", 'TOKEN="canary 12345"\nMODE=test\n', "0600")
    host.write("/opt/chatty/shop/__init__.py", "")
    host.write("/opt/chatty/shop/wsgi.py", "import os\nassert os.environ['TOKEN'] == 'canary 12345'\ndef app(): ...\n")
    host.write("/opt/chatty/shop/who.py", "import os, pwd\nraise ValueError(pwd.getpwuid(os.geteuid()).pw_name, os.environ['TOKEN'])\n")
    host.write("/opt/chatty/shop/writes.py", "open('/opt/chatty/shop/x', 'w')\n")
    asked = {"type": "import", "python": "/opt/chatty/venv/bin/python", "directory": "/opt/chatty", "user": "daemon", "timeout": 30}
    asked["environment_files"] = ["/opt/chatty/.env"]
    good, verdict = run(
        {**asked, "entrypoint": "shop.wsgi:app"}, {**asked, "modules": ["shop.who", "shop.writes"], "requires": ["bcrypt<5"]}
    )
    assert good["verdict"] == "pass", good
    assert verdict["verdict"] == "fail"
    for said in (
        "ValueError: ('daemon', '<TOKEN>')",
        "shop.writes cannot be imported: OSError: [Errno 30] Read-only",
        "bcrypt is not installed",
    ):
        assert said in verdict["evidence"], verdict["evidence"]
