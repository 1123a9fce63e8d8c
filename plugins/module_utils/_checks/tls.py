# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type ``tls``: whether a server's certificate is trusted here, is for its name, and lasts.

The connection is made as any client makes it, so OpenSSL decides about chain, name and dates, and says what it does not like.
"""

from __future__ import annotations

import socket
import time
import typing as t
from contextlib import closing

from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.contract import (
    FAIL,
    NUMBER,
    TEXT,
    WHOLE,
    Answer,
    CannotTell,
    CheckType,
    Memory,
    Option,
    Options,
    judged,
    one_line,
)
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.exchange import Budget, connected_by_name, trusting

DAY = 86400


def _where(options: Options) -> str:
    name = options["server_name"]
    return f"{options['host']}:{options['port']}" + (f" ({name})" if name and name != options["host"] else "")


def _attempt(options: Options, timeout: float, memory: Memory) -> Answer:
    import ssl

    name = options["server_name"] or options["host"]
    expected = {"server_name": name, "min_days": options["min_days"]}

    def no(said: str) -> Answer:
        return Answer(FAIL, f"{_where(options)}: {said}.", None, expected)

    budget = Budget(timeout)
    context = trusting(options["ca_file"])
    try:
        with closing(connected_by_name(options["host"], options["port"], budget)) as sock:
            sock.settimeout(budget.left())
            with context.wrap_socket(sock, server_hostname=name) as secured:
                certificate: t.Mapping[str, t.Any] = secured.getpeercert() or {}
                version = secured.version()
    except ssl.SSLCertVerificationError as error:
        return no(
            f"the certificate is not good: {one_line(error.verify_message).rstrip('.')}; expected one for {name} that this host trusts"
        )
    except ssl.SSLError as error:
        return no(f"no TLS connection ({one_line(error.reason or str(error)).lower().replace('_', ' ')})")
    except (socket.timeout, TimeoutError):
        return no(f"no TLS connection within {timeout:g} s")
    except ConnectionRefusedError:
        return no("the connection was refused, nothing listens there")
    except ConnectionError:
        return no("the connection was closed before there was TLS")
    except OSError as error:
        raise CannotTell(f"{_where(options)} could not be asked: {error.strerror or one_line(str(error))}.") from None
    ends = ssl.cert_time_to_seconds(certificate["notAfter"])
    days = (ends - time.time()) / DAY
    found = {"days": round(days, 1), "not_after": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ends)), "version": version}
    lasts = f"the certificate for {name} lasts {days:.1f} days, until {found['not_after']}"
    short = [f"{lasts}, expected at least {options['min_days']:g} days; renew it"] if days < options["min_days"] else []
    return judged(short, f"{_where(options)}: {lasts}; {version}.", _where(options), found, expected)


CHECK = CheckType(
    name="tls",
    options={
        "host": Option(TEXT, required=True),
        "port": Option(WHOLE, default=443, minimum=1, maximum=65535),
        "server_name": Option(TEXT),
        "ca_file": Option(TEXT),
        "min_days": Option(NUMBER, default=14, minimum=0),
    },
    subject=_where,
    attempt=_attempt,
)
