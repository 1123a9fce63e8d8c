# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the collection does, shown on a lab host: a first deploy, an update under load, broken versions, a rollback.

``make demo`` runs it. The host stays up for the next demo; ``PYTHONPATH=tests .venv/bin/python -m lab down demo1`` removes it.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
import time
import typing as t
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
sys.path[:0] = [str(REPOSITORY / "tests"), str(HERE)]

import versions  # noqa: E402
import yaml  # noqa: E402

import lab  # noqa: E402
from lab.deployment import SHOP, Played, Project  # noqa: E402
from lab.load import Running as Load  # noqa: E402

HOST = "demo1"
NAME = "shop.example.com"
RATE = 100
WATCH = 2
PLACE = REPOSITORY / ".cache" / "demo"
BROKEN = "1.2.0-crash-on-boot"
FAILS_MIDWAY = "1.2.0-fails-midway"
WIDTH = 100

# How an app is taken off a host: its units, then everything that is named after it. The caches and the tools are not the app's, and stay.
FORGET = """
systemctl disable --quiet --now shop-safety-net.timer shop-live.service
systemctl stop 'shop@*.service' 'shop@*.socket'
rm -rf /opt/shop /run/shop /var/log/shop
rm -f /etc/systemd/system/shop@.* /etc/systemd/system/shop-live.service /etc/systemd/system/shop-safety-net.*
rm -f /etc/nginx/conf.d/shop.conf /etc/nginx/snippets/shop.conf /etc/logrotate.d/shop /etc/tmpfiles.d/shop.conf
systemctl daemon-reload
systemctl reset-failed
systemctl try-reload-or-restart nginx
true
"""


