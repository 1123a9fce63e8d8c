#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Look whether a service is healthy."""

from __future__ import annotations

DOCUMENTATION = r"""
module: health_check
short_description: Look whether a service is healthy, from its own host
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Runs a list of typed checks at the same time, in one execution on the host, and gives a verdict with evidence on each.
  - A verdict is V(pass), V(fail) or V(unknown). A check that could not be made, for want of a permission or a program or because a
    name could not be resolved, is V(unknown), and that is not a pass.
  - Each check is attempted until it is good O(checks[].successes) times in a row, or until its O(checks[].deadline) has passed.
    After that it has to stay good for as long as O(checks[].hold) says.
  - Nothing is ever changed.
options:
  checks:
    description:
      - The checks. Every mistake in any of them is reported at once, before any check is run.
      - An option belongs to the types that its description begins with; the options without a type are for all.
    type: list
    elements: dict
    required: true
    suboptions:
      type:
        description:
          - What is checked.
          - V(disk) is free space and inodes; V(http) an answer over TCP or a Unix socket; V(path) a file, directory or link;
            V(permissions) owners and modes in a tree;
            V(port) whether something
            listens; V(dns) what a name resolves to; V(tls) a server's certificate; V(time) the host's clock; V(r2) a bucket in object storage;
            V(env) whether the app's environment keeps its rules; V(database) whether the app's database answers and is what the app needs;
            V(process_count) how many processes there are; V(systemd) the state of a unit; V(version) which version answers;
            V(log) what is in a log and what is not; V(import) what is installed in a virtual environment, and that it can be imported;
            V(smoke) a list of HTTP exchanges, one after another; V(burst) many requests at a time.
        type: str
        required: true
        choices: [burst, database, disk, dns, env, http, import, log, path, permissions, port, process_count, r2, smoke, systemd, time, tls, version]
      name:
        description: What the check is called in the results. By default its type and what it looks at.
        type: str
      deadline:
        description:
          - Seconds that the check may take to become good. No attempt begins after it, but one that has begun and a row of successes
            that has begun come to their end.
          - With V(0) there is one attempt, and the further ones that O(checks[].successes) takes.
        type: float
        default: 0
      patience:
        description:
          - Within the O(checks[].deadline), for how many seconds wrong answers are borne, from the first one on. No answer at all is not counted.
          - Unless set, until the deadline.
        type: float
      timeout:
        description: Seconds that one attempt may take, all of it together, however slowly an answer drips in.
        type: float
        default: 10
      interval:
        description: Seconds between two attempts.
        type: float
        default: 0.5
      successes:
        description: How many attempts in a row have to be good before the check is good.
        type: int
        default: 1
      hold:
        description: Seconds for which the check has to stay good after it became good.
        type: float
        default: 0
      tolerate:
        description: How many bad attempts in a row are forgiven during O(checks[].hold), so that one that fails by chance is no verdict.
        type: int
        default: 0
      url:
        description:
          - Types V(http), V(version) and V(burst). The address, C(http://) or C(https://), without user or password.
          - Type V(smoke). The address that the steps' paths are put behind.
          - Type V(time). The address of whoever answers HTTP with a C(Date), which is exact to a second. It is asked with C(HEAD), and its certificate is
            not looked at, because a clock that is wrong finds no certificate valid.
          - Its query is not shown in the results, but it is among the module's arguments. A token belongs into O(checks[].headers).
        type: str
      unix_socket:
        description:
          - Types V(http), V(version), V(smoke) and V(burst). The Unix socket to ask instead of O(checks[].url).
          - Type V(port). The Unix socket to connect to instead of O(checks[].port).
        type: str
      path:
        description:
          - Types V(http), V(version) and V(burst). The path, and the query if any, to ask for at O(checks[].unix_socket); V(/) if not given.
          - Types V(disk) and V(path). The absolute path that is looked at.
          - Type V(env). The absolute path of the file of environment variables, read as systemd reads it.
          - Type V(permissions). The absolute path of the tree.
        type: str
      headers:
        description:
          - Types V(http), V(version), V(smoke) and V(burst). Headers to send. Their values are not shown.
          - Those of V(smoke) go with each step whose address is a path, and to nobody else.
          - Over TLS, C(Host) is also the name for which the server has to have a certificate.
        type: dict
      status:
        description: Types V(http), V(version) and V(burst). The allowed status codes; V([200]) if not given.
        type: list
        elements: int
      verify_tls:
        description: Types V(http), V(version), V(smoke) and V(burst). Whether the server's certificate has to be valid; it has to if not given.
        type: bool
      ca_file:
        description: Types V(http), V(version), V(smoke), V(burst) and V(tls). The certificates of the authorities to trust instead of the system's.
        type: str
      follow_redirects:
        description:
          - Types V(http), V(version), V(smoke) and V(burst). Whether up to five redirects are followed; they are not if not given.
          - Headers are not sent on to another host. With O(checks[].unix_socket) they are followed on the same socket.
        type: bool
      method:
        description: Types V(http) and V(burst). The method; V(GET) if not given, or V(POST) with O(checks[].body) or O(checks[].form).
        type: str
      body:
        description: Types V(http) and V(burst). The text to send as body. It is not shown.
        type: str
      form:
        description:
          - Types V(http) and V(burst). The fields to send as C(multipart/form-data). They are not shown.
          - A file is a mapping with C(path), the file on the host, or C(content), and if wanted C(filename) and C(content_type).
        type: dict
      json:
        description:
          - Type V(http). A mapping of dotted paths in the JSON that is answered to the values that have to be there.
            A number is a place in a list; a dot in a key is written with a backslash before it. Only equal types are equal.
          - Type V(version). The dotted path of the version.
        type: raw
      pattern:
        description:
          - Type V(http). A regular expression that has to be found in the body.
          - Type V(version). A regular expression whose first group, or all of it, is the version.
          - Type V(process_count). A regular expression that has to be found in the command line. The check itself and those who
            started it do not count.
        type: str
      max_latency:
        description: Type V(http). Seconds within which the whole answer has to be there.
        type: float
      header:
        description: Type V(version). The name of the header that is the version.
        type: str
      expected:
        description: Type V(version). The versions that are right, in quotes.
        type: list
        elements: raw
      unit:
        description:
          - Types V(systemd) and V(process_count). The unit.
          - Type V(log). The unit whose journal is read.
        type: str
      active:
        description: Type V(systemd). The state that the unit has to be in; V(active) if not given.
        type: str
        choices: [active, reloading, inactive, failed, activating, deactivating]
      substate:
        description: Type V(systemd). The substate that the unit has to be in, for instance V(running).
        type: str
      main_pid:
        description: Type V(systemd). What the id of the main process has to be.
        type: int
      max_restarts:
        description: Type V(systemd). How often systemd may have restarted the unit.
        type: int
      runs_from:
        description:
          - Type V(systemd). The directory in which, or below which, every process of the unit has to have its working directory, with all
            links resolved. It proves that the processes belong to a certain release.
        type: str
      steady:
        description:
          - Type V(systemd). Whether the main process and the number of restarts have to stay what they were when the check first was
            good; for use with O(checks[].hold).
        type: bool
      of:
        description:
          - Type V(process_count). Which processes of O(checks[].unit) count. V(children) are those of its main process, such as the
            workers of gunicorn; V(all) are all in its control group. V(children) if not given.
        type: str
        choices: [children, all]
      user:
        description:
          - Type V(process_count). The account, or its number, whose processes count with O(checks[].pattern).
          - Type V(import). The account that O(checks[].modules) and O(checks[].entrypoint) are imported as, with little else to write to than
            a C(/tmp) of its own. Code of the app is never run as root because nobody said otherwise.
        type: str
      min:
        description: Type V(process_count). How many processes there have to be at least.
        type: int
      max:
        description: Type V(process_count). How many processes there may be at most.
        type: int
      exact:
        description: Type V(process_count). How many processes there have to be.
        type: int
      max_replaced:
        description:
          - Type V(process_count). How many of the counted processes of O(checks[].unit) may have ended and been replaced by others since
            the check first was good; for use with O(checks[].hold). It finds a worker that crashes again and again, and yet is there
            whenever one looks.
        type: int
      min_free_mb:
        description: Type V(disk). MiB that have to be free for an ordinary account.
        type: float
      min_free_percent:
        description: Type V(disk). Percent of the space that have to be free for an ordinary account.
        type: float
      min_free_inodes_percent:
        description: Type V(disk). Percent of the inodes that have to be free. A filesystem without a fixed number of inodes passes.
        type: float
      state:
        description: Type V(path). What has to be at the path; V(exists) if not given, which is anything.
        type: str
        choices: [exists, absent, file, directory, link]
      follow:
        description: Type V(path). Whether a link is followed and what it leads to is checked; it is not if not given.
        type: bool
      owner:
        description: Type V(path). The name or the number of the account that has to own it.
        type: str
      group:
        description: Type V(path). The name or the number of the group that it has to belong to.
        type: str
      mode:
        description: Type V(path). The octal mode, in quotes, for instance V("0640").
        type: raw
      min_size:
        description: Type V(path). The least size in bytes.
        type: int
      max_size:
        description: Type V(path). The greatest size in bytes.
        type: int
      max_age:
        description: Type V(path). Seconds since it was last written, at the most. A time in the future is not good either.
        type: float
      target:
        description: Type V(path). Where the link has to point to.
        type: str
      host:
        description:
          - Type V(port). The name or address to connect to; V(127.0.0.1) if not given.
          - Type V(dns). The name that is looked up, as every program on the host would.
          - Type V(tls). The name or address of the server.
        type: str
      port:
        description: Types V(port), V(tls) (V(443) if not given) and V(time) (with O(checks[].server), V(123) if not given). The port.
        type: int
      open:
        description: Type V(port). Whether something has to listen, or nothing may; something has to if not given.
        type: bool
      addresses:
        description:
          - Type V(dns). The addresses that the name has to have, all of them and no others. One that is left over from before sends a part of the
            visitors elsewhere.
        type: list
        elements: str
      family:
        description: Type V(dns). Which addresses count; both if not given.
        type: str
        choices: [ipv4, ipv6]
      server_name:
        description: Type V(tls). The name that is asked for (SNI) and that the certificate has to be for; O(checks[].host) if not given.
        type: str
      min_days:
        description: Type V(tls). For how many days the certificate has to last at least; V(14) if not given.
        type: float
      server:
        description: Type V(time). The SNTP server to ask instead of O(checks[].url).
        type: str
      max_skew:
        description:
          - Type V(time). Seconds by which the clock may be ahead or behind; V(5) if not given.
          - The verdict is V(unknown) when the time cannot be asked, or not exactly enough for this limit.
        type: float
      environment_files:
        description:
          - Type V(r2). Files of environment variables on the host, from which bucket and keys are read.
          - Type V(env). Files of environment variables that the app has besides O(checks[].path); a later one wins over an earlier one.
          - Type V(log). Files of environment variables on the host, whose values are not shown in the evidence.
          - Type V(database). Files of environment variables on the host, from which the database's URL is read.
          - Type V(import). Files of environment variables that O(checks[].user) imports with, as systemd reads them. Their values are not shown.
        type: list
        elements: str
      rules:
        description:
          - Type V(env). What the environment has to be, as the module M(bulletproof.deploy.env_file) has it. No value is ever shown.
          - Type V(permissions). What owners, groups and modes have to be, as the module M(bulletproof.deploy.permissions) has it.
        type: list
        elements: dict
      exclude:
        description: Type V(permissions). What is not looked at, as the module M(bulletproof.deploy.permissions) has it.
        type: list
        elements: str
      waivers:
        description: Type V(env). Rules whose findings are let pass, as the module M(bulletproof.deploy.env_file) has it.
        type: list
        elements: dict
      variable:
        description: Type V(database). The variable that holds the database's URL. C(DATABASE_URL) unless set.
        type: str
      schema:
        description:
          - Type V(database). What it has to be, as the options of M(bulletproof.deploy.schema_check) have it, such as C(min_version),
            C(can_create_tables), C(columns).
          - Without it, the database has to answer. An SQLite file that is not there yet passes, as long as nothing is expected to be in it.
        type: dict
      row_security:
        description:
          - Type V(database). That PostgreSQL keeps the rows of the app's users apart, as the options of M(bulletproof.deploy.postgres_rls_check) have it,
            such as C(tables) and C(isolation). Not looked at without it.
        type: dict
      variables:
        description:
          - Type V(r2). What these variables are called, where it is not C(R2_ENDPOINT), C(R2_BUCKET_NAME), C(R2_ACCOUNT_ID), C(R2_ACCESS_KEY_ID) and
            C(R2_SECRET_ACCESS_KEY). A mapping of C(endpoint), C(bucket), C(account_id), C(access_key_id) and C(secret_access_key) to their names.
        type: dict
      endpoint:
        description: Type V(r2). The storage's address without the bucket. It follows from O(checks[].account_id) where neither this nor a variable says it.
        type: str
      bucket:
        description: Type V(r2). The bucket.
        type: str
      account_id:
        description: Type V(r2). The Cloudflare account, which has to be that of the endpoint.
        type: str
      access_key_id:
        description: Type V(r2). The token's access key ID. Better left to O(checks[].environment_files).
        type: str
      secret_access_key:
        description: Type V(r2). The token's secret access key. Better left to O(checks[].environment_files), too.
        type: str
      jurisdiction:
        description: Type V(r2). The jurisdiction that the endpoint has to be of.
        type: str
        choices: [eu, fedramp]
      access:
        description:
          - Type V(r2). What the token must be able to do; V(read_write) if not given. M(bulletproof.deploy.r2_bucket_check) describes what is tried;
            an object is written for that, and removed. What the token can do beyond it is a warning in the evidence.
        type: str
        choices: [read, read_write]
      checksums:
        description: Type V(r2). What boto3 is told about checksums; V(when_required), which is what R2 needs, if not given.
        type: str
        choices: [when_required, when_supported]
      files:
        description:
          - Type V(log). The files to read, as absolute paths; C(*), C(?) and C([...]) as in a shell. What was rotated from them after
            O(checks[].cursor) was taken is read to its end.
        type: list
        elements: str
      container:
        description: Type V(log). The name or id of a container, whose output is read with C(docker logs).
        type: str
      from:
        description:
          - Type V(log). Where to begin. V(cursor) is where O(checks[].cursor) says, and the default with one; V(start) is the beginning of what
            is there now, and the default without a cursor; V(end) is its end.
          - Each attempt goes on where the one before it ended.
        type: str
        choices: [cursor, start, end]
      cursor:
        description:
          - Type V(log). How far the same logs had been read, as an earlier check gave it as C(found.cursor). A check with O(checks[].from=end)
            and nothing to look for does no more than take one.
        type: str
      must:
        description: Type V(log). Regular expressions, each of which has to be found in a line within O(checks[].deadline).
        type: list
        elements: str
      never:
        description:
          - Type V(log). Regular expressions that must not be found in any line; the first one that is ends the check.
          - V(python) stands for a set of them. It finds tracebacks, C(NameError), C(ImportError) and others that mean that code is broken, and workers
            of gunicorn that do not boot.
        type: list
        elements: str
      count:
        description:
          - Type V(log). How often something may be said, as mappings of C(pattern), a regular expression, and C(max), the number of lines.
            With C(window), only those of the last so many seconds count.
          - A line was written when the first time in it says, or that in a line shortly before it, or else when it was read.
        type: list
        elements: dict
      ratio:
        description:
          - Type V(log). Which part of the lines something may be in, as mappings of C(pattern), a regular expression, and C(max_percent). With C(of),
            another one, only the lines that it is found in count as the whole; with C(min), there is no verdict on fewer lines than that; with
            C(window), only the lines of the last so many seconds count.
        type: list
        elements: dict
      python:
        description: Type V(import). The interpreter of the virtual environment.
        type: str
      requires:
        description:
          - Type V(import). What has to be installed, as requirements without markers, for instance V(bcrypt<5) or V(email-validator>=2). A pre-release
            that is installed counts.
        type: list
        elements: str
      modules:
        description: Type V(import). Modules that can be imported without an error.
        type: list
        elements: str
      entrypoint:
        description: Type V(import). What the server calls, as C(module:attribute), for instance V(shop.wsgi:app). It has to be callable.
        type: str
      directory:
        description:
          - Type V(import). The directory from which to import, as the app is started from it.
          - Type V(database). What a relative path in the URL of an SQLite database is relative to.
        type: str
      steps:
        description:
          - Type V(smoke). The exchanges, one after another. The first one that fails ends them, but for those that clean up.
          - Each is a mapping of C(name); C(url), which is a path behind O(checks[].url) or on O(checks[].unix_socket), or a whole address;
            and as in type V(http) C(method), C(headers), C(form), C(status), C(json), C(pattern) and C(max_latency).
          - C(body) is text, or a mapping or list to send as JSON. C(equals), a mapping with C(content) or C(path), is what the whole body has to be.
          - C(capture) is a mapping of names to dotted paths in the JSON that is answered. In later steps, C({name}) stands for that value;
            C({unique}) for a text that is another one at each attempt. What was captured is not shown.
          - A step with C(always=true) is made also after one that failed, if what it needs was captured, and has time of its own for that.
        type: list
        elements: dict
      requests:
        description: Type V(burst). How many requests; V(50) if not given, V(10000) at the most.
        type: int
      concurrency:
        description: Type V(burst). How many requests at a time, each on a connection of its own; V(10) if not given, V(100) at the most.
        type: int
      min_successes:
        description: Type V(burst). How many answers with an allowed status there have to be.
        type: int
      max_error_percent:
        description: Type V(burst). Percent of the requests that may fail; V(1) if no limit of any kind is given.
        type: float
      p50:
        description: Type V(burst). Milliseconds within which half of the successful requests have to be answered.
        type: float
      p95:
        description: Type V(burst). The same for 95 of 100.
        type: float
      p99:
        description: Type V(burst). The same for 99 of 100.
        type: float
  must_be_healthy:
    description: Whether the module fails when a check is not passed. With V(false) it reports only.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: The release that was just started answers, and goes on answering
  bulletproof.deploy.health_check:
    checks:
      - type: http
        unix_socket: /run/shop/green.sock
        path: /health
        json:
          status: ok
        deadline: 60
        successes: 3
        hold: 30
        tolerate: 1
      - type: version
        unix_socket: /run/shop/green.sock
        path: /health
        json: version
        expected: ["1.4.0"]
        deadline: 60
      - type: systemd
        unit: shop@green.service
        runs_from: /opt/shop/releases/1.4.0-5d41402a
        steady: true
        deadline: 60
        hold: 30
      - type: process_count
        unit: shop@green.service
        exact: 3
        deadline: 60
        hold: 30
        tolerate: 2

- name: Report on the site as its visitors see it, and go on
  bulletproof.deploy.health_check:
    must_be_healthy: false
    checks:
      - name: the front page
        type: http
        url: https://127.0.0.1/
        headers:
          Host: shop.example.com
        max_latency: 0.5
      - type: disk
        path: /opt/shop
        min_free_mb: 500
        min_free_inodes_percent: 5
      - type: path
        path: /opt/shop/shared/.env
        state: file
        owner: shop
        mode: "0600"
  register: shop_health

- name: Where the logs end before the switch
  bulletproof.deploy.health_check:
    checks:
      - type: log
        files: [/var/log/shop/error.log]
        from: end
  register: before

- name: The new release says that it reached its bucket, and nothing is broken for two minutes
  bulletproof.deploy.health_check:
    checks:
      - type: log
        files: [/var/log/shop/error.log]
        cursor: "{{ before.verdicts[0].found.cursor }}"
        must: ["Bucket access verified"]
        never: [python, "Using local filesystem storage"]
        count:
          - {pattern: DB_DOWN, max: 10, window: 300}
        environment_files: [/opt/shop/shared/.env]
        deadline: 60
        hold: 120
      - type: import
        python: /opt/shop/current/.release/venv/bin/python
        requires: ["bcrypt<5", "email-validator>=2"]
      - type: burst
        unix_socket: /run/shop/live.sock
        path: /health
        requests: 200
        concurrency: 20
        p95: 300

- name: Someone can log in, upload a file, fetch it and remove it
  bulletproof.deploy.health_check:
    checks:
      - type: smoke
        unix_socket: /run/shop/live.sock
        timeout: 30
        steps:
          - name: log in
            url: /login
            body: {user: shop, password: "{{ shop_password }}"}
            capture: {token: token}
          - name: upload
            url: /attachments
            headers: {Authorization: "Bearer {token}"}
            form:
              file: {content: "written by {unique}", filename: smoke.txt}
            status: [201]
            capture: {id: attachment_id, stored: storage_path, address: url}
          - name: fetch
            url: "{address}"
            equals: {content: "written by {unique}"}
          - name: clean up
            url: "/attachments/{id}"
            method: DELETE
            headers: {Authorization: "Bearer {token}"}
            status: [204]
            always: true
"""

