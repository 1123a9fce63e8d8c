# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Phase 1 of a deploy: everything about a host that can be known beforehand."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import time
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils import (
    _command,
    _declared_checks,
    _environment_file,
    _environments,
    _files,
    _findings,
    _lock,
    _manifest,
    _phase,
    _processes,
    _runner,
    _state,
    _transition,
    _unpack,
    _verify,
    _waivers,
)
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.contract import FAIL, PASS
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.engine import failed, run_checks, summary
from ansible_collections.bulletproof.deploy.plugins.module_utils._dotenv import desired, merge
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._files import read_json
from ansible_collections.bulletproof.deploy.plugins.module_utils._findings import Finding
from ansible_collections.bulletproof.deploy.plugins.module_utils._layout import Layout

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

SPEC: t.Dict[str, t.Any] = {
    **_phase.APP,
    "run": {"type": "str", "required": True},
    "release": {"type": "str", "default": ""},
    "configuration": {"type": "str", "default": ""},
    "lock_wait": {"type": "int", "default": 0},
    "now": {"type": "float"},
    "python": {"type": "path", "default": "/usr/bin/python3"},
    "min_free_mb": {"type": "int", "default": 256},
    "nginx": {"type": "bool", "default": True},
    # As JSON text, see the action plugin.
    "checks": {"type": "raw", "default": "[]", "no_log": True},
    "environment": {"type": "raw", "default": "{}", "no_log": True},
    "waivers": {"type": "list", "elements": "dict", "default": []},
}


OLDEST_PYTHON = (3, 9)
# Seconds. A task may wait that long for its turn on a busy controller.
CLOCK_MAY_DIFFER = 30.0
# What a declared check has beside what its type takes.
OURS = ("severity", "rule", "fix", "needs")


def existing(path: str) -> str:
    """The path, or its nearest parent that exists."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def system(options: _runner.Options) -> t.Iterator[Finding]:
    if not os.path.isdir("/run/systemd/system"):
        yield Finding("init system", "systemd does not run here", "systemd", "Deploy to a host that is booted with systemd.")
    python = options["python"]
    if not os.access(python, os.X_OK):
        yield Finding("app_python", f"{python} is not there", "an interpreter", f"Install it, or correct app_python ({python}).")
        return
    said = _command.run([python, "-c", "import sys; print(*sys.version_info[:2])"])
    version = tuple(int(part) for part in said.stdout.split()) if said.ok else (0, 0)
    if version < OLDEST_PYTHON:
        yield Finding(
            "app_python", f"{python} is {said.stdout.strip() or said.last_words(1)}", "Python 3.9 or newer", "Correct app_python."
        )


def disk(options: _runner.Options) -> t.Iterator[Finding]:
    place = existing(options["root"])
    checks = [
        {
            "type": "disk",
            "name": f"disk space of {place}",
            "path": place,
            "min_free_mb": options["min_free_mb"],
            "min_free_inodes_percent": 1,
        }
    ]
    for verdict in failed(run_checks(checks)):
        yield Finding(
            verdict.name,
            verdict.evidence,
            f"at least {options['min_free_mb']} MB and 1 % of inodes free",
            "Look at df -h and df -i, make room.",
        )


def lock(options: _runner.Options, layout: Layout) -> t.Iterator[Finding]:
    held = _lock.load(layout)
    now = time.time()
    if held is not None and held.run != options["run"] and held.alive(now) and not options["lock_wait"]:
        unlock = f"ansible-playbook bulletproof.deploy.unlock -e app_unlock_run={held.run}"
        yield Finding(
            "lock", f"held by {held.describe(now)}", "free", f"Wait (-e app_lock_wait=SECONDS), or, if you know that it is dead: {unlock}"
        )


def clock(options: _runner.Options) -> t.Iterator[Finding]:
    if options["now"] is None:
        return
    # What was on its way for long is late, and no clock is wrong for that: only what no network explains is told.
    off = time.time() - options["now"]
    if abs(off) > CLOCK_MAY_DIFFER:
        yield Finding(
            "clock",
            f"{abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} the controller's",
            f"at most {CLOCK_MAY_DIFFER:.0f} s apart",
            "Look at timedatectl there and on the controller. The lease is measured on the host alone, and holds; times in logs and tokens do not agree.",
            "warning",
            "clock",
        )


def machine() -> str:
    """What tells this machine from another, whatever names lead to it. Copies of one image may share a machine id, and not the name as well."""
    identity = _files.read_text("/etc/machine-id") or ""
    root = os.stat("/")
    return hashlib.sha256(f"{identity}|{socket.gethostname()}|{root.st_dev}|{root.st_ino}".encode()).hexdigest()[:16]


def proxy(options: _runner.Options) -> t.Iterator[Finding]:
    if not options["nginx"] or shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
        return
    tested = _command.run(["nginx", "-t"], env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    if not tested.ok:
        yield Finding(
            "nginx configuration",
            tested.last_words(3),
            "one that nginx -t accepts",
            "Repair it: nginx would not start with it after a reboot.",
        )


def dotenv(layout: Layout) -> t.Iterator[Finding]:
    path = layout.dotenv
    if os.path.islink(path):
        yield Finding(
            path, f"a link to {os.readlink(path)}", "a file: systemd reads it as root, whatever it points to", f"Replace {path} by a file."
        )
    elif os.path.exists(path) and os.stat(path).st_mode & 0o077:
        yield Finding(path, f"mode {os.stat(path).st_mode & 0o777:04o}: others can read the secrets", "0600", f"chmod 600 {path}")


@contextlib.contextmanager
def environment_file(environment: t.Mapping[str, str]) -> t.Iterator[str]:
    """The app's environment as it is going to be, as a file in memory that only this process can name: checks take their keys from files."""
    handle = os.memfd_create("environment")
    with os.fdopen(handle, "wb") as stream:
        stream.write(merge.merged("", environment).encode(errors="surrogateescape"))
        stream.flush()
        yield f"/proc/self/fd/{handle}"


