"""Several "instances" of one site in this process, under any framework, and the requests that a test sends them.

A view is a plain function of a `Visit`: `lambda visit: visit["cart"].append("mug")`. So each test holds for Flask, for
Django under WSGI and for Django under ASGI. Where their conventions differ, `Habits` says how.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from elasticache_sessions import Fields
from elasticache_sessions.clients.base import Command, Read, Write
from tests.support.load import PATIENT, Manager

T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """What a request came to."""

    code: int
    result: Any = None
    """What the view returned."""
    cookie: str | None = None
    """The session cookie that the response sets; "" where it deletes it, None where it leaves it alone."""
    headers: dict[str, str] = field(default_factory=dict)
    errors: list[BaseException] = field(default_factory=list)
    """What the framework took for an error of the site."""

    @property
    def session_id(self) -> str:
        """The id in the cookie that the response sets."""
        assert self.cookie, "the response sets no cookie"
        return self.cookie.removesuffix(".p")


class Visit(ABC):
    """A request's session, as a view sees it whatever the framework. `dict(visit)` is its content."""

    @abstractmethod
    def _do(self, verb: str, *arguments: Any) -> Any:
        """Call that method of a dict on the framework's session."""

    def __getitem__(self, name: str) -> Any:
        return self._do("__getitem__", name)

    def __setitem__(self, name: str, value: object) -> None:
        self._do("__setitem__", name, value)

    def __delitem__(self, name: str) -> None:
        self._do("__delitem__", name)

    def __contains__(self, name: str) -> bool:
        return bool(self._do("__contains__", name))

    def get(self, name: str, default: object = None) -> Any:
        return self._do("get", name, default)

    def pop(self, name: str, *default: object) -> Any:
        return self._do("pop", name, *default)

    def setdefault(self, name: str, default: object) -> Any:
        return self._do("setdefault", name, default)

    def update(self, values: dict[str, Any] | None = None, **named: object) -> None:
        self._do("update", {**(values or {}), **named})

    def keys(self) -> list[str]:
        return list(self._do("keys"))

    def clear(self) -> None:
        self._do("clear")

    @abstractmethod
    def modify(self) -> None:
        """Say that it was modified."""

    @abstractmethod
    def cycle(self) -> None:
        """A new id."""

    @abstractmethod
    def login(self, user: str) -> None: ...

    @abstractmethod
    def logout(self) -> None: ...

    @abstractmethod
    def apply(self, change: Callable[[Fields], T]) -> T: ...

    @abstractmethod
    def expire_after(self, seconds: int) -> None:
        """An idle timeout of its own."""

    @abstractmethod
    def keep(self) -> None:
        """Outlive the browser: where the site refreshes cookies (see `instances`), this one's is refreshed."""

    def meanwhile(self, act: Callable[[], T]) -> T:
        """Something that happens elsewhere and may take its time; this request waits, others go on."""
        return act()

    @property
    @abstractmethod
    def handle(self) -> str | None: ...

    @property
    @abstractmethod
    def raw(self) -> Any:
        """The framework's own session object."""


View = Callable[[Visit], object]


@dataclass(frozen=True)
class Habits:
    """What a framework's users expect of a session, and others do not."""

    cookie: str
    """The session cookie's name."""
    emptied_ends: bool
    """Whether a session ends with its last field, so that the cookie is deleted."""
    equal_is_written: bool
    """Whether assigning an equal value is stored; the cookie is set again anyway."""
    refuses_unknown: bool
    """Whether the cookie is deleted where the store does not know the session that the request asked for."""
    takes_any_of_its_name: bool
    """Whether the one of several cookies of the same name that can be an id is found; else the last one counts."""
    ends_at_once: bool
    """Whether signing out takes effect in the middle of the view; else with the response."""
    signed_in: Callable[[str], dict[str, Any]]
    """The fields that signing in leaves."""


