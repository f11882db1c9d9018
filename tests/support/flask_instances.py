"""`instances("flask", …)`: each is a Flask app of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from flask import Flask, got_request_exception, request, session

from elasticache_sessions import Fields
from elasticache_sessions.flask import ElastiCacheSessionInterface, ElastiCacheSessions, FlaskSession
from tests.support.instances import Answer, Habits, Instance, Recorded, View, Visit

T = TypeVar("T")

HABITS = Habits(
    cookie="session",
    emptied_ends=True,
    equal_is_written=False,
    refuses_unknown=False,
    takes_any_of_its_name=True,
    ends_at_once=False,
    signed_in=lambda user: {},  # what says who is signed in is the app's own
)


class FlaskVisit(Visit):
    def __init__(self, sessions: ElastiCacheSessions) -> None:
        self._sessions = sessions

    @property
    def raw(self) -> FlaskSession:
        ours = session._get_current_object()  # type: ignore[attr-defined]  # werkzeug's LocalProxy
        assert isinstance(ours, FlaskSession)
        return ours

    def _do(self, verb: str, *arguments: Any) -> Any:
        return getattr(session, verb)(*arguments)

    def modify(self) -> None:
        session.modified = True

    def cycle(self) -> None:
        self._sessions.cycle_id()

    def login(self, user: str) -> None:
        self._sessions.login(user)

    def logout(self) -> None:
        self._sessions.logout()

    def apply(self, change: Callable[[Fields], T]) -> T:
        return self._sessions.apply(change)

    def expire_after(self, seconds: int) -> None:
        self.get("")  # Flask's own lifetimes are one for all sessions; this is the core's
        self.raw.core.idle_ttl = seconds

    def keep(self) -> None:
        session.permanent = True

    @property
    def handle(self) -> str | None:
        return self.raw.handle


class FlaskInstance(Instance):
    habits = HABITS

    def __init__(self, url: str, settings: dict[str, object], *, refreshing: bool) -> None:
        self.app = Flask("shop")
        self.app.config["SESSION_REFRESH_EACH_REQUEST"] = refreshing
        self.app.config["ELASTICACHE_SESSIONS_URL"] = url
        self.app.config |= {f"ELASTICACHE_SESSIONS_{name.upper()}": value for name, value in settings.items()}
        self.sessions = ElastiCacheSessions(self.app)
        self.app.add_url_rule("/", "view", lambda: request.environ["tests.view"]())
        got_request_exception.connect(_remember, self.app)
        assert isinstance(self.app.session_interface, ElastiCacheSessionInterface)
        self.manager = self.app.session_interface.manager
        self.commands = []
        self.manager._client = Recorded(self.manager._client, self.commands)

    def send(self, view: View, cookies: str | None) -> Answer:
        results: list[object] = []

        def run() -> str:
            results.append(view(FlaskVisit(self.sessions)))
            return "done"

        errors: list[BaseException] = []
        response = self.app.test_client(use_cookies=False).get(
            "/",
            environ_overrides={"tests.view": run, "tests.errors": errors}
            | ({} if cookies is None else {"HTTP_COOKIE": cookies}),  # past what would tidy it up
        )
        name = f"{self.habits.cookie}="
        set_cookie = [each for each in response.headers.getlist("Set-Cookie") if each.startswith(name)]
        assert len(set_cookie) <= 1, set_cookie
        value = set_cookie[0].removeprefix(name).partition(";")[0] if set_cookie else None
        result = results[0] if results else None
        return Answer(response.status_code, result, value, dict(response.headers), errors)

    def close(self) -> None:
        self.manager.close()


def _remember(sender: Flask, exception: BaseException, **_: object) -> None:
    request.environ["tests.errors"].append(exception)


@contextmanager
def site(framework: str, *, refreshing: bool) -> Iterator[Callable[[str, dict[str, object]], Instance]]:
    """Makes instances."""
    yield lambda url, settings: FlaskInstance(url, settings, refreshing=refreshing)
