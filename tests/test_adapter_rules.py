"""What an adapter may say of its sessions: that empty ones stay, how values are stored, what the header follows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from elasticache_sessions import flows
from elasticache_sessions.exceptions import SessionEnded
from elasticache_sessions.fields import Fields
from elasticache_sessions.record import Header, Kind
from elasticache_sessions.session import Rules, Session, new_id
from tests.support.bench import DAY, Bench


class JsonFields(Fields):
    to_bytes = staticmethod(lambda value: json.dumps(value).encode())
    from_bytes = staticmethod(json.loads)


def follow(header: Header, fields: Mapping[str, bytes], rules: Rules) -> Header | None:
    """The field "idle" is the session's idle timeout; 0 ends it. "user" owns it."""
    idle = json.loads(fields.get("idle", b"null"))
    if idle == 0:
        return None
    header = header._replace(idle_ttl=idle or 0, expires_at=0)
    if "user" in fields and header.owner != rules.owner_hash("ada"):
        header = header._replace(owner=rules.owner_hash("ada"), authenticated_at=rules.now())
    return header


@pytest.fixture
def bench() -> Bench:
    return Bench(keeps_empty=True, fields=JsonFields, derive=follow)


def new(bench: Bench, **fields: Any) -> Session:
    session = Session(fields=JsonFields())
    session.fields.update(fields)
    bench.save(session)
    return session


def test_an_empty_session_is_created_and_stays_when_it_is_emptied(bench: Bench) -> None:
    session = new(bench)
    assert session.id is not None
    for empty in (lambda: session.fields.pop("a"), lambda: session.fields.clear()):
        session = bench.load(session)
        session.fields["a"] = 1
        bench.save(session)
        empty()
        bench.save(session)
        assert dict(bench.load(session).fields) == {}


def test_an_empty_session_gets_a_new_id(bench: Bench) -> None:
    session, old = (made := new(bench)), made.id
    bench.run(flows.cycle(session, bench.rules))
    assert session.id != old
    assert bench.find(old) is None
    assert dict(bench.load(session).fields) == {}


def test_values_are_stored_in_the_way_of_the_adapters_fields(bench: Bench) -> None:
    session = new(bench, pair=[1, 2])
    assert session.stored is not None and session.stored.fields == {"pair": b"[1, 2]"}
    loaded = bench.load(session)
    assert isinstance(loaded.fields, JsonFields)
    assert loaded.fields["pair"] == [1, 2]
    bench.run(flows.apply(loaded, lambda fields: fields["pair"].append(3), bench.rules))
    assert bench.load(session).fields["pair"] == [1, 2, 3]


def test_the_header_follows_what_the_fields_say(bench: Bench) -> None:
    session = new(bench, idle=60)
    assert (bench.header(session).idle_ttl, bench.ttl(session)) == (60, 60)
    session.fields["idle"] = 90
    bench.save(session)
    assert bench.ttl(session) == 90
    del session.fields["idle"]
    bench.save(session)
    assert (bench.header(session).idle_ttl, bench.ttl(session)) == (0, DAY)


def test_the_header_follows_what_a_merge_came_to(bench: Bench) -> None:
    session = new(bench, a=1)
    other = bench.load(session)
    other.fields["idle"] = 60
    bench.save(other)
    session.fields["a"] = 2
    bench.save(session)
    assert bench.ttl(session) == 60


def test_a_lifetime_among_the_fields_that_is_over_ends_the_session(bench: Bench) -> None:
    session = bench.load(new(bench, a=1))
    other = bench.load(session)
    session.fields["idle"] = 0
    bench.save(session)
    assert (session.id, bench.find(other)) == (None, None)
    with pytest.raises(SessionEnded):
        other.fields["a"] = 2
        bench.save(other)
    assert new(bench, idle=0).id is None
    assert bench.header(other).kind is Kind.TOMBSTONE


def test_whose_session_it_is_follows_the_fields_and_starts_the_absolute_timeout_once(bench: Bench) -> None:
    bench.rules = replace(bench.rules, absolute_timeout=10 * DAY)
    session, began = new(bench, a=1), bench.rules.now()
    bench.clock.time += DAY / 2
    session.fields["user"] = 7
    bench.run(flows.cycle(session, bench.rules))
    signed_in = bench.header(session)
    assert signed_in.owner == bench.rules.owner_hash("ada")
    assert signed_in.authenticated_at == began + DAY / 2
    assert signed_in.expires_at == began + 10.5 * DAY
    bench.clock.time += DAY / 2
    session.fields["a"] = 2
    bench.run(flows.cycle(session, bench.rules))
    assert bench.header(session).expires_at == began + 10.5 * DAY


def test_a_new_id_may_be_known_before_it_is_stored(bench: Bench) -> None:
    session = new(bench, a=1)
    for _ in range(2):
        session.next_id = known = new_id()
        bench.run(flows.cycle(session, bench.rules))
        assert session.id == known
        assert dict(bench.load(known).fields) == {"a": 1}
        assert session.next_id is None
    assert "next_id" not in repr(Session(next_id=new_id()))
