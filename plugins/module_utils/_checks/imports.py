# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type ``import``: what is installed in an environment, in which version, and that the app's modules can be imported there."""

from __future__ import annotations

import json
import os
import re
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils import _command, _evidence, _pep440, _sandbox
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.contract import (
    TEXT,
    TEXT_LIST,
    Answer,
    CannotTell,
    CheckType,
    Memory,
    Option,
    Options,
    judged,
    one_line,
    wrong,
)
from ansible_collections.bulletproof.deploy.plugins.module_utils._venv_lock import REQUIREMENT, normal_name

DOTTED = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
MODULE = re.compile(DOTTED)
ENTRYPOINT = re.compile(rf"{DOTTED}:{DOTTED}")
LONGEST = 300

# Small, and without "$", which systemd takes for a variable. The answer has a file of its own, because what is imported may print.
BOOTSTRAP = "import json,sys; r=json.loads(sys.stdin.buffer.readline()); exec(compile(r['source'],'check','exec'),{'request':r})"
SOURCE = r"""
import os, sys
answers = os.dup(1)
os.dup2(2, 1)
import importlib, json, traceback
from importlib import metadata
if request["directory"]:
    sys.path[0] = request["directory"]
told = {"python": "%d.%d.%d" % sys.version_info[:3], "installed": {}, "errors": {}}
for name in request["names"]:
    try:
        told["installed"][name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
for target in request["targets"]:
    module, colon, attribute = target.partition(":")
    try:
        value = importlib.import_module(module)
        for part in attribute.split(".") if colon else ():
            value = getattr(value, part)
        if colon and not callable(value):
            raise TypeError("it cannot be called, and so is no application")
    except BaseException as error:
        frames = [one for one in traceback.extract_tb(error.__traceback__)[1:] if "importlib" not in one.filename]
        place = "%s, line %s" % (frames[-1].filename, frames[-1].lineno) if frames else ""
        if isinstance(error, SyntaxError) and error.filename:
            place = "%s, line %s" % (error.filename, error.lineno)
        told["errors"][target] = [type(error).__name__, str(error), place]
os.write(answers, json.dumps(told).encode("ascii") + b"\n")
# What the app started is not waited for.
os._exit(0)
"""


def _requirement(text: str) -> t.Tuple[str, t.List[t.Tuple[str, str]]]:
    """The normal name of a package, and the clauses about its version.

    :raises ValueError: it is not a requirement, or one that depends on where it is asked.
    """
    found = REQUIREMENT.match(text.strip())
    if not found:
        raise ValueError("it has no name")
    if ";" in text:
        raise ValueError("a marker is not allowed: the environment is there, and what it needs is known")
    if "@" in text:
        raise ValueError("an address is not allowed")
    return normal_name(found["name"]), _pep440.clauses_of(found["rest"])


def _is_me(user: str) -> bool:
    import pwd

    try:
        return pwd.getpwnam(user).pw_uid == os.geteuid()
    except KeyError:
        raise CannotTell(f"There is no account {user} on this host.") from None


def _command_line(options: Options, timeout: float) -> t.Tuple[t.List[str], t.Optional[str]]:
    """What to run, and in which directory."""
    argv = [options["python"], "-B", "-c", BOOTSTRAP]
    directory = options["directory"]
    if options["user"] is None or (_is_me(options["user"]) and not options["environment_files"]):
        return argv, directory
    files = [f"-{path}" for path in options["environment_files"] or ()]
    return _sandbox.command(argv, options["user"], "", directory or "/", files, [], max(int(timeout), 1)), None


