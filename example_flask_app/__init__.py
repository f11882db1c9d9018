"""A small shop whose sessions live in Valkey or Redis, so that any instance can answer any request.

`flask --app example_flask_app run` serves it alone; `make demo` serves several behind a load balancer.
"""

import os

from flask import Flask

from . import csrf, views
from .catalogue import pounds


def create_app() -> Flask:
    app = Flask(__name__)
    app.config.update(
        # Alone, on a laptop, the sessions of one process are enough.
        ELASTICACHE_SESSIONS_URL=os.environ.get("ELASTICACHE_SESSIONS_URL") or "memory://",
        # Cookies do not tell ports apart: a name of its own keeps other apps on this host signed in.
        SESSION_COOKIE_NAME="elsewhere",
        SESSION_COOKIE_SAMESITE="Lax",
        # Shown on the page; a URL would show more than it should.
        STORE=os.environ.get("SHOP_STORE"),
        INSTANCE=os.environ.get("INSTANCE", "local"),
        # Set by gunicorn.conf.py once this instance has been told to stop.
        LEAVING=False,
    )
    views.sessions.init_app(app)
    app.register_blueprint(views.shop)
    app.jinja_env.filters["pounds"] = pounds
    app.jinja_env.globals["csrf_token"] = csrf.token
    return app
