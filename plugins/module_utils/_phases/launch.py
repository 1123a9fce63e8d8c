# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs a phase from the code that the host keeps (``_host_code``): the part of AnsibleModule that phases use, and no more.

Standard input has one JSON object: phase, check (whether in check mode), and the options, which the controller has checked and completed.
Standard output has the line ``STARTED`` and, in the end, one line of JSON with the result.
"""

from __future__ import annotations

import json
import sys
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils._phases.by_name import phase_of

# Without this line, nothing of a phase was done.
STARTED = "bulletproof.deploy: the phase has begun"


class Host:
    """Stands where AnsibleModule stands in a module: options, and the ways to end."""

    def __init__(self, params: t.Dict[str, t.Any], check_mode: bool) -> None:
        self.params, self.check_mode = params, check_mode
        self.warnings: t.List[str] = []

    def warn(self, warning: str) -> None:
        self.warnings.append(warning)

    def _end(self, result: t.Dict[str, t.Any], status: int) -> t.NoReturn:
        if self.warnings:
            result = {**result, "warnings": self.warnings}
        sys.stdout.write(
            json.dumps(result, default=lambda value: sorted(value) if isinstance(value, (set, frozenset)) else str(value)) + "\n"
        )
        sys.stdout.flush()
        raise SystemExit(status)

    def exit_json(self, **result: t.Any) -> t.NoReturn:
        self._end({"changed": False, **result}, 0)

    def fail_json(self, msg: str, **result: t.Any) -> t.NoReturn:
        self._end({**result, "failed": True, "msg": msg}, 1)


def main() -> None:
    request = json.load(sys.stdin)
    phase = phase_of(request["phase"])
    sys.stdout.write(STARTED + "\n")
    sys.stdout.flush()
    phase.run(Host(request["options"], request["check"]))
