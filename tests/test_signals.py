"""What happens to sessions, as signals of each framework: blinker's and Django's, sync and async."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings
from flask import Flask, session

from elasticache_sessions import flask_signals
from elasticache_sessions.django import SessionStore, signals as django_signals
from elasticache_sessions.flask import ElastiCacheSessions
from elasticache_sessions.settle import Event
from tests.support.instances import Instance, Visit, instances, use
from tests.support.load import OnLoop
from tests.support.signals import NAMES, hearing


def handle_after(instance: Instance, cookie: str | None) -> str:
    return str(instance.ask(lambda visit: visit.handle, cookie).result)


def test_a_life_is_told_with_handles(framework: str) -> None:
    with instances(framework, "memory://") as (shop,), hearing(shop) as heard:
        first = shop.ask(lambda visit: visit.update(a=1)).cookie
        anonymous = handle_after(shop, first)
        second = shop.ask(lambda visit: visit.login("ada"), first).cookie
        known = handle_after(shop, second)
        assert known != anonymous
        shop.ask(lambda visit: visit.logout(), second)
        assert heard == [
            ("session_created", {"handle": anonymous}),
            ("session_cycled", {"handle": anonymous, "new_handle": known}),
            ("session_ended", {"handle": known, "reason": "logout"}),
        ]


def test_the_reason_of_an_end_is_told(framework: str) -> None:
    with instances(framework, "memory://") as (shop,):

        def reasons(end: Callable[[Visit], object]) -> list[tuple[str, str]]:
            cookie = shop.ask(lambda visit: visit.update(a=1)).cookie
            handle = handle_after(shop, cookie)
            with hearing(shop) as heard:
                shop.ask(end, cookie)
            assert {told["handle"] for _, told in heard} <= {handle}
            return [(name, told["reason"]) for name, told in heard]

        def expire(visit: Visit) -> None:
            visit["b"] = 1
            visit.expire_after(-1)

        assert reasons(expire) == [("session_ended", "expired")]
        emptied = reasons(lambda visit: visit.pop("a"))
        assert emptied == ([("session_ended", "emptied")] if shop.habits.emptied_ends else [])


def test_a_conflict_is_told(framework: str) -> None:
    with instances(framework, "memory://") as (shop,):
        cookie = shop.ask(lambda visit: visit.update(a=1)).cookie

        def late(visit: Visit) -> str | None:
            visit["b"] = 1
            shop.ask(lambda visit: visit.update(c=1), cookie)
            return visit.handle

        with hearing(shop) as heard:
            handle = shop.ask(late, cookie).result
        assert heard == [("conflict_merged", {"handle": handle})]


@pytest.mark.usefixtures("never_left_alone")
def test_an_outage_is_told_by_what_failed(framework: str) -> None:
    with instances(framework, "redis://127.0.0.1:1") as (shop,), hearing(shop) as heard:
        assert shop.ask(dict, "x" * 40).code == 503
        assert shop.ask(lambda visit: None, "x" * 40).code == 200
        ((name, told),) = heard
        assert name == "store_unavailable"
        assert list(told) == ["error"]
        assert told["error"].startswith("StoreUnavailable: the store did not answer")


def test_a_lost_list_is_told_by_its_name(framework: str) -> None:
    with instances(framework, "memory://") as (shop,), hearing(shop) as heard:
        manager = shop.manager.manager if isinstance(shop.manager, OnLoop) else shop.manager
        manager._listener.hear(Event("index_lost", "o.a-list"))
        assert heard == [("index_lost", {"handle": "o.a-list"})]


def test_no_signal_tells_an_id_or_what_a_session_holds(framework: str) -> None:
    with instances(framework, "memory://") as (shop,), hearing(shop) as heard:
        ids = use(shop)
        assert {name for name, _ in heard} >= {"session_created", "session_cycled", "session_ended"}
        assert not [told for told in heard for secret in ("canary", *ids) if secret in str(told)]


def test_a_receiver_that_raises_breaks_nothing_and_keeps_nobody_from_hearing(
    framework: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(sender: object, **told: Any) -> None:
        raise ValueError("of the app's own")

    with instances(framework, "memory://") as (shop,):
        module: Any = flask_signals if framework == "flask" else django_signals
        module.session_created.connect(fail)
        try:
            with hearing(shop) as heard:
                cookie = shop.ask(lambda visit: visit.update(a=1)).cookie
        finally:
            module.session_created.disconnect(fail)
        assert [name for name, _ in heard] == ["session_created"]
        assert shop.ask(dict, cookie).result == {"a": 1}
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "fail" in errors[0].getMessage()


# Flask's


def test_each_of_several_apps_has_signals_of_its_own() -> None:
    """One extension may serve several apps, and an app that is gone hears no more."""
    sessions, heard = ElastiCacheSessions(), []

    def app(name: str) -> Flask:
        made = Flask(name)
        made.config["ELASTICACHE_SESSIONS_URL"] = "memory://"
        sessions.init_app(made)

        @made.route("/")
        def visit() -> str:
            session["a"] = 1
            return "done"

        return made

    first, second = app("first"), app("second")

    def only_of_the_second(sender: Flask, **told: Any) -> None:
        heard.append(sender)

    with flask_signals.session_created.connected_to(only_of_the_second, sender=second):
        first.test_client().get("/")
        assert heard == []
        second.test_client().get("/")
        assert heard == [second]


def test_a_receiver_that_is_a_coroutine_function_is_run_as_flask_runs_async_views() -> None:
    heard = []

    async def receive(sender: Flask, handle: str, **told: Any) -> None:
        await asyncio.sleep(0)
        heard.append(handle)

    with instances("flask", "memory://") as (shop,), flask_signals.session_created.connected_to(receive):
        cookie = shop.ask(lambda visit: visit.update(a=1)).cookie
        assert heard == [handle_after(shop, cookie)]


# Django's


def test_a_receiver_that_cannot_be_waited_for_is_refused_at_once() -> None:
    async def receive(sender: object, **told: Any) -> None: ...

    class Receiver:
        async def __call__(self, sender: object, **told: Any) -> None: ...

    for receiver in (receive, Receiver()):
        with pytest.raises(TypeError, match="plain function"):
            django_signals.session_created.connect(receiver)


def test_the_sender_is_the_class_of_the_projects_engine() -> None:
    senders = []

    def receive(sender: object, **told: Any) -> None:
        senders.append(sender)

    django_signals.session_ended.connect(receive, sender=SessionStore)
    try:
        store = SessionStore()
        store["a"] = 1
        store.save()
        store.delete()
    finally:
        django_signals.session_ended.disconnect(receive, sender=SessionStore)
    assert settings.SESSION_ENGINE == "elasticache_sessions.django"
    assert senders == [SessionStore]


def test_both_frameworks_have_a_signal_for_each_event_that_is_one() -> None:
    for module in (flask_signals, django_signals):
        assert [name for name in NAMES if not hasattr(module, name)] == []
