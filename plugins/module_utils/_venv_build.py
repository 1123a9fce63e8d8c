# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filling a virtual environment, by uv or by pip."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import typing as t
from dataclasses import dataclass

from ansible_collections.bulletproof.deploy.plugins.module_utils import _bytecode
from ansible_collections.bulletproof.deploy.plugins.module_utils._command import Finished, run, shortened
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._module_source import source_of
from ansible_collections.bulletproof.deploy.plugins.module_utils._venv_inventory import installed, site_packages
from ansible_collections.bulletproof.deploy.plugins.module_utils._venv_lock import Lock, Spec, redact

# Where provisioning installs the programs that the collection needs on a host.
TOOLS = "/opt/bulletproof/tools"
SYSTEM_CONFIGURATION = "/etc/uv/uv.toml"
INSTALL_TIMEOUT = 1800
HASHED = "--require-hashes"
# A directory that is never there: user configuration is looked for in it.
NOWHERE = "/nonexistent"
UV_ENVIRONMENT = {
    "UV_PYTHON_DOWNLOADS": "never",
    # The same wish under the name that older releases of uv know.
    "UV_SYSTEM_CERTS": "true",
    "UV_NATIVE_TLS": "true",
    "UV_LINK_MODE": "hardlink",
    "UV_NO_PROGRESS": "1",
    "XDG_CONFIG_HOME": NOWHERE,
}
PIP_ENVIRONMENT = {"XDG_CONFIG_HOME": NOWHERE}

NO_SPACE = re.compile(r"No space left on device|os error 28|Disk quota exceeded", re.IGNORECASE)
NO_NETWORK = re.compile(
    r"error sending request|dns error|failed to lookup address|client error \(Connect\)|Network connectivity is disabled"
    r"|NewConnectionError|Max retries exceeded|ConnectTimeout|ReadTimeout|operation timed out|name resolution|Network is unreachable",
    re.IGNORECASE,
)
NO_VENV = re.compile(r"ensurepip is not available|No module named '?(venv|ensurepip)", re.IGNORECASE)


@dataclass(frozen=True)
class Builder:
    """One program that builds environments.

    :param program: The path of uv, or nothing for pip.
    :param cache: A directory on the host, kept from one build to the next.
    """

    program: str
    cache: str

    @property
    def name(self) -> str:
        return "uv" if self.program else "pip"


def choose(uv: t.Optional[str], cache: str) -> Builder:
    """:param uv: The path of uv; None looks for it; an empty text does without."""
    if uv:
        if not os.access(uv, os.X_OK):
            raise Failure(f"There is no uv at {uv}.", fix="Correct the path, or run provision.yml, which installs it.")
        return Builder(uv, cache)
    if uv is None:
        for candidate in (os.path.join(TOOLS, "bin", "uv"), shutil.which("uv") or ""):
            if candidate and os.access(candidate, os.X_OK):
                return Builder(candidate, cache)
    return Builder("", cache)


def create_command(builder: Builder, spec: Spec, path: str) -> list[str]:
    if builder.program:
        return [builder.program, "venv", *_machine_wide(), *_cached(builder), "--no-project", "--python", spec.python, path]
    return [spec.python, "-I", "-m", "venv", path]


def install_command(builder: Builder, spec: Spec, path: str, arguments: t.Sequence[str]) -> list[str]:
    python = os.path.join(path, "bin", "python")
    if builder.program:
        configuration = [] if spec.kind == "uv" else _machine_wide()
        return [builder.program, "pip", "install", *configuration, *_cached(builder), "--python", python, *arguments]
    options = [
        "--no-input",
        "--disable-pip-version-check",
        "--retries",
        "2",
        "--no-compile",
        "--cache-dir",
        os.path.join(builder.cache, "pip"),
    ]
    # Isolated: the working directory is the release, whose modules must not become pip's own.
    return [python, "-I", "-m", "pip", "install", *options, *arguments]


def sync_command(builder: Builder, spec: Spec, path: str) -> list[str]:
    """The project's own ``[tool.uv]`` is wanted here: it says where its packages come from."""
    project = ["--project", spec.directory, "--frozen", "--no-install-project", "--no-dev"]
    python = os.path.join(path, "bin", "python")
    return [builder.program, "sync", *project, *_cached(builder), "--python", python]


def compile_command(builder: Builder, path: str) -> list[str]:
    """The program, which is ``_bytecode``, comes on the standard input."""
    return [os.path.join(path, "bin", "python"), "-I", "-S", "-", os.path.join(builder.cache, "bytecode"), *site_packages(path)]


def _machine_wide() -> list[str]:
    """The machine's configuration, where it has one, counts; a ``uv.toml`` that lies in the release does not."""
    return ["--config-file", SYSTEM_CONFIGURATION] if os.path.exists(SYSTEM_CONFIGURATION) else ["--no-config"]


def _cached(builder: Builder) -> list[str]:
    return ["--cache-dir", os.path.join(builder.cache, "uv")]