class Instance(ABC):
    """One site with sessions, as one process behind a load balancer would have it."""

    habits: Habits
    manager: Manager
    """Its own, to look at sessions past the framework."""
    commands: list[str]
    """What it has asked its store: "read", "write" or "replace", in order."""

    def ask(self, view: View, cookie: str | None = None) -> Answer:
        """One request whose view is `view`, with that session cookie."""
        return self.send(view, None if cookie is None else f"{self.habits.cookie}={cookie}")

    @abstractmethod
    def send(self, view: View, cookies: str | None) -> Answer:
        """One request whose view is `view`, with that Cookie header, as it is."""

    @abstractmethod
    def close(self) -> None: ...

    @contextmanager
    def recording(self) -> Iterator[list[str]]:
        """The commands of the block, as in `commands`."""
        names: list[str] = []
        begin = len(self.commands)
        try:
            yield names
        finally:
            names += self.commands[begin:]


class _Client(Protocol):
    def perform(self, command: Command, /) -> Any: ...


class Recorded:
    """Stands before a cache client, for threads or for event loops, and writes down what it is asked."""

    def __init__(self, client: _Client, commands: list[str]) -> None:
        self._client = client
        self._commands = commands

    def perform(self, command: Command) -> Any:
        kinds = {Read: "read", Write: "write"}
        self._commands.append(kinds.get(type(command), "replace"))
        return self._client.perform(command)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


FRAMEWORKS = ("flask", "django-wsgi", "django-asgi")


@contextmanager
def instances(
    framework: str, *urls: str, refreshing: bool = False, **settings: object
) -> Iterator[list[Instance]]:
    """An instance for each URL, closed after the block. `settings` are the package's, in lower case.

    `refreshing`: the site sets the cookie anew with every response (in Flask, of a session that was told to `keep`).
    """
    from tests.support import django_instances, flask_instances

    module = flask_instances if framework == "flask" else django_instances
    with module.site(framework, refreshing=refreshing) as make:
        made = [make(url, {"timeout": PATIENT, "connect_timeout": PATIENT} | settings) for url in urls]
        try:
            yield made
        finally:
            for instance in made:
                instance.close()


# All that can happen

CANARY = "canary-4711"
"""In the sessions' content that `use` stores: where it does not show, a test has looked in the wrong place."""


def use(shop: Instance) -> set[str]:
    """Everything that can happen to a session; the ids that were ever in a cookie."""
    ids: set[str] = set()

    def ask(view: View, cookie: str | None = None) -> str:
        cookie = shop.ask(view, cookie).cookie or cookie or ""
        ids.add(cookie.removesuffix(".p"))
        return cookie

    first = ask(lambda visit: visit.update(a=CANARY))
    ask(dict, first)
    ask(lambda visit: visit.update(cart=["kettle"]), first)
    ask(lambda visit: visit.apply(lambda fields: fields.update(count=1)), first)
    second = ask(lambda visit: visit.cycle(), first)
    ask(lambda visit: visit.update(late=True), first)  # the old id: begins one of its own
    third = ask(lambda visit: visit.login("ada"), second)
    ask(lambda visit: visit.keep(), third)
    ask(lambda visit: None, third + ".p")
    third = ask(lambda visit: visit.cycle(), third)
    fourth = ask(lambda visit: visit.update(a=CANARY))
    shop.ask(lambda visit: visit.logout(), fourth)
    ask(lambda visit: visit.update(a=CANARY), fourth)
    ask(dict, "i" * 40)  # an id that a client made up
    ask(lambda visit: visit.update(a=CANARY), "j" * 40)

    # A conflict, and a change that comes too late.
    def late(visit: Visit) -> None:
        visit["late"] = True
        ask(lambda visit: visit.update(other=True), third)
        ask(lambda visit: visit.logout(), third)

    ask(late, third)
    return ids - {""}


# Many requests

REQUESTS = 200
"""Of each thread."""


def assign(name: str, value: object) -> View:
    return lambda visit: visit.update({name: value})


def all_well(answers: list[list[Answer]]) -> None:
    assert {answer.code for each in answers for answer in each} == {200}


def add_keys(instance: Instance, thread: str, cookie: str, requests: int = REQUESTS) -> list[Answer]:
    return [instance.ask(assign(f"{thread}{number}", number), cookie) for number in range(requests)]


def expected_keys(threads: str, requests: int = REQUESTS) -> dict[str, int]:
    return {f"{thread}{number}": number for thread in threads for number in range(requests)}
