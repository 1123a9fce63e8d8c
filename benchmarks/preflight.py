# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long a preflight with twelve checks takes, on one host and on four, beside a playbook that only asks each host for its name.

``.venv/bin/python benchmarks/preflight.py`` prints seconds and ratios, the median of a few rounds.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
sys.path[:0] = [str(REPOSITORY / "tests"), str(REPOSITORY / "examples"), str(HERE)]

import versions  # noqa: E402
from bench import told_by  # noqa: E402
from contenders import PLACE, Ours  # noqa: E402

import lab  # noqa: E402
from lab import access  # noqa: E402

ROUNDS = 5
NOTHING = """
- hosts: app
  gather_facts: false
  become: true
  tasks:
    - ansible.builtin.command: hostname
      changed_when: false
"""
CHECKS = [
    {"type": "disk", "path": "/", "min_free_mb": 100},
    {"type": "disk", "path": "/tmp", "min_free_percent": 1},
    {"type": "path", "path": "/etc/passwd", "owner": "root", "mode": "0644"},
    {"type": "path", "path": "{root}/shared", "state": "directory"},
    {"type": "port", "port": 22},
    {"type": "port", "port": 1, "open": False},
    {"type": "dns", "host": "localhost"},
    {"type": "systemd", "unit": "nginx.service"},
    {"type": "process_count", "name": "sshd", "unit": "ssh.service", "min": 1},
    {"type": "env", "rules": [{"required": ["SECRET_KEY"]}]},
    {"type": "http", "url": "http://127.0.0.1:8100/health"},
    {"type": "database"},
]


def main() -> int:
    PLACE.mkdir(parents=True, exist_ok=True)
    repository = PLACE / "preflight-shop"
    if not repository.exists():
        versions.make_repository(repository)
    hosts = lab.up([f"bench-{number}" for number in range(1, 5)])
    ours = Ours(repository)
    ours.declaration.update(app_env_generate={"SECRET_KEY": "token_urlsafe"}, app_database="sqlite")
    for count in (1, 4):
        ours.remove(hosts[:count])
        ours.deploy(hosts[:count], "1.0.0").run()
    # One of them asks the app itself.
    ours.declaration["app_preflight_checks"] = CHECKS
    seconds: dict[tuple[str, int], list[float]] = {}
    looked: dict[int, list[float]] = {}
    for _round in range(ROUNDS):
        for count in (1, 4):
            project = ours.project(hosts[:count])
            (project.directory / "nothing.yml").write_text(NOTHING)
            for name, playbook in (("preflight", "preflight"), ("nothing", "./nothing.yml")):
                command = ours._play(hosts[:count], playbook)
                for host in hosts:
                    access.forget_connection(host.name)
                began = time.monotonic()
                tasks = told_by(command) if name == "preflight" else command.run() and []
                seconds.setdefault((name, count), []).append(time.monotonic() - began)
                looked.setdefault(count, []).extend(float(task["seconds"]) for task in tasks if task["action"].endswith("preflight"))
    for (name, count), taken in sorted(seconds.items()):
        print(f"{name:10} {count} host{'s' if count > 1 else ' '}  {statistics.median(taken):5.2f} s  [{min(taken):.2f}-{max(taken):.2f}]")
    for count, taken in sorted(looked.items()):
        print(
            f"the task that looks, {count} host{'s' if count > 1 else ' '}: median {statistics.median(taken):.2f} s [{min(taken):.2f}-{max(taken):.2f}]"
        )
    ratio = statistics.median(four / one for one, four in zip(seconds["preflight", 1], seconds["preflight", 4]))
    print(f"preflight, four hosts of one (at most 1.3): {ratio:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
