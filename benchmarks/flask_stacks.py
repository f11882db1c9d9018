"""One Flask app a stack: the same views, and whose sessions they use."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from datetime import timedelta
from typing import Any

from flask import Flask, Response, make_response, request, session

from elasticache_sessions.flask import ElastiCacheSessions

from .browser import WsgiAsked
from .payloads import NAME, content
from .sites import LIFETIME, Site

Verb = Callable[[], object]


def _app(secret: str | None = "s" * 32) -> Flask:
    app = Flask("benchmarks", static_folder=None)
    app.config.update(SECRET_KEY=secret, PERMANENT_SESSION_LIFETIME=timedelta(seconds=LIFETIME))
    return app


def _nothing() -> None:
    """For stacks that need not do anything there."""


def plain(site: Site) -> WsgiAsked:
    """The app without sessions, whose cost is to be subtracted. Without a secret, Flask does not open its own ones either."""
    app = _app(secret=None)

    @app.get("/begin")
    def begin() -> Response:
        int(request.args["size"])
        response = make_response("ok")
        response.set_cookie("session", "x" * 43)
        return response

    @app.get("/read")
    def read() -> str:
        return NAME

    for path in ("/untouched", "/change", "/new-id", "/logout"):
        app.add_url_rule(path, path, lambda: "ok")

    @app.get("/login")
    def login() -> str:
        return "ok" if request.args["user"] else "nobody"

    return WsgiAsked(app)


def _asked(
    app: Flask,
    site: Site,
    new_id: Verb = _nothing,
    login: Callable[[str], object] | None = None,
    logout: Verb | None = None,
) -> WsgiAsked:
    """The views of an app that has sessions. Where those know nothing of users, to log in is to get a new id, and to log out to
    empty the session.
    """

    @app.get("/begin")
    def begin() -> str:
        _fill(session, int(request.args["size"]))
        if site.sliding:
            session.permanent = True
        return "ok"

    @app.get("/untouched")
    def untouched() -> str:
        return "ok"

    @app.get("/read")
    def read() -> str:
        name: str = session["name"]
        return name

    @app.get("/change")
    def change() -> str:
        session["visits"] += 1
        return "ok"

    @app.get("/new-id")
    def renew() -> str:
        new_id()
        return "ok"

    @app.get("/login")
    def enter() -> str:
        user = request.args["user"]
        if login is None:
            new_id()
        else:
            login(user)
        session["user_id"] = user
        return "ok"

    @app.get("/logout")
    def leave() -> str:
        session.clear() if logout is None else logout()
        return "ok"

    return WsgiAsked(app)


def _fill(fields: MutableMapping[str, Any], size: int) -> None:
    fields.update(content(size))


def signed_cookie(site: Site) -> WsgiAsked:
    """Flask's own, in the browser. It cannot give a session a new id."""
    return _asked(_app(), site)


def least(site: Site) -> WsgiAsked:
    from .least import LeastInterface

    app = _app()
    app.session_interface = LeastInterface(site)
    return _asked(app, site)


def flask_session(site: Site, refresh: bool = True) -> WsgiAsked:
    import redis

    return _flask_session(
        site, refresh, SESSION_TYPE="redis", SESSION_REDIS=redis.Redis(port=site.valkey_port)
    )


def flask_session_memcached(site: Site, refresh: bool = True) -> WsgiAsked:
    from pymemcache.client.base import Client

    client = Client(("127.0.0.1", site.memcached_port), no_delay=True)
    return _flask_session(site, refresh, SESSION_TYPE="memcached", SESSION_MEMCACHED=client)


def _flask_session(site: Site, refresh: bool, **config: Any) -> WsgiAsked:
    from flask_session import Session

    app = _app()
    app.config.update(config, SESSION_REFRESH_EACH_REQUEST=refresh)
    Session(app)
    interface: Any = app.session_interface
    return _asked(app, site, lambda: interface.regenerate(session))


def ours(site: Site, memcached: bool = False, libvalkey: bool = False, **settings: Any) -> WsgiAsked:
    """`libvalkey`: over a client object of valkey-py's instead of connections of our own."""
    app = _app()
    app.config.update(site.settings(memcached))
    app.config.update({f"ELASTICACHE_SESSIONS_{name}": value for name, value in settings.items()})
    sessions = ElastiCacheSessions(app, client=site.libvalkey() if libvalkey else None)
    return _asked(app, site, sessions.cycle_id, sessions.login, sessions.logout)
