# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The phases, by the names of the modules that document them."""

from __future__ import annotations

import typing as t

NAMES = (
    "app_host",
    "host_files",
    "permissions",
    "preflight",
    "release_commit",
    "release_migrate",
    "release_renew",
    "release_revert",
    "release_stage",
    "release_switch",
    "release_unmigrate",
    "release_watch",
)


def phase_of(name: str) -> t.Any:
    """What carries a phase out: its SPEC, and its run(module). None for a name that is none.

    Each is imported only when it is asked for: importing all would cost each the time of all. And each import is written out, because
    Ansible sends to a host what it finds imported.
    """
    if name == "app_host":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import app_host

        return app_host
    if name == "host_files":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import host_files

        return host_files
    if name == "permissions":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import permissions

        return permissions
    if name == "preflight":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import preflight

        return preflight
    if name == "release_commit":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import commit

        return commit
    if name == "release_renew":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import renew

        return renew
    if name == "release_revert":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import revert

        return revert
    if name == "release_stage":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import stage

        return stage
    if name == "release_switch":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import switch

        return switch
    if name == "release_watch":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import watch

        return watch
    if name == "release_migrate":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import migrate

        return migrate
    if name == "release_unmigrate":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import unmigrate

        return unmigrate
    return None
