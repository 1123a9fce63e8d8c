# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an environment has to be: rules as data, each a mapping, and what is wrong by them. No value ever gets into a finding.

A rule says one thing (``required``, ``equals``, …) of one or more keys, perhaps only ``when`` other keys are so. A key that is set to
nothing counts as not set. Everything but ``required`` and ``equals`` says nothing of a key that is not set.
"""

from __future__ import annotations

import math
import re
import typing as t
from collections import Counter

from ansible_collections.bulletproof.deploy.plugins.module_utils._dotenv.dialects import is_name
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._findings import Finding

Rule = t.Mapping[str, t.Any]
Environment = t.Mapping[str, str]
Connect = t.Callable[[str, int, float], str]

SEVERITIES = ("error", "warning")
BESIDES = ("name", "when", "fix", "severity")
URL_OPTIONS = ("schemes", "reachable", "timeout")
CONNECT_TIMEOUT = 3.0
R2_HOST = "r2.cloudflarestorage.com"
PORTS = {
    "amqp": 5672,
    "amqps": 5671,
    "http": 80,
    "https": 443,
    "mariadb": 3306,
    "mysql": 3306,
    "postgres": 5432,
    "postgresql": 5432,
    "redis": 6379,
    "rediss": 6379,
    "smtp": 25,
    "smtps": 465,
}
# Their URLs are paths.
WITHOUT_HOST = ("file", "sqlite", "unix")


class Kind(t.NamedTuple):
    """One thing that a rule can say.

    :param allowed: What the rule's value has to be, in the user's words.
    :param accepts: Whether a value is that.
    :param check: (value, environment, connect) -> (key, found, expected, fix) for each that is wrong.
    """

    allowed: str
    accepts: t.Callable[[t.Any], bool]
    check: t.Callable[[t.Any, Environment, Connect], t.Iterable[t.Tuple[str, str, str, str]]]


def _is_name(value: object) -> bool:
    return isinstance(value, str) and is_name(value)


def _names(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_name(one) for one in value)


def _by_name(accepts: t.Callable[[t.Any], bool]) -> t.Callable[[t.Any], bool]:
    return lambda value: isinstance(value, dict) and bool(value) and all(_is_name(key) and accepts(one) for key, one in value.items())


def _is_text(value: object) -> bool:
    """Text, or a whole number: YAML makes other words than were written of the rest."""
    return (isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))) and value != ""


def _texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_text(one) for one in value)


def _is_pattern(value: object) -> bool:
    try:
        return isinstance(value, str) and re.compile(value) is not None
    except (re.error, OverflowError, RecursionError):
        return False


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e6


def _is_url_rule(value: object) -> bool:
    return (
        isinstance(value, dict)
        and not set(value) - set(URL_OPTIONS)
        and (value.get("schemes") is None or (_texts(value["schemes"]) and all(isinstance(one, str) for one in value["schemes"])))
        and isinstance(value.get("reachable", False), bool)
        and _is_number(value.get("timeout", CONNECT_TIMEOUT))
    )


def _is_endpoint(value: object) -> bool:
    return isinstance(value, dict) and set(value) == {"endpoint", "account"} and all(_is_name(one) for one in value.values())


def _required(keys: t.List[str], environment: Environment, connect: Connect) -> t.Iterator[t.Tuple[str, str, str, str]]:
    for key in keys:
        if not environment.get(key):
            yield key, "an empty value" if key in environment else "nothing", "a value", f"Set {key}."


def _forbidden(keys: t.List[str], environment: Environment, connect: Connect) -> t.Iterator[t.Tuple[str, str, str, str]]:
    for key in keys:
        if environment.get(key):
            yield key, "a value", "that it is not set", f"Remove {key}."


def _pattern(patterns: t.Mapping[str, str], environment: Environment, connect: Connect) -> t.Iterator[t.Tuple[str, str, str, str]]:
    for key, pattern in patterns.items():
        if environment.get(key) and not re.fullmatch(pattern, environment[key]):
            yield key, "another form", f"the whole of it to match {pattern}", f"Correct {key}."


def _one_of(choices: t.Mapping[str, t.List[t.Any]], environment: Environment, connect: Connect) -> t.Iterator[t.Tuple[str, str, str, str]]:
    for key, allowed in choices.items():
        words = [str(one) for one in allowed]
        if environment.get(key) and environment[key] not in words:
            yield key, "another value", f"one of {', '.join(words)}", f"Correct {key}."


def _equals(values: t.Mapping[str, t.Any], environment: Environment, connect: Connect) -> t.Iterator[t.Tuple[str, str, str, str]]:
    for key, value in values.items():
        if environment.get(key) != str(value):
            yield key, "another value" if environment.get(key) else "nothing", str(value), f"Set {key} to {value}."


def _not_default(
    examples: t.Mapping[str, t.List[t.Any]], environment: Environment, connect: Connect
) -> t.Iterator[t.Tuple[str, str, str, str]]:
    for key, known in examples.items():
        value = environment.get(key, "").strip().casefold()
        if value and value in [str(one).strip().casefold() for one in known]:
            yield (
                key,
                "an example's value, which everybody knows",
                "a value of your own",
                f"Make a new value for {key}, or have it generated.",
            )


def _entropy(bits: t.Mapping[str, float], environment: Environment, connect: Connect) -> t.Iterator[t.Tuple[str, str, str, str]]:
    for key, least in bits.items():
        if environment.get(key) and entropy(environment[key]) < least:
            yield (
                key,
                "a value that is easier to guess",
                f"at least {least:g} bits of entropy",
                f"Make a new value for {key}, or have it generated.",
            )


def entropy(value: str) -> float:
    """Shannon's entropy of the characters times their number, in bits: an upper bound on how hard a value is to guess."""
    size = len(value)
    return sum(count * math.log2(size / count) for count in Counter(value).values())


