# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The pages."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import sqlalchemy as sa
from flask import Blueprint, Response, current_app, request
from sqlalchemy.exc import OperationalError

from .models import Order, db

pages = Blueprint("pages", __name__)

LONGEST_SLOW_ANSWER = 5.0
NEWEST_ORDERS = 50


@pages.get("/")
def index() -> dict[str, object]:
    return {"greeting": current_app.config["GREETING"], "version": current_app.config["VERSION"]}


def health() -> tuple[dict[str, object], int]:
    database = database_state()
    reachable = database != "unreachable"
    return {
        "status": "ok" if reachable else "error",
        "version": current_app.config["VERSION"],
        "release": os.environ.get("APP_RELEASE"),
        "database": database,
        "pid": os.getpid(),
    }, 200 if reachable else 503


def database_state() -> str:
    try:
        return "ready" if sa.inspect(db.engine).has_table(Order.__tablename__) else "empty"
    except OperationalError:
        return "unreachable"


@pages.route("/slow", methods=["GET", "POST"])
def slow() -> dict[str, object]:
    seconds = request.args.get("seconds", default=0.5, type=float)
    seconds = min(max(seconds, 0.0), LONGEST_SLOW_ANSWER)
    time.sleep(seconds)
    return {"slept": seconds}


@pages.post("/echo")
def echo() -> Response:
    return Response(request.get_data(), content_type=request.content_type or "application/octet-stream")


@pages.get("/stream")
def stream() -> Response:
    def chunks() -> Iterator[str]:
        for number in range(10):
            yield f"chunk {number}\n"
            time.sleep(0.1)

    return Response(chunks(), content_type="text/plain")


@pages.post("/orders")
def place_order() -> tuple[dict[str, object], int]:
    wanted = request.get_json(silent=True)
    if not isinstance(wanted, dict) or not isinstance(wanted.get("item"), str) or not isinstance(wanted.get("quantity", 1), int):
        return {"error": 'An order looks like {"item": "tea", "quantity": 2}.'}, 400
    order = Order(item=wanted["item"], quantity=wanted.get("quantity", 1))
    db.session.add(order)
    db.session.commit()
    return order.as_dict(), 201


@pages.get("/orders")
def list_orders() -> dict[str, object]:
    newest = db.session.scalars(sa.select(Order).order_by(Order.id.desc()).limit(NEWEST_ORDERS))
    return {
        "count": db.session.scalar(sa.select(sa.func.count(Order.id))),
        "newest": [order.as_dict() for order in newest],
    }


@pages.errorhandler(OperationalError)
def database_failed(error: OperationalError) -> tuple[dict[str, object], int]:
    current_app.logger.error("The database failed: %s", error)
    return {"error": "The database does not answer, or has not been migrated."}, 503
