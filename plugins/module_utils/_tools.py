# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Libraries from the tools environment, which provisioning installs: never the system's Python, never the app's."""

from __future__ import annotations

import glob
import importlib
import os
import sys
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

ROOT = "/opt/bulletproof/tools"


def library(name: str, requirement: str, root: str = ROOT) -> t.Any:
    """Import a library that was built for this very interpreter.

    :param requirement: What to add to ``tools_requirements`` when it is missing.
    """
    places = glob.glob(os.path.join(root, "lib", f"python{sys.version_info[0]}.{sys.version_info[1]}", "site-packages"))
    added = [place for place in places if place not in sys.path]
    # At the end: what the system has of the same name is not what other modules of this process expect to change.
    sys.path[len(sys.path) :] = added
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Failure(
            f"The library {name} cannot be imported on this host by {sys.executable} ({error}).",
            fix=f"Add {requirement} to tools_requirements, then run provision.yml.",
        ) from None


def program(name: str, package: str, places: t.Sequence[str] = ()) -> str:
    """The path of a program on the host, or a Failure that names the package that brings it.

    :param places: Directories to look into first.
    """
    for place in [
        *places,
        os.path.join(ROOT, "bin"),
        *os.environ.get("PATH", "").split(os.pathsep),
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
    ]:
        path = os.path.join(place, name)
        if place and os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    raise Failure(f"The program {name} is not on this host.", fix=f"Install it: apt-get install {package}")