def _url(
    urls: t.Mapping[str, t.Mapping[str, t.Any]], environment: Environment, connect: Connect
) -> t.Iterator[t.Tuple[str, str, str, str]]:
    reached: t.List[t.Tuple[str, str, int, float]] = []
    for key, wanted in urls.items():
        if not environment.get(key):
            continue
        fix = f"Correct {key}."
        parts = _split(environment[key])
        if parts is None:
            yield key, "what is no URL", "a URL: scheme://host/path", fix
            continue
        scheme, host, port = parts
        schemes = wanted.get("schemes") or []
        if schemes and scheme not in schemes and scheme.partition("+")[0] not in schemes:
            yield key, "a URL with another scheme", f"a URL that begins with {' or '.join(f'{one}://' for one in schemes)}", fix
        elif not host and scheme.partition("+")[0] not in WITHOUT_HOST:
            yield key, "a URL without a host", "a URL: scheme://host/path", fix
        elif wanted.get("reachable") and host and port is None:
            yield key, "a URL without a port", "a URL with the port to reach", fix
        elif wanted.get("reachable") and host and port is not None:
            reached.append((key, host, port, float(wanted.get("timeout", CONNECT_TIMEOUT))))
    for (key, _host, port, timeout), problem in zip(reached, _at_once(connect, [one[1:] for one in reached])):
        if problem:
            # The host may be as secret as the rest of the URL.
            yield (
                key,
                problem,
                f"a connection to its host, port {port}, within {timeout:g} s",
                f"Start what {key} names, open the way to it, or correct it.",
            )


def _split(text: str) -> t.Optional[t.Tuple[str, str, t.Optional[int]]]:
    """Scheme, host and port (that of the scheme, if none is written); None for what is no URL."""
    import urllib.parse

    try:
        parts = urllib.parse.urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return None
    if not parts.scheme or "://" not in text or re.search(r"\s", text):
        return None
    return parts.scheme, host, port or PORTS.get(parts.scheme.partition("+")[0])