def fill(builder: Builder, spec: Spec, lock: Lock, path: str) -> None:
    """Create the environment at ``path`` and install into it. Raises Failure."""
    if spec.kind == "uv" and not builder.program:
        raise Failure(
            "The app is locked by uv.lock, which only uv can read, and there is no uv on this host.",
            fix="Run provision.yml, which installs uv, or lock with: uv export --frozen --no-dev --no-emit-project -o requirements.txt",
        )
    os.makedirs(builder.cache, mode=0o755, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        _do(builder, create_command(builder, spec, path), path, cwd=temporary)
        for step in _steps(builder, spec, lock, path, temporary):
            # Of what has a hash there is only one, and where the cache has it, nobody needs to be asked.
            known = builder.program and HASHED in step and _run(builder, [*step, "--offline"], path, spec.directory).ok
            if not known:
                _do(builder, step, path, cwd=spec.directory or temporary)
        _do(builder, compile_command(builder, path), path, cwd=temporary, stdin=source_of(_bytecode.__name__))


def _steps(builder: Builder, spec: Spec, lock: Lock, path: str, temporary: str) -> t.Iterator[list[str]]:
    """What to run after the environment was created.

    The extra requirements are resolved together with the lock where that can be; where every package of the lock has a hash, or uv
    owns the lock, they come afterwards, and may change nothing of what is there.
    """
    constraints = [word for file in lock.constraints for word in ("-c", file)]
    extra = ["-r", _listed(temporary, "extra.txt", lock.extra), *constraints] if lock.extra else []
    if spec.kind == "uv":
        yield sync_command(builder, spec, path)
    elif spec.kind == "requirements" and lock.hashed:
        file = os.path.join(spec.directory, spec.file)
        yield install_command(builder, spec, path, [HASHED, "-r", file])
    else:
        main = {
            "requirements": ["-r", os.path.join(spec.directory, spec.file)],
            "wheel": [os.path.join(spec.directory, spec.file), *([] if extra else constraints)],
        }.get(spec.kind, [])
        if main or extra:
            yield install_command(builder, spec, path, [*main, *extra])
        return
    if extra:
        fixed = [f"{name}=={version}" for name, version in sorted(installed(path).items())]
        yield install_command(builder, spec, path, [*extra, "-c", _listed(temporary, "fixed.txt", fixed)])


def _listed(directory: str, name: str, requirements: t.Sequence[str]) -> str:
    """In a file, not among the arguments: an address in a requirement may carry a password."""
    path = os.path.join(directory, name)
    with open(path, "w", encoding="utf-8") as stream:
        stream.write("".join(f"{requirement}\n" for requirement in requirements))
    return path


def forget(builder: Builder, names: t.Iterable[str]) -> None:
    """Take packages out of uv's cache, so that they are fetched anew."""
    _do(builder, [builder.program, "cache", "clean", *_machine_wide(), *_cached(builder), *sorted(names)], builder.cache, cwd=None)


def _run(builder: Builder, argv: t.Sequence[str], path: str, cwd: t.Optional[str], stdin: t.Optional[str] = None) -> Finished:
    environment = dict(UV_ENVIRONMENT, UV_PROJECT_ENVIRONMENT=path) if builder.program else PIP_ENVIRONMENT
    return run(argv, timeout=INSTALL_TIMEOUT, cwd=cwd, env=environment, stdin=stdin)


def _do(builder: Builder, argv: t.Sequence[str], path: str, cwd: t.Optional[str], stdin: t.Optional[str] = None) -> None:
    done = _run(builder, argv, path, cwd, stdin)
    if not done.ok:
        raise _explained(builder, done, path)


def _explained(builder: Builder, done: Finished, path: str) -> Failure:
    said = redact(done.stderr + "\n" + done.stdout)
    # pip explains a conflict on its standard output and names it on the other.
    words = "\n".join([*shortened(redact(done.stdout).strip(), 12), *shortened(redact(done.stderr).strip(), 12)]).strip()
    places = (os.path.dirname(path), builder.cache)
    # Looked at as well, because venv keeps to itself what the programs that it starts complain about.
    if NO_SPACE.search(said) or any(_is_full(place) for place in places):
        return no_space(*places)
    if NO_VENV.search(said):
        return Failure("The virtual environment cannot be created: Python's venv is not installed.", fix="apt-get install python3-venv")
    if NO_NETWORK.search(said):
        return Failure(
            f"The packages cannot be fetched: {builder.name} does not reach the package index.\n{words}",
            fix="Check the host's network, proxy (HTTPS_PROXY) and index (UV_DEFAULT_INDEX, PIP_INDEX_URL), then run it again.",
        )
    return Failure(
        f"The packages cannot be installed: {builder.name} ended with status {done.rc}.\n{words}",
        fix="Correct the requirements so that they resolve for the host's Python, lock again, and deploy again.",
    )


def _is_full(directory: str) -> bool:
    free = os.statvfs(directory)
    # Some file systems count no inodes: all zero.
    return free.f_bavail * free.f_frsize < 64 * 1024 or (free.f_files > 0 and free.f_favail == 0)


def no_space(*directories: str) -> Failure:
    """The disk is full: which one, and how full."""
    rooms = {}
    for directory in directories:
        mount = os.path.realpath(directory)
        while not os.path.ismount(mount):
            mount = os.path.dirname(mount)
        with contextlib.suppress(OSError):
            free = os.statvfs(mount)
            rooms[mount] = f"{mount} ({free.f_bavail * free.f_frsize // 1024**2} MiB and {free.f_favail} inodes free)"
    return Failure(
        f"The disk is full: the virtual environment does not fit. File systems in use: {', '.join(rooms.values())}.",
        fix="Make room there (df -h, df -i), and run it again; the half-built environment was removed.",
    )
