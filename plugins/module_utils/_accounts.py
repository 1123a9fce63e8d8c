# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Accounts by name."""

from __future__ import annotations

import grp
import os
import pwd

from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure


def gid_of(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise Failure(f"The group {group} does not exist on this host.", fix="Run provision.yml, or correct app_group.") from None


def owner_of(path: str) -> str:
    """The account that owns a file; its number where it has no name, and nothing where there is no file."""
    try:
        number = os.stat(path).st_uid
    except FileNotFoundError:
        return ""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def uid_of(user: str) -> int:
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise Failure(f"The account {user} does not exist on this host.", fix="Run provision.yml, or correct app_user.") from None
