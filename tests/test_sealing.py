"""Encrypted records: what opens them, and that nothing else does."""

from __future__ import annotations

import secrets
import zlib

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from hypothesis import assume, given, strategies as st

from elasticache_sessions.exceptions import DecodeError
from elasticache_sessions.record import (
    HEADER_BYTES,
    LASTING,
    Header,
    Kind,
    Record,
    head,
    pack,
    restamped,
    unpack,
)
from elasticache_sessions.sealing import Box, Key, Seal
from elasticache_sessions.session import handle_of, index_name, new_id
from tests.test_record import headers, maps, records

KEY, OLD = b"key-" * 8, b"old-" * 8
ID, OTHER_ID = "A" * 40, "B" * 40
BOX = Box.of([KEY])
FLAGS_AT, ALONE_AND_ONCE_ALONE = 2, 3

lasting = st.builds(Record, st.builds(Header._replace, headers, kind=st.sampled_from(sorted(LASTING))), maps)


def seal(*keys: bytes, session_id: str = ID, plain: str = "refuse") -> Seal:
    return Box.of(keys, plain).of_session(session_id, handle_of(session_id))


def with_crc(data: bytes) -> bytes:
    """As whoever changed `data` would store it, so that only its seal can tell."""
    header, body = data[:HEADER_BYTES], data[HEADER_BYTES + 4 :]
    return header + zlib.crc32(header + body).to_bytes(4, "big") + body


def live(**fields: bytes) -> Record:
    return Record(Header(Kind.LIVE, 1, (b"revise",) * 4, 5), fields)


# What opens it


@given(records)
def test_a_record_comes_back_from_its_sealed_bytes(record: Record) -> None:
    opened = unpack(pack(record, seal(KEY)), seal(KEY))
    assert opened.fields == record.fields
    number = Key.of(KEY).number if record.header.kind in LASTING else 0
    assert (opened.header.key_number, opened.header.owner) == (number, record.header.owner)


@given(lasting)
def test_the_header_is_read_without_a_key(record: Record) -> None:
    data = pack(record, seal(KEY))
    sealed, plain = head(data), head(pack(record))
    assert sealed.key_number and not plain.key_number
    assert data[:3] + data[4:HEADER_BYTES] == pack(record)[:3] + pack(record)[4:HEADER_BYTES]
    with pytest.raises(DecodeError, match="ENCRYPTION_KEYS is not set"):
        unpack(data)


@given(lasting)
def test_no_two_sealed_forms_are_alike(record: Record) -> None:
    first, second = (pack(record, seal(KEY))[HEADER_BYTES + 4 :] for _ in range(2))
    assert first != second and first[:12] != second[:12]


def test_the_keys_are_what_others_call_hkdf() -> None:
    whole = HKDF(SHA256(), 32, salt=b"elasticache-sessions record 1", info=b"key session " + ID.encode())
    nonce, body = (data := pack(live(a=b"1"), seal(KEY)))[72:84], data[84:]
    about = data[:FLAGS_AT] + b"\0" + data[FLAGS_AT + 1 : HEADER_BYTES] + handle_of(ID).encode()
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    assert AESGCM(whole.derive(KEY)).decrypt(nonce, body, about) == pack(live(a=b"1"))[72:]
    number = HKDFExpand(SHA256(), 32, info=b"number").derive(Key.of(KEY).extracted)[0]
    assert Key.of(KEY).number == 1 + number % 255


# What does not


@given(lasting, st.data())
def test_whatever_somebody_changes_who_mends_the_checksum_is_noticed(
    record: Record, data: st.DataObject
) -> None:
    sealed = bytearray(pack(record, seal(KEY)))
    places = [*range(HEADER_BYTES), *range(HEADER_BYTES + 4, len(sealed))]
    # The header is an eighth of what is tried if the place is drawn at random; here it is half.
    place = data.draw(st.sampled_from(places[:HEADER_BYTES]) | st.sampled_from(places[HEADER_BYTES:]))
    change = data.draw(st.integers(1, 255))
    assume(place != FLAGS_AT or change & ~ALONE_AND_ONCE_ALONE)
    sealed[place] ^= change
    with pytest.raises(DecodeError):
        unpack(with_crc(bytes(sealed)), seal(KEY))


def test_every_byte_of_the_header_counts() -> None:
    sealed = pack(live(a=b"1"), seal(KEY))
    for place in range(HEADER_BYTES):
        changed = bytearray(sealed)
        changed[place] ^= 4
        why = {0: "not known|is known", 3: "none of ENCRYPTION_KEYS"}.get(place, "it does not open")
        with pytest.raises(DecodeError, match=why):
            unpack(with_crc(bytes(changed)), seal(KEY))


@given(lasting, st.data())
def test_a_changed_byte_is_noticed_without_a_key(record: Record, data: st.DataObject) -> None:
    sealed = bytearray(pack(record, seal(KEY)))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DecodeError):
        head(bytes(sealed))


