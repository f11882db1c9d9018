"""A small shop whose sessions live in ElastiCache, so that any instance can answer any request.

`flask --app example_flask_app run` serves it alone; `make demo` serves several behind a load balancer.

example_django_project sells the same from the same pages: `catalogue`, `cart`, `status`, `house` and all that is in
`static` and `templates` know no framework, and importing this package imports none.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask


def create_app() -> Flask:
    from flask import Flask

    from . import csrf, status, views
    from .catalogue import pounds

    app = Flask(__name__)
    app.config.update(
        ELASTICACHE_SESSIONS_URL=status.store_url(),
        # Shorter than the 30 days after which everybody signs in again, so that the page of devices can say who was here when.
        ELASTICACHE_SESSIONS_IDLE_TIMEOUT=timedelta(days=14),
        # Cookies do not tell ports apart: a name of its own keeps other apps on this host signed in.
        SESSION_COOKIE_NAME="elsewhere",
        SESSION_COOKIE_SAMESITE="Lax",
    )
    views.sessions.init_app(app)
    app.register_blueprint(views.shop)
    app.jinja_env.filters["pounds"] = pounds
    app.jinja_env.globals["csrf_input"] = csrf.Input()
    return app
