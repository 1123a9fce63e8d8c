# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Staging a release: unpack, link, build the environment, rename into place, set owners and modes right, prove that it imports."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import shutil
import tempfile
import time
import typing as t
from dataclasses import dataclass, replace
from functools import partial

from ansible_collections.bulletproof.deploy.plugins.module_utils import (
    _command,
    _evidence,
    _manifest,
    _permissions,
    _phase,
    _processes,
    _sandbox,
    _state,
    _unpack,
    _venv,
)
from ansible_collections.bulletproof.deploy.plugins.module_utils._accounts import gid_of, uid_of
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._files import replace_link, sync_directory, write_atomically
from ansible_collections.bulletproof.deploy.plugins.module_utils._layout import RESERVED, Layout, reserved
from ansible_collections.bulletproof.deploy.plugins.module_utils._manifest import Manifest
from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import permissions
from ansible_collections.bulletproof.deploy.plugins.module_utils._runner import Change, Options

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

SPEC: t.Dict[str, t.Any] = {
    **_phase.RUN,
    "release": {"type": "str", "required": True},
    "version": {"type": "str", "required": True},
    "source": {"type": "str", "default": ""},
    "artefact": {"type": "path", "required": True},
    "artefact_content": {"type": "str", "no_log": True},
    "artefact_digest": {"type": "str", "required": True},
    "present": {"type": "bool", "default": False},
    "requirements": {
        "type": "dict",
        "default": {"kind": "none"},
        "options": {
            "kind": {"type": "str", "choices": ["requirements", "uv", "wheel", "none"], "default": "none"},
            "file": {"type": "str", "default": ""},
        },
    },
    "extra_requirements": {"type": "list", "elements": "str", "default": []},
    "python": {"type": "path", "default": "/usr/bin/python3"},
    "cache": {"type": "path", "default": "/var/cache/bulletproof-deploy"},
    "shared_directories": {"type": "list", "elements": "str", "default": []},
    "shared_files": {"type": "list", "elements": "str", "default": []},
    "user": {"type": "str", "required": True},
    "group": {"type": "str", "required": True},
    "entrypoint": {"type": "str", "required": True},
    "prove": {"type": "str", "choices": ["import", "start"], "default": "import"},
    "import_timeout": {"type": "int", "default": 60},
    "gunicorn_conf": {"type": "str", "required": True},
    "environment": {"type": "raw", "default": {}, "no_log": True},
    "health": {"type": "dict", "required": True},
    "processes": {"type": "dict", "default": {}},
    "singletons": {"type": "bool", "default": True},
    "waived": {"type": "list", "elements": "str", "default": []},
    # As JSON text, see the action plugin.
    "checks": {"type": "raw", "default": "[]", "no_log": True},
    "permissions": {"type": "dict", "options": permissions.SPEC},
}

# Root's alone: they may hold secrets.
SECRET = ("environment", "checks.json")

# Runs in the release's own interpreter: imports the module and finds what gunicorn will look for in it.
IMPORT = """
import importlib, sys
sys.path.insert(0, "")
module, _, path = sys.argv[1].partition(":")
found = importlib.import_module(module)
for name in (path.partition("(")[0] or "application").split("."):
    found = getattr(found, name)
if not callable(found):
    sys.exit(f"{sys.argv[1]} is a {type(found).__name__}, which cannot be called")
"""


@dataclass(frozen=True)
class Observed:
    manifest: t.Optional[Manifest]
    tree_problem: str
    venv_problems: t.Tuple[str, ...]
    live: t.Optional[_state.Position] = None
    tree: t.Optional[_permissions.Tree] = None


@contextlib.contextmanager
def archive_of(options: Options) -> t.Iterator[str]:
    """Where the artefact is to be read from: a file that was sent, or one without a name for the content that came with the options."""
    if options["artefact_content"] is None:
        yield options["artefact"]
        return
    with tempfile.TemporaryFile() as stream:
        stream.write(base64.b64decode(options["artefact_content"]))
        stream.flush()
        yield f"/proc/self/fd/{stream.fileno()}"


