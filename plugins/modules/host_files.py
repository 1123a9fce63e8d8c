#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Have directories and files on a host, all with one execution."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_files
short_description: Have directories and files on a host, all with one execution
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - What C(ansible.builtin.file) and C(ansible.builtin.template) do with a task, and several commands over the connection, for each file.
  - Entries are put right in their order. No link is followed.
options:
  entries:
    description: What is to be there.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: An absolute path.
        type: path
        required: true
      kind:
        description: What is to be at the path. A directory is made with those above it.
        type: str
        choices: [file, directory]
        default: file
      text:
        description: The content of a file. Without it, the content is left alone, and a file that is missing is made empty.
        type: str
      owner:
        description: The account that owns it.
        type: str
        default: root
      group:
        description: Its group.
        type: str
        default: root
      mode:
        description: Its mode, octal and quoted.
        type: str
        required: true
      validate:
        description: A command that is given the path of the new O(entries[].text), and ends with an error where that is wrong. The file is not replaced then.
        type: list
        elements: str
        default: []
attributes:
  check_mode:
    description: Can run in check mode; nothing is changed, and no command is asked.
    support: full
  diff_mode:
    description: Shows texts, owners and modes before and after.
    support: full
"""

EXAMPLES = r"""
- name: Have the app's logs
  bulletproof.deploy.host_files:
    entries:
      - {path: /var/log/shop, kind: directory, mode: "0755"}
      - {path: /var/log/shop/access.log, owner: www-data, group: www-data, mode: "0640"}
      - path: /etc/logrotate.d/shop
        text: "{{ lookup('ansible.builtin.template', 'logrotate.j2') }}"
        mode: "0644"
        validate: [/usr/sbin/logrotate, --debug]
"""

RETURN = r"""# Nothing of its own."""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import host_files


def main() -> None:
    host_files.run(AnsibleModule(argument_spec=host_files.SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
