"""Hears the signals of an instance, whatever its framework."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from elasticache_sessions import flask_signals
from elasticache_sessions.django import SessionStore, signals as django_signals
from elasticache_sessions.events import SIGNALS
from tests.support.flask_instances import FlaskInstance
from tests.support.instances import Instance

Heard = list[tuple[str, dict[str, Any]]]
NAMES = [name for name, _, _ in SIGNALS.values()]


@contextmanager
def hearing(instance: Instance) -> Iterator[Heard]:
    """The signals of the block, each with its keywords. All have the right sender."""
    heard: Heard = []
    flask = isinstance(instance, FlaskInstance)
    module: Any = flask_signals if flask else django_signals

    def receiver(name: str) -> Callable[..., None]:
        def receive(sender: object, **told: Any) -> None:
            assert sender is (instance.app if isinstance(instance, FlaskInstance) else SessionStore)
            told.pop("signal", None)
            heard.append((name, told))

        return receive

    receivers = {name: receiver(name) for name in NAMES}
    for name, receive in receivers.items():
        getattr(module, name).connect(receive)
    try:
        yield heard
    finally:
        for name, receive in receivers.items():
            getattr(module, name).disconnect(receive)
