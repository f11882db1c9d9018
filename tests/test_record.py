"""The stored form and the merge."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from elasticache_sessions.exceptions import DecodeError
from elasticache_sessions.merging import merge
from elasticache_sessions.record import (
    HEADER_BYTES,
    OWNER_BYTES,
    REVISION,
    REVISION_BYTES,
    Header,
    Kind,
    Record,
    pack,
    unpack,
)

seconds = st.integers(0, 2**32 - 1)
revisions = st.binary(min_size=REVISION_BYTES, max_size=REVISION_BYTES)
headers = st.builds(
    Header,
    kind=st.sampled_from(Kind),
    generation=seconds,
    revisions=st.tuples(revisions, revisions, revisions, revisions),
    created=seconds,
    authenticated_at=seconds,
    expires_at=seconds,
    idle_ttl=seconds,
    idle_end=seconds,
    owner=st.binary(min_size=OWNER_BYTES, max_size=OWNER_BYTES),
    key_number=st.just(0),
    alone=st.booleans(),
    once_alone=st.booleans(),
    looked_after=st.integers(0, 15),
)
names = st.sampled_from("abcde")
maps = st.dictionaries(names, st.binary(max_size=2), max_size=5)
records = st.builds(Record, headers, maps)


@given(records)
def test_a_record_comes_back_from_its_bytes(record: Record) -> None:
    assert unpack(pack(record)) == record


@given(records)
def test_the_header_has_its_fixed_places(record: Record) -> None:
    data = pack(record)
    assert data[0] == 1
    assert data[1] == record.header.kind
    assert data[REVISION] == record.header.revision
    assert len(pack(Record(record.header))) == HEADER_BYTES + 5


@given(records, st.data())
def test_any_changed_byte_is_noticed(record: Record, data: st.DataObject) -> None:
    packed = bytearray(pack(record))
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DecodeError):
        unpack(bytes(packed))


@given(records, st.data())
def test_a_record_cut_short_or_with_something_behind_it_is_refused(
    record: Record, data: st.DataObject
) -> None:
    packed = pack(record)
    with pytest.raises(DecodeError):
        unpack(packed[: data.draw(st.integers(0, len(packed) - 1))])
    with pytest.raises(DecodeError):
        unpack(packed + data.draw(st.binary(min_size=1, max_size=9)))


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        unpack(data)


def test_times_beyond_their_place_are_stored_as_the_largest_that_fits() -> None:
    header = Header(Kind.LIVE, 2**40, (b"r" * 6,), 2**40, 2**40, 2**40, 2**40, 2**40)
    back = unpack(pack(Record(header))).header
    largest = 2**32 - 1
    assert (back.generation, back.created, back.authenticated_at) == (largest, largest, largest)
    assert (back.expires_at, back.idle_ttl, back.idle_end) == (largest, largest, largest)


def test_a_header_with_fewer_revisions_is_filled_up() -> None:
    header = Header(Kind.LIVE, 1, (b"r" * 6,), 5)
    assert unpack(pack(Record(header))).header == header._replace(
        revisions=(b"r" * 6, bytes(6), bytes(6), bytes(6))
    )


# Merge: its three laws.


@given(maps, maps, maps)
def test_what_one_side_changed_alone_is_kept(
    base: dict[str, bytes], mine: dict[str, bytes], theirs: dict[str, bytes]
) -> None:
    merged = merge(base, mine, theirs)
    for name in "abcde":
        before, left, right = base.get(name), mine.get(name), theirs.get(name)
        if left == before:
            assert merged.get(name) == right
        elif right == before:
            assert merged.get(name) == left


@given(maps, maps, maps)
def test_a_delete_beats_a_change_and_of_two_changes_the_later_holds(
    base: dict[str, bytes], mine: dict[str, bytes], theirs: dict[str, bytes]
) -> None:
    merged = merge(base, mine, theirs)
    for name in base:
        deleted = name not in mine or name not in theirs
        if deleted:
            assert name not in merged
    for name, value in mine.items():
        if base.get(name) != value and (name in theirs or name not in base):
            assert merged[name] == value


@given(maps, maps, maps)
def test_nothing_appears_that_nobody_wrote(
    base: dict[str, bytes], mine: dict[str, bytes], theirs: dict[str, bytes]
) -> None:
    for name, value in merge(base, mine, theirs).items():
        assert value in (mine.get(name), theirs.get(name))


@given(maps, maps)
def test_without_a_change_of_theirs_mine_holds_and_the_other_way_round(
    base: dict[str, bytes], mine: dict[str, bytes]
) -> None:
    assert merge(base, mine, base) == mine
    assert merge(base, base, mine) == mine
