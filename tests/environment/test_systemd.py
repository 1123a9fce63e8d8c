# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What systemd itself makes of files of environment variables."""

from __future__ import annotations

import json
import random
import re

from ansible_collections.bulletproof.deploy.plugins.module_utils._dotenv import dialects
from environment.cases import CASES

PLACE = "/srv/environment"
# Of one start, systemd reads many files: each instance prints what it got from its own.
UNIT = f"""[Service]
Type=oneshot
EnvironmentFile=-{PLACE}/%i.env
ExecStart=/usr/bin/python3 {PLACE}/print.py {PLACE}/%i.json
"""
PRINT = """import json, os, sys
with open(sys.argv[1], "w") as stream:
    json.dump({os.fsdecode(name): os.fsdecode(value) for name, value in os.environb.items()}, stream)
"""
PIECES = [*"AB='\"\\$#; \t\n\r", "A=", "B='", 'C="', "\n", "\\\n", "x", "é", "export "]


def test_systemd_reads_what_we_read(host):
    """Every case of the table, and random ones: the same in all of them."""
    chance = random.Random(7)
    texts = [text for text, _values in CASES] + ["".join(chance.choice(PIECES) for _ in range(chance.randint(3, 25))) for _ in range(150)]
    version = int(re.search(r"systemd (\d+)", host.run(["systemctl", "--version"]).stdout)[1])
    host.run(["sh", "-c", f"rm -rf {PLACE} && mkdir -p {PLACE}"])
    host.write(f"{PLACE}/print.py", PRINT)
    host.write("/etc/systemd/system/environment-try@.service", UNIT)
    write = "import json, sys\nfor number, text in enumerate(json.load(sys.stdin)):\n    open(f'{number}.env', 'wb').write(text.encode(errors='surrogateescape'))"
    host.run(["sh", "-c", f'cd {PLACE} && python3 -c "$1"', "sh", write], stdin=json.dumps(texts))
    host.run(["systemctl", "daemon-reload"])
    host.run(["systemctl", "start", *(f"environment-try@{number}.service" for number in range(len(texts)))], timeout=120)
    read = "import json, sys\nprint(json.dumps([json.load(open(f'{number}.json')) for number in range(int(sys.argv[1]))]))"
    environments = json.loads(host.run(["sh", "-c", f'cd {PLACE} && python3 -c "$1" "$2"', "sh", read, str(len(texts))]).stdout)
    given = set(environments[0])
    for text, environment in zip(texts, environments):
        try:
            expected = dialects.systemd(text, comments_go_on=version < 254)
        except dialects.Unreadable:
            expected = {}
        assert {name: value for name, value in environment.items() if name not in given} == expected, text