def _told(options: Options, timeout: float) -> t.Dict[str, t.Any]:
    if not os.access(options["python"], os.X_OK):
        raise CannotTell(f"There is no interpreter {options['python']}.")
    argv, directory = _command_line(options, timeout)
    request = {
        "source": SOURCE,
        "directory": options["directory"],
        "names": [_requirement(text)[0] for text in options["requires"] or ()],
        "targets": _targets(options),
    }
    # PYTHONPATH and the like of who runs the check are not those of the app.
    clean = {name: "" for name in os.environ if name.startswith("PYTHON")}
    try:
        done = _command.run(argv, timeout=timeout, cwd=directory, env=clean, stdin=json.dumps(request) + "\n")
    except OSError as error:
        raise CannotTell(f"{options['python']} could not be started: {error.strerror}.") from None
    try:
        told = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        last = _evidence.redact(done.last_words(3), _evidence.secrets_in(options["environment_files"] or ()))
        raise CannotTell(f"{options['python']} ended with status {done.rc} without an answer: {one_line(last, LONGEST)}") from None
    return t.cast(t.Dict[str, t.Any], told)


def _targets(options: Options) -> t.List[str]:
    return [*(options["modules"] or ()), *([options["entrypoint"]] if options["entrypoint"] else [])]


def _attempt(options: Options, timeout: float, memory: Memory) -> Answer:
    told = _told(options, timeout)
    installed: t.Dict[str, str] = told["installed"]
    problems = []
    for text in options["requires"] or ():
        name, clauses = _requirement(text)
        if name not in installed:
            problems.append(f"{name} is not installed, expected {text}")
            continue
        try:
            allowed = _pep440.allows(clauses, installed[name])
        except ValueError as error:
            problems.append(f"{name}: {error}")
            continue
        if not allowed:
            problems.append(f"{name} is {installed[name]}, expected {text}")
    secrets = _evidence.secrets_in(options["environment_files"] or ())
    for target, (kind, message, place) in told["errors"].items():
        said = one_line(_evidence.redact(message, secrets), LONGEST)
        problems.append(f"{target} cannot be imported: {kind}: {said}{f' ({place})' if place else ''}")
    found = {"python": told["python"], "installed": installed, "errors": sorted(told["errors"])}
    expected = {name: options[name] for name in ("requires", "modules", "entrypoint") if options[name]}
    have = [f"{name} {version}" for name, version in installed.items()] + [f"{target} can be imported" for target in _targets(options)]
    good = f"{options['python']} (Python {told['python']}): {', '.join(have)}."
    return judged(problems, good, f"{options['python']} (Python {told['python']})", found, expected)


def _mistakes(options: Options, given: t.AbstractSet[str]) -> t.Iterator[str]:
    for name in ("python", "directory"):
        if options[name] is not None and not os.path.isabs(options[name]):
            yield wrong(name, options[name], "an absolute path")
    for text in options["requires"] or ():
        try:
            _requirement(text)
        except ValueError as error:
            yield wrong("requires", text, f"a requirement such as bcrypt<5 ({error})")
    for text in options["modules"] or ():
        if not MODULE.fullmatch(text):
            yield wrong("modules", text, "names of modules, such as shop.views")
    if options["entrypoint"] is not None and not ENTRYPOINT.fullmatch(options["entrypoint"]):
        yield wrong("entrypoint", options["entrypoint"], "a module and what to take from it, such as shop.wsgi:app")
    if not given & {"requires", "modules", "entrypoint"}:
        yield "requires, modules, entrypoint: found none, allowed: at least one of them"
    if given & {"modules", "entrypoint"} and "user" not in given and os.geteuid() == 0:
        yield "user: it is missing, and what is imported would run as root, allowed: the account that the app runs as"
    if given & {"environment_files"} and "user" not in given:
        yield "environment_files: they go with user"


CHECK = CheckType(
    name="import",
    options={
        "python": Option(TEXT, required=True),
        "requires": Option(TEXT_LIST),
        "modules": Option(TEXT_LIST),
        "entrypoint": Option(TEXT),
        "user": Option(TEXT),
        "directory": Option(TEXT),
        "environment_files": Option(TEXT_LIST),
    },
    subject=lambda options: str(options["python"]),
    attempt=_attempt,
    mistakes=_mistakes,
)