@given(lasting, st.data())
def test_what_was_cut_short_is_noticed(record: Record, data: st.DataObject) -> None:
    sealed = pack(record, seal(KEY))
    size = data.draw(st.integers(HEADER_BYTES + 4, len(sealed) - 1))
    with pytest.raises(DecodeError):
        unpack(with_crc(sealed[:size]), seal(KEY))


@given(lasting)
def test_nodes_without_a_key_may_say_that_it_is_alone(record: Record) -> None:
    marked = restamped(pack(record, seal(KEY)), alone=True)
    opened = unpack(marked, seal(KEY))
    assert opened.fields == record.fields and opened.header.alone and opened.header.once_alone
    back = unpack(restamped(marked, alone=False), seal(KEY))
    assert back.fields == record.fields and not back.header.alone


@pytest.mark.parametrize(
    "opener",
    [
        BOX.of_session(OTHER_ID, handle_of(OTHER_ID)),
        BOX.of_session(OTHER_ID, handle_of(ID)),
        BOX.of_session(ID, handle_of(OTHER_ID)),
        BOX.of_session("", handle_of(ID)),
        BOX.of_owner(bytes(16), index_name(bytes(16))),
        BOX.of_owner(ID.encode(), handle_of(ID)),
        seal(OLD),
    ],
    ids=["another", "its content", "its place", "no id", "an owner", "an owner called so", "another key"],
)
def test_a_record_opens_with_nothing_but_its_own_id_place_and_key(opener: Seal) -> None:
    sealed = pack(live(a=b"1"), seal(KEY))
    assert unpack(sealed, seal(KEY)).fields == {"a": b"1"}
    with pytest.raises(DecodeError):
        unpack(sealed, opener)


def test_a_list_of_an_owners_sessions_opens_for_that_owner_alone() -> None:
    owner, other = b"o" * 16, b"p" * 16
    record = Record(Header(Kind.INDEX, 1, (b"revise",) * 4, 5, owner=owner), {"handle": b"entry"})
    sealed = pack(record, BOX.of_owner(owner, index_name(owner)))
    assert b"entry" not in sealed
    assert unpack(sealed, BOX.of_owner(owner, index_name(owner))).fields == record.fields
    for stranger in (
        BOX.of_owner(other, index_name(owner)),
        BOX.of_owner(owner, index_name(other)),
        seal(KEY),
    ):
        with pytest.raises(DecodeError):
            unpack(sealed, stranger)


# Keys that come and go


def test_the_first_key_encrypts_and_all_decrypt() -> None:
    old = pack(live(a=b"1"), seal(OLD))
    assert unpack(old, seal(KEY, OLD)).fields == {"a": b"1"}
    new = pack(unpack(old, seal(KEY, OLD)), seal(KEY, OLD))
    assert head(new).key_number == Key.of(KEY).number != head(old).key_number
    assert unpack(new, seal(KEY)).fields == unpack(new, seal(OLD, KEY)).fields == {"a": b"1"}
    with pytest.raises(DecodeError, match="none of ENCRYPTION_KEYS"):
        unpack(new, seal(OLD))


def test_of_two_keys_with_one_number_each_opens_its_own() -> None:
    by_number: dict[int, bytes] = {}
    for _ in range(256):
        first = secrets.token_bytes(32)
        second = by_number.setdefault(Key.of(first).number, first)
        if second != first:
            break
    else:
        pytest.fail("256 keys have at most 255 numbers")
    for key in (first, second):
        assert unpack(pack(live(a=b"1"), seal(key)), seal(first, second)).fields == {"a": b"1"}
    with pytest.raises(DecodeError, match="it does not open"):
        unpack(pack(live(a=b"1"), seal(first)), seal(second))


# What is not encrypted


@pytest.mark.parametrize("kind", Kind)
def test_what_is_not_encrypted_is_refused_unless_it_tells_nothing(kind: Kind) -> None:
    record = Record(Header(kind, 1, (b"revise",) * 4, 5), {"a": b"1"})
    plain = pack(record)
    if kind in LASTING:
        with pytest.raises(DecodeError, match="ENCRYPTION_PLAIN"):
            unpack(plain, seal(KEY))
    else:
        assert pack(record, seal(KEY)) == plain
        assert unpack(plain, seal(KEY)) == record
    for accepting in (seal(KEY, plain="accept"), seal(KEY, plain="write")):
        assert unpack(plain, accepting) == record


def test_who_moves_in_reads_both_and_writes_what_the_others_can_read() -> None:
    sealed, plain = pack(live(a=b"1"), seal(KEY)), pack(live(a=b"1"))
    assert head(pack(live(a=b"1"), seal(KEY, plain="accept"))).key_number
    assert pack(live(a=b"1"), seal(KEY, plain="write")) == plain
    assert unpack(sealed, seal(KEY, plain="write")).fields == {"a": b"1"}


def test_neither_a_key_nor_an_id_shows() -> None:
    session_id = new_id()
    shown = repr(Box.of([KEY])) + repr(seal(KEY, session_id=session_id))
    for secret in (KEY, Key.of(KEY).extracted):
        assert repr(secret)[2:-1] not in shown
    assert session_id not in shown
