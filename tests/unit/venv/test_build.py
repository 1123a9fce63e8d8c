# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Building: both builders, every kind of lock, and everything that can go wrong on the way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils import _venv, _venv_build, _venv_lock
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._venv import Environment, Spec

from .conftest import UV, Host, Index, make_wheel

LOCK = "alpha==1.0\nbeta==1.0\n"


def apart_from_pip(installed: t.Mapping[str, str]) -> dict[str, str]:
    return {name: version for name, version in installed.items() if name not in ("pip", "setuptools")}


def python(environment: Environment, code: str) -> str:
    command = [os.path.join(environment.path, "bin", "python"), "-I", "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_built_once_then_reused(either: Host) -> None:
    first = either.ensure(either.requirements(LOCK))
    again = either.ensure(either.requirements(LOCK, name="another release"))
    assert (first.how, again.how, first.builder) == ("built", "reused", "uv" if either.uv else "pip")
    assert first.path == again.path == str(either.venvs / first.key)
    assert apart_from_pip(first.installed) == apart_from_pip(again.installed) == {"alpha": "1.0", "beta": "1.0"}
    assert python(first, "import alpha; print(alpha.VERSION)") == "1.0"
    assert _venv.problems(first.path) == []


def test_nobody_else_can_write_there_whatever_the_umask(either: Host) -> None:
    before = os.umask(0)
    try:
        environment = either.ensure(either.requirements(LOCK))
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    modes = {path: path.lstat().st_mode for path in [Path(environment.path), *Path(environment.path).rglob("*")] if not path.is_symlink()}
    assert [path for path, mode in modes.items() if mode & 0o022] == []
    assert Path(environment.path, "bin", "python").exists()
    assert all(mode & 0o005 == 0o005 for path, mode in modes.items() if path.is_dir())


def test_bytecode_is_there_before_the_service_starts(host: Host, index: Index) -> None:
    """Of packages with hashes, too, after which others are installed by a command of their own."""
    digest = index.add("gamma", "1.0")
    for lock, extra in ((LOCK, ()), (f"gamma==1.0 --hash=sha256:{digest}\n", ("beta==1.0",))):
        environment = host.ensure(host.requirements(lock, extra=extra))
        modules = [path for path in Path(environment.path).rglob("*/__init__.py") if path.parent.name in ("alpha", "beta", "gamma")]
        assert len(modules) == 2 + len(extra)
        assert [path for path in modules if not list(path.parent.glob("__pycache__/__init__.*.pyc"))] == []


def bytecode(environment: Environment, module: str) -> Path:
    (found,) = Path(environment.path).rglob(f"{module}/__pycache__/later.*.pyc")
    return found


TELL = "import alpha.later; print(alpha.later.tell.__code__.co_filename, alpha.later.LATE, alpha.later.__cached__)"


def test_bytecode_is_kept_for_the_next_environment(host: Host, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is compiled for it; and it names its own files, not those that it was compiled from."""
    index.add("alpha", "3.0", files={"alpha/later.py": "LATE = 3\ndef tell():\n    raise ValueError\n"})
    host.ensure(host.requirements("alpha==3.0\n"))
    kept = {path: path.stat().st_mtime_ns for path in Path(host.cache, "bytecode").rglob("*") if path.is_file()}
    source = _venv_build.source_of(_venv_build._bytecode.__name__)
    monkeypatch.setattr(_venv_build, "source_of", lambda name: source.replace("py_compile.compile(", "raise_if_called("))
    second = host.ensure(Spec("none", extra=("alpha==3.0",)))
    module = bytecode(second, "alpha")
    assert python(second, TELL).split() == [str(module.parent.parent / "later.py"), "3", str(module)]
    assert all(path.stat().st_mtime_ns > seconds for path, seconds in kept.items())


@pytest.mark.parametrize("damage", [b"", b"x" * 32, b"not what was written"])
def test_kept_bytecode_that_is_damaged_is_made_anew(host: Host, damage: bytes) -> None:
    host.ensure(host.requirements("alpha==1.0\n"))
    kept = [path for path in Path(host.cache, "bytecode").rglob("*") if path.is_file()]
    good = {path: path.read_bytes() for path in kept}
    for path in kept:
        path.write_bytes(damage)
    second = host.ensure(Spec("none", extra=("alpha==1.0",)))
    assert python(second, "import alpha.later; print(alpha.later.LATE)") == "True"
    assert bytecode(second, "alpha").stat().st_size > 32
    assert {len(path.read_bytes()) for path in kept} == {len(content) for content in good.values()}


def test_a_source_of_the_same_size_and_time_gets_its_own_bytecode(host: Host, index: Index) -> None:
    """As wheels have it whose files are all of one day in 1980; what a RECORD says of them does not matter either."""
    for version, value in (("3.0", 3), ("4.0", 4)):
        index.add("alpha", version, files={"alpha/later.py": f"LATE = {value}\n"})
        environment = host.ensure(host.requirements(f"alpha=={version}\n"))
        assert python(environment, "import alpha.later; print(alpha.later.LATE)") == str(value)


def test_a_source_that_does_not_compile_is_left_as_it_is(host: Host, index: Index) -> None:
    index.add("alpha", "3.0", files={"alpha/template.py": "class {{ name }}:\n"})
    environment = host.ensure(host.requirements("alpha==3.0\n"))
    assert not list(Path(environment.path).rglob("alpha/__pycache__/template.*"))


def test_bytecode_that_nothing_asks_for_is_forgotten(host: Host, index: Index) -> None:
    # Its other file is alpha's as well.
    index.add("gamma", "1.0", files={"gamma/later.py": "LATE = 'gamma'\n"})
    host.ensure(host.requirements("gamma==1.0\n"))
    kept = [path for path in Path(host.cache, "bytecode").rglob("*") if path.is_file()]
    long_ago = time.time() - _venv_build._bytecode.KEPT_SECONDS - 60
    for path in kept:
        os.utime(path, (long_ago, long_ago))
    host.ensure(host.requirements("alpha==1.0\n"))
    left = [path for path in kept if path.exists()]
    assert left and len(left) < len(kept)


def test_packages_are_hard_links_into_the_cache(host: Host) -> None:
    environment = host.ensure(host.requirements(LOCK))
    (module,) = Path(environment.path).rglob("alpha/__init__.py")
    assert module.stat().st_nlink > 1


def test_hashes_count(either: Host, index: Index) -> None:
    digest = index.add("gamma", "1.0")
    environment = either.ensure(either.requirements(f"gamma==1.0 --hash=sha256:{digest}\n", extra=("beta==1.0",)))
    assert apart_from_pip(environment.installed) == {"gamma": "1.0", "beta": "1.0", "alpha": "2.0"}
    wrong = "0" * 64
    with pytest.raises(Failure, match=r"(?i)hash"):
        either.ensure(either.requirements(f"gamma==1.0 \\\n    --hash=sha256:{wrong}\n"))
    assert either.names() == [environment.key]


def test_one_hash_asks_for_all(host: Host, index: Index) -> None:
    digest = index.add("gamma", "1.0", requires=["alpha"])
    with pytest.raises(Failure, match=r"(?i)hash"):
        host.ensure(host.requirements(f"gamma==1.0 --hash=sha256:{digest}\n"))


def test_the_lock_wins_over_an_extra_requirement(either: Host, index: Index) -> None:
    environment = either.ensure(either.requirements("alpha==1.0\n", extra=("Alpha==2.0", "beta")))
    assert apart_from_pip(environment.installed) == {"alpha": "1.0", "beta": "1.0"}


def test_an_extra_requirement_fits_itself_to_the_lock(host: Host, index: Index) -> None:
    digest = index.add("gamma", "1.0")
    index.add("delta", "0.9", requires=["gamma"])
    index.add("gamma", "2.0")
    index.add("delta", "1.0", requires=["gamma>=2"])
    environment = host.ensure(host.requirements(f"gamma==1.0 --hash=sha256:{digest}\n", extra=("delta",)))
    assert environment.installed == {"gamma": "1.0", "delta": "0.9"}


def test_a_wheel_with_what_it_needs(host: Host) -> None:
    tree = host.release("one", {"constraints.txt": "alpha<2\n"})
    make_wheel(tree, "shop", "3.1", requires=["beta"])
    spec = Spec("wheel", str(tree), "shop-3.1-py3-none-any.whl", extra=("-c constraints.txt",))
    assert host.ensure(spec).installed == {"shop": "3.1", "beta": "1.0", "alpha": "1.0"}


def test_extra_requirements_alone(host: Host) -> None:
    assert host.ensure(Spec("none", extra=("alpha==1.0",))).installed == {"alpha": "1.0"}
    assert host.ensure(Spec("none")).installed == {}


PROJECT = """
[project]
name = "shop"
version = "1.0"
requires-python = ">=3.9"
dependencies = ["beta"]
[dependency-groups]
dev = ["gamma"]
[tool.uv]
constraint-dependencies = ["alpha<2"]
"""


@pytest.fixture(name="project")
def fixture_project(host: Host, index: Index) -> Spec:
    index.add("gamma", "1.0")
    index.add("delta", "1.0", requires=["alpha"])
    tree = host.release("one", {"pyproject.toml": PROJECT})
    subprocess.run([UV, "lock", "--quiet", "--cache-dir", str(host.cache / "uv")], cwd=tree, check=True)
    return Spec("uv", str(tree), extra=("delta==1.0", "alpha==2.0"))


def test_a_uv_project(host: Host, project: Spec) -> None:
    before = sorted(os.listdir(project.directory))
    environment = host.ensure(project)
    assert environment.installed == {"beta": "1.0", "alpha": "1.0", "delta": "1.0"}
    assert sorted(os.listdir(project.directory)) == before


def test_a_uv_project_without_uv(host: Host, project: Spec) -> None:
    with pytest.raises(Failure, match=r"uv\.lock") as caught:
        host.with_pip().ensure(project)
    assert "uv export" in caught.value.fix
    assert host.names() == []


def test_uv_that_is_not_where_it_was_said_to_be(host: Host) -> None:
    with pytest.raises(Failure, match="/absent/uv"):
        _venv.ensure(host.requirements(LOCK), str(host.venvs), str(host.cache), "/absent/uv")


def test_what_lies_in_the_release_configures_nothing(either: Host) -> None:
    """A release is not trusted to say where packages come from in any other place than its lock, nor to be the installer."""
    elsewhere = "no-index = true\n[pip]\nno-index = true\n"
    files = {"uv.toml": elsewhere, "pip/__init__.py": "raise SystemExit('pip of the release')", "json.py": "raise SystemExit('json')"}
    either.release("one", files)
    assert either.ensure(either.requirements(LOCK)).how == "built"


def test_requirements_that_do_not_resolve(either: Host, index: Index) -> None:
    index.add("picky", "1.0", requires=["alpha<1"])
    with pytest.raises(Failure) as caught:
        either.ensure(either.requirements("picky==1.0\nalpha==2.0\n"))
    assert "picky" in caught.value.what
    assert "alpha" in caught.value.what
    assert "resolve" in caught.value.fix
    assert either.names() == []


def test_no_network(either: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UV_DEFAULT_INDEX", "PIP_INDEX_URL"):
        monkeypatch.setenv(name, "http://me:hunter2@127.0.0.1:9/simple/")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(Failure, match="does not reach the package index") as caught:
        either.ensure(either.requirements(LOCK))
    assert "network" in caught.value.fix
    assert "hunter2" not in caught.value.message()
    assert either.names() == []


def test_credentials_are_not_shown(either: Host, index: Index) -> None:
    address = f"http://me:hunter2@{index.authority}/simple"
    with pytest.raises(Failure) as caught:
        either.ensure(either.requirements(f"--index-url {address}/\nabsent @ {address}/absent-1.0-py3-none-any.whl\nother==1\n"))
    assert "hunter2" not in caught.value.message()
    assert "absent" in caught.value.what


def test_credentials_of_an_extra_requirement_are_in_no_file_and_no_argument(either: Host, index: Index, tmp_path: Path) -> None:
    spec = Spec("none", extra=(f"alpha @ http://me:hunter2@{index.authority}/simple/alpha/alpha-1.0-py3-none-any.whl",))
    builder = _venv_build.Builder(either.uv, str(either.cache))
    assert "hunter2" not in str(list(_venv_build._steps(builder, spec, _venv_lock.read(spec), "/path", str(tmp_path))))
    environment = either.ensure(spec)
    assert environment.installed["alpha"] == "1.0"
    assert [path for path in Path(environment.path).rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()] == []


def test_installed_is_compared_with_locked(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "elsewhere"))
    with pytest.raises(Failure, match=r"alpha is locked at 1\.0 and not installed"):
        host.with_pip().ensure(host.requirements(LOCK))
    assert host.names() == []


def test_a_python_without_venv(host: Host, tmp_path: Path) -> None:
    """As Debian has it without the package python3-venv: the module is there and finds no ensurepip."""
    interpreter = tmp_path / "python3"
    blocked = "import sys; sys.modules['ensurepip'] = None; import runpy; sys.argv = ['venv', *sys.argv[1:]]; runpy.run_module('ensurepip')"
    interpreter.write_text(f'#!/bin/sh\n[ "$2" = -c ] && exec {sys.executable} "$@"\nexec {sys.executable} -I -c "{blocked}"\n')
    interpreter.chmod(0o755)
    with pytest.raises(Failure) as caught:
        host.with_pip().ensure(host.requirements(LOCK, python=str(interpreter)))
    assert caught.value.fix == "apt-get install python3-venv"


@pytest.fixture(name="small")
def fixture_small(tmp_path: Path) -> t.Iterator[Path]:
    path = tmp_path / "small"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(path)], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small file system")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def test_disk_full(either: Host, small: Path, index: Index) -> None:
    index.add("big", "1.0", files={"big/data.txt": "x" * 1_000_000})
    spec = either.requirements("big==1.0\n")
    with pytest.raises(Failure, match="The disk is full") as caught:
        _venv.ensure(spec, str(small / "venvs"), str(either.cache), either.uv)
    assert f"{small} (0 MiB" in caught.value.what
    assert [path.name for path in (small / "venvs").iterdir() if path.is_dir()] == []


def test_a_leftover_is_removed_and_its_name_not_used_again(host: Host) -> None:
    spec = host.requirements(LOCK)
    name = _venv.key(spec)
    (host.venvs / name / "lib").mkdir(parents=True)
    assert _venv.problems(str(host.venvs / name)) == ["it was never completed"]
    environment = host.ensure(spec)
    assert (environment.how, environment.set_aside) == ("built", None)
    assert host.names() == [f"{name}.2"]
    assert host.ensure(spec).path == environment.path


ENSURE = """
import sys
from ansible_collections.bulletproof.deploy.plugins.module_utils._venv import Spec, ensure
directory, venvs, cache, uv = sys.argv[1:]
print(ensure(Spec("requirements", directory, "requirements.txt"), venvs, cache, uv).how)
"""


def started(host: Host, spec: Spec) -> subprocess.Popen[str]:
    """Another process that wants the same."""
    command = [sys.executable, "-c", ENSURE, spec.directory, str(host.venvs), str(host.cache), host.uv]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})


def test_two_at_once_build_one(host: Host, index: Index) -> None:
    index.gate.clear()
    spec = host.requirements(LOCK)
    both = [started(host, spec), started(host, spec)]
    assert index.asked.wait(20)
    time.sleep(0.5)
    index.gate.set()
    assert sorted(process.communicate(timeout=30)[0].strip() for process in both) == ["built", "reused"]
    assert len(host.names()) == 1


def test_a_run_that_was_killed_leaves_nothing_that_counts(host: Host, index: Index) -> None:
    index.gate.clear()
    spec = host.requirements(LOCK)
    victim = started(host, spec)
    assert index.asked.wait(20)
    victim.kill()
    victim.communicate()
    assert len(host.names()) == 1
    index.gate.set()
    environment = host.ensure(spec)
    assert environment.how == "built"
    assert _venv.problems(environment.path) == []


def test_the_record(host: Host) -> None:
    environment = host.ensure(host.requirements(LOCK))
    record = json.loads(Path(environment.path, ".complete.json").read_text())
    assert (record["key"], record["builder"], record["installed"]) == (environment.key, "uv", {"alpha": "1.0", "beta": "1.0"})
    assert record["spec"]["python"] == "/usr/bin/python3"


def test_unused_and_remove(host: Host) -> None:
    kept = host.ensure(host.requirements(LOCK))
    gone = host.ensure(host.requirements("alpha==2.0\n"))
    leftover = host.venvs / ("f" * 16 + ".3")
    leftover.mkdir()
    (host.venvs / "notes").mkdir()
    assert _venv.unused(str(host.venvs), {kept.path}) == sorted([gone.path, str(leftover)])
    assert _venv.unused(str(host.venvs), {kept.key, gone.key, leftover.name}) == []
    assert _venv.unused(str(host.venvs / "absent"), set()) == []
    _venv.remove(gone.path)
    assert not os.path.exists(gone.path)
    assert _venv.problems(kept.path) == []


@pytest.mark.network
def test_the_real_index(either: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UV_DEFAULT_INDEX", "PIP_INDEX_URL", "PIP_CONFIG_FILE"):
        monkeypatch.delenv(name)
    digest = "c6242fc49e35958c8b15141343aa660db5fc54d4f13a1db01a3f5891b98700ef"
    environment = either.ensure(either.requirements(f"itsdangerous==2.2.0 --hash=sha256:{digest}\n"))
    assert apart_from_pip(environment.installed) == {"itsdangerous": "2.2.0"}


def test_uv_is_found_without_being_told(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{os.path.dirname(UV)}:/usr/bin:/bin")
    assert shutil.which("uv")
    assert _venv.ensure(host.requirements(LOCK), str(host.venvs), str(host.cache)).builder == "uv"
