# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Units that use a database stand still while it is replaced."""

from __future__ import annotations

import contextlib
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils import _systemd
from ansible_collections.bulletproof.deploy.plugins.module_utils._command import must
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure


def check(units: t.Sequence[str]) -> None:
    missing = [unit for unit in units if _systemd.show(unit).load == "not-found"]
    if missing:
        raise Failure(f"stop_units: this host has no unit {', '.join(missing)}.", fix="systemctl list-units --all shows their names.")


@contextlib.contextmanager
def stopped(units: t.Sequence[str], timeout: float = 90) -> t.Iterator[None]:
    """Units are stopped, with what would start them again, and started afterwards, whatever happens; but not those that had no reason to run."""
    check(units)
    again = [unit for unit in [*_triggers(units), *units] if _systemd.show(unit).active != "inactive"]
    if not again:
        yield
        return
    failure: t.Optional[BaseException] = None
    try:
        must(["systemctl", "stop", *again], f"{', '.join(again)} cannot be stopped", timeout=timeout)
        yield
    except BaseException as error:
        failure = error
        raise
    finally:
        try:
            # However long the rest took, this is due.
            _systemd.start(again, max(timeout, 90.0))
        except Failure as error:
            if failure is None:
                raise
            raise Failure(f"{failure}\nAnd afterwards: {error.what}", fix=getattr(failure, "fix", "")) from failure


def _triggers(units: t.Sequence[str]) -> t.List[str]:
    """Sockets, timers and paths that would start a unit again while it is stopped."""
    if not units:
        return []
    said = must(["systemctl", "show", "--property=TriggeredBy", "--value", *units], "systemd does not answer").stdout
    return [unit for unit in dict.fromkeys(said.split()) if unit not in units]
