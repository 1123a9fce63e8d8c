# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Everything is well until the application runs in a worker of gunicorn: no import check can notice."""

from __future__ import annotations

import os

from .hooks import Hooks


class Behaviour(Hooks):
    def start(self) -> None:
        if os.environ.get("SERVER_SOFTWARE", "").startswith("gunicorn/"):
            raise RuntimeError("crash-on-boot: the metrics of this worker could not be registered")
