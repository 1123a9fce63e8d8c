# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one runner of every module: read, then plan, then apply.

*read* observes the world. *plan* is a pure function from the options and what was read to an ordered list of
changes. The runner applies them, unless in check mode; ``changed`` is "the plan is not empty" and the diff is drawn
from the plan, so that neither can say anything else than what is done.
"""

from __future__ import annotations

import json
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


def run(
    module: AnsibleModule,
    read: t.Callable[[Options], Observed],
    plan: t.Callable[[Options, Observed], t.Sequence[Change]],
    report: t.Callable[[Options, Observed], t.Dict[str, t.Any]],
    rescue: t.Optional[t.Callable[[Options, Failure], Failure]] = None,
) -> t.NoReturn:
    """Execute one module and exit.

    :param read: Observes; changes nothing.
    :param plan: Pure; returns the changes in the order in which they are applied.
    :param report: The module's own return values, asked for after the plan was applied (or, in check mode, drawn).
    :param rescue: Called when a change fails midway: puts things back and returns the failure to report.
    """
    applying = False
    try:
        observed = read(module.params)
        changes = plan(module.params, observed)
        if not module.check_mode:
            applying = True
            for change in changes:
                change.apply()
        result = report(module.params, observed)
    except Failure as failure:
        if applying and rescue is not None:
            failure = rescue(module.params, failure)
        module.fail_json(msg=failure.message(), **failure.facts)
    module.exit_json(changed=bool(changes), diff=diff_of(changes), **result)
