# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options that every module with a database has."""

from __future__ import annotations


class ModuleDocFragment:
    """Which database is meant."""

    DOCUMENTATION = r"""
options:
  url:
    description:
      - The database's SQLAlchemy URL, C(sqlite:////absolute/path.db) or C(postgresql://user:password@host:5432/name).
      - Better left out. Then it is read on the host from O(environment_files), and no secret passes through Ansible.
    type: str
  environment_files:
    description: Files with the app's environment on the host, as systemd reads them. A later one wins over an earlier one.
    type: list
    elements: path
    default: []
  url_variable:
    description: The variable in O(environment_files) that holds the URL.
    type: str
    default: DATABASE_URL
  directory:
    description: What a relative SQLite path is relative to, the directory that the app runs in.
    type: path
    default: /
"""
