# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The declaration of an app: what is allowed, in the words of the person who wrote it.

Types, choices and defaults are those of ``roles/app/meta/argument_specs.yml``; here is only what an argument spec cannot say.
"""

from __future__ import annotations

import difflib
import functools
import json
import pathlib
import re
import typing as t

from ansible.module_utils.common.validation import check_type_bool, check_type_dict, check_type_int, check_type_list, check_type_str
from ansible.module_utils.common.yaml import yaml_load
from ansible_collections.bulletproof.deploy.plugins.module_utils import _declared_checks, _processes, _state
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import engine
from ansible_collections.bulletproof.deploy.plugins.module_utils._dotenv import declared as environment
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.plugin_utils import _batches, _declared_processes, _notify

PRESETS = tuple(
    sorted(path.stem for path in (pathlib.Path(__file__).parents[2] / "roles" / "environment" / "files" / "presets").glob("*.yml"))
)

SPEC = pathlib.Path(__file__).parents[2] / "roles" / "app" / "meta" / "argument_specs.yml"

# Variables that begin with app_ and are not part of the declaration: what playbooks take on the command line, and what they register.
PLAYBOOK_VARIABLES = frozenset(
    {
        "app_hosts",
        "app_unlock_run",
        "app_declaration",
        "app_artefact",
        "app_status",
    }
)


def _text(value: t.Any) -> str:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else check_type_str(value, allow_conversion=False)


KINDS: t.Mapping[str, t.Tuple[str, t.Callable[[t.Any], t.Any]]] = {
    "int": ("a whole number", check_type_int),
    "str": ("text (a number in quotes: YAML would make 1.1 of 1.10)", _text),
    "path": ("a path", lambda value: check_type_str(value, allow_conversion=False)),
    "bool": ("true or false", check_type_bool),
    "list": ("a list", check_type_list),
    "dict": ("a dictionary", check_type_dict),
    "raw": ("anything", lambda value: value),
}

Rule = t.Tuple[str, t.Callable[[t.Any], bool]]


def _between(low: int, high: int) -> Rule:
    return f"a whole number from {low} to {high}", lambda value: low <= value <= high


def _matches(pattern: str, allowed: str) -> Rule:
    return allowed, lambda value: re.fullmatch(pattern, value) is not None


def _each(pattern: str, allowed: str) -> Rule:
    return f"a list of {allowed}", lambda value: all(isinstance(one, str) and re.fullmatch(pattern, one) for one in value)


_ABSOLUTE = _matches(r"/[A-Za-z0-9._+/-]*[A-Za-z0-9._+-]", "an absolute path of letters, digits and ._+-")
_RELATIVE = r"(?!/)(?!.*(?:^|/)\.\.(?:/|$))(?!\.release(?:/|$))[A-Za-z0-9._@+/-]+"
_ACCOUNT = _matches(r"[a-z_][a-z0-9_-]{0,31}", "the name of an account: lower-case letters, digits, _ and -")

RULES: t.Mapping[str, Rule] = {
    # <name>-process@ are the units of what runs beside the web server.
    "app_name": _matches(
        r"(?!.*-process$)[a-z][a-z0-9-]{0,31}",
        "lower-case letters, digits and hyphens, at most 32, beginning with a letter and not ending in -process",
    ),
    "app_version": _matches(
        r"[A-Za-z0-9][A-Za-z0-9._+/-]{0,99}", "letters, digits and ._+/-, at most 100, beginning with a letter or a digit"
    ),
    "app_entrypoint": _matches(
        r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*(?::[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*(?:\(.*\))?)?", "module:attribute, for instance shop.wsgi:app"
    ),
    "app_root": (
        "an absolute path of letters, digits and ._+-, at least two levels deep",
        lambda value: bool(_ABSOLUTE[1](value)) and value.count("/") >= 2,
    ),
    "app_user": _ACCOUNT,
    "app_group": _ACCOUNT,
    "app_python": _ABSOLUTE,
    "app_workers": _between(1, 256),
    "app_threads": _between(1, 256),
    "app_request_timeout": _between(1, 86400),
    "app_start_timeout": _between(1, 3600),
    "app_stop_timeout": _between(1, 3600),
    "app_health_path": _matches(r"/[^\s#]*", "a path that begins with /"),
    "app_health_status": ("a list of HTTP statuses, 100 to 599", lambda value: bool(value) and all(100 <= one <= 599 for one in value)),
    "app_health_timeout": _between(1, 300),
    "app_health_version": ("one of json, header, pattern", lambda value: len([one for one in value.values() if one]) <= 1),
    "app_server_names": _each(r"[A-Za-z0-9_.*~^$()\[\]|\\-]+", "host names"),
    "app_listen": _between(1, 65535),
    "app_watch": _between(0, 3600),
    "app_instances": _between(1, 64),
    "app_batches": (_batches.ALLOWED, _batches.allowed),
    "app_batch_watch": _between(0, 3600),
    "app_max_failures": _between(0, 10000),
    "app_watch_replaced": _between(0, 1000),
    "app_keep": _between(1, 1000),
    "app_lease": _between(10, 86400),
    "app_lock_wait": _between(0, 86400),
    "app_environment": (
        "a dictionary of names (letters, digits and _, not beginning with a digit) to text or numbers",
        lambda value: all(re.fullmatch(r"[A-Za-z_]\w*", str(name)) and isinstance(one, (str, int, float)) for name, one in value.items()),
    ),
    "app_env_presets": (f"a list of presets: {', '.join(PRESETS)}", lambda value: all(one in PRESETS for one in value)),
    "app_database_variable": _matches(r"[A-Za-z_]\w*", "the name of a variable"),
    "app_migrations_path": _matches(rf"(?:{_RELATIVE})?", "a path inside the release"),
    "app_allow_contracting": (
        "a dictionary of revisions, each with a reason",
        lambda value: all(isinstance(one, str) and one.strip() for one in value.values()),
    ),
    "app_notify": (_notify.ALLOWED, _notify.allowed),
    "app_shared_directories": _each(_RELATIVE, "paths inside the release"),
    "app_shared_files": _each(_RELATIVE, "paths inside the release"),
}

SECRET = frozenset({"app_env", "app_environment", "app_notify", "app_source"})

# Variables about the environment, by what they are to the module env_file: what is wrong with them is said of their parts.
ENVIRONMENT = {
    "values": "app_env",
    "remove": "app_env_remove",
    "generate": "app_env_generate",
    "rules": "app_env_rules",
    "waivers": "app_waivers",
}


@functools.lru_cache(maxsize=1)
def specification() -> t.Dict[str, t.Dict[str, t.Any]]:
    """The options of the role's argument spec, by name."""
    options: t.Dict[str, t.Dict[str, t.Any]] = yaml_load(SPEC.read_text())["argument_specs"]["main"]["options"]
    return options


