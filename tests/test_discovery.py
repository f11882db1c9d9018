"""Which nodes there are is known at any time, and learned in nobody's way."""

from __future__ import annotations

import gc
import logging
import math
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from elasticache_sessions import ConfigurationError, Settings, StoreUnavailable
from elasticache_sessions.clients import memcached_discovery, rounds
from elasticache_sessions.clients.memcached import source_for
from elasticache_sessions.clients.memcached_discovery import Discovery
from elasticache_sessions.clients.memcached_nodes import Nodes
from elasticache_sessions.limit import TimeLimit, Timeouts
from tests.support.demo import wait_until
from tests.support.discovery import DiscoveryEndpoint
from tests.support.load import at_once
from tests.support.scripts import ROOT, run
from tests.support.servers import free_port

PATIENT = 20.0
# Nobody is there: what the nodes tell of those before them is for test_discovery_history.py.
A, B, C, D = (f"127.0.0.1:{port}" for port in (1, 2, 3, 4))
# Rarely enough that nobody is asked by itself while a test runs.
NEVER = 300
OFTEN = 0.1


@pytest.fixture
def endpoint() -> Iterator[DiscoveryEndpoint]:
    with DiscoveryEndpoint(A, B) as endpoint:
        yield endpoint


@contextmanager
def discovering(
    endpoint: DiscoveryEndpoint | str, every: float = OFTEN, **options: object
) -> Iterator[Discovery]:
    """The nodes behind `endpoint`, or behind that of a URL; nothing of it stays."""
    url = endpoint if isinstance(endpoint, str) else endpoint.url_with(discovery_interval=every, **options)
    discovery = source_for(Settings(url=url, timeout=PATIENT, connect_timeout=PATIENT))
    assert isinstance(discovery, Discovery)
    try:
        yield discovery
    finally:
        discovery.close()
        wait_until(lambda: not asking(), PATIENT, "nobody asks any more")


def asking() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "discovers-memcached"]


def first(discovery: Discovery, patience: float = PATIENT) -> tuple[str, ...]:
    """The nodes, as an operation asks for them."""
    with TimeLimit(patience, patience):
        return discovery.nodes.current


def known(discovery: Discovery) -> Nodes:
    """All that there is to know at first."""
    assert first(discovery) == (A, B)
    become(discovery, A, B)
    return discovery.nodes


def become(discovery: Discovery, *nodes: str, previous: tuple[tuple[str, ...], ...] = ()) -> None:
    """Wait until these are the nodes. There is no running operation, so nobody could wait for an answer."""
    wait_until(lambda: told(discovery) == (nodes, previous), PATIENT, f"the nodes are {nodes}")


def told(discovery: Discovery) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...] | None]:
    """The nodes of now, and those before."""
    return discovery.nodes.current, discovery.nodes.previous


# What is told


def test_the_nodes_are_told_and_each_change_of_them(endpoint: DiscoveryEndpoint) -> None:
    with discovering(endpoint) as discovery:
        assert discovery.known is None
        known(discovery)
        endpoint.set_nodes(A, B, C)
        become(discovery, A, B, C, previous=((A, B),))
        endpoint.set_nodes(C, A)
        become(discovery, C, A, previous=((A, B, C), (A, B)))
        endpoint.set_nodes(B, A)
        become(discovery, B, A, previous=((C, A), (A, B, C)))
        assert discovery.known is discovery.nodes


def test_the_same_nodes_in_another_order_are_no_change(endpoint: DiscoveryEndpoint) -> None:
    with discovering(endpoint) as discovery:
        known(discovery)
        endpoint.set_nodes(B, A, A)
        endpoint.is_asked(2)
        assert discovery.nodes == Nodes((A, B), (), version=2)


def test_nodes_in_the_same_version_are_taken(endpoint: DiscoveryEndpoint) -> None:
    with discovering(endpoint) as discovery:
        known(discovery)
        endpoint.set_nodes(C)
        endpoint.version -= 1
        become(discovery, C, previous=((A, B),))


