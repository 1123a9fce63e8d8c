# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Damage: found before every use, set aside, replaced, and never repaired under a running service."""

from __future__ import annotations

import os
import shutil
import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils import _venv
from ansible_collections.bulletproof.deploy.plugins.module_utils._venv import Environment, Spec

from .conftest import Host, Index, make_wheel


@pytest.fixture(name="spec")
def fixture_spec(host: Host) -> Spec:
    return host.requirements("alpha==1.0\nbeta==1.0\n")


@pytest.fixture(name="environment")
def fixture_environment(host: Host, spec: Spec) -> Environment:
    return host.ensure(spec)


def file_in(environment: Environment, pattern: str) -> Path:
    (found,) = Path(environment.path).rglob(pattern)
    return found


def replaced(path: Path, text: str) -> None:
    """As an editor does it: a new file under the old name, so that the cache keeps what it had."""
    path.unlink()
    path.write_text(text)


def another_interpreter(environment: Environment) -> None:
    link = Path(environment.path, "bin", "python")
    link.unlink()
    link.write_text("#!/bin/sh\nprintf 'cpython\\n3.9.0.final.0\\n.so\\nlinux\\n64\\n/usr\\n/usr\\n'\n")
    link.chmod(0o755)


def broken_link(environment: Environment) -> None:
    link = Path(environment.path, "bin", "python")
    link.unlink()
    link.symlink_to("/absent/python3")


def added_package(environment: Environment) -> None:
    wheel = make_wheel(Path(environment.path).parent, "intruder", "6.6")
    shutil.unpack_archive(wheel, file_in(environment, "site-packages"), "zip")


DAMAGE: dict[str, tuple[t.Callable[[Environment], object], str]] = {
    "file gone": (lambda it: file_in(it, "alpha/later.py").unlink(), "alpha/later.py cannot be read"),
    "file longer": (lambda it: replaced(file_in(it, "alpha/later.py"), "LATE = True  # patched\n"), "alpha/later.py was changed"),
    "file as long": (lambda it: replaced(file_in(it, "alpha/later.py"), "LATE = 1234\n"), "alpha/later.py was changed"),
    "metadata gone": (lambda it: shutil.rmtree(file_in(it, "alpha-1.0.dist-info")), "alpha was installed as 1.0 and is now gone"),
    "package added": (added_package, "intruder was installed as nothing and is now 6.6"),
    "interpreter gone": (broken_link, "its interpreter does not run"),
    "interpreter changed": (another_interpreter, "3.9.0"),
    "not an environment any more": (lambda it: Path(it.path, "pyvenv.cfg").unlink(), "for its environment"),
    "others can write a file": (lambda it: file_in(it, "alpha/later.py").chmod(0o666), "can be written by others (mode 0666)"),
    "others can write a directory": (lambda it: file_in(it, "alpha/later.py").parent.chmod(0o777), "can be written by others (mode 0777)"),
    "record unreadable": (lambda it: Path(it.path, ".complete.json").write_text("{"), "its record cannot be read"),
}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_set_aside_and_replaced(host: Host, spec: Spec, environment: Environment, name: str) -> None:
    inflict, words = DAMAGE[name]
    inflict(environment)
    assert words in "; ".join(_venv.problems(environment.path))
    other = host.ensure(spec)
    assert (other.how, other.set_aside, other.path) == ("rebuilt", environment.path, f"{environment.path}.2")
    assert _venv.problems(other.path) == []
    assert words in (Path(environment.path) / ".damaged.json").read_text().replace("\\n", "\n")
    assert host.ensure(spec).path == other.path
    assert host.names() == [environment.key, f"{environment.key}.2"]


@needs_root
def test_a_file_that_was_given_away_is_damage(host: Host, spec: Spec, environment: Environment) -> None:
    os.chown(file_in(environment, "alpha/later.py"), 65534, 65534)
    assert "alpha/later.py belongs to user 65534" in "; ".join(_venv.problems(environment.path))
    assert _venv.problems(host.ensure(spec).path) == []


def test_a_touched_file_and_new_bytecode_are_no_damage(environment: Environment) -> None:
    os.utime(file_in(environment, "alpha/later.py"))
    shutil.rmtree(file_in(environment, "alpha/__pycache__"))
    subprocess.run([f"{environment.path}/bin/python", "-O", "-c", "import alpha.later"], check=True)
    assert _venv.problems(environment.path) == []


def test_what_was_set_aside_stays_there_though_it_looks_sound_again(host: Host, spec: Spec, environment: Environment) -> None:
    module = file_in(environment, "alpha/later.py")
    module.rename(f"{module}.away")
    other = host.ensure(spec)
    Path(f"{module}.away").rename(module)
    assert "set aside before" in _venv.problems(environment.path)[0]
    assert host.ensure(spec).path == other.path


def test_a_third_one(host: Host, spec: Spec, environment: Environment) -> None:
    broken_link(environment)
    broken_link(host.ensure(spec))
    third = host.ensure(spec)
    assert (third.path, third.set_aside) == (f"{environment.path}.3", f"{environment.path}.2")
    shutil.rmtree(environment.path)
    assert host.ensure(spec).path == third.path


def test_without_its_marker_it_is_a_leftover(host: Host, spec: Spec, environment: Environment) -> None:
    Path(environment.path, ".complete.json").unlink()
    other = host.ensure(spec)
    assert (other.how, other.set_aside) == ("built", None)
    assert host.names() == [os.path.basename(other.path)]


def test_a_service_runs_on_in_the_damaged_one(host: Host, spec: Spec, environment: Environment) -> None:
    code = "import sys, alpha; print('up', flush=True); sys.stdin.readline(); import alpha.later; print(alpha.later.LATE, alpha.__file__)"
    command = [f"{environment.path}/bin/python", "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout
        assert service.stdout.readline() == "up\n"
        file_in(environment, "beta/__init__.py").unlink()
        assert host.ensure(spec).how == "rebuilt"
        said, _nothing = service.communicate("go on\n", timeout=10)
    assert service.returncode == 0
    assert said.startswith(f"True {environment.path}/")


def test_an_edit_in_place_does_not_come_back_from_the_cache(host: Host, spec: Spec, environment: Environment, index: Index) -> None:
    """The file is a hard link: whoever writes into it writes into the cache."""
    module = file_in(environment, "alpha/later.py")
    with module.open("r+") as stream:
        stream.write("LATE = 1234\n")
    other = host.ensure(spec)
    assert other.how == "rebuilt"
    assert file_in(other, "alpha/later.py").read_text() == "LATE = True\n"
    fresh = host.ensure(host.requirements("alpha==1.0\n"))
    assert file_in(fresh, "alpha/later.py").read_text() == "LATE = True\n"


def test_what_is_sound_is_reused_without_an_installer(host: Host, spec: Spec, environment: Environment) -> None:
    again = _venv.ensure(spec, str(host.venvs), "/absent/cache", "/absent/uv")
    assert (again.how, again.path, again.builder) == ("reused", environment.path, "uv")
