# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An agent as one file: this collection's own modules, zipped, so that the host runs the very code that the modules run.

Ansible ships to a host only what is imported, wherever in a file that is written, and that is just what an agent needs.
"""

from __future__ import annotations

import ast
import io
import os
import typing as t
import zipfile

from ansible_collections.bulletproof.deploy.plugins.module_utils import _agent
from ansible_collections.bulletproof.deploy.plugins.module_utils._module_source import is_package, source_of

PACKAGE = "ansible_collections.bulletproof.deploy.plugins.module_utils"
ENTRY = "import sys\nfrom {} import main\nsys.exit(main(sys.argv[1:]))\n"
# A fixed time makes the same code the same file.
EPOCH = (1980, 1, 1, 0, 0, 0)


def _needed(agent: str) -> t.List[str]:
    """The modules of this collection that an agent imports, itself included: at once, or only when it needs them."""
    found: t.Set[str] = set()
    waiting = [agent]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(_imported(source_of(name)))
    return sorted(found)


def _imported(source: str) -> t.Iterator[str]:
    """The modules of this collection that a text imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(f"{PACKAGE}."):
            origin = str(node.module)
            # What is imported from a package is a module; from a module, something in it.
            yield from (f"{origin}.{alias.name}" for alias in node.names) if is_package(origin) else (origin,)


def build(agent: str = _agent.__name__) -> bytes:
    """The content of ``agent.pyz``: the same bytes for the same code.

    :param agent: The name of the module that is the agent, with a function ``main``; imported by the caller.
    """
    files: t.Dict[str, str] = {"__main__.py": ENTRY.format(agent)}
    for name in _needed(agent):
        files[f"{name.replace('.', '/')}.py"] = source_of(name)
        parts = name.split(".")[:-1]
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