def test_a_node_that_was_not_told_yet_changes_nothing(
    endpoint: DiscoveryEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint.version = 7
    with discovering(endpoint, every=OFTEN) as discovery:
        known(discovery)
        endpoint.set_nodes(C)
        endpoint.version = 6
        endpoint.is_asked(3)
        assert told(discovery) == ((A, B), ())
        confirmed = discovery.confirmed
        endpoint.is_asked()
        assert discovery.confirmed == confirmed, "what is old confirms nothing"
        assert "tells configuration 6, and 7 was told before" in caplog.text


def test_a_cluster_that_counts_anew_is_believed_in_the_end(
    endpoint: DiscoveryEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint.version = 7
    with discovering(endpoint) as discovery:
        known(discovery)
        endpoint.version = 0
        endpoint.set_nodes(C)
        endpoint.is_asked(2)
        assert told(discovery) == ((A, B), ())
        become(discovery, C, previous=((A, B),))
        endpoint.set_nodes(C, B)
        become(discovery, C, B, previous=((C,), (A, B)))


# Handover


def test_the_previous_nodes_are_told_as_long_as_the_url_says(endpoint: DiscoveryEndpoint) -> None:
    with discovering(endpoint, handover=1) as discovery:
        known(discovery)
        endpoint.set_nodes(C)
        become(discovery, C, previous=((A, B),))
        become(discovery, C)


def test_without_handover_there_are_none(endpoint: DiscoveryEndpoint) -> None:
    with discovering(endpoint, handover=0) as discovery:
        known(discovery)
        endpoint.set_nodes(C)
        wait_until(lambda: discovery.nodes.current == (C,), PATIENT, "the change is known")
        assert discovery.nodes.previous == ()


def test_a_previous_node_that_is_gone_is_forgotten_and_a_listed_one_is_not(
    endpoint: DiscoveryEndpoint,
) -> None:
    with discovering(endpoint) as discovery:
        discovery.forget(A)
        known(discovery)
        discovery.forget(A)
        endpoint.set_nodes(A, C)
        become(discovery, A, C, previous=((A, B),))
        discovery.forget(A)
        discovery.forget(D)
        assert discovery.nodes.previous == ((A, B),)
        discovery.forget(B)
        discovery.forget(B)
        assert told(discovery) == ((A, C), ((A,),))
        endpoint.is_asked(2)
        assert told(discovery) == ((A, C), ((A,),)), "remembered by the next answer"


# Faults

FAULTS: dict[str, Callable[[DiscoveryEndpoint], object]] = {
    "an error": lambda endpoint: endpoint.reply_with(b"ERROR\r\n"),
    "no nodes": lambda endpoint: endpoint.reply_with(b"CONFIG cluster 0 4\r\n99\n\n\r\nEND\r\n"),
    "no port": lambda endpoint: endpoint.reply_with(b"CONFIG cluster 0 9\r\n99\nc||99999\n\r\nEND\r\n"),
    # It closes from the next answer on, whatever that is: else who had half of one would wait for the rest.
    "half": lambda endpoint: (
        endpoint.close_when_asked(),
        endpoint.reply_with(b"CONFIG cluster 0 9\r\n99\nc||1"),
    ),
    "nothing": lambda endpoint: (endpoint.close_when_asked(), endpoint.reply_with(b"")),
    "silence": lambda endpoint: endpoint.reply_with(None),
    "a drip": lambda endpoint: endpoint.drip(0.05),
    "no end": lambda endpoint: endpoint.reply_with(b"CONFIG cluster 0 9\r\n99\n" + b"c||1 " * 10**5),
    "other bytes": lambda endpoint: endpoint.reply_with(b"\xff\x00" * 500 + b"\n"),
    "a closed door": lambda endpoint: endpoint.go_down(),
}


HANGS = "silence", "a drip"


@pytest.mark.parametrize("fault", FAULTS)
def test_an_endpoint_that_fails_changes_nothing_and_is_told_once(
    endpoint: DiscoveryEndpoint, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    with discovering(endpoint) as discovery:
        nodes = known(discovery)
        patient = discovery._timeouts
        if fault in HANGS:
            discovery._timeouts = Timeouts(0.3, 0.3)
        FAULTS[fault](endpoint)
        endpoint.set_nodes(C)
        wait_until(lambda: caplog.records, PATIENT, "it is told")
        if fault == "a closed door":
            time.sleep(3 * OFTEN)
        else:
            endpoint.is_asked(2)
        assert discovery.nodes is nodes
        (told,) = caplog.records
        assert told.levelno == logging.WARNING
        assert f"the configuration endpoint 127.0.0.1:{endpoint.port} " in told.message
        assert told.message.endswith("The nodes that it told before stay.")
        discovery._timeouts = patient
        endpoint.heal()
        become(discovery, C, previous=((A, B),))
        wait_until(lambda: len(caplog.records) > 1, PATIENT, "that it is back is told")
        assert caplog.records[1].message.endswith("tells the nodes again")
        endpoint.is_asked(2)
        assert len(caplog.records) == 2


def test_the_first_answer_is_waited_for_as_long_as_the_operation_may(endpoint: DiscoveryEndpoint) -> None:
    endpoint.reply_with(None)
    with discovering(endpoint, every=NEVER) as discovery:
        with pytest.raises(
            StoreUnavailable, match=r"not known yet: .* did not tell them in time, and is still"
        ) as failed:
            first(discovery, 0.1)
        assert (failed.value.sent, failed.value.silent) == (False, None)
        with pytest.raises(StoreUnavailable, match="did not tell them in time"):
            first(discovery, 0.0)
        assert discovery.known is None
        assert discovery.confirmed == -math.inf
        assert endpoint.asked <= 1, "it was asked again while it was being asked"
        endpoint.heal()
        endpoint.close_connections()


def test_whoever_comes_before_the_first_answer_waits_for_the_same(endpoint: DiscoveryEndpoint) -> None:
    endpoint.drip(0.002)
    with discovering(endpoint, every=NEVER) as discovery:
        assert set(at_once(*[lambda: first(discovery)] * 8)) == {(A, B)}
        assert endpoint.asked == 1
        assert len(asking()) == 1


def test_while_nothing_is_known_a_failure_is_told_to_all_and_tried_again_after_a_moment(
    endpoint: DiscoveryEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memcached_discovery, "_FAILURE_HOLDS", PATIENT)
    endpoint.reply_with(b"ERROR\r\n")
    with discovering(endpoint, every=NEVER) as discovery:
        for _ in range(3):
            with pytest.raises(
                StoreUnavailable, match=r"does not tell any: it says b'ERROR'. Check that .*memcached://\."
            ):
                first(discovery)
        assert endpoint.asked == 1
        endpoint.heal()
        monkeypatch.setattr(discovery, "_failure", ("", -math.inf))  # the moment is over
        assert first(discovery) == (A, B)
        assert endpoint.asked == 2


@pytest.mark.parametrize(
    ("host", "options", "says"),
    [
        ("127.0.0.1", "", r"did not answer \(ConnectionRefusedError"),
        ("nowhere.invalid", "", r"did not answer \(gaierror"),
        ("127.0.0.1", "?tls=true", r"did not answer \(ConnectionRefusedError"),
    ],
)
def test_where_there_is_no_endpoint_it_is_told(host: str, options: str, says: str) -> None:
    url = f"memcached+discovery://{host}:{free_port()}{options}"
    with discovering(url) as discovery, pytest.raises(StoreUnavailable, match=says):
        first(discovery)


def test_no_thread_to_be_had_is_told_where_nothing_is_known(
    endpoint: DiscoveryEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with discovering(endpoint) as discovery:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", fail)
            with pytest.raises(StoreUnavailable, match="could not be asked: can't start new thread"):
                first(discovery)
        nodes = known(discovery)
        discovery.close()
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", fail)
            assert discovery.nodes is nodes


def test_the_thread_outlives_what_nobody_thought_of(
    endpoint: DiscoveryEndpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(data: bytes) -> None:
        raise MemoryError

    with discovering(endpoint) as discovery:
        with monkeypatch.context() as patched:
            patched.setattr(memcached_discovery, "parse", fail)
            with pytest.raises(StoreUnavailable, match="did not tell them in time"):
                first(discovery, 0.2)
        assert first(discovery) == (A, B)
        assert "MemoryError" in caplog.text


# TLS


def test_the_endpoint_is_asked_over_tls_and_its_certificate_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def look_up(host: Any, *args: Any, **options: Any) -> Any:
        return real("127.0.0.1" if host == "other.cache.test" else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with DiscoveryEndpoint(A, B, tls=True) as endpoint:
        with discovering(endpoint) as discovery:
            assert first(discovery) == (A, B)
            endpoint.set_nodes(C)
            become(discovery, C, previous=((A, B),))
        named = endpoint.url.replace(endpoint.host, "other.cache.test")
        for url, says in (
            (endpoint.url.partition("&")[0], r"is not to be trusted.*ca_file="),
            (named, r"is for another name.*other\.cache\.test"),
        ):
            with discovering(url) as other, pytest.raises(StoreUnavailable, match=says):
                first(other)
        with pytest.raises(ConfigurationError, match="cannot be read as certificates"):
            source_for(Settings(url="memcached+discovery://a?tls=true&ca_file=/nowhere.pem"))


# In nobody's way


@pytest.mark.parametrize("fault", ["silence", "a closed door", "an error"])
def test_nobody_who_knows_the_nodes_waits_for_the_endpoint(endpoint: DiscoveryEndpoint, fault: str) -> None:
    with discovering(endpoint) as discovery:
        nodes = known(discovery)
        FAULTS[fault](endpoint)
        if fault != "a closed door":
            endpoint.is_asked()
        for _ in range(100):
            # Who waits without a running operation gets a LookupError, and in one that has no time, TimeIsUp.
            assert discovery.nodes is nodes
            discovery.poke()
            with TimeLimit(0, 0):
                assert discovery.nodes is nodes
        endpoint.heal()
        endpoint.close_connections()


def test_who_pokes_is_soon_told(endpoint: DiscoveryEndpoint) -> None:
    with discovering(endpoint, every=NEVER) as discovery:
        first(discovery)
        for nodes, previous in (((A, C), ((A, B),)), ((B,), ((A, C), (A, B)))):
            endpoint.set_nodes(*nodes)
            discovery.poke()
            become(discovery, *nodes, previous=previous)


def test_a_poke_while_it_is_being_asked_is_not_lost(endpoint: DiscoveryEndpoint) -> None:
    with discovering(endpoint, every=NEVER) as discovery:
        known(discovery)
        endpoint.drip(0.01)
        asked = endpoint.asked
        discovery.poke()
        wait_until(lambda: endpoint.asked > asked, PATIENT, "it is asked, and answers the old nodes slowly")
        endpoint.set_nodes(C)
        discovery.poke()
        become(discovery, C, previous=((A, B),))


def test_however_often_somebody_pokes_there_is_a_pause_between_two_questions(
    endpoint: DiscoveryEndpoint,
) -> None:
    with discovering(endpoint, every=NEVER) as discovery:
        began = time.monotonic()
        first(discovery)
        while endpoint.asked < 4:
            discovery.poke()
            time.sleep(0.001)
            assert time.monotonic() - began < PATIENT
        assert time.monotonic() - began >= 3 * rounds._SHORTEST_PAUSE


def test_who_saw_something_knows_whether_the_nodes_are_newer(
    endpoint: DiscoveryEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    with discovering(endpoint, every=NEVER) as discovery:
        first(discovery)
        seen = time.monotonic()
        assert discovery.confirmed < seen
        discovery.poke()
        wait_until(lambda: discovery.confirmed > seen, PATIENT, "the nodes are newer")
        confirmed = discovery.confirmed
        endpoint.reply_with(b"ERROR\r\n")
        discovery.poke()
        wait_until(lambda: caplog.records, PATIENT, "it failed")
        assert discovery.confirmed == confirmed


# Its thread


def test_closed_it_asks_no_more_and_begins_anew_when_somebody_asks(endpoint: DiscoveryEndpoint) -> None:
    with discovering(endpoint, every=NEVER) as discovery:
        discovery.close()
        nodes = known(discovery)
        discovery.close()
        wait_until(lambda: not asking(), PATIENT, "the thread has ended")
        discovery.poke()
        discovery.close()
        assert discovery.known is nodes
        assert not asking()
        endpoint.set_nodes(C)
        assert discovery.nodes is nodes
        become(discovery, C, previous=((A, B),))


def test_closed_while_it_is_being_asked_who_waits_is_told(endpoint: DiscoveryEndpoint) -> None:
    endpoint.drip(0.005)
    # It takes longer than the interval, so that the thread looks again without a pause.
    with discovering(endpoint) as discovery:

        def close() -> None:
            wait_until(lambda: endpoint.asked, PATIENT, "it is being asked")
            discovery.close()

        assert at_once(lambda: first(discovery), close)[0] == (A, B)


def test_what_nobody_holds_is_collected_with_its_thread(endpoint: DiscoveryEndpoint) -> None:
    settings = Settings(url=endpoint.url_with(discovery_interval=NEVER))
    held = [source_for(settings)]
    assert source_for(settings) is held[0]
    assert source_for(Settings(url=settings.url, prefix="other:")) is not held[0]
    with TimeLimit(PATIENT, PATIENT):
        assert held[0].nodes.current == (A, B)
    assert len(asking()) == 1
    gone = weakref.ref(held[0])
    held.clear()
    # It may be asking still, and what failed there is for the garbage collector.
    wait_until(lambda: (gc.collect(), gone(), asking())[1:] == (None, []), PATIENT, "nothing of it is left")
    assert source_for(settings).known is None


FORKS = """
{patch}
import os, signal, sys, threading, time
from elasticache_sessions import Settings
from elasticache_sessions.clients import memcached_discovery
from elasticache_sessions.clients.memcached import source_for
from elasticache_sessions.limit import TimeLimit
from tests.support.demo import wait_until

before, after = ("127.0.0.1:1", "127.0.0.1:2"), ("127.0.0.1:3",)
def source(prefix="sess:"):
    return source_for(Settings(url=sys.argv[1], timeout=20, connect_timeout=20, prefix=prefix))
discovery, unused = source(), source("unused:")
with TimeLimit(20, 20):
    assert discovery.nodes.current == before
busy = threading.Event()
def keep_busy():
    while not busy.is_set():
        discovery.poke()
        discovery.forget("127.0.0.1:4")
        source("other:")
        time.sleep(0)
threads = [threading.Thread(target=keep_busy) for _ in range(2)]
for thread in threads:
    thread.start()

def work():
    assert discovery.nodes.current == before, "what the parent knew"
    os.write(1, b"ready\\n")
    os.read(0, 1)
    wait_until(lambda: discovery.nodes.current == after, 20, "the change is known")
    with TimeLimit(20, 20):
        assert unused.nodes.current == source("more:").nodes.current == after

children = []
for _ in range(5):
    locks = discovery._lock, unused._lock, memcached_discovery._sharing
    for lock in locks:
        lock.acquire()
    pid = os.fork()
    if pid:
        for lock in locks:
            lock.release()
    else:
        signal.alarm(40)  # a lock that was held while forking would be held for ever
        try:
            work()
        except BaseException:
            import traceback; traceback.print_exc()
            os._exit(1)
        os._exit(0)
    children.append(pid)
work()
assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 5
busy.set()
for thread in threads:
    thread.join()
"""
GEVENT = "from gevent import monkey; monkey.patch_all()"


@pytest.mark.parametrize("patch", ["", GEVENT], ids=["threads", "gevent"])
def test_a_forked_child_knows_what_its_parent_knew_and_asks_by_itself(patch: str) -> None:
    with DiscoveryEndpoint(A, B) as endpoint:
        url = endpoint.url_with(discovery_interval=OFTEN)
        command = [sys.executable, "-c", FORKS.format(patch=patch), url]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe) as process:
            try:
                assert process.stdin and process.stdout and process.stderr
                assert [process.stdout.readline() for _ in range(6)] == [b"ready\n"] * 6, (
                    process.stderr.read()
                )
                endpoint.set_nodes(C)
                _, said = process.communicate(b"." * 6, timeout=60)
            finally:
                process.kill()
    assert process.returncode == 0, said.decode()
    assert b"Traceback" not in said, said.decode()


def test_greenlets_share_one_that_asks() -> None:
    with DiscoveryEndpoint(A, B) as endpoint:
        endpoint.drip(0.002)
        script = f"""
            {GEVENT}
            import gevent, sys
            from elasticache_sessions import Settings
            from elasticache_sessions.clients.memcached import source_for
            from elasticache_sessions.limit import TimeLimit
            discovery = source_for(Settings(url=sys.argv[1], timeout=20, connect_timeout=20))
            def first():
                with TimeLimit(20, 20):
                    return discovery.nodes.current
            jobs = [gevent.spawn(first) for _ in range(20)]
            gevent.sleep(0.02)
            gevent.killall(jobs[:5])
            gevent.joinall(jobs, raise_error=True)
            print(len({{job.value for job in jobs[5:]}}))
            discovery.close()
        """
        assert run(script, endpoint.url) == "1\n"
        assert endpoint.asked == 1
