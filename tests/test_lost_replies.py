"""A write whose reply was lost, with another request's write in between: neither applied twice nor lost.

What is lost at the proxy was carried out by the server. The other request goes past the proxy, and has
written before the first one hears that its connection is gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest

from elasticache_sessions import OutcomeUnknown, SessionEnded, SessionManager, StoreUnavailable
from elasticache_sessions.record import Kind
from tests.support.interrupt import change, header_of, increment, interrupt, loaded
from tests.support.load import contents, managers, stored_id
from tests.support.proxy import Proxy
from tests.support.stores import Store


# Where a write is one command, on one node.
@pytest.fixture
def one(proxy: Proxy) -> Iterator[SessionManager]:
    """The request whose replies are lost."""
    with managers(proxy.url) as (manager,):
        yield manager


@pytest.fixture
def other(networked_store: Store) -> Iterator[SessionManager]:
    """The requests in between: past the proxy."""
    with managers(networked_store.url) as (manager,):
        yield manager


# save


@pytest.mark.usefixtures("one_copy")
@pytest.mark.parametrize("writes", [0, 1, 3])
def test_a_save_whose_reply_was_lost_is_not_repeated_over_later_writes(
    one: SessionManager, other: SessionManager, proxy: Proxy, networked_store: Store, writes: int
) -> None:
    session_id = stored_id(one, mine=0, theirs=0)
    session = loaded(one, session_id)
    session.fields["mine"] = "one"

    def between() -> None:
        for number in range(writes):
            # On the newest state, which has the lost write in it: theirs is the later one, and holds.
            assert contents(other, session_id) == {
                "mine": "one" if number == 0 else "other",
                "theirs": number,
            }
            change(other, session_id, mine="other", theirs=number + 1)

    it_happened = interrupt(proxy, between)
    one.save(session)
    it_happened()
    expected = {"mine": "other" if writes else "one", "theirs": writes}
    assert contents(one, session_id) == expected == dict(session.fields)
    assert header_of(networked_store, session_id).generation == 2 + writes
    # The session object knows what is there now: its next save goes through at once.
    session.fields["next"] = True
    with proxy.counting() as count:
        one.save(session)
    assert count.round_trips == 1
    assert contents(one, session_id) == expected | {"next": True}


@pytest.mark.parametrize("writes", [4, 5, 9])
def test_a_save_whose_reply_was_lost_long_ago_merges_again(
    one: SessionManager, other: SessionManager, proxy: Proxy, writes: int
) -> None:
    session_id = stored_id(one, gone=0, kept=0)
    session = loaded(one, session_id)
    session.fields["mine"] = "one"
    del session.fields["gone"]
    it_happened = interrupt(
        proxy, lambda: [change(other, session_id, theirs=number) for number in range(writes)]
    )
    one.save(session)
    it_happened()
    assert contents(one, session_id) == {"kept": 0, "mine": "one", "theirs": writes - 1}


@pytest.mark.parametrize("writes", [0, 1, 4, 7])
def test_a_save_that_never_arrived_is_made_up_for(
    one: SessionManager, other: SessionManager, proxy: Proxy, networked_store: Store, writes: int
) -> None:
    session_id = stored_id(one, first=0)
    session = loaded(one, session_id)
    session.fields["mine"] = "one"
    it_happened = interrupt(
        proxy, lambda: [change(other, session_id, theirs=number) for number in range(writes)], request=True
    )
    one.save(session)
    it_happened()
    assert contents(one, session_id) == {"first": 0, "mine": "one"} | (
        {"theirs": writes - 1} if writes else {}
    )
    assert header_of(networked_store, session_id).generation == 2 + writes


def test_a_save_whose_reply_was_lost_does_not_revive_what_was_ended_since(
    one: SessionManager, other: SessionManager, proxy: Proxy, networked_store: Store
) -> None:
    session_id = stored_id(one, first=0)
    session = loaded(one, session_id)
    session.fields["mine"] = "one"
    it_happened = interrupt(proxy, lambda: other.end(session_id))
    # It was stored, and then ended with all the rest: either answer is true, a living session would not be.
    with suppress(SessionEnded):
        one.save(session)
    it_happened()
    assert contents(one, session_id) is None
    assert header_of(networked_store, session_id).kind is Kind.TOMBSTONE


# apply


@pytest.mark.parametrize("writes", [0, 1, 3])
def test_an_apply_whose_reply_was_lost_counts_once(
    one: SessionManager, other: SessionManager, proxy: Proxy, writes: int
) -> None:
    session_id = stored_id(one, count=0)
    session = loaded(one, session_id)
    it_happened = interrupt(
        proxy, lambda: [other.apply(loaded(other, session_id), increment) for _ in range(writes)]
    )
    assert one.apply(session, increment) == 1
    it_happened()
    assert contents(one, session_id) == {"count": 1 + writes}


@pytest.mark.parametrize("writes", [4, 5, 9])
def test_an_apply_whose_reply_was_lost_long_ago_says_so(
    one: SessionManager, other: SessionManager, proxy: Proxy, writes: int
) -> None:
    session_id = stored_id(one, count=0)
    session = loaded(one, session_id)
    it_happened = interrupt(
        proxy, lambda: [other.apply(loaded(other, session_id), increment) for _ in range(writes)]
    )
    with pytest.raises(OutcomeUnknown, match="nobody can tell"):
        one.apply(session, increment)
    it_happened()
    assert contents(one, session_id) == {"count": 1 + writes}


@pytest.mark.parametrize("writes", [0, 1, 4])
def test_an_apply_that_never_arrived_counts_once(
    one: SessionManager, other: SessionManager, proxy: Proxy, writes: int
) -> None:
    session_id = stored_id(one, count=0)
    session = loaded(one, session_id)
    it_happened = interrupt(
        proxy,
        lambda: [other.apply(loaded(other, session_id), increment) for _ in range(writes)],
        request=True,
    )
    assert one.apply(session, increment) == 1 + writes
    it_happened()
    assert contents(one, session_id) == {"count": 1 + writes}


@pytest.mark.usefixtures("one_copy")
def test_an_apply_whose_store_is_gone_after_it_was_sent_says_that_nobody_can_tell(
    one: SessionManager, other: SessionManager, proxy: Proxy
) -> None:
    session_id = stored_id(one, count=0)
    session = loaded(one, session_id)
    it_happened = interrupt(proxy, proxy.refuse)
    with pytest.raises(OutcomeUnknown):
        one.apply(session, increment)
    it_happened()
    assert contents(other, session_id) == {"count": 1}


@pytest.mark.usefixtures("one_copy")
def test_an_apply_whose_store_was_gone_before_it_was_sent_says_that_it_was_not_stored(
    one: SessionManager, other: SessionManager, proxy: Proxy
) -> None:
    session_id = stored_id(one, count=0)
    session = loaded(one, session_id)
    proxy.go_down()
    with pytest.raises(StoreUnavailable) as caught:
        one.apply(session, increment)
    assert type(caught.value) is StoreUnavailable
    assert contents(other, session_id) == {"count": 0}


def test_an_apply_whose_reply_was_lost_tells_the_truth_about_an_end_in_between(
    one: SessionManager, other: SessionManager, proxy: Proxy
) -> None:
    session_id = stored_id(one, count=0)
    session = loaded(one, session_id)
    it_happened = interrupt(proxy, lambda: other.end(session_id))
    with suppress(SessionEnded):
        assert one.apply(session, increment) == 1
    it_happened()
    assert contents(one, session_id) is None