class Stage:
    """One staging: it remembers what it built, for the report and for the way back."""

    def __init__(self, warn: t.Callable[[str], None] = lambda _warning: None) -> None:
        self.warn = warn
        self.seconds: t.Dict[str, float] = {}
        self.venv: t.Dict[str, str] = {}
        self.home = True

    def read(self, options: Options) -> Observed:
        layout = _phase.layout_of(options)
        manifest = _manifest.load(layout, options["release"])
        live = _state.load(layout).committed
        _processes.refuse_a_second_home(layout, live, options["release"], options["singletons"])
        tree = _permissions.read(options["permissions"]) if options["permissions"] else None
        if manifest is None:
            return Observed(None, "", (), live, tree)
        self.venv = {"path": manifest.venv, "how": "reused"}
        return Observed(manifest, _unpack.tree_problem(layout, manifest), tuple(_venv.problems(manifest.venv)), live, tree)

    def plan(self, options: Options, observed: Observed) -> t.List[Change]:
        # What has drifted is put right first: what is built may take the place of some of it.
        drift = _permissions.plan(observed.tree) if observed.tree else []
        return [*drift, *self._staging(options, observed)]

    def _staging(self, options: Options, observed: Observed) -> t.List[Change]:
        layout, release = _phase.layout_of(options), options["release"]
        manifest = observed.manifest
        sound = manifest is not None and manifest.state != "building" and not observed.tree_problem
        # Where the live release runs what must run only once is not changed under it.
        served = observed.live is not None and observed.live.release == release
        self.home = options["singletons"] if manifest is None or not served else manifest.singletons
        if sound and manifest is not None and not observed.venv_problems and manifest.state != "bad":
            return [] if manifest.singletons == self.home else [self._moved(options, manifest)]
        changes = []
        if not sound:
            before = observed.tree_problem or (manifest.state if manifest else None)
            changes.append(Change(layout.release(release), before, "staged", partial(self._build, options)))
        elif observed.venv_problems:
            changes.append(Change("virtual environment", "; ".join(observed.venv_problems), "rebuilt", partial(self._environment, options)))
        if observed.tree is not None and changes:
            changes.append(Change(f"owners and modes of {release}", None, "as the rules say", partial(self._rule, options, observed.tree)))
        if options["prove"] == "import":
            changes.append(Change(options["entrypoint"], None, "imports", partial(self._imports, options)))
        changes.append(Change(f"manifest of {release}", manifest.state if manifest else None, "staged", partial(self._staged, options)))
        return changes

    @contextlib.contextmanager
    def _timed(self, part: str) -> t.Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[part] = round(time.monotonic() - began, 3)

    def _build(self, options: Options) -> None:
        layout, release = _phase.layout_of(options), options["release"]
        building, final = layout.release(f".building-{release}"), layout.release(release)
        shutil.rmtree(building, ignore_errors=True)
        owner = (0, gid_of(options["group"]))
        with self._timed("unpack"):
            os.mkdir(building, 0o700)
            with archive_of(options) as path:
                _unpack.unpack(path, building, options["artefact_digest"])
        links = link_shared(layout, options, building)
        environment = self._ensure_venv(options, building)
        os.makedirs(os.path.join(building, RESERVED), exist_ok=True)
        write_atomically(reserved(building, "gunicorn.conf.py"), options["gunicorn_conf"], 0o640, owner)
        write_atomically(reserved(building, "environment"), options["environment"] or "", 0o600)
        write_atomically(reserved(building, "checks.json"), options["checks"], 0o600)
        os.makedirs(reserved(building, _processes.SCRIPTS))
        for name, one in options["processes"].items():
            text = _processes.script(one["command"], _processes.is_script(environment.path, one["command"][0]))
            write_atomically(os.path.join(reserved(building, _processes.SCRIPTS), name), text, 0o750, owner)
        replace_link(reserved(building, "venv"), os.path.relpath(environment.path, os.path.join(final, RESERVED)))
        with self._timed("compile"):
            compile_tree(environment.path, building, final)
        own(building, owner)
        manifest = Manifest(
            release=release,
            version=options["version"],
            source=options["source"],
            tree=_unpack.tree_digest(building, links),
            venv=environment.path,
            health=options["health"],
            links=links,
            processes=options["processes"],
            singletons=self.home,
        )
        known = _manifest.load(layout, release)
        if known is not None:
            manifest = replace(manifest, previous=known.previous, committed=known.committed, history=known.history)
        _manifest.save(building, manifest)
        # Once for the whole tree, before it counts as staged: nothing in it was made durable one by one.
        _command.must(["sync", "--file-system", building], "The release could not be written to the disk")
        if os.path.lexists(final):
            os.rename(final, layout.release(f".removing-{release}-{options['run']}"))
        os.rename(building, final)
        sync_directory(layout.releases)

    def _rule(self, options: Options, tree: _permissions.Tree) -> None:
        """What was just built has safe owners and modes; the rules may want others."""
        with self._timed("permissions"):
            built = _permissions.read(options["permissions"])
            built.repair(built.rows)
        tree.left_alone = built.left_alone

    def _moved(self, options: Options, manifest: Manifest) -> Change:
        """Another host than before is to run what must run only once."""
        layout = _phase.layout_of(options)
        moved = replace(manifest, singletons=options["singletons"])
        says = ["run on another host", "run here"]
        return Change(
            "singletons",
            says[manifest.singletons],
            says[moved.singletons],
            partial(_manifest.save, layout.release(manifest.release), moved),
        )

    def _ensure_venv(self, options: Options, directory: str) -> t.Any:
        layout = _phase.layout_of(options)
        spec = _venv.Spec(
            kind=options["requirements"]["kind"],
            directory=directory,
            file=options["requirements"]["file"],
            extra=tuple(options["extra_requirements"]),
            python=options["python"],
        )
        with self._timed("venv"):
            environment = _venv.ensure(spec, layout.venvs, options["cache"], None)
        self.venv = {"path": environment.path, "how": environment.how}
        if not os.path.exists(os.path.join(environment.path, "bin", "gunicorn")):
            raise Failure(
                f"Release {options['release']} has no gunicorn in its virtual environment.",
                fix="Add gunicorn to its requirements, or set app_extra_requirements: [gunicorn==23.0.0].",
            )
        return environment

    def _environment(self, options: Options) -> None:
        """The release is whole, its virtual environment is not: give it another one."""
        layout, release = _phase.layout_of(options), options["release"]
        directory = layout.release(release)
        environment = self._ensure_venv(options, directory)
        replace_link(reserved(directory, "venv"), os.path.relpath(environment.path, os.path.join(directory, RESERVED)))
        manifest = _manifest.need(layout, release)
        _manifest.save(directory, replace(manifest, venv=environment.path))

    def _imports(self, options: Options) -> None:
        layout = _phase.layout_of(options)
        with self._timed("imports"):
            done = _command.run(import_command(layout, options), timeout=options["import_timeout"] + _sandbox.SLACK)
        if done.ok:
            return
        if self.seconds["imports"] >= options["import_timeout"]:
            raise Failure(
                f"The entry point {options['entrypoint']} of release {options['release']} was not imported within {options['import_timeout']} s.",
                fix="If it needs that long to start, raise app_start_timeout; otherwise look for what it waits for. Nothing was switched.",
            )
        secrets = _evidence.secrets_of(layout, options["release"])
        said = _evidence.redact(done.stderr.strip() or done.stdout.strip(), secrets).splitlines()[-_evidence.LINES :]
        told = "\n  ".join(said) or f"it ended with status {done.rc} and said nothing"
        raise Failure(
            f"The entry point {options['entrypoint']} of release {options['release']} does not import:\n  {told}",
            fix="Correct app_entrypoint, app_environment or the code; nothing was switched.",
        )

    def _staged(self, options: Options) -> None:
        layout = _phase.layout_of(options)
        manifest = _manifest.need(layout, options["release"])
        why = "whole, and its entry point imports" if options["prove"] == "import" else "whole"
        _manifest.save(layout.release(options["release"]), manifest.become("staged", options["run"], why, singletons=self.home))

    def report(self, options: Options, observed: Observed) -> t.Dict[str, t.Any]:
        walked = {"permissions": permissions.told(observed.tree, self.warn)} if observed.tree else {}
        return {"release": options["release"], "venv": self.venv, "seconds": self.seconds, **walked}

    def rescue(self, options: Options, failure: Failure) -> Failure:
        """Take away what is half built and mark the release bad; one that serves is not touched."""
        layout, release = _phase.layout_of(options), options["release"]
        shutil.rmtree(layout.release(f".building-{release}"), ignore_errors=True)
        state = _state.load(layout)
        if state.live is None or state.live.release != release:
            with contextlib.suppress(OSError):
                _manifest.mark(layout, release, "bad", options["run"], failure.what.splitlines()[0])
        serves = f"This host serves {state.live.release} as before." if state.live else "Nothing was served before, and nothing is now."
        return Failure(f"{failure.what}\n{serves}", fix=failure.fix, **failure.facts)


