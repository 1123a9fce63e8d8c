# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A package index of our own on 127.0.0.1, with wheels made here: real installers, no network."""

from __future__ import annotations

import base64
import functools
import hashlib
import http.server
import os
import shutil
import sys
import threading
import typing as t
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils import _venv
from ansible_collections.bulletproof.deploy.plugins.module_utils._venv import Environment, Spec

UV = shutil.which("uv") or os.path.join(os.path.dirname(sys.executable), "uv")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "network: needs the real package index")


def make_wheel(directory: Path, name: str, version: str, requires: t.Sequence[str] = (), files: t.Mapping[str, str] | None = None) -> Path:
    """A wheel with the module ``name`` and whatever else is asked for."""
    directory.mkdir(parents=True, exist_ok=True)
    metadata = f"{name}-{version}.dist-info"
    content = {
        f"{name}/__init__.py": f"VERSION = {version!r}\n",
        f"{name}/later.py": "LATE = True\n",
        **(files or {}),
        f"{metadata}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        + "".join(f"Requires-Dist: {requirement}\n" for requirement in requires),
        f"{metadata}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{metadata}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
    }
    record = "".join(f"{path},sha256={_record_hash(text)},{len(text)}\n" for path, text in content.items())
    wheel = directory / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in {**content, f"{metadata}/RECORD": record + f"{metadata}/RECORD,,\n"}.items():
            archive.writestr(path, text)
    return wheel


def _record_hash(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


@dataclass
class Index:
    """:param gate: Wheels are not given out until it is set.
    :param asked: Set as soon as somebody asks for a wheel.
    """

    root: Path
    gate: threading.Event = field(default_factory=threading.Event)
    asked: threading.Event = field(default_factory=threading.Event)
    authority: str = ""

    @property
    def url(self) -> str:
        return f"http://{self.authority}/simple/"

    def add(self, name: str, version: str, requires: t.Sequence[str] = (), files: t.Mapping[str, str] | None = None) -> str:
        """Publish a wheel; its sha256."""
        wheel = make_wheel(self.root / "simple" / name, name, version, requires, files)
        return hashlib.sha256(wheel.read_bytes()).hexdigest()


class Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *arguments: t.Any, index: Index, **more: t.Any) -> None:
        self.index = index
        super().__init__(*arguments, directory=str(index.root), **more)

    def do_GET(self) -> None:
        if self.path.endswith(".whl"):
            self.index.asked.set()
            self.index.gate.wait(30)
        super().do_GET()

    def log_message(self, format: str, *args: t.Any) -> None:
        pass


@pytest.fixture(name="index")
def fixture_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[Index]:
    """alpha 1.0 and 2.0; beta 1.0, which needs any alpha; the installers of this process know no other index."""
    index = Index(tmp_path / "index")
    index.gate.set()
    for version in ("1.0", "2.0"):
        index.add("alpha", version)
    index.add("beta", "1.0", requires=["alpha"])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, index=index))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    index.authority = f"127.0.0.1:{server.server_port}"
    for name in [name for name in os.environ if name.startswith(("UV_", "PIP_"))]:
        monkeypatch.delenv(name)
    for name in ("UV_DEFAULT_INDEX", "PIP_INDEX_URL"):
        monkeypatch.setenv(name, index.url)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield index
    index.gate.set()
    server.shutdown()
    server.server_close()


@dataclass(frozen=True)
class Host:
    """Where the environments of a test go, and what a release in it asks for."""

    root: Path
    uv: str = UV

    @property
    def venvs(self) -> Path:
        return self.root / "venvs"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    def with_pip(self) -> Host:
        return replace(self, uv="")

    def release(self, name: str, files: t.Mapping[str, str]) -> Path:
        tree = self.root / "releases" / name
        for path, text in files.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_text(text)
        return tree

    def requirements(self, text: str, name: str = "one", **more: t.Any) -> Spec:
        return Spec("requirements", str(self.release(name, {"requirements.txt": text})), "requirements.txt", **more)

    def ensure(self, spec: Spec) -> Environment:
        return _venv.ensure(spec, str(self.venvs), str(self.cache), self.uv)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.venvs.iterdir() if path.is_dir()) if self.venvs.exists() else []


@pytest.fixture(name="host")
def fixture_host(tmp_path: Path, index: Index) -> Host:
    return Host(tmp_path / "host")


@pytest.fixture(name="either", params=["uv", "pip"])
def fixture_either(host: Host, request: pytest.FixtureRequest) -> Host:
    return host if request.param == "uv" else host.with_pip()
