# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every check type there is. A new type is one new file, its name and its import here."""

from __future__ import annotations

import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.contract import CheckType

NAMES = (
    "burst",
    "time",
    "database",
    "disk",
    "dns",
    "env",
    "http",
    "import",
    "log",
    "path",
    "permissions",
    "port",
    "process_count",
    "r2",
    "smoke",
    "systemd",
    "tls",
    "version",
)


def type_of(name: object) -> t.Optional[CheckType]:
    """The check type of a name; None for a name that is none.

    Each is imported only when it is asked for: most runs need three of them. And each import is written out, because Ansible sends to a host what
    it finds imported.
    """
    if name == "burst":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import burst

        return burst.CHECK
    if name == "time":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import clock

        return clock.CHECK
    if name == "database":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import database

        return database.CHECK
    if name == "disk":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import disk

        return disk.CHECK
    if name == "dns":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import dns

        return dns.CHECK
    if name == "env":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import env

        return env.CHECK
    if name == "http":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import http

        return http.CHECK
    if name == "import":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import imports

        return imports.CHECK
    if name == "log":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import log

        return log.CHECK
    if name == "path":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import path

        return path.CHECK
    if name == "permissions":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import permissions

        return permissions.CHECK
    if name == "port":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import port

        return port.CHECK
    if name == "process_count":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import process_count

        return process_count.CHECK
    if name == "r2":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import r2

        return r2.CHECK
    if name == "smoke":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import smoke

        return smoke.CHECK
    if name == "systemd":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import systemd

        return systemd.CHECK
    if name == "tls":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import tls

        return tls.CHECK
    if name == "version":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import version

        return version.CHECK
    return None


def every() -> t.List[CheckType]:
    """All of them, for who speaks of all."""
    return [kind for kind in map(type_of, NAMES) if kind is not None]
