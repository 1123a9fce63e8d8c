# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the collection does, shown on a lab host: a first deploy, an update under load, a broken version, a rollback.

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

import lab  # noqa: E402
from lab.deployment import SHOP, Played, Project  # noqa: E402
from lab.load import Running as Load  # noqa: E402

HOST = "demo1"
NAME = "shop.example.com"
RATE = 100
WATCH = 3
PLACE = REPOSITORY / ".cache" / "demo"
BROKEN = "1.2.0-crash-on-boot"
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
        declaration = {**SHOP, "app_source": {"git": str(PLACE / "shop")}, "app_watch": WATCH}
        self.project = Project(PLACE / "project", [self.host], declaration)
        self.url = f"http://{self.host.address}/"
        self.steps: list[Step] = []

    def step(self, title: str, playbook: str, *arguments: str, expect: str, good: bool = True, load: bool = True) -> Step:
        """Run a playbook, under load if asked, and say what happened.

        :param expect: The version that has to answer afterwards.
        :param good: Whether the playbook has to succeed.
        """
        print(f"\n{len(self.steps) + 1}. {title}\n")
        command = self.project.command(playbook, *arguments)
        print("   $ " + shlex.join([Path(command[0]).name, *command[1:]]))
        report: t.Mapping[str, t.Any] = {}
        if load:
            with Load(self.url, host_header=NAME, rate=RATE) as running:
                time.sleep(0.5)
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
        if not step.problems and not good:
            print(f"   It failed, as it should, with exit status {step.played.rc}. What it says:\n")
            for line in essence(step.played.output):
                print(f"   | {line}")
            print()
        if not step.problems and good:
            print(f"   Done in {step.played.seconds:.1f} s.")
        if step.load:
            gap = step.load["longest_gap"] * 1000
            print(f"   {step.load['sent']} requests meanwhile, {step.load['lost']} lost; longest time without an answer {gap:.0f} ms.")
        print(f"   {self.url} answers with version {step.answers}.")
        for problem in step.problems:
            print(f"   NOT AS IT SHOULD BE: {problem}")
        if step.problems:
            print(f"\n{step.played.output}")
            for loss in step.load.get("losses", []):
                print(f"   lost: {loss}")

    def version(self) -> str:
        """The version that answers a user now; why none does, otherwise."""
        request = urllib.request.Request(self.url, headers={"Host": NAME})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return str(json.load(answer)["version"])
        except (OSError, ValueError, KeyError) as error:
            return f"none ({error})"

    def summary(self) -> None:
        print(f"\n{'':3}{'what':46} {'ended':>6} {'seconds':>8} {'requests':>9} {'lost':>5} {'gap':>8}   answers now")
        for number, step in enumerate(self.steps, 1):
            numbers = f"{'-':>9} {'-':>5} {'-':>8}"
            if step.load:
                numbers = f"{step.load['sent']:>9} {step.load['lost']:>5} {step.load['longest_gap'] * 1000:>5.0f} ms"
            ended = "ok" if step.played.ok else "failed"
            print(f"{number:2} {step.title:46} {ended:>6} {step.played.seconds:>8.1f} {numbers}   {step.answers}")
        project = relative(self.project.directory)
        print("\nWhere to look next\n")
        for what, where in (
            ("the declaration", f"{project}/app.yml"),
            ("what each run said", f"{project}/*.log"),
            ("what runs now", f"cd {project} && {relative(Path(sys.executable).parent, up=3)}/{shlex.join(self.status())}"),
            ("the host itself", f"PYTHONPATH=tests .venv/bin/python -m lab ssh {HOST}"),
            ("its audit log", f"PYTHONPATH=tests .venv/bin/python -m lab ssh {HOST} sudo cat /var/log/shop/deployment.log"),
            ("remove the host", f"PYTHONPATH=tests .venv/bin/python -m lab down {HOST}"),
            ("your own app", "README.md"),
        ):
            print(f"   {what:20} {where}")

    def status(self) -> list[str]:
        command = self.project.command("status")
        return [Path(command[0]).name, *command[1:]]


def relative(path: Path, up: int = 0) -> str:
    return "../" * up + str(path.relative_to(REPOSITORY))


def essence(output: str) -> list[str]:
    return output.splitlines()[-60:]


def main() -> int:
    print("bulletproof.deploy: a small Flask application on a real systemd host, deployed over SSH.")
    demo = Demo()
    new = lambda version: ("deploy", "-e", f"app_version={version}")  # noqa: E731
    demo.step("First deploy: 1.0.0", *new("1.0.0"), expect="1.0.0", load=False)
    demo.step("Update to 1.1.0, blue-green", *new("1.1.0"), expect="1.1.0")
    demo.step(f"A broken version: {BROKEN}", *new(BROKEN), expect="1.1.0", good=False)
    demo.step("Roll back", "rollback", expect="1.0.0")
    demo.summary()
    return 1 if any(step.problems for step in demo.steps) else 0


if __name__ == "__main__":
    sys.exit(main())