@dataclass
class Step:
    """One thing shown, and what came of it."""

    title: str
    played: Played
    log: Path
    answers: str
    load: t.Mapping[str, t.Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


class Demo:
    """The host, the project directory on this machine, and what has been shown so far."""

    def __init__(self) -> None:
        (self.host,) = lab.up([HOST])
        self.host.run(["sh", "-c", FORGET], check=False)
        shutil.rmtree(PLACE, ignore_errors=True)
        versions.make_repository(PLACE / "shop")
        self.declaration = {
            **SHOP,
            "app_source": {"git": str(PLACE / "shop")},
            "app_database": "sqlite",
            "app_migrations": "alembic",
            "app_watch": WATCH,
        }
        self.project = Project(PLACE / "project", [self.host], self.declaration)
        self.url = f"http://{self.host.address}/"
        self.steps: list[Step] = []

    def step(self, title: str, playbook: str, *arguments: str, expect: str, good: bool = True, load: bool = True) -> Step:
        """Run a playbook, under load if asked, and say what happened.

        :param expect: The version that has to answer afterwards.
        :param good: Whether the playbook has to succeed.
        """
        print(f"\n\n{len(self.steps) + 1}. {title}\n", flush=True)
        print(f"   $ {typed(self.project.command(playbook, *arguments))}")
        report: t.Mapping[str, t.Any] = {}
        if load:
            with Load(self.url, host_header=NAME, rate=RATE) as running:
                played, log = self._play(playbook, *arguments)
                time.sleep(0.5)
            report = running.report
        else:
            played, log = self._play(playbook, *arguments)
        step = Step(title, played, log, self.version(), report)
        if played.ok is not good:
            step.problems.append(f"{playbook} ended with status {played.rc}")
        if step.answers != expect:
            step.problems.append(f"version {step.answers} answers, not {expect}")
        if report and report["good"] != report["sent"]:
            step.problems.append(f"{report['sent'] - report['good']} of {report['sent']} requests had no good answer")
        self.steps.append(step)
        self._tell(step, good)
        return step

    def _play(self, playbook: str, *arguments: str) -> tuple[Played, Path]:
        """Run a playbook; on a terminal, show where it is."""
        running = self.project.start(playbook, *arguments)
        while sys.stdout.isatty() and running.process.poll() is None:
            tasks = re.findall(r"^TASK \[(?:.* : )?(.*)\]", running.output(), re.MULTILINE)
            doing = f"   ... {tasks[-1] if tasks else 'starting'} ({time.monotonic() - running.began:.0f} s)"
            print(f"\r{doing:{WIDTH}}", end="", flush=True)
            time.sleep(0.2)
        played = running.wait()
        if sys.stdout.isatty():
            print(f"\r{'':{WIDTH}}\r", end="")
        return played, running.log

    def _tell(self, step: Step, good: bool) -> None:
        if step.played.ok and good:
            print(f"   Done in {step.played.seconds:.1f} s.")
        elif not step.played.ok and not good:
            print(f"   It ends with status {step.played.rc} after {step.played.seconds:.1f} s, as it should, and says:\n")
            for line in essence(step.played.output):
                print(f"     {line}")
            print()
        if step.load:
            print(f"   {step.load['sent']} requests meanwhile: {step.load['lost']} lost, longest time without an answer {gap(step)}.")
        print(f"   {self.url} now answers with version {step.answers}.")
        for problem in step.problems:
            print(f"   NOT AS IT SHOULD BE: {problem}")
        if step.problems:
            for loss in step.load.get("losses", []):
                print(f"   lost: {loss}")
            print(f"\n{step.played.output}")

    def version(self) -> str:
        """The version that answers a user now; why none does, otherwise."""
        request = urllib.request.Request(self.url, headers={"Host": NAME})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return str(json.load(answer)["version"])
        except (OSError, ValueError, KeyError) as error:
            return f"none ({error})"

    def summary(self) -> None:
        print(f"\n\n   {'':36}{'ended':>7}{'took':>8}{'requests':>10}{'lost':>6}{'longest gap':>13}  answers now")
        for number, step in enumerate(self.steps, 1):
            numbers = f"{step.load['sent']:>10}{step.load['lost']:>6}{gap(step):>13}" if step.load else f"{'-':>10}{'-':>6}{'-':>13}"
            ended = "ok" if step.played.ok else "failed"
            print(f"{number}. {step.title:36}{ended:>7}{step.played.seconds:>6.1f} s{numbers}  {step.answers}")
        print("\nWhere to look next\n")
        lab_command = "PYTHONPATH=tests .venv/bin/python -m lab"
        for what, where in (
            ("the declaration", shown(self.project.directory / "app.yml")),
            *((f"what run {number} said", shown(step.log)) for number, step in enumerate(self.steps, 1)),
            ("what runs where", f"cd {shown(self.project.directory)} && ../../../.venv/bin/{typed(self.project.command('status'))}"),
            ("the host", f"{lab_command} ssh {HOST}"),
            ("its audit log", f"{lab_command} ssh {HOST} sudo cat /var/log/shop/deployment.log"),
            ("remove the host", f"{lab_command} down {HOST}"),
            ("your own app", "README.md"),
        ):
            print(f"   {what:17}{where}")


def gap(step: Step) -> str:
    return f"{step.load['longest_gap'] * 1000:.0f} ms"


def shown(path: Path) -> str:
    """A path as a person would type it in the repository."""
    return str(path.relative_to(REPOSITORY))


def typed(command: t.Sequence[str]) -> str:
    """A command as a person would type it, with the tools in PATH."""
    return shlex.join([Path(command[0]).name, *command[1:]])


def essence(output: str) -> list[str]:
    """From the message of the task that failed: what went wrong, the application's own errors, and what the host serves now."""
    result = re.search(r"^fatal: \[.*?FAILED! => *\n((?: .*\n|\n(?= ))*)", output, re.MULTILINE)
    what, *rest = yaml.safe_load(result[1])["msg"].splitlines() if result else output.splitlines()[-10:]
    errors = dict.fromkeys(line for line in rest if re.match(r"  [\w.]*(?:Error|Exception)\b", line))
    return [what, *errors, *(line for line in rest if not line.startswith(" ") and not line.endswith(":"))]


def main() -> int:
    print("A small Flask application on a real systemd host, deployed over SSH.")
    demo = Demo()
    declaration = yaml.safe_dump(dict(demo.declaration), sort_keys=False, width=120)
    print(f"The host is {HOST}, {demo.host.address}. The application is declared in {shown(demo.project.directory)}/app.yml:\n")
    print("".join(f"     {line}\n" for line in declaration.splitlines()), end="")
    print(
        f"\nThe commands are typed in {shown(demo.project.directory)}. Under load means {RATE} requests per second: keep-alive, new, slow, POST."
    )
    demo.step("First deploy", "deploy", "-e", "app_version=1.0.0", expect="1.0.0", load=False)
    demo.step("Update with a migration, under load", "deploy", "-e", "app_version=1.1.0", expect="1.1.0")
    demo.step("A version that crashes, under load", "deploy", "-e", f"app_version={BROKEN}", expect="1.1.0", good=False)
    demo.step("A migration that fails, under load", "deploy", "-e", f"app_version={FAILS_MIDWAY}", expect="1.1.0", good=False)
    demo.step("Rollback, under load", "rollback", expect="1.0.0")
    demo.summary()
    return 1 if any(step.problems for step in demo.steps) else 0


if __name__ == "__main__":
    sys.exit(main())