def declared(options: _runner.Options, layout: Layout, environment: t.Mapping[str, str]) -> t.Iterator[Finding]:
    """What the declaration wants looked at: checks of any type, all at the same time."""
    wanted = [check for check in json.loads(options["checks"]) if "needs" not in check or os.path.exists(check["needs"])]
    if not wanted:
        return
    with environment_file(environment) as path:
        words = {"{root}": layout.root, "{logs}": layout.logs, "{dotenv}": path}
        checks = [
            _declared_checks.completed({name: value for name, value in check.items() if name not in OURS}, words, [path])
            for check in wanted
        ]
        verdicts = run_checks(checks)
    for check, verdict in zip(wanted, verdicts):
        own = verdict.found.get("findings") if isinstance(verdict.found, dict) else None
        if own:
            # What looks at many things says what is wrong better than its verdict does, and warns where nothing failed.
            lighter = {"severity": "warning"} if check.get("severity") == "warning" else {}
            yield from (Finding(**{**one, **lighter}) for one in own)
        elif verdict.verdict != PASS:
            yield Finding(
                verdict.name,
                verdict.evidence if verdict.verdict == FAIL else f"nobody knows: {verdict.evidence}",
                "a pass",
                check.get("fix") or f"Mend what it names, or take the check out of app_preflight_checks ({verdict.type}).",
                check.get("severity") or "error",
                check.get("rule") or verdict.name,
            )


