"""A bench for the flows: a store in memory, a clock that stands still, and a hand in between."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from elasticache_sessions import flows
from elasticache_sessions.clients.base import Command, Entry, Look, Read, Reply, Scan, Stored, Write
from elasticache_sessions.clients.memory import MemoryClient
from elasticache_sessions.drive import drive
from elasticache_sessions.operation import Question, put
from elasticache_sessions.record import Header, unpack
from elasticache_sessions.session import Rules, Session
from elasticache_sessions.settle import Event, Flow, Sleep

DAY = 86_400


class Clock:
    def __init__(self) -> None:
        self.time = 1_700_000_000.0

    def __call__(self) -> float:
        return self.time


class Bench:
    """A store in memory, a clock that stands still, and a hook that meddles with commands and replies."""

    store: type[MemoryClient] = MemoryClient

    def __init__(self, **rules: Any) -> None:
        self.clock = Clock()
        self.client = self.store(self.clock)
        plain = Rules("s:", DAY, clock=self.clock, blind_touch=self.store.blind_touch)
        self.rules = dataclasses.replace(plain, **rules)
        self.asked: list[Command] = []
        self.events: list[str] = []
        self.slept = self.looks = 0
        self.meddle: Callable[[Command, Callable[[], Reply]], Reply] = lambda command, perform: perform()

    def run(self, flow: Flow[Any]) -> Any:
        return drive(flow, self.answer)

    def answer(self, question: Question | Sleep | Event) -> object:
        if isinstance(question, Event):
            self.events.append(question.name)
            return None
        if isinstance(question, Sleep):
            self.slept += 1
            return None
        if isinstance(question, Look | Scan):
            self.looks += 1
            return put(self.client, question)
        self.asked.append(question)
        return self.meddle(question, lambda: self.client.perform(question))

    def new(self, **fields: Any) -> Session:
        session = Session()
        session.fields.update(fields)
        self.run(flows.save(session, self.rules))
        return session

    def load(self, session: Session | str | None) -> Session:
        found = self.find(session)
        assert found is not None
        return found

    def find(self, session: Session | str | None) -> Session | None:
        session_id = session.id if isinstance(session, Session) else session
        found: Session | None = self.run(flows.load(session_id, self.rules))
        return found

    def save(self, session: Session) -> None:
        self.run(flows.save(session, self.rules))

    def header(self, session: Session) -> Header:
        assert session.id is not None
        entry = self.client.perform(Read(self.rules.key(session.id)))
        assert isinstance(entry, Entry)
        return unpack(entry.value).header

    def ttl(self, session: Session) -> float | None:
        assert session.id is not None
        return self.client.ttl(self.rules.key(session.id))

    def on_write(self, action: Callable[[], object], times: int = 1) -> None:
        """Do something just before a write reaches the store."""
        left = [times]

        def meddle(command: Command, perform: Callable[[], Reply]) -> Reply:
            if isinstance(command, Write) and left[0]:
                left[0] -= 1
                before, self.meddle = self.meddle, lambda command, perform: perform()
                action()
                self.meddle = before
            return perform()

        self.meddle = meddle


class BlindMemory(MemoryClient):
    """As Memcached: a touch sets any TTL, a read does not say what is left of it, a write brings no token."""

    blind_touch = True

    def perform(self, command: Command) -> Reply:
        reply = super().perform(command)
        return Stored(None) if isinstance(reply, Stored) else reply

    def _read(self, command: Read) -> Entry | None:
        entry = self._entry(command.key)
        if entry is None:
            return None
        if command.touch is not None:
            value, version, _ = self._entries[command.key]
            self._entries[command.key] = (value, version, self._clock() + command.touch)
        return Entry(entry.value, entry.token)


class BlindBench(Bench):
    store = BlindMemory


def change(bench: Bench, session: Session, **fields: Any) -> Callable[[], None]:
    """Another request that changes the session."""

    def request() -> None:
        other = bench.load(session)
        other.fields.update(fields)
        bench.save(other)

    return request
