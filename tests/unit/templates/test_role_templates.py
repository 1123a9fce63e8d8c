# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the roles' templates become: Python that compiles, units that systemd reads, sites that say what they should."""

from __future__ import annotations

import pathlib
import re
import shutil
import typing as t

import jinja2
import pytest
import yaml
from ansible.plugins.filter.core import FilterModule
from ansible.plugins.test.core import TestModule as AnsibleTests
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.modules import systemd_units

ROLES = pathlib.Path(__file__).parents[3] / "roles"
APP: dict[str, t.Any] = {
    "ansible_managed": "Ansible managed",
    "app_name": "shop",
    "app_root": "/opt/shop",
    "app_user": "www-data",
    "app_group": "www-data",
    "app_entrypoint": "shop.wsgi:app",
    "app_interface": "wsgi",
    "app_worker_class": "sync",
    "app_workers": 3,
    "app_threads": 1,
    "app_request_timeout": 30,
    "app_start_timeout": 60,
    "app_stop_timeout": 30,
    "app_listen": 80,
    "app_server_names": ["shop.example.com"],
    "app_python": "/usr/bin/python3",
    "app_processes": {},
    "app_instances": 1,
}
UNITS = {
    "shop@.service": "service.j2",
    "shop-process@.service": "process.service.j2",
    "shop@.socket": "socket.j2",
    "shop-live.service": "live.service.j2",
    "shop-safety-net.service": "safety-net.service.j2",
    "shop-safety-net.timer": "safety-net.timer.j2",
}


class Jinja(jinja2.Environment):
    """Jinja as Ansible sets it up for templates, with Ansible's own filters and tests."""

    def __init__(self) -> None:
        super().__init__(
            loader=jinja2.FileSystemLoader(list(ROLES.glob("*/templates"))),
            trim_blocks=True,
            keep_trailing_newline=True,
            undefined=jinja2.StrictUndefined,
        )
        self.filters.update(FilterModule().filters())
        self.tests.update(AnsibleTests().tests())

    def resolve(self, value: t.Any, variables: dict[str, t.Any]) -> t.Any:
        """A default that refers to other variables, as Ansible evaluates it when it is used."""
        if isinstance(value, dict):
            return {key: self.resolve(one, variables) for key, one in value.items()}
        if isinstance(value, list):
            return [self.resolve(one, variables) for one in value]
        whole = re.fullmatch(r"\{\{([^{}]*)\}\}", value) if isinstance(value, str) else None
        if whole:
            return self.resolve(self.compile_expression(whole.group(1), undefined_to_none=False)(variables), variables)
        return self.from_string(value).render(variables) if isinstance(value, str) and "{{" in value else value


def render(role: str, template: str, **overrides: t.Any) -> str:
    jinja = Jinja()
    variables: dict[str, t.Any] = dict(APP)
    for part in ("defaults", "vars"):
        variables.update(yaml.safe_load((ROLES / role / part / "main.yml").read_text()))
    variables.update(overrides)
    for _time in range(3):
        variables = {
            key: value if isinstance(value, str) and "lookup(" in value else jinja.resolve(value, variables)
            for key, value in variables.items()
        }
    return jinja.from_string((ROLES / role / "templates" / template).read_text()).render(variables)


def settings(**overrides: t.Any) -> dict[str, t.Any]:
    """gunicorn's configuration, executed as gunicorn executes it."""
    text = render("systemd_gunicorn", "gunicorn.conf.py.j2", **overrides)
    found: dict[str, t.Any] = {}
    exec(compile(text, "gunicorn.conf.py", "exec"), found)
    return found


def directives(text: str, name: str) -> list[str]:
    return [line.partition("=")[2] for line in text.splitlines() if line.partition("=")[0] == name]


@pytest.mark.parametrize(
    ("worker_class", "threads"),
    [("sync", 1), ("sync", 4), ("gthread", 4), ("uvicorn.workers.UvicornWorker", 1), ("uvicorn_worker.UvicornH11Worker", 1), ("gevent", 1)],
)
def test_gunicorn_configuration_is_python(worker_class: str, threads: int) -> None:
    text = render("systemd_gunicorn", "gunicorn.conf.py.j2", app_worker_class=worker_class, app_threads=threads)
    compile(text, "gunicorn.conf.py", "exec")


@pytest.mark.parametrize("value", ["a'b", 'a"b', "a\\", "a\nb", "ü ☃ 😀", "''' + exit() + '''"])
def test_a_value_cannot_leave_its_place(value: str) -> None:
    assert settings(systemd_gunicorn_access_log_format=value)["access_log_format"] == value


def test_gunicorn_settings_of_the_app_win() -> None:
    chosen = {"timeout": 7, "raw_env": ["A=b"], "max_requests": 0, "proxy_protocol": True, "user": None}
    found = settings(systemd_gunicorn_settings=chosen)
    assert {name: found[name] for name in chosen} == chosen


