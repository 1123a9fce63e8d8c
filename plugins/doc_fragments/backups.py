# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options that every module that makes backups has."""

from __future__ import annotations


class ModuleDocFragment:
    """Where backups are, and which of them stay."""

    DOCUMENTATION = r"""
options:
  backups:
    description: Directory of the backups. Made when it is missing.
    type: path
    required: true
  keep_last:
    description:
      - How many of the newest verified backups to keep.
      - A backup stays when one of the O(keep_last), O(keep_within), O(keep_daily), O(keep_weekly), O(keep_monthly) keeps it. The newest always stays.
    type: int
    default: 3
  keep_within:
    description: Keep all that are younger, such as C(36h), C(14d), C(8w).
    type: str
  keep_daily:
    description: Of how many days to keep the newest backup.
    type: int
    default: 0
  keep_weekly:
    description: Of how many weeks to keep the newest backup.
    type: int
    default: 0
  keep_monthly:
    description: Of how many months to keep the newest backup.
    type: int
    default: 0
  owner:
    description: The account that owns a backup. Root unless set.
    type: str
  group:
    description: The group of a backup.
    type: str
  mode:
    description: The mode of a backup, octal.
    type: str
    default: "0600"
"""