def _at_once(connect: Connect, targets: t.Sequence[t.Tuple[str, int, float]]) -> t.List[str]:
    if len(targets) < 2:
        return [connect(*one) for one in targets]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(len(targets), 16)) as pool:
        return list(pool.map(lambda one: connect(*one), targets))


def tcp_connect(host: str, port: int, timeout: float) -> str:
    """Why a host cannot be reached, without its name; empty when it can."""
    import socket

    try:
        socket.create_connection((host, port), timeout=timeout).close()
    except socket.gaierror:
        return "a host whose name cannot be resolved"
    except socket.timeout:
        return "no answer"
    except (OSError, UnicodeError) as error:
        return f"an error ({getattr(error, 'strerror', None) or type(error).__name__})"
    return ""


def _endpoint_account(keys: t.Mapping[str, str], environment: Environment, connect: Connect) -> t.Iterator[t.Tuple[str, str, str, str]]:
    endpoint, account = environment.get(keys["endpoint"], ""), environment.get(keys["account"], "")
    if not endpoint or not account:
        return
    _scheme, host, _port = _split(endpoint) or ("", "", None)
    # https://developers.cloudflare.com/r2/reference/data-location/: a jurisdiction stands between the account and the rest.
    if not re.fullmatch(rf"{re.escape(account.lower())}\.(?:[a-z0-9-]+\.)?{re.escape(R2_HOST)}", host):
        yield (
            keys["endpoint"],
            "an endpoint of another account",
            f"https://<{keys['account']}>.{R2_HOST}, or with a jurisdiction https://<{keys['account']}>.eu.{R2_HOST}",
            f"Copy {keys['endpoint']} and {keys['account']} from the same page of Cloudflare's dashboard.",
        )


_LIST = "a list of names"
KINDS: t.Mapping[str, Kind] = {
    "required": Kind(_LIST, _names, _required),
    "forbidden": Kind(_LIST, _names, _forbidden),
    "pattern": Kind("a mapping of names to regular expressions", _by_name(_is_pattern), _pattern),
    "one_of": Kind("a mapping of names to lists of texts (in quotes)", _by_name(_texts), _one_of),
    "equals": Kind("a mapping of names to texts (in quotes)", _by_name(_is_text), _equals),
    "not_default": Kind("a mapping of names to lists of texts (in quotes)", _by_name(_texts), _not_default),
    "entropy": Kind("a mapping of names to numbers of bits", _by_name(_is_number), _entropy),
    "url": Kind(f"a mapping of names to mappings of {', '.join(URL_OPTIONS)}", _by_name(_is_url_rule), _url),
    "endpoint_account": Kind("a mapping of endpoint and account, each to a name", _is_endpoint, _endpoint_account),
}


def _keys(kind: str, value: t.Any) -> t.List[str]:
    """The keys that a finding of a rule can be about."""
    return [value["endpoint"]] if kind == "endpoint_account" else list(value)


def kind_of(rule: Rule) -> str:
    return next(kind for kind in KINDS if kind in rule)


def names(rule_list: t.Iterable[Rule]) -> t.Set[str]:
    """Every name that a finding by these rules can have."""
    found: t.Set[str] = set()
    for rule in rule_list:
        kind = kind_of(rule)
        found.update([rule["name"]] if rule.get("name") else [f"{key}.{kind}" for key in _keys(kind, rule[kind])])
    return found


def mistakes(rule_list: t.Any) -> t.List[str]:
    """What is wrong with the rules themselves, all of it."""
    if not isinstance(rule_list, list):
        return ["allowed is a list of mappings."]
    said: t.List[str] = []
    for number, rule in enumerate(rule_list, 1):
        if not isinstance(rule, dict):
            said.append(f"rule {number}: allowed is a mapping.")
            continue
        name = f"rule {number} ({rule['name']})" if isinstance(rule.get("name"), str) and rule["name"] else f"rule {number}"
        said += [f"{name}: {one}" for one in _mistakes_of(rule)]
    return said


