# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one runner of every module: read, then plan, then apply.

*read* observes the world. *plan* is a pure function from the options and what was read to an ordered list of
changes. The runner applies them, unless in check mode; ``changed`` is "the plan is not empty" and the diff is drawn
from the plan, so that neither can say anything else than what is done.
"""

from __future__ import annotations

import contextlib
import errno
import json
import traceback
import typing as t
from dataclasses import dataclass, field

from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

Options = t.Dict[str, t.Any]
Observed = t.TypeVar("Observed")


@dataclass(frozen=True)
class Change:
    """One step of a plan. Two changes are equal when they say the same, so that a plan can be tested as data.

    :param target: What is changed, as a person would name it: a path, a unit, a package.
    :param before: What it is now; None when it does not exist.
    :param after: What it will be; None when it will not exist.
    :param apply: Makes it so. Raises Failure.
    """

    target: str
    before: t.Any
    after: t.Any
    apply: t.Callable[[], object] = field(compare=False, repr=False)


def diff_of(changes: t.Sequence[Change]) -> t.Dict[str, str]:
    """The plan as Ansible's before/after texts: one line for each change."""

    def lines(values: t.Iterable[t.Tuple[str, t.Any]]) -> str:
        return "".join(
            f"{target}: {value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)}\n"
            for target, value in values
            if value is not None
        )

    return {
        "before": lines((change.target, change.before) for change in changes),
        "after": lines((change.target, change.after) for change in changes),
    }


def as_failure(error: BaseException) -> Failure:
    """An exception that nobody expected, in words. A full disk is the one that everybody meets."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return Failure(f"The disk is full{where}.", fix="Look at df -h and df -i, make room, and run it again.")
        return Failure(f"{error.strerror or error}{where}.")
    return Failure(f"An unexpected {type(error).__name__}: {error}", exception=traceback.format_exc())


def run(
    module: AnsibleModule,
    read: t.Callable[[Options], Observed],
    plan: t.Callable[[Options, Observed], t.Sequence[Change]],
    report: t.Callable[[Options, Observed], t.Dict[str, t.Any]],
    rescue: t.Optional[t.Callable[[Options, Failure], Failure]] = None,
    guard: t.Optional[t.ContextManager[object]] = None,
) -> None:
    """Execute one module and exit.

    :param read: Observes; changes nothing.
    :param plan: Pure; returns the changes in the order in which they are applied.
    :param report: The module's own return values, asked for after the plan was applied (or, in check mode, drawn).
    :param rescue: Called when a change fails midway: puts things back and returns the failure to report.
    :param guard: Entered around everything, but not in check mode: locks, the audit log.
    """

    def story() -> t.Tuple[t.Sequence[Change], t.Dict[str, t.Any]]:
        observed = read(module.params)
        changes = plan(module.params, observed)
        if not module.check_mode:
            try:
                for change in changes:
                    change.apply()
            except Exception as error:
                failure = as_failure(error)
                raise (rescue(module.params, failure) if rescue else failure) from error
        return changes, report(module.params, observed)

    try:
        with contextlib.nullcontext() if guard is None or module.check_mode else guard:
            changes, result = story()
    except Exception as error:
        failure = as_failure(error)
        module.fail_json(msg=failure.message(), **failure.facts)
    module.exit_json(changed=bool(changes), diff=diff_of(changes), **result)
