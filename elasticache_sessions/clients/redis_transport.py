"""Carries `redis_wire` over a pool of connections to one endpoint, for threads.

redis-py or valkey-py connects them. Its retries are not used: a command is sent once, so that whoever repeats it knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, Protocol

from ..drive import drive
from ..exceptions import StoreUnavailable
from ..limit import Timeouts
from .base import Command, Glance, Look, Page, Reply, Scan
from .breaker import Breakers
from .redis_driver import Driver, Redirected
from .redis_search import Mark, mark_of, search
from .redis_survey import Flights, glances
from .redis_wire import Request, exchange


class Line(Protocol):
    """A connection that sends each command once."""

    def send(self, commands: Sequence[tuple[Any, ...]], /) -> None:
        """All of them as one piece."""

    def receive(self) -> object:
        """The next reply. What the server calls an error is one, too: the driver's exception."""


class Lines(Protocol):
    """Where connections are lent: a `pool.Pool`, or that of a client object (`Theirs`)."""

    def connection(self) -> AbstractContextManager[Line]:
        """One for this thread alone. It is closed where an exception ends the block: after a timeout, a greenlet killed in
        between, a primary that became a replica, what comes next on it is not for us.
        """

    def close(self) -> None: ...


def ask(lines: Lines, driver: Driver, request: Request, *, asking: bool = False) -> object:
    """Send `request` on one of `lines`, once, and return what the server answered.

    Raises:
        StoreUnavailable, Redirected
    """
    sent = False
    try:
        with lines.connection() as line:
            sent = True
            if asking:
                line.send([("ASKING",)])
                line.receive()
            line.send([request.args])
            answer = answered(line.receive(), driver, request)
    except driver.failures as error:
        raise driver.in_our_words(error, sent) from error
    if isinstance(answer, Redirected):
        raise answer
    return answer


def ask_all(lines: Lines, driver: Driver, requests: Sequence[Request]) -> list[object]:
    """Send all of `requests` on one connection, before any reply is waited for. What the server answered to each, that it
    is served elsewhere (`Redirected`) among it.

    Raises:
        StoreUnavailable
    """
    sent = False
    try:
        with lines.connection() as line:
            sent = True
            line.send([request.args for request in requests])
            return [answered(line.receive(), driver, request) for request in requests]
    except driver.failures as error:
        raise driver.in_our_words(error, sent) from error


def answered(reply: object, driver: Driver, request: Request) -> object:
    """What a reply, or the server's error that came instead, says to `request`: asked while the connection is still lent, as
    what is no answer ends it.

    Raises:
        StoreUnavailable
    """
    if isinstance(reply, Exception):
        return driver.said(reply)
    if request.fits(reply):
        return reply
    reply = None  # it may be somebody else's session, and a traceback may show variables
    raise misfit()


class Theirs:
    """The connections of a client object that the app gave."""

    def __init__(self, pool: Any, driver: Driver) -> None:
        self._pool, self._arguments, self._errors = pool, driver.pool_args, driver.errors.ResponseError

    @contextmanager
    def connection(self) -> Iterator[Line]:
        connection = self._pool.get_connection(*self._arguments)
        try:
            yield _TheirLine(connection, self._errors)
        except BaseException:
            connection.disconnect()
            raise
        finally:
            self._pool.release(connection)

    def close(self) -> None:
        self._pool.disconnect()


class _TheirLine:
    def __init__(self, connection: Any, errors: type[Exception]) -> None:
        self._connection, self._errors = connection, errors

    def send(self, commands: Sequence[tuple[Any, ...]]) -> None:
        self._connection.send_packed_command([b"".join(self._connection.pack_commands(commands))])

    def receive(self) -> object:
        try:
            return self._connection.read_response()
        except self._errors as error:
            return error


def misfit() -> StoreUnavailable:
    return StoreUnavailable(
        "the store's reply does not fit the question. Check what answers at its address.", retry=True
    )


class RedisClient:
    """One endpoint, for threads and greenlets."""

    blind_touch = False

    def __init__(self, pool: Lines, driver: Driver, timeouts: Timeouts, breakers: Breakers) -> None:
        self._pool, self._driver = pool, driver
        self._timeouts, self._breakers = timeouts, breakers

    def perform(self, command: Command) -> Reply:
        with self._timeouts.limited():
            return drive(exchange(command), self._send)

    def _send(self, request: Request) -> object:
        try:
            with self._breakers.of(THE_STORE):
                return ask(self._pool, self._driver, request)
        except Redirected as redirected:
            raise clustered(redirected) from None

    def look(self, question: Look) -> tuple[Glance | None, ...]:
        with self._timeouts.limited():
            return drive(glances(question), self._send_all)

    def scan(self, question: Scan) -> Page:
        with self._timeouts.limited():
            return drive(search_here(question), self._send_all)

    def _send_all(self, requests: Sequence[Request]) -> list[object]:
        with self._breakers.of(THE_STORE):
            return here(ask_all(self._pool, self._driver, requests))

    def close(self) -> None:
        self._pool.close()


THE_STORE: Final = "the store"


def here(answers: list[object]) -> list[object]:
    """`answers`, none of which may be that another node has the key."""
    for answer in answers:
        if isinstance(answer, Redirected):
            raise clustered(answer)
    return answers


def clustered(redirected: Redirected) -> StoreUnavailable:
    return StoreUnavailable(
        f"the store is a cluster (a session is {redirected}). Add ?cluster=true to ELASTICACHE_SESSIONS_URL.",
        sent=False,
    )


def search_here(question: Scan) -> Flights[Page]:
    """`redis_search.search`, where one server has all keys."""

    def probes() -> tuple[bytes, ...]:
        return (question.prefix,)

    return search(question.prefix, mark_of(question) or Mark.first(probes()), probes)