def test_systemd_waits_longer_than_gunicorn() -> None:
    unit = render("systemd_gunicorn", "service.j2")
    assert int(directives(unit, "TimeoutStopSec")[0]) > settings()["graceful_timeout"]


def test_both_listen_with_the_same_backlog() -> None:
    assert directives(render("systemd_gunicorn", "socket.j2"), "Backlog") == [str(settings()["backlog"])]


def test_the_unit_holds_nothing_of_a_release() -> None:
    other = {"app_entrypoint": "other:app", "app_workers": 9, "app_worker_class": "gthread", "app_threads": 4, "app_request_timeout": 99}
    assert render("systemd_gunicorn", "service.j2", **other) == render("systemd_gunicorn", "service.j2")


def test_hardening_can_be_replaced_dropped_and_repeated() -> None:
    unit = render(
        "systemd_gunicorn",
        "service.j2",
        systemd_gunicorn_hardening={"ProtectHome": False, "PrivateTmp": None, "SystemCallFilter": ["@system-service", "~mount"]},
        systemd_gunicorn_service_extra={"LimitNOFILE": 9000},
    )
    assert directives(unit, "ProtectHome") == ["false"]
    assert directives(unit, "PrivateTmp") == []
    assert directives(unit, "SystemCallFilter") == ["@system-service", "~mount"]
    assert directives(unit, "LimitNOFILE") == ["9000"]


def test_an_app_below_home_can_be_reached() -> None:
    assert directives(render("systemd_gunicorn", "service.j2", app_root="/home/shop/app"), "ProtectHome") == ["read-only"]
    assert directives(render("systemd_gunicorn", "service.j2"), "ProtectHome") == ["yes"]


@pytest.fixture
def analyze() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd on this machine")


@pytest.mark.usefixtures("analyze")
def test_systemd_accepts_the_units() -> None:
    systemd_units.verify({name: render("systemd_gunicorn", template) for name, template in UNITS.items()})


@pytest.mark.usefixtures("analyze")
def test_a_misspelt_directive_is_refused_by_name() -> None:
    units = {name: render("systemd_gunicorn", template, systemd_gunicorn_service_extra={"Nicee": 5}) for name, template in UNITS.items()}
    with pytest.raises(Failure, match=r"shop@\.service:\d+: Unknown .*Nicee"):
        systemd_units.verify(units)


def test_the_upstream_is_the_live_socket_alone_and_never_kept() -> None:
    site = render("proxy", "site.conf.j2")
    assert re.findall(r"server (unix:\S+) max_fails=0;", site) == ["unix:/run/shop/live.sock"] * 2
    assert "keepalive" not in site
    assert "proxy_set_header Connection close;" in render("proxy", "location.conf.j2")


def test_each_instance_has_a_live_socket_in_the_upstream() -> None:
    site = render("proxy", "site.conf.j2", app_instances=3)
    assert re.findall(r"server unix:/run/shop/(\S+) max_fails=0;", site) == ["live.sock", "live-2.sock", "live-3.sock"]


def test_a_unit_that_goes_back_has_time_for_all_instances() -> None:
    bounds = [
        re.findall(r"TimeoutStartSec=(\d+)", render("systemd_gunicorn", "live.service.j2", app_instances=number)) for number in (1, 3)
    ]
    assert bounds == [["125"], ["315"]]


def test_websockets_for_asgi_only() -> None:
    assert "Upgrade" not in render("proxy", "location.conf.j2")
    assert "proxy_set_header Connection $my_shop_connection;" in render(
        "proxy", "location.conf.j2", app_interface="asgi", app_name="my-shop"
    )
    assert "map $http_upgrade $my_shop_connection {" in render("proxy", "site.conf.j2", app_interface="asgi", app_name="my-shop")


def test_a_site_of_ones_own_gets_the_upstream_and_no_server() -> None:
    site = render("proxy", "site.conf.j2", proxy_manage_site=False)
    assert "upstream shop {" in site
    assert "listen" not in site


def test_tls_moves_the_site_and_redirects_to_it() -> None:
    site = render("proxy", "site.conf.j2", proxy_tls_certificate="/etc/ssl/a.pem", proxy_tls_key="/etc/ssl/a.key")
    assert re.findall(r"listen (.*);", site) == ["80", "[::]:80", "443 ssl", "[::]:443 ssl"]
    assert "return 308 https://$host$request_uri;" in site
    assert site.count("include /etc/nginx/snippets/shop.conf;") == 1


def test_a_single_port_will_do() -> None:
    assert re.findall(r"listen (.*);", render("proxy", "site.conf.j2", proxy_listen=8080)) == ["8080"]


def test_the_proxy_waits_for_a_restart() -> None:
    assert "proxy_read_timeout 120s;" in render("proxy", "location.conf.j2")
