# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An agent as one file: this collection's own modules, zipped, so that the host runs the very code that the modules run.

Ansible ships to a host only what is imported, which is just what an agent needs: everything that its module has pulled in.
"""

from __future__ import annotations

import io
import os
import sys
import typing as t
import zipfile

from ansible_collections.bulletproof.deploy.plugins.module_utils import _agent
from ansible_collections.bulletproof.deploy.plugins.module_utils._module_source import source_of

PACKAGE = "ansible_collections.bulletproof.deploy.plugins.module_utils"
ENTRY = "import sys\nfrom {} import main\nsys.exit(main(sys.argv[1:]))\n"
# A fixed time makes the same code the same file.
EPOCH = (1980, 1, 1, 0, 0, 0)


def _needed(agent: str) -> t.List[str]:
    """The modules of this collection that an agent imports, itself included, found by following their imports."""
    found: t.Set[str] = set()
    waiting = [agent]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        module = sys.modules[name]
        for value in vars(module).values():
            origin = value.__name__ if type(value) is type(sys) else getattr(value, "__module__", None)
            if isinstance(origin, str) and origin.startswith(f"{PACKAGE}.") and origin in sys.modules:
                waiting.append(origin)
        parent = name.rpartition(".")[0]
        if parent.startswith(f"{PACKAGE}."):
            waiting.append(parent)
    return sorted(found)


def build(agent: str = _agent.__name__) -> bytes:
    """The content of ``agent.pyz``: the same bytes for the same code.

    :param agent: The name of the module that is the agent, with a function ``main``; imported by the caller.
    """
    packages = {PACKAGE}
    files: t.Dict[str, str] = {"__main__.py": ENTRY.format(agent)}
    for name in _needed(agent):
        path = name.replace(".", "/")
        if hasattr(sys.modules[name], "__path__"):
            packages.add(name)
        else:
            files[f"{path}.py"] = source_of(name)
            packages.add(name.rpartition(".")[0])
    for package in packages:
        parts = package.split(".")
        for depth in range(1, len(parts) + 1):
            files.setdefault("/".join([*parts[:depth], "__init__.py"]), "")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(files):
            archive.writestr(zipfile.ZipInfo(path, EPOCH), files[path], zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def installed(path: str) -> t.Optional[bytes]:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def install(path: str, content: bytes) -> None:
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.chmod(temporary, 0o700)
    os.rename(temporary, path)
