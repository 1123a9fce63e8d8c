# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One worker never answers; the others are well."""

from __future__ import annotations

import time

from .hooks import Hooks
from .one_of_many import first_of_its_kind


class Behaviour(Hooks):
    def start(self) -> None:
        self.hangs = first_of_its_kind()

    def request(self) -> None:
        if self.hangs:
            time.sleep(3600)
