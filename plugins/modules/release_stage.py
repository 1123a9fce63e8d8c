#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Phase 2 of a deploy: put a release, complete and checked, beside those that serve."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_stage
short_description: Put a release, complete and checked, beside those that serve
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Unpacks the artefact that M(bulletproof.deploy.artefact) built, links the shared paths into it, builds its virtual environment or takes the one that
    is there, and proves that the entry point imports, as the app's user and in the app's environment (see O(prove)).
  - It is built under another name and renamed when it is whole. What serves is not touched.
  - The owners and modes of the app's tree are put right on the way, those of the new release and what has drifted of the others (see O(permissions)).
  - The artefact is sent only to hosts that do not have the release.
  - A release that is staged, whole, and whose virtual environment is sound changes nothing.
extends_documentation_fragment:
  - bulletproof.deploy.app
  - bulletproof.deploy.app.run
options:
  release:
    description: The id of the release.
    type: str
    required: true
  version:
    description: The version it is known by.
    type: str
    required: true
  source:
    description: Where it comes from, in words, without credentials.
    type: str
    default: ""
  artefact:
    description: Path of the artefact on the controller.
    type: path
    required: true
  artefact_content:
    description: The artefact itself, in base64. A small one is sent in this way, without being asked to; a larger one as a file.
    type: str
  artefact_digest:
    description: Digest of the artefact's content; what was unpacked must have it.
    type: str
    required: true
  present:
    description: Whether the host is known to have the release, so that the artefact need not be sent.
    type: bool
    default: false
  requirements:
    description: What the virtual environment is built from, as M(bulletproof.deploy.artefact) returns it.
    type: dict
    default: {kind: none}
    suboptions:
      kind:
        description: The kind of lock.
        type: str
        choices: [requirements, uv, wheel, none]
        default: none
      file:
        description: The lock file or wheel, relative to the release.
        type: str
        default: ""
  extra_requirements:
    description: Further requirements, for instance a pinned gunicorn for an app that does not bring one.
    type: list
    elements: str
    default: []
  python:
    description: The interpreter that the virtual environment is made with.
    type: path
    default: /usr/bin/python3
  cache:
    description: Directory on the host that keeps downloaded packages.
    type: path
    default: /var/cache/bulletproof-deploy
  shared_directories:
    description: Directories that outlive releases, linked from C(shared/) into the release.
    type: list
    elements: str
    default: []
  shared_files:
    description: Files that outlive releases, linked from C(shared/) into the release. They have to exist.
    type: list
    elements: str
    default: []
  user:
    description: The account that the app runs as.
    type: str
    required: true
  group:
    description: The app's group; may read the release.
    type: str
    required: true
  entrypoint:
    description: What has to import, C(module:attribute) or C(module:factory(\)).
    type: str
    required: true
  prove:
    description:
      - What proves that the entry point imports. C(import) imports it now, before a database is migrated for it or a single slot restarted.
      - C(start) leaves it to the start in the idle slot, where nothing comes between and no user is sent before it has answered.
    type: str
    choices: [import, start]
    default: import
  import_timeout:
    description: Seconds that importing the entry point may take.
    type: int
    default: 60
  gunicorn_conf:
    description: The release's C(gunicorn.conf.py).
    type: str
    required: true
  environment:
    description: Environment variables of the release, by name. Sent as one text and never shown.
    type: raw
    default: {}
  health:
    description: How to ask the release for its health; kept in its manifest.
    type: dict
    required: true
  checks:
    description: What has to hold of it beside its health, as the variable C(app_checks) of the role C(app) has it. Kept with it, for root alone.
    type: raw
    default: "[]"
  processes:
    description:
      - What runs beside the web server, by name, each with C(command) (a list), C(count), C(singleton) and C(stop_timeout), as
        M(bulletproof.deploy.declaration) returns it. Part of the release.
    type: dict
    default: {}
  singletons:
    description:
      - Whether this host runs those of O(processes) that must run only once. Kept with the release on this host, and no part of its id.
      - Where it is not and still runs one of another release, that is refused. Two would run at once.
    type: bool
    default: true
  waived:
    description: What a person has let pass for this deploy, in words, for the audit log.
    type: list
    elements: str
    default: []
  permissions:
    description: The tree whose owners and modes are put right, and by which rules, as M(bulletproof.deploy.permissions) has them. Without it, none is.
    type: dict
    suboptions:
      path:
        description: The root of the tree, an absolute path.
        type: path
        required: true
      rules:
        description: What the entries of the tree are to be like. Later rules win over earlier ones, attribute by attribute.
        type: list
        elements: dict
        required: true
        suboptions:
          path:
            description: A path or glob relative to the root of the tree.
            type: str
            required: true
          owner:
            description: Name or number of the user.
            type: str
          group:
            description: Name or number of the group.
            type: str
          mode:
            description: Mode of files, octal and quoted, or symbolic.
            type: raw
          directory_mode:
            description: Mode of directories, in the same way.
            type: raw
          keep_executable:
            description: With an octal mode, files that have an execute bit keep it for everybody who may read them.
            type: bool
            default: false
      exclude:
        description: Globs of the same kind. What they match is not looked at, nor what lies beneath.
        type: list
        elements: str
        default: []
      hard_links:
        description: Whether files with more than one name are changed like others.
        type: bool
        default: false
"""

EXAMPLES = r"""
- name: Stage a release
  bulletproof.deploy.release_stage:
    app: shop
    root: /opt/shop
    run: 20260102T030405-1a2b3c
    release: "{{ artefact.release }}"
    version: "{{ artefact.version }}"
    artefact: "{{ artefact.path }}"
    artefact_digest: "{{ artefact.digest }}"
    requirements: "{{ artefact.requirements }}"
    user: www-data
    group: www-data
    entrypoint: shop.wsgi:app
    gunicorn_conf: "{{ lookup('ansible.builtin.template', 'gunicorn.conf.py.j2') }}"
    health: "{{ app_health }}"
"""

RETURN = r"""
release:
  description: The release that is staged.
  returned: success
  type: str
  sample: 1.4.2-0123456789ab
venv:
  description: Its virtual environment, and whether it was C(reused), C(built) or C(rebuilt).
  returned: success
  type: dict
  sample: {path: /opt/shop/venvs/0123456789abcdef, how: reused}
permissions:
  description: What was not as the rules say, and what still is not, as M(bulletproof.deploy.permissions) returns it.
  returned: when O(permissions) is given
  type: dict
seconds:
  description: How long the parts took, in seconds.
  returned: changed
  type: dict
  sample: {unpack: 0.05, venv: 0.1, imports: 0.4}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import stage


def main() -> None:
    stage.run(AnsibleModule(argument_spec=stage.SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
