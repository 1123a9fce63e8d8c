# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The documentation of the action plugin artefact, which does all of it on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: artefact
short_description: Make one content-addressed artefact of an app's source
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Makes a C(.tar.gz) of a Git repository, a directory, an archive or a wheel in the controller's cache, and tells what it is. The
    same files give the same digest, whatever kind of source they come from.
  - Everything happens on the controller. No connection to a host is made, and hosts need neither Git nor credentials.
  - A tree consists of files and symbolic links. Empty directories, owners, times and modes other than the execute bit are no part of it.
    C(.git) and C(__pycache__) are always left out, and of a directory C(.venv) and C(*.pyc), too.
  - Symbolic links are kept when they are relative and stay inside the tree. C(.release) in the root is reserved.
  - The members of an archive are checked by name and kind before anything of them is used. Absolute paths, C(..), links that leave the
    tree, devices, names that are there twice or differ only in case, and symbolic links in a C(.zip) are refused.
  - Git submodules are refused unless they are excluded. Git LFS files are deployed as the pointers that the commit holds.
options:
  source:
    description:
      - Where the app comes from. Text is a Git URL, or the path of a directory, an archive (C(.tar.gz), C(.tgz), C(.tar), C(.zip)),
        a wheel or a Git repository (bare, or a checkout, of which the commit that the version names is taken). A relative path begins
        in the directory where C(ansible-playbook) was started.
      - A mapping says which it is, with exactly one of the keys V(git), V(directory), V(archive) and V(wheel). Beside V(git), V(ref) may
        name a branch, a tag or a commit. Beside V(git) and V(archive), V(subdirectory) may name the directory that is deployed.
      - Credentials in an C(https) URL are given to Git through its environment only. They are in no process's arguments, in no file of
        the cache, in no message and in no result. A user name without a password is taken to be a token.
    type: raw
    required: true
  version:
    description:
      - The version of the app. For a Git repository without V(ref), also the ref.
      - A number with a decimal point is refused, because YAML takes V(1.10) for V(1.1) unless it is in quotes.
    type: str
    required: true
  exclude:
    description:
      - Patterns of paths to leave out. V(*) and V(?) stay within a name, V(**) crosses directories, a slash at the end means directories
        only, a slash anywhere else ties the pattern to the root. What is in a directory that is left out is left out, too.
      - A pattern that matches nothing is an error.
    type: list
    elements: str
    default: []
  inputs:
    description:
      - What else goes into the release, such as its runtime configuration. Any value that JSON can hold. Its digest
        becomes part of RV(release); it is never returned.
    type: raw
  requirements:
    description:
      - The file in the artefact from which the virtual environment is built. By default C(uv.lock) with C(pyproject.toml), else
        C(requirements.txt), else the one wheel that the artefact consists of.
    type: str
  cache:
    description:
      - The directory for artefacts and Git mirrors. By default C(bulletproof-deploy) in E(XDG_CACHE_HOME), or in C(~/.cache).
      - It can be removed at any time. It must not be writable for others.
    type: path
  max_size:
    description: How many bytes the files of the source may have altogether, unpacked.
    type: int
    default: 1073741824
  timeout:
    description: How many seconds fetching from a Git repository may take.
    type: int
    default: 300
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
  - ansible.builtin.action_common_attributes.conn
  - ansible.builtin.action_common_attributes.flow
attributes:
  action:
    support: full
  async:
    support: none
  become:
    support: none
  bypass_host_loop:
    support: none
  check_mode:
    support: full
    details: The artefact is made in check mode, too. That changes the controller's cache, and no host.
  connection:
    support: none
  delegation:
    support: none
  diff_mode:
    support: none
  platform:
    platforms: posix
notes:
  - The task is never C(changed), because the controller's cache is no host.
  - Run it once for all hosts, with C(run_once).
"""

EXAMPLES = r"""
- name: Make an artefact of the tag 1.4.2, without one plugin
  bulletproof.deploy.artefact:
    source: https://git.example.org/shop.git
    version: 1.4.2
    exclude:
      - plugins/broken.py
    inputs: "{{ app_environment }}"
  run_once: true
  register: artefact

- name: Make an artefact of one directory of a branch
  bulletproof.deploy.artefact:
    source:
      git: git@git.example.org:team/mono.git
      ref: main
      subdirectory: services/shop
    version: "2026.11"

- name: Make an artefact of a wheel
  bulletproof.deploy.artefact:
    source: dist/shop-1.4.2-py3-none-any.whl
    version: 1.4.2
"""

RETURN = r"""
path:
  description: Where the artefact is, on the controller.
  returned: success
  type: str
  sample: /home/me/.cache/bulletproof-deploy/artefacts/3f1c.tar.gz
digest:
  description: The SHA-256 of the canonical listing of what the artefact holds.
  returned: success
  type: str
  sample: 3f1c2b7e0d9a4b0c8e6d5f4a3b2c1d0e9f8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c
release:
  description: The id of the release, made of the version and a digest over RV(digest) and O(inputs).
  returned: success
  type: str
  sample: 1.4.2-9f86d081884c
version:
  description: The version, as it was given.
  returned: success
  type: str
  sample: 1.4.2
description:
  description: The source in words, without credentials.
  returned: success
  type: str
  sample: Git repository https://git.example.org/shop.git, ref 1.4.2, commit 4f4e8f5024ea
commit:
  description: The commit, when the source is a Git repository; otherwise null.
  returned: success
  type: str
  sample: 4f4e8f5024ea0d3b5a5e9c8b7a6f5e4d3c2b1a09
size:
  description: The size of the artefact in bytes.
  returned: success
  type: int
  sample: 49959
files:
  description: How many files and symbolic links the artefact holds.
  returned: success
  type: int
  sample: 1001
requirements:
  description: What the virtual environment is built from.
  returned: success
  type: dict
  contains:
    kind:
      description: One of V(uv), V(requirements), V(wheel) and V(none).
      returned: success
      type: str
    file:
      description: The file, relative to the root of the artefact.
      returned: when there is one
      type: str
  sample:
    kind: uv
    file: uv.lock
"""
