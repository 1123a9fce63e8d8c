# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The text of a module of this collection, wherever it was loaded from: a directory, or the archive that Ansible sends."""

from __future__ import annotations

import importlib.util

from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure


def source_of(name: str) -> str:
    """:param name: As in ``module.__name__``."""
    spec = importlib.util.find_spec(name)
    get_source = getattr(spec.loader, "get_source", None) if spec else None
    source = get_source(name) if get_source else None
    if source is None:
        raise Failure(f"The source of {name} cannot be read.", fix="Reinstall the collection.")
    return str(source)


def is_package(name: str) -> bool:
    """:param name: As in ``module.__name__``."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.submodule_search_locations is not None
