# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What systemd itself makes of files of environment variables."""

from __future__ import annotations

import json
import random
import re

from ansible_collections.bulletproof.deploy.plugins.module_utils._dotenv import dialects
from integration.environment.cases import CASES

PLACE = "/srv/environment"
# Of one start, systemd reads many files: each instance prints what it got from its own.
UNIT = f"""[Service]
Type=oneshot
EnvironmentFile=-{PLACE}/%i.env
ExecStart=/usr/bin/env -0
StandardOutput=file:{PLACE}/%i.out
"""
WRITE = """import json, sys
for number, text in enumerate(json.load(sys.stdin)):
    with open(f"{number}.env", "wb") as stream:
        stream.write(text.encode(errors="surrogateescape"))
"""
READ = """import json, sys
print(json.dumps([open(f"{number}.out", "rb").read().decode(errors="surrogateescape") for number in range(int(sys.argv[1]))]))
"""
PIECES = [*"AB='\"\\$#; \t\n\r", "A=", "B='", 'C="', "\n", "\\\n", "x", "é", "export "]


def test_systemd_reads_what_we_read(host):
    """Every case of the table, and random ones: the same in all of them."""
    chance = random.Random(7)
    texts = [text for text, _values in CASES] + [
        "".join(chance.choice(PIECES) for _number in range(chance.randint(3, 25))) for _number in range(60)
    ]
    version = int(re.search(r"systemd (\d+)", host.run(["systemctl", "--version"]).stdout)[1])
    host.run(["sh", "-c", f"rm -rf {PLACE} && mkdir -p {PLACE}"])
    host.write("/etc/systemd/system/environment-try@.service", UNIT)
    host.run(["sh", "-c", f'cd {PLACE} && python3 -c "$1"', "sh", WRITE], stdin=json.dumps(texts))
    host.run(["systemctl", "daemon-reload"])
    host.run(["systemctl", "start", *(f"environment-try@{number}.service" for number in range(len(texts)))])
    answers = json.loads(host.run(["sh", "-c", f'cd {PLACE} && python3 -c "$1" "$2"', "sh", READ, str(len(texts))]).stdout)
    environments = [dict(one.split("=", 1) for one in answer.split("\0") if one) for answer in answers]
    given = set(environments[0])
    for text, environment in zip(texts, environments):
        try:
            expected = dialects.systemd(text, comments_go_on=version < 254)
        except dialects.Unreadable:
            expected = {}
        assert {name: value for name, value in environment.items() if name not in given} == expected, text