def _mistakes_of(rule: Rule) -> t.Iterator[str]:
    unknown = [str(key) for key in rule if key not in KINDS and key not in BESIDES]
    if unknown:
        yield f"{', '.join(unknown)}: unknown; allowed: {', '.join((*KINDS, *BESIDES))}."
    said = [kind for kind in KINDS if kind in rule]
    if len(said) != 1:
        yield f"it says {', '.join(said) or 'nothing'}; allowed: exactly one of {', '.join(KINDS)}."
    for kind in said:
        if not KINDS[kind].accepts(rule[kind]):
            yield f"{kind}: allowed is {KINDS[kind].allowed}."
    for key in ("name", "fix"):
        if rule.get(key) is not None and not (isinstance(rule[key], str) and rule[key].strip()):
            yield f"{key}: allowed is text."
    if rule.get("severity") not in (None, *SEVERITIES):
        yield f"severity: found {rule['severity']}; allowed: {', '.join(SEVERITIES)}."
    when = rule.get("when")
    if when is None:
        return
    if not isinstance(when, dict) or not when:
        yield "when: allowed is a mapping of names to a text or a list of texts (in quotes), and of set and unset to lists of names."
        return
    for key, value in when.items():
        if key in ("set", "unset"):
            if not _names(value):
                yield f"when.{key}: allowed is {_LIST}."
        elif not _is_name(key):
            yield f"when: {key} is no name of a variable; allowed: letters, digits and _, not beginning with a digit."
        elif not _is_text(value) and not _texts(value):
            yield f"when.{key}: allowed is a text or a list of texts, in quotes (YAML makes other words of yes, no and 1.10)."


def checked(rule_list: t.Any) -> t.List[Rule]:
    """The rules; of several with one name the last one. Failure with all mistakes in them."""
    said = mistakes(rule_list)
    if said:
        raise Failure(
            f"The rules for the environment have {len(said)} mistake{'' if len(said) == 1 else 's'}:\n"
            + "\n".join(f"- {one}" for one in said)
        )
    last = {rule["name"]: rule for rule in rule_list if rule.get("name")}
    return [rule for rule in rule_list if not rule.get("name") or last[rule["name"]] is rule]


def applies(rule: Rule, environment: Environment) -> bool:
    for key, value in (rule.get("when") or {}).items():
        if key == "set":
            holds = all(environment.get(one) for one in value)
        elif key == "unset":
            holds = not any(environment.get(one) for one in value)
        else:
            holds = environment.get(key, "") in [str(one) for one in (value if isinstance(value, list) else [value])]
        if not holds:
            return False
    return True


def condition(rule: Rule) -> str:
    """The rule's ``when`` in words, to be put behind what is expected."""
    words = []
    for key, value in (rule.get("when") or {}).items():
        if key in ("set", "unset"):
            words.append(f"{' and '.join(value)} {'is' if len(value) == 1 else 'are'} {'set' if key == 'set' else 'not set'}")
        else:
            words.append(f"{key} is {' or '.join(str(one) for one in (value if isinstance(value, list) else [value]))}")
    return f" when {' and '.join(words)}" if words else ""


def check(rule_list: t.Iterable[Rule], environment: Environment, connect: Connect = tcp_connect) -> t.List[Finding]:
    """What is wrong with an environment, in the order of the rules, which are without mistakes.

    :param connect: (host, port, seconds) -> why it cannot be reached, or nothing.
    """
    return [
        Finding(
            subject=key,
            found=found,
            expected=f"{expected}{condition(rule)}",
            fix=rule.get("fix") or fix,
            severity=rule.get("severity") or "error",
            rule=rule.get("name") or f"{key}.{kind_of(rule)}",
        )
        for rule in rule_list
        if applies(rule, environment)
        for key, found, expected, fix in KINDS[kind_of(rule)].check(rule[kind_of(rule)], environment, connect)
    ]
