# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What this host's deploys have done to the database: the ledger that a rollback reads.

``<root>/.deploy/schema.json``. A rollback must not wait for a database, or be stopped by one that is down: whether the older code can run is known from
what was migrated since it served.
"""

from __future__ import annotations

import os
import time
import typing as t
from dataclasses import asdict, dataclass

from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._files import read_json, write_json
from ansible_collections.bulletproof.deploy.plugins.module_utils._layout import Layout
from ansible_collections.bulletproof.deploy.plugins.module_utils._manifest import Manifest


@dataclass(frozen=True)
class Step:
    """One migration that was applied.

    :param before: The revision that the database had before it; empty for a database without one.
    :param kind: ``expanding``: code from before it runs on; ``contracting``: it does not; ``unknown``: nobody can tell.
    :param at: When, in seconds since the epoch.
    """

    revision: str
    before: str
    kind: str
    release: str
    run: str
    at: float

    @property
    def breaks_older_code(self) -> bool:
        return self.kind != "expanding"


def _path(layout: Layout) -> str:
    return os.path.join(layout.private, "schema.json")


def load(layout: Layout) -> t.List[Step]:
    """All that is applied, in order."""
    try:
        return [Step(**one) for one in read_json(_path(layout)) or []]
    except (ValueError, TypeError) as error:
        raise Failure(
            f"{_path(layout)} cannot be read ({error}).",
            fix="Remove it if you know that the older release runs on this database: then nothing stands in the way of a rollback.",
        ) from None


def save(layout: Layout, steps: t.Sequence[Step]) -> None:
    write_json(_path(layout), [asdict(one) for one in steps], 0o600)


def append(layout: Layout, steps: t.Sequence[Step]) -> None:
    if steps:
        save(layout, [*load(layout), *steps])


def in_the_way(steps: t.Sequence[Step], target: Manifest) -> t.List[Step]:
    """The migrations since a release served that its code cannot run on, the oldest first."""
    return [one for one in steps if one.breaks_older_code and one.release != target.release and one.at > (target.committed or 0.0)]


def back_to(steps: t.Sequence[Step], target: Manifest) -> t.Optional[str]:
    """The newest revision that the release's code can run on; None when it can run on what there is."""
    wrong = in_the_way(steps, target)
    return wrong[0].before if wrong else None


def refuse(wrong: t.Sequence[Step], target: Manifest) -> None:
    """Explain why the older code cannot run on what the database is now, if it cannot."""
    if not wrong:
        return
    told = "\n".join(
        f"- {one.revision} ({one.kind}), by release {one.release} on {time.strftime('%Y-%m-%d %H:%M', time.gmtime(one.at))} UTC"
        for one in wrong
    )
    raise Failure(
        f"The database has been migrated since {target.release} served, and its code cannot run on what it is now. Nothing was changed.\n{told}",
        fix="Choose one: app_rollback_schema=downgrade undoes these migrations with the newer release's code; =restore restores the backup from before "
        "them; =allow goes back all the same. Or deploy a mended version.",
    )
