"""Another request's write between a write whose reply is lost and the moment its sender hears of that."""

from __future__ import annotations

from collections.abc import Callable

from elasticache_sessions import Fields, Session, SessionManager
from elasticache_sessions.record import Header, unpack
from elasticache_sessions.session import handle_of
from tests.support.load import is_write
from tests.support.proxy import Proxy
from tests.support.stores import Store


def loaded(manager: SessionManager, session_id: str) -> Session:
    session = manager.load(session_id)
    assert session is not None
    return session


def change(manager: SessionManager, session_id: str, **values: object) -> Session:
    session = loaded(manager, session_id)
    session.fields.update(values)
    manager.save(session)
    return session


def header_of(store: Store, session_id: str) -> Header:
    value = store.get(f"sess:{handle_of(session_id)}".encode())
    assert value is not None
    return unpack(value).header


def increment(fields: Fields) -> int:
    fields["count"] += 1
    return int(fields["count"])


def interrupt(
    proxy: Proxy, between: Callable[[], object], *, request: bool = False, nth: int = 1
) -> Callable[[], None]:
    """Lose the `nth` write from now, or the reply to it, after `between` ran. Call the result at the end."""
    seen = 0

    def is_it(command: list[bytes]) -> bool:
        nonlocal seen
        seen += is_write(command)
        return is_write(command) and seen == nth

    if request:
        # Both ask in turn about the same command, the callback first.
        hook = proxy.on_request(lambda exchange: between(), when=is_it)
        rule = proxy.lose_request(when=lambda command: is_write(command) and hook.fired > 0)
    else:
        hook = proxy.on_reply(lambda exchange: between(), when=is_it)
        rule = proxy.lose_reply(when=lambda command: is_write(command) and hook.fired > 0)

    def it_happened() -> None:
        assert (hook.fired, rule.fired) == (1, 1)

    return it_happened