def show(name: str, value: t.Any) -> str:
    """A value as the person wrote it, unless it may be secret."""
    return "a value that is not shown" if name in SECRET else json.dumps(value, default=str, ensure_ascii=False)


def _convert(name: str, option: t.Mapping[str, t.Any], value: t.Any) -> t.Tuple[t.Any, t.Optional[str]]:
    """The value in its type, or what would have been allowed."""
    kind, convert = KINDS[option["type"]]
    if option["type"] in ("int", "bool") and isinstance(value, (list, dict)):
        return value, kind
    if option["type"] == "int" and isinstance(value, bool):
        return value, kind
    try:
        value = convert(value)
        if option["type"] == "list":
            element = KINDS[option["elements"]]
            value = [element[1](one) for one in value]
    except (TypeError, ValueError):
        return value, f"{kind} of {KINDS[option['elements']][0]} each" if option["type"] == "list" else kind
    if "choices" in option and value not in option["choices"]:
        return value, "one of " + ", ".join(option["choices"])
    unknown = [str(one) for one in value if one not in option["options"]] if option.get("options") and isinstance(value, dict) else []
    if unknown:
        return value, "only " + ", ".join(option["options"])
    return value, None


def check(variables: t.Mapping[str, t.Any], optional: t.Collection[str] = ()) -> t.Tuple[t.Dict[str, t.Any], t.List[str]]:
    """The declaration in its types, and all its mistakes, one sentence each.

    :param variables: Every variable that begins with ``app_``, templated.
    :param optional: Required variables that the playbook can do without: a rollback needs no version.
    """
    options = specification()
    declared: t.Dict[str, t.Any] = {}
    mistakes: t.List[str] = []
    for name in sorted(set(variables) - set(options) - PLAYBOOK_VARIABLES):
        near = difflib.get_close_matches(name, options, n=1)
        meant = (
            f"did you mean {near[0]}?"
            if near
            else "no variable of that name exists (ansible-doc -t role bulletproof.deploy.app lists them)."
        )
        mistakes.append(f"{name}: unknown; {meant}")
    for name, option in options.items():
        value = variables.get(name, option.get("default"))
        if value is None or (value == "" and option.get("required")):
            if option.get("required") and name not in optional:
                mistakes.append(
                    f"{name}: missing; {option['description'] if isinstance(option['description'], str) else option['description'][0]}"
                )
            continue
        value, allowed = _convert(name, option, value)
        declared[name] = value
        if name in RULES and not isinstance(value, float) and (allowed is not None or not RULES[name][1](value)):
            allowed = RULES[name][0]
        if allowed is not None:
            mistakes.append(f"{name}: found {show(name, value)}; allowed: {allowed}.")
    if not any(one.startswith("app_processes:") for one in mistakes):
        mistakes += [f"app_processes: {said}" for said in _declared_processes.mistakes(declared.get("app_processes", {}))]
    told = [name for name in ENVIRONMENT.values() if any(one.startswith(f"{name}:") for one in mistakes)]
    if not told:
        given = {option: declared.get(name, options[name]["default"]) for option, name in ENVIRONMENT.items()}
        mistakes += [f"{ENVIRONMENT[option]}: {said}" for option, said in environment.mistakes(given)]
    if not mistakes:
        mistakes += _together(declared)
    return declared, mistakes


