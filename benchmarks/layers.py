"""This package below the frameworks: its client and its manager, asked for the same records. What is left of a stack's cost is
the framework's adapter.
"""

from __future__ import annotations

from time import perf_counter_ns, process_time_ns

from elasticache_sessions import Session, SessionManager, Settings
from elasticache_sessions.clients.base import Entry, Read, Stored, Write
from elasticache_sessions.clients.choice import client_for

from .cases import READ, Ask, Asked, Block
from .payloads import NAME, content
from .sites import LIFETIME, Site


class Layer(Asked):
    def __init__(self, site: Site, memcached: bool) -> None:
        self.settings = Settings.from_mapping(site.settings(memcached))
        self.manager = SessionManager.connect(self.settings)
        self._ids: dict[int, str] = {}

    def run(self, ask: Ask) -> Block:
        step = self.read if ask.case == READ else self.change
        session_id = self._session(ask.size)
        wall, cpu = [], []
        for _ in range(ask.requests):
            computed, started = process_time_ns(), perf_counter_ns()
            step(session_id)
            wall.append(perf_counter_ns() - started)
            cpu.append(process_time_ns() - computed)
        return Block(tuple(wall), tuple(cpu))

    def read(self, session_id: str) -> None:
        raise NotImplementedError

    def change(self, session_id: str) -> None:
        raise NotImplementedError

    def _session(self, size: int) -> str:
        if size not in self._ids:
            session = Session()
            session.fields.update(content(size))
            self.manager.save(session)
            assert session.id is not None
            self._ids[size] = session.id
        return self._ids[size]


class Manager(Layer):
    """Loads a session, and opens one field; saves it."""

    def read(self, session_id: str) -> None:
        self._load(session_id)

    def change(self, session_id: str) -> None:
        session = self._load(session_id)
        session.fields["visits"] += 1
        self.manager.save(session)

    def _load(self, session_id: str) -> Session:
        session = self.manager.load(session_id)
        assert session is not None
        assert session.fields["name"] == NAME
        return session


class Client(Layer):
    """Reads a record, and slides it; writes the same bytes."""

    def __init__(self, site: Site, memcached: bool, libvalkey: bool) -> None:
        super().__init__(site, memcached)
        self._client = client_for(self.settings, site.libvalkey() if libvalkey else None)

    def read(self, session_id: str) -> None:
        self._entry(self.manager.rules.key(session_id))

    def change(self, session_id: str) -> None:
        key = self.manager.rules.key(session_id)
        entry = self._entry(key)
        assert isinstance(self._client.perform(Write(key, entry.value, LIFETIME, entry.token)), Stored)

    def _entry(self, key: bytes) -> Entry:
        entry = self._client.perform(Read(key, LIFETIME))
        assert isinstance(entry, Entry)
        return entry


def manager(site: Site, memcached: bool = False) -> Manager:
    return Manager(site, memcached)


def client(site: Site, memcached: bool = False, libvalkey: bool = False) -> Client:
    return Client(site, memcached, libvalkey)
