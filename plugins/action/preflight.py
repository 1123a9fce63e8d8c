# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hands the declared checks and the declared environment over, each as one text."""

from __future__ import annotations

import json
import typing as t

from ansible_collections.bulletproof.deploy.plugins.action import phase


class ActionModule(phase.ActionModule):
    """See the documentation of the module of the same name."""

    def phase_options(self) -> t.Dict[str, t.Any]:
        options = super().phase_options()
        # Checks may have secrets in them, which Ansible hides as a whole when it is a text; of a list it would blot each value out of every result.
        options["checks"] = json.dumps(options.get("checks") or [], default=str)
        options["environment"] = json.dumps(options.get("environment") or {}, default=str)
        return options