def _together(declared: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    """What is wrong between variables that are right one by one."""
    watch = max(declared["app_watch"], declared.get("app_batch_watch", 0))
    needed = declared["app_instances"] * declared["app_start_timeout"] + watch + 30
    if declared["app_lease"] < needed:
        each = " for each of app_instances" if declared["app_instances"] > 1 else ""
        yield (
            f"app_lease: found {declared['app_lease']}; allowed: at least {needed} (app_start_timeout{each} + app_watch, or app_batch_watch if that is longer, "
            "+ 30), or a run that is well would be taken for dead."
        )
    if declared["app_instances"] > 1 and declared["app_strategy"] != "rolling":
        yield f"app_instances: found {declared['app_instances']}; allowed with app_strategy {declared['app_strategy']}: 1 (rolling has several)."
    stop = max((one["stop_timeout"] for one in processes(declared).values()), default=0)
    if stop and declared["app_lease"] < declared["app_start_timeout"] + stop + 30:
        yield (
            f"app_lease: found {declared['app_lease']}; allowed: at least {declared['app_start_timeout'] + stop + 30} (app_start_timeout + the longest "
            "stop_timeout of app_processes + 30), or a switch that waits for a process to end would be cut short."
        )
    if declared["app_interface"] == "asgi" and declared["app_worker_class"] in ("sync", "gthread"):
        yield f'app_worker_class: found "{declared["app_worker_class"]}"; allowed with app_interface asgi: a class that speaks ASGI, such as uvicorn\'s.'
    if declared["app_health_status"] and declared["app_threads"] > 1 and declared["app_worker_class"] == "sync":
        yield 'app_worker_class: found "sync"; allowed with app_threads of more than 1: gthread (sync workers have no threads).'
    if declared["app_migrations"] != "none" and declared["app_database"] == "none":
        yield f'app_database: found "none"; allowed with app_migrations {declared["app_migrations"]}: sqlite or postgresql.'
    if declared["app_rollback_schema"] == "downgrade" and declared["app_migrations"] == "sql":
        yield 'app_rollback_schema: found "downgrade"; allowed with app_migrations sql: refuse, allow, restore (SQL files have no way back).'
    for name in sorted(set(declared["app_environment"]) & {*declared["app_env"], *declared["app_env_generate"]}):
        yield f"app_environment: found {name}, which is in app_env or app_env_generate, too, and would win over it; allowed: one of them."
    yield from _checks(declared)
    both = set(declared["app_shared_directories"]) & set(declared["app_shared_files"])
    for path in sorted(both):
        yield f'app_shared_files: found "{path}", which is in app_shared_directories too; allowed: one of them.'


# What a declared check may have beside what its type takes, and what each of that may be.
OF_CHECKS: t.Mapping[str, t.Mapping[str, t.Tuple[str, ...]]] = {
    "app_checks": {"when": ("before", "after", "watch")},
    "app_preflight_checks": {"severity": ("error", "warning"), "rule": (), "fix": (), "needs": ()},
}
# The words that its texts may have, with something of the right kind: a path, an address.
WORDS: t.Mapping[str, t.Mapping[str, str]] = {
    "app_checks": {
        "{socket}": "/socket",
        "{url}": "http://127.0.0.1",
        "{unit}": "app.service",
        "{release}": "/release",
        "{python}": "/python",
        "{logs}": "/logs",
    },
    "app_preflight_checks": {"{root}": "/root", "{logs}": "/logs", "{dotenv}": "/env"},
}


def _checks(declared: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    """Mistakes in checks, which would otherwise come out on the host, in the middle of a deploy."""
    for name, ours in OF_CHECKS.items():
        # Before a deploy there is no release whose account it could be.
        user = declared["app_user"] if name == "app_checks" else ""
        words = {**WORDS[name], **(_processes.words(declared["app_name"], processes(declared)) if name == "app_checks" else {})}
        plain = []
        for number, check in enumerate(declared[name], start=1):
            for option, choices in ours.items():
                if option in check and (check[option] not in choices if choices else not isinstance(check[option], str)):
                    yield f"{name}: check {number}: {option}: found {json.dumps(check[option], default=str)}; allowed: {', '.join(choices) or 'text'}."
            if not isinstance(check.get("type"), str):
                yield f"{name}: check {number}: type: missing; ansible-doc bulletproof.deploy.health_check lists them."
                continue
            plain.append(
                _declared_checks.completed({key: one for key, one in check.items() if key not in ours}, words, ["/environment"], user)
            )
        try:
            if plain:
                engine.validate(plain)
        except Failure as failure:
            yield from (f"{name}: {line[2:]}." for line in failure.what.splitlines()[1:])


def slots(declared: t.Mapping[str, t.Any]) -> t.List[str]:
    """Where a release may run on a host: of several slots one that is idle, and of a row all."""
    if declared["app_strategy"] == "direct":
        return ["main"]
    return ["blue", "green"] if declared["app_instances"] == 1 else [_state.row(declared["app_instances"])]


def fleet_mistakes(declared: t.Mapping[str, t.Any], hosts: int) -> t.Iterator[str]:
    """What is wrong for so many hosts, although it would be right for others."""
    for size in _batches.too_large(declared["app_batches"], hosts) if declared["app_strategy"] == "rolling" else []:
        told = "1 host" if hosts == 1 else f"{hosts} hosts"
        yield f'app_batches: found {size}, and there are {told}; allowed: at most {hosts}, or a percentage ("100%": all that are left).'
    if 2 * declared["app_max_failures"] >= hosts and declared["app_max_failures"]:
        yield (
            f"app_max_failures: found {declared['app_max_failures']} of {hosts}; allowed: fewer than half of the hosts, {(hosts - 1) // 2} here. "
            "What most hosts refuse is no release."
        )


def processes(declared: t.Mapping[str, t.Any]) -> t.Dict[str, t.Dict[str, t.Any]]:
    """What runs beside the web server, as a release keeps it."""
    return _declared_processes.complete(declared.get("app_processes", {}), declared["app_stop_timeout"])


def expected_versions(version: str) -> t.List[str]:
    """How an app may tell a version: a leading ``v`` belongs to the tag and not to the number."""
    bare = version[1:] if re.match(r"v\d", version) else version
    return [bare, f"v{bare}"]


_LISTEN = re.compile(r"(?:(?P<address>[0-9.]+|\[[0-9A-Fa-f:.]+\]|\*):)?(?P<port>[0-9]+)")
_EVERYWHERE = (None, "*", "0.0.0.0", "[::]")


def _url(declared: t.Mapping[str, t.Any], proxy: t.Mapping[str, t.Any]) -> str:
    """Where the proxy serves the health path, as its host reaches it; empty without a proxy of ours."""
    if declared["app_proxy"] != "nginx":
        return ""
    tls = proxy.get("proxy_tls_certificate") and proxy.get("proxy_tls_key")
    listen = proxy.get("proxy_tls_listen", "443") if tls else proxy.get("proxy_listen", declared["app_listen"])
    first = str(listen[0] if isinstance(listen, list) and listen else listen).split(" ", maxsplit=1)[0]
    at = _LISTEN.fullmatch(first)
    address = "127.0.0.1" if at is None or at["address"] in _EVERYWHERE else at["address"]
    port = declared["app_listen"] if at is None else at["port"]
    return f"{'https' if tls else 'http'}://{address}:{port}{declared['app_health_path']}"


def health(declared: t.Mapping[str, t.Any], proxy: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
    """How to ask a release for its health, as its manifest keeps it.

    :param proxy: What is set of the role proxy's variables.
    """
    name = declared["app_server_names"][0] if declared["app_server_names"] else "_"
    plain = re.fullmatch(r"[A-Za-z0-9.-]+", name) is not None
    return {
        "path": declared["app_health_path"],
        "status": declared["app_health_status"],
        "version": {kind: value for kind, value in declared["app_health_version"].items() if value},
        "expected": expected_versions(declared.get("app_version", "")),
        "headers": {"Host": name if plain else "localhost"},
        "timeout": declared["app_health_timeout"],
        "start_timeout": declared["app_start_timeout"],
        "workers": declared["app_workers"],
        "replaced": declared["app_watch_replaced"],
        "url": _url(declared, proxy),
    }