RETURN = r"""
healthy:
  description: Whether every check passed.
  returned: always
  type: bool
  sample: true
summary:
  description: How many checks passed, then one line on each that did not.
  returned: always
  type: str
  sample: 4 of 4 checks passed.
verdicts:
  description: The verdicts, in the order of the checks.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The name of the check.
      type: str
      sample: systemd shop@green.service
    type:
      description: The type of the check.
      type: str
      sample: systemd
    verdict:
      description: V(pass), V(fail) or V(unknown).
      type: str
      sample: pass
    evidence:
      description: What was found and what was expected, for a person.
      type: str
      sample: shop@green.service is active (running). It stayed good for 30 s.
    found:
      description: What was found by the last attempt, as far as there was anything.
      type: raw
    expected:
      description: What was expected.
      type: raw
    elapsed:
      description: Seconds that it took.
      type: float
      sample: 30.218
    attempts:
      description: How often it was attempted.
      type: int
      sample: 61
    silent:
      description: Whether nobody answered at all, where an answer was waited for (V(http), V(version)).
      type: bool
      sample: false
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils import _runner
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import engine
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

# Ansible blanks every occurrence of a secret in all values of the result. A shorter one would hit verdicts and numbers.
SHORTEST_BLANKED = 8


def run_checks(module: AnsibleModule, declared: t.List[t.Dict[str, t.Any]]) -> t.List[engine.Verdict]:
    """Run the checks, and leave of the arguments only what may be shown.

    To Ansible each header is a secret, the name of the site in C(Host) as well; the checks know better which ones are.
    """
    checks = engine.validate(declared)
    secret = [name for name, spec in engine.argument_spec().items() if spec.get("no_log")]
    module.params["checks"] = [
        {name: value for name, value in check.items() if value is not None and name not in secret} for check in declared
    ]
    module.no_log_values = {text for check in checks for text in check.secrets if len(text) >= SHORTEST_BLANKED}
    return engine.run_checks(declared)


def report(options: _runner.Options, verdicts: t.List[engine.Verdict]) -> t.Dict[str, t.Any]:
    unhealthy = engine.failed(verdicts)
    result: t.Dict[str, t.Any] = {
        "healthy": not unhealthy,
        "summary": engine.summary(verdicts),
        "verdicts": [verdict.as_dict() for verdict in verdicts],
    }
    if unhealthy and options["must_be_healthy"]:
        raise Failure(result["summary"], **result)
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "checks": {"type": "list", "elements": "dict", "required": True, "options": engine.argument_spec()},
            "must_be_healthy": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    _runner.run(
        module,
        read=lambda options: run_checks(module, options["checks"]),
        plan=lambda options, verdicts: [],
        report=report,
    )


if __name__ == "__main__":
    main()