def live_problem(layout: Layout, state: _state.State) -> str:
    """Why what is served cannot be taken for up to date; empty when it can."""
    if state.live is None:
        return "nothing is served"
    if state.way_back is not None:
        return f"run {state.way_back.run} was never committed"
    manifest = _manifest.load(layout, state.live.release)
    if manifest is None:
        return f"the manifest of {state.live.release} is gone"
    if not _transition.is_live(layout, state.live):
        return f"{layout.service_unit(state.live.slot)} does not run from {state.live.release}, or a live socket points elsewhere"
    if state.live.environment != _environments.now(layout):
        return f"{layout.dotenv} is not what {state.live.release} was switched to any more"
    problem = _unpack.tree_problem(layout, manifest) or "; ".join(_processes.problems(layout, state.live))
    if problem:
        return f"{state.live.release}: {problem}"
    checks = [
        {**check, "deadline": 0, "successes": 1}
        for check in [
            *(check for slot in state.live.slots for check in _verify.slot_checks(layout, manifest, slot)),
            *_verify.proxy_checks(manifest),
        ]
    ]
    wrong = failed(run_checks(checks))
    return f"{state.live.release} is not healthy: {summary(wrong)}" if wrong else ""


class Environment:
    """The app's environment as it is going to be: ``shared/.env``, by the options of the module env_file where it is declared, and what the release brings."""

    def __init__(self, options: _runner.Options, layout: Layout) -> None:
        self.findings: t.List[Finding] = []
        self.values: t.Dict[str, str] = {}
        self.changes = False
        given = json.loads(options["environment"])
        overrides = {name: str(value) for name, value in given.get("overrides", {}).items()}
        try:
            if "path" in given:
                self._look(given, overrides)
            else:
                self.values = {**_environment_file.read([layout.dotenv]), **overrides}
        except Failure as failure:
            self.findings.append(Finding(layout.dotenv, failure.what, "a file that can be kept as declared", failure.fix))

    def _look(self, given: t.Dict[str, t.Any], overrides: t.Mapping[str, str]) -> None:
        # Whose the file is to be is looked at when it is written: before the first deploy, there may be no such account.
        looked = desired.observe({**given, "owner": None, "group": None, "waivers": []}, given["values"], overrides)
        self.values = {**looked.target, **overrides}
        self.changes = (looked.wanted.text if looked.wanted else None) != (looked.file.text if looked.file else None)
        self.findings += looked.findings
        fix = "Write the value in single quotes and without what is named, or leave it if only one of them reads the file."
        self.findings += [Finding(given["path"], sentence, "one meaning for all", fix, "warning") for sentence in looked.disagreements]


def look(options: _runner.Options) -> t.Dict[str, t.Any]:
    layout = _phase.layout_of(options)
    state = _state.load(layout)
    environment = Environment(options, layout)
    findings = [
        *system(options),
        *disk(options),
        *lock(options, layout),
        *clock(options),
        *proxy(options),
        *dotenv(layout),
        *environment.findings,
        *declared(options, layout, environment.values),
    ]
    findings = _waivers.apply(findings, _waivers.checked(options["waivers"]), _waivers.today())
    ready = not any(one.severity == "error" for one in findings)
    # The run ends with the report: what serves need not be asked, and its tree not be read.
    problem = live_problem(layout, state) if ready else "the host is not ready"
    manifest = _manifest.load(layout, options["release"])
    recorded = read_json(layout.configuration) or {}
    configured = recorded.get("digest") == options["configuration"]
    live = state.live.release if state.live else ""
    # Its whole tree was read for that; large ones take long.
    sound = live == options["release"] and not problem
    return {
        "findings": _findings.as_data(findings),
        "waived": [f"{one.rule} until {one.until}: {one.reason}" for one in findings if one.severity == _waivers.WAIVED],
        "ready": ready,
        "machine": machine(),
        "configured": configured,
        "staged": sound or (ready and manifest is not None and manifest.state != "building" and not _unpack.tree_problem(layout, manifest)),
        "up_to_date": configured and sound and not environment.changes,
        "live": live,
        "notes": [problem] if ready and problem and state.live else [],
    }


def run(module: AnsibleModule) -> None:
    _runner.run(module, look, lambda options, observed: [], lambda options, observed: observed)
