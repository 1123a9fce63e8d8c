#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A message to people: chat, webhook, mail."""

from __future__ import annotations

DOCUMENTATION = r"""
module: notify
short_description: Tell people what happens in a run
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Sends one message to Slack, Teams, any webhook, mailboxes, and whatever else the Python library C(apprise) knows.
  - Runs on the controller, which is where C(apprise) has to be installed, and touches no host.
  - A message that could not be sent is a warning with the reason, and never fails a task. No message or result contains a URL.
  - In check mode, it sends nothing and says what it would send to whom, and which URLs are not understood.
  - It never reports a change, because a host has none.
options:
  urls:
    description:
      - Where to send it. A URL that C(apprise) knows, such as C(https://hooks.slack.com/services/…), the URL of a Teams workflow or C(mailto://…).
        Any other web address gets the message as JSON.
      - Or a dictionary of C(url) and, if wanted, C(events) (a list, instead of O(events)) and C(name) (what messages call it).
    type: list
    elements: raw
    required: true
  event:
    description: What has happened. A run that failed and whose hosts went back is V(revert), which is also told to those who asked for V(failure).
    type: str
    choices: [start, success, failure, revert]
    required: true
  events:
    description: The events that are told to those that name none.
    type: list
    elements: str
    choices: [start, success, failure, revert]
    default: [start, success, failure, revert]
  title:
    description: The message's first line; a mail's subject. The variable C(notify_title) unless given.
    type: str
  body:
    description: The message. The variable C(notify_body) unless given.
    type: str
  timeout:
    description: Seconds for all messages together. They are sent at the same time.
    type: float
    default: 10
notes:
  - The role C(notify) says what is worth telling.
"""

EXAMPLES = r"""
- name: Tell it
  bulletproof.deploy.notify:
    urls:
      - "{{ slack_webhook }}"
      - url: "mailtos://{{ mail_user }}:{{ mail_password }}@mail.example.org?to=ops@example.org"
        name: operators
        events: [failure]
    event: failure
    title: "shop 1.4.2: deploy failed"
    body: "Why: the health check got no answer."
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
verdicts:
  description: What became of each message that this event asked for.
  returned: always
  type: list
  elements: dict
  contains:
    to:
      description: Whom it was for. Its name or kind, and its place in the list.
      type: str
      sample: slack (1 of 2)
    sent:
      description: Whether it was accepted.
      type: bool
    why:
      description: Why it was not sent.
      type: str
      sample: it answered HTTP 500
msg:
  description: What would be sent.
  returned: in check mode
  type: str
"""
