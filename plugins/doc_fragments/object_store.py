# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options that every module with a bucket has."""

from __future__ import annotations


class ModuleDocFragment:
    """Which bucket is meant, and who comes. The files with the app's environment are an option of another fragment or of the module."""

    DOCUMENTATION = r"""
options:
  bucket:
    description: The bucket. Read from O(environment_files) unless given, as are the three that follow.
    type: str
  endpoint:
    description: The storage's address without the bucket, for Cloudflare R2 C(https://<account>.r2.cloudflarestorage.com).
    type: str
  access_key_id:
    description:
      - The token's access key ID.
      - Better left out. Then it is read on the host from O(environment_files), and no secret passes through Ansible.
    type: str
  secret_access_key:
    description: The token's secret access key. Better left out, too.
    type: str
  account_id:
    description:
      - The Cloudflare account. Compared with O(endpoint) where that is R2's; without O(endpoint), the endpoint follows from it.
      - Read from O(environment_files) unless given.
    type: str
  jurisdiction:
    description: The jurisdiction of a bucket in R2 that was made in one. Compared with O(endpoint), or a part of it where it follows from O(account_id).
    type: str
    choices: [eu, fedramp]
  bucket_variable:
    description: The variable in O(environment_files) that holds the bucket.
    type: str
    default: R2_BUCKET_NAME
  endpoint_variable:
    description: The variable that holds the endpoint.
    type: str
    default: R2_ENDPOINT
  access_key_id_variable:
    description: The variable that holds the access key ID.
    type: str
    default: R2_ACCESS_KEY_ID
  secret_access_key_variable:
    description: The variable that holds the secret access key.
    type: str
    default: R2_SECRET_ACCESS_KEY
  account_id_variable:
    description: The variable that holds the account.
    type: str
    default: R2_ACCOUNT_ID
requirements:
  - boto3 >= 1.36 in the tools environment (C(tools_requirements) of the role C(tools))
"""
