# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The shop: a small Flask application with a database."""

from __future__ import annotations

import logging

from flask import Flask, Response

from . import attachments, config, storage, views
from .behaviour import Behaviour
from .models import db


def create_app() -> Flask:
    behaviour = Behaviour()
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = config.database_url()
    # A database that was restarted or restored has closed the connections of the pool.
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"pool_pre_ping": True}
    app.config["VERSION"] = behaviour.version(config.deployed_version())
    app.config["GREETING"] = behaviour.greeting
    app.logger.setLevel(logging.INFO)
    app.extensions["storage"] = storage.chosen(app)
    db.init_app(app)
    app.register_blueprint(views.pages)
    app.register_blueprint(attachments.pages)
    app.add_url_rule(behaviour.health_path, view_func=views.health)

    @app.before_request
    def behave() -> None:
        behaviour.request()

    @app.after_request
    def tell_version(response: Response) -> Response:
        response.headers["X-App-Version"] = app.config["VERSION"]
        return response

    behaviour.start()
    return app
