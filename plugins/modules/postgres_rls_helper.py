#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The function by which policies know who asks."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgres_rls_helper
short_description: Create the function that tells policies who asks
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Creates the function C(current_user_id(\)), which returns the user that the app has named in a setting of its session, and null when it has
    named none. Policies compare it with a row's owner, as in C(USING (user_id = current_user_id(\))).
  - Null equals nothing. Who is nobody sees nothing, and gets no error.
  - A function of another type is not replaced, because policies depend on it.
extends_documentation_fragment:
  - bulletproof.deploy.database
options:
  name:
    description: The function's name.
    type: str
    default: current_user_id
  schema:
    description: The function's schema.
    type: str
    default: public
  setting:
    description: The setting in which the app names its user, with C(SET LOCAL) or C(set_config(\)).
    type: str
    default: app.current_user_id
  type:
    description: The type that it returns, which is that of the columns it is compared with.
    type: str
    choices: [text, integer, bigint, uuid]
    default: text
  maintenance_user:
    description: Create it as this account of the host, over the server's Unix socket, instead of as the user of the URL.
    type: str
    default: ""
attributes:
  check_mode:
    description: Can run in check mode; tells whether the function would be created or replaced.
    support: full
  diff_mode:
    description: Shows the function before and after.
    support: full
"""

EXAMPLES = r"""
- name: Policies can ask who the user is
  bulletproof.deploy.postgres_rls_helper:
    environment_files:
      - /opt/shop/shared/.env
    type: bigint
"""

RETURN = r"""
function:
  description: The function, as policies call it.
  returned: success
  type: str
  sample: public.current_user_id()
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils import _runner
from ansible_collections.bulletproof.deploy.plugins.module_utils._database import isolation, rls_helper, url


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **url.SPEC,
            "name": {"type": "str", "default": "current_user_id"},
            "schema": {"type": "str", "default": "public"},
            "setting": {"type": "str", "default": isolation.SETTING},
            "type": {"type": "str", "choices": ["text", "integer", "bigint", "uuid"], "default": "text"},
            "maintenance_user": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    _runner.run(module, rls_helper.read, rls_helper.plan, rls_helper.report)


if __name__ == "__main__":
    main()
