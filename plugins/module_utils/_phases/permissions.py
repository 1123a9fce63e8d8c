# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Put the owners and modes of a tree right in one walk."""

from __future__ import annotations

import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils import _permissions as permissions
from ansible_collections.bulletproof.deploy.plugins.module_utils import _runner

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

SPEC: t.Dict[str, t.Any] = {
    "path": {"type": "path", "required": True},
    "rules": {"type": "list", "elements": "dict", "required": True, "options": permissions.RULE},
    "exclude": {"type": "list", "elements": "str", "default": []},
    "hard_links": {"type": "bool", "default": False},
}


def told(tree: permissions.Tree, warn: t.Callable[[str], None]) -> t.Dict[str, t.Any]:
    """What was found; what could not be put right is a warning."""
    if tree.left_alone:
        path, reason = tree.left_alone[0]
        count = len(tree.left_alone)
        warn(f"{count} entries were left as they are, see left_alone. The first is {permissions.printable(path)}: {reason}.")
    return permissions.report(tree)


def run(module: AnsibleModule) -> None:
    _runner.run(
        module,
        read=permissions.read,
        plan=lambda _options, tree: permissions.plan(tree),
        report=lambda _options, tree: told(tree, module.warn),
    )
