# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Logging in, and files that who is logged in can leave here.

Tokens are signed, not kept: any worker, of any release with the same ``ATTACHMENT_SECRET``, takes them.
"""

from __future__ import annotations

import hmac
import os
import re
import uuid

from flask import Blueprint, Response, abort, current_app, request, url_for
from itsdangerous import BadSignature, URLSafeTimedSerializer

from .storage import ADDRESS_LASTS, Storage

pages = Blueprint("attachments", __name__)

LOGIN_LASTS = 3600
NAME = re.compile(r"[0-9a-f]{32}")


def _signer(purpose: str) -> URLSafeTimedSerializer:
    secret = os.environ.get("ATTACHMENT_SECRET")
    if not secret:
        abort(503, "ATTACHMENT_SECRET is not set, so nobody can log in.")
    return URLSafeTimedSerializer(secret, salt=purpose)


def _is_signed(purpose: str, text: str | None, seconds: int) -> object:
    """What was signed for a purpose, and not too long ago; None otherwise."""
    try:
        return _signer(purpose).loads(text or "", max_age=seconds)
    except BadSignature:
        return None


def _storage() -> Storage:
    storage: Storage = current_app.extensions["storage"]
    return storage


def _must_be_logged_in() -> None:
    kind, _blank, token = request.headers.get("Authorization", "").partition(" ")
    if kind != "Bearer" or _is_signed("login", token, LOGIN_LASTS) is None:
        abort(401, "Log in first, and send the token as Authorization: Bearer TOKEN.")


def _known(name: str) -> str:
    if not NAME.fullmatch(name):
        abort(404)
    return name


@pages.post("/login")
def log_in() -> dict[str, object]:
    given = request.get_json(silent=True)
    expected = os.environ.get("SHOP_PASSWORD")
    if not expected:
        abort(503, "SHOP_PASSWORD is not set, so nobody can log in.")
    password = given.get("password") if isinstance(given, dict) else None
    if not isinstance(password, str) or not hmac.compare_digest(password.encode(), expected.encode()):
        abort(403, "The password is wrong.")
    return {"token": _signer("login").dumps(str(given.get("user")))}


@pages.post("/attachments")
def attach() -> tuple[dict[str, object], int]:
    _must_be_logged_in()
    file = request.files.get("file")
    if file is None:
        abort(400, "The form has no file.")
    name = uuid.uuid4().hex
    path = _storage().put(name, file.read(), file.mimetype or "application/octet-stream")
    signed = url_for("attachments.fetch", name=name, signature=_signer("fetch").dumps(name))
    return {"attachment_id": name, "storage_path": path, "url": _storage().address(name) or signed}, 201


@pages.get("/attachments/<name>")
def fetch(name: str) -> Response:
    if _is_signed("fetch", request.args.get("signature"), ADDRESS_LASTS) != name:
        _must_be_logged_in()
    content = _storage().get(_known(name))
    if content is None:
        abort(404)
    return Response(content, content_type="application/octet-stream")


@pages.delete("/attachments/<name>")
def remove(name: str) -> tuple[str, int]:
    _must_be_logged_in()
    _storage().delete(_known(name))
    return "", 204
