"""Whether the servers that the tests take for ElastiCache's topologies behave as they do."""

from __future__ import annotations

import pytest

from tests.support import resp, topologies
from tests.support.demo import wait_until
from tests.support.dialects import Access
from tests.support.resp import ReplyError
from tests.support.servers import MEMCACHED, REDIS_7_0, VALKEY_9_1, Flavour, Server
from tests.support.topologies import LEAST_RIGHTS


@pytest.mark.parametrize("flavour", [REDIS_7_0, MEMCACHED], ids=lambda flavour: flavour.name)
def test_a_server_with_tls_takes_nobody_without(flavour: Flavour) -> None:
    with Server(flavour, access=Access(tls=True)) as server:
        assert server.command("get", "key") in (None, [])
        assert "ca_file=" in server.url
        assert server.dialect.clients(server.port) == 0
        plain = flavour.dialect(Access())
        with pytest.raises((OSError, ReplyError)):
            plain.command(server.port, "get", "key")
        pid = server.pid
        server.stop()
        server.start()
        assert server.pid != pid


def test_a_replica_follows_its_primary_and_takes_no_writes() -> None:
    access = Access(tls=True, user="sessions", rights=LEAST_RIGHTS)
    with topologies.replicated(access=access) as pair:
        for number in range(100):
            pair.command("SET", f"sess:{number}", "x" * 1_000)
        pair.in_sync()
        assert pair.replica.command("DBSIZE") == 100
        with pytest.raises(ReplyError, match="READONLY"):
            pair.replica.command("SET", "sess:1", "y")
        assert pair.ports == (pair.primary.port,)
        with pytest.raises(ReplyError, match="NOAUTH"), resp.Connection(pair.port, tls=True) as nobody:
            nobody("GET", "sess:1")


ALLOWED = {
    "GET sess:1": ("primary", "serverless"),
    "SET sess:1 x EX 10 XX": ("primary", "serverless"),
    "GET other": ("serverless",),
    "DEL sess:1": ("serverless",),
    "SCAN 0": ("primary", "serverless"),
    "EVAL return 0": ("primary", "serverless"),
    "KEYS *": (),
    "CONFIG GET *": (),
    "CLIENT LIST": (),
    "WAIT 0 0": (),
    "MONITOR": (),
}


def test_the_package_s_user_may_do_what_he_may_at_elasticache() -> None:
    access = Access(tls=True, user="sessions", rights=LEAST_RIGHTS)
    with Server(REDIS_7_0, access=access) as primary, topologies.serverless() as serverless:
        for command, allowed in ALLOWED.items():
            for name, server in {"primary": primary, "serverless": serverless}.items():
                may = server.command("ACL", "DRYRUN", "sessions", *command.split()) == b"OK"
                assert may == (name in allowed), (name, command)


@pytest.mark.slow
@pytest.mark.parametrize("flavour", [VALKEY_9_1, REDIS_7_0], ids=lambda flavour: flavour.name)
def test_a_replica_takes_the_place_of_a_primary_that_died(flavour: Flavour) -> None:
    access = Access(tls=flavour is REDIS_7_0)
    with topologies.cluster(replicas=True, flavour=flavour, access=access, node_timeout=1) as cluster:
        assert len(cluster.primaries) == len(cluster.replicas) == 3
        primary = cluster.owner("sess:1")
        assert primary in cluster.primaries
        cluster.command("SET", "sess:1", "x")
        cluster.in_sync()
        primary.kill()

        def has_an_owner() -> bool:
            try:
                return cluster.owner("sess:1") is cluster.replica_of(primary)
            except (ReplyError, ConnectionError):  # until then
                return False

        wait_until(has_an_owner, 30, "the replica became primary")
        assert cluster.command("GET", "sess:1") == b"x"
