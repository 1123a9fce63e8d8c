# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A release is asked for its health where the proxy really serves it."""

from __future__ import annotations

import pytest
from ansible_collections.bulletproof.deploy.plugins.plugin_utils import _declaration

NEEDED = {"app_name": "shop", "app_source": ".", "app_version": "1", "app_entrypoint": "shop:app", "app_root": "/opt/shop"}
NEEDED |= {"app_user": "www-data", "app_group": "www-data", "app_worker_class": "sync"}
TLS = {"proxy_tls_certificate": "/etc/ssl/shop.pem", "proxy_tls_key": "/etc/ssl/shop.key"}


@pytest.mark.parametrize(
    "declaration, proxy, url",
    [
        ({}, {}, "http://127.0.0.1:80/health"),
        ({"app_listen": 8080}, {}, "http://127.0.0.1:8080/health"),
        ({}, {"proxy_listen": ["0.0.0.0:81 default_server", "[::]:81"]}, "http://127.0.0.1:81/health"),
        ({}, {"proxy_listen": ["192.0.2.7:80"]}, "http://192.0.2.7:80/health"),
        ({}, {"proxy_listen": "unix:/run/nginx.sock"}, "http://127.0.0.1:80/health"),
        # Plain requests are only sent on to the site with TLS: their answer says nothing about the app.
        ({}, TLS, "https://127.0.0.1:443/health"),
        ({}, {**TLS, "proxy_tls_listen": ["8443"]}, "https://127.0.0.1:8443/health"),
        ({}, {"proxy_tls_certificate": "/etc/ssl/shop.pem"}, "http://127.0.0.1:80/health"),
        ({"app_proxy": "none"}, TLS, ""),
    ],
)
def test_health_is_asked_where_the_proxy_listens(declaration, proxy, url):
    declared, mistakes = _declaration.check({**NEEDED, **declaration})
    assert not mistakes
    assert _declaration.health(declared, proxy)["url"] == url
