# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the application is and what it is told by its environment."""

from __future__ import annotations

import os
from pathlib import Path

BUCKET_SETTINGS = ("R2_ENDPOINT", "R2_BUCKET_NAME", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY")

TREE = Path(__file__).resolve().parent.parent


def database_url() -> str:
    return os.environ.get("DATABASE_URL") or f"sqlite:///{TREE / 'shop.db'}"


def attachment_directory() -> Path:
    return Path(os.environ.get("ATTACHMENT_DIRECTORY") or TREE / "attachments")


def deployed_version() -> str:
    return os.environ.get("APP_VERSION") or (TREE / "VERSION").read_text(encoding="utf-8").strip()