def link_shared(layout: Layout, options: Options, directory: str) -> t.List[str]:
    """Link what outlives releases; what the source has at such a path gives way. Returns the paths that are links now."""
    links = []
    for path in [*options["shared_directories"], *options["shared_files"]]:
        shared = os.path.join(layout.shared, path)
        if path in options["shared_directories"]:
            make_shared_directory(layout, path, uid_of(options["user"]), gid_of(options["group"]))
        elif not os.path.exists(shared):
            raise Failure(
                f"The shared file {shared} does not exist on this host.", fix=f"Put it there, or take {path} out of app_shared_files."
            )
        link = os.path.join(directory, path)
        if os.path.isdir(link) and not os.path.islink(link):
            shutil.rmtree(link)
        elif os.path.lexists(link):
            os.unlink(link)
        os.makedirs(os.path.dirname(link), exist_ok=True)
        final = os.path.dirname(os.path.join(layout.releases, "x", path))
        os.symlink(os.path.relpath(shared, final), link)
        links.append(path)
    return links


def make_shared_directory(layout: Layout, path: str, uid: int, gid: int) -> None:
    """Create a directory in ``shared/``, part by part and never through a link that the app may have planted there."""
    handle = os.open(layout.shared, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        for part in path.split("/"):
            try:
                os.mkdir(part, 0o750, dir_fd=handle)
            except FileExistsError:
                created = False
            else:
                created = True
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
            os.close(handle)
            handle = below
            if created:
                os.fchown(handle, uid, gid)
    except OSError as error:
        raise Failure(f"{os.path.join(layout.shared, path)} is not a directory that can be used: {error.strerror}.") from None
    finally:
        os.close(handle)


def own(directory: str, owner: t.Tuple[int, int]) -> None:
    """The app may read its code and not write it: root:group, directories 0750, files 0640 (0750 where they can be executed)."""
    for here, _directories, files in os.walk(directory):
        os.chown(here, *owner)
        os.chmod(here, 0o750)
        for name in files:
            path = os.path.join(here, name)
            if os.path.islink(path):
                continue
            mode = os.lstat(path).st_mode
            if os.path.basename(here) == RESERVED and name in SECRET:
                continue
            os.chown(path, *owner)
            os.chmod(path, 0o750 if mode & 0o100 else 0o640)


def compile_tree(venv: str, building: str, final: str) -> None:
    """Compile the code once, because the service cannot write beside it. A file that does not compile is the import check's to report."""
    python = os.path.join(venv, "bin", "python")
    skip = rf"/({re.escape(RESERVED)}|node_modules)/"
    _command.run([python, "-I", "-m", "compileall", "-q", "-q", "-x", skip, "-s", building, "-p", final, building], timeout=600)


def import_command(layout: Layout, options: Options) -> t.List[str]:
    """The entry point, imported as the service will: its account, its environment as systemd reads it, its directory."""
    release = layout.release(options["release"])
    return _sandbox.command(
        [reserved(release, "venv/bin/python"), "-c", IMPORT, options["entrypoint"]],
        user=options["user"],
        group=options["group"],
        directory=release,
        environment_files=[f"-{os.path.join(layout.shared, '.env')}", reserved(release, "environment")],
        writable=[layout.shared],
        seconds=options["import_timeout"],
    )


def run(module: AnsibleModule) -> None:
    stage = Stage(module.warn)
    _phase.run(module, "stage", stage.read, stage.plan, stage.report, stage.rescue)
