#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Put the owners and modes of a tree right in one walk."""

from __future__ import annotations

DOCUMENTATION = r"""
module: permissions
short_description: Put the owners and modes of a tree right, by rules, in one walk
version_added: 0.1.0
description:
  - Walks a directory tree once, compares every entry with the rules that match it, reports what deviates (the drift) and repairs it.
  - A symbolic link is never followed, neither out of the tree nor within it, and nothing is changed by its name.
    A file is opened, found to be the one that was judged, and changed through its descriptor, so that a link swapped in while the module
    runs leads nowhere.
    A link itself can get an owner; its group and mode mean nothing.
  - Where several rules match an entry, the last one that mentions an attribute decides that attribute.
  - Files that vanish while the module runs are not an error.
  - Sockets, FIFOs and devices are reported when they deviate, and left alone.
options:
  path:
    description:
      - The root of the tree, an absolute path.
      - It may not be a symbolic link, nor a directory that the system shares, like C(/etc) or C(/var/lib).
    type: path
    required: true
  rules:
    description: What the entries of the tree are to be like. Later rules win over earlier ones, attribute by attribute.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description:
          - A path or glob relative to the root of the tree. V(.) is the root itself.
          - V(*), V(?) and V([a-z]) match within one name, names that begin with a dot included.
          - V(**) as a whole name stands for any number of directories. At the end, as in V(releases/**), it matches everything
            beneath, at any depth, but not C(releases) itself.
        type: str
        required: true
      owner:
        description: Name or number of the user.
        type: str
      group:
        description: Name or number of the group.
        type: str
      mode:
        description:
          - Mode of files. Octal and quoted (V("0640")), which is exact, or symbolic (V(u=rwX,g=rX,o=), V(go-w)).
          - C(X) is C(x) for files that already have an execute bit.
          - A symbolic mode never keeps the setuid or setgid bit of a file.
        type: raw
      directory_mode:
        description: Mode of directories, in the same way.
        type: raw
      keep_executable:
        description: With an octal O(rules[].mode), files that have an execute bit keep it for everybody who may read them.
        type: bool
        default: false
  exclude:
    description: Globs of the same kind. What they match is not looked at, nor what lies beneath.
    type: list
    elements: str
    default: []
  hard_links:
    description:
      - Whether files with more than one name are changed like others.
      - A user who can write to a directory may plant a hard link to a file that lies elsewhere. So, unless this is V(true), such a file
        only gets changes that give nothing away (to root, or to fewer permission bits), and is otherwise reported and left alone.
    type: bool
    default: false
attributes:
  check_mode:
    description: Reports the drift and changes nothing.
    support: full
  diff_mode:
    description: Shows the first 100 entries that are changed and how many more there are.
    support: full
requirements:
  - Linux with C(/proc)
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
"""

EXAMPLES = r"""
- name: Keep the code away from the service, its data open to it, its secrets to itself
  bulletproof.deploy.permissions:
    path: /opt/shop
    rules:
      - {path: ., owner: root, group: shop, directory_mode: "0750"}
      - {path: releases/**, owner: root, group: shop, mode: "0640", directory_mode: "0750", keep_executable: true}
      - {path: shared, owner: shop, group: shop, directory_mode: "0775"}
      - {path: shared/**, owner: shop, group: shop, mode: "0640", directory_mode: "0750"}
      - {path: shared/*.db, mode: "0664"}
      - {path: shared/*.db-*, mode: "0664"}
      - {path: shared/.env, mode: "0600"}
    exclude:
      - shared/cache/**

- name: Only look
  bulletproof.deploy.permissions:
    path: /opt/shop
    rules:
      - {path: releases/**, owner: root, mode: go-w, directory_mode: go-w}
  check_mode: true
  register: drift
  failed_when: drift.drift_total > 0
"""

RETURN = r"""
seen:
  description: How many entries were met.
  returned: success
  type: int
  sample: 10423
drift:
  description: What was not as the rules say, before it was repaired. At most 100 items.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: The entry.
      type: str
      sample: /opt/shop/shared/.env
    attribute:
      description: V(owner), V(group) or V(mode).
      type: str
      sample: mode
    found:
      description: What it was.
      type: str
      sample: "0644"
    expected:
      description: What the rules say.
      type: str
      sample: "0600"
drift_total:
  description: How many entries were not as the rules say.
  returned: success
  type: int
  sample: 1
left_alone:
  description: What still is not as the rules say, and why. At most 100 items.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: The entry.
      type: str
    reason:
      description: Why it was not changed.
      type: str
left_alone_total:
  description: How many entries were left alone.
  returned: success
  type: int
  sample: 0
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import permissions


def main() -> None:
    permissions.run(AnsibleModule(argument_spec=permissions.SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
