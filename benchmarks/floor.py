"""What nothing can be cheaper than: the same bytes read, or read and written, by a bare client, and by a raw socket."""

from __future__ import annotations

import socket
from collections.abc import Callable
from time import perf_counter_ns, process_time_ns
from typing import Any

from .cases import READ, Ask, Asked, Block
from .payloads import content
from .sites import LIFETIME, Site

KEY = "floor:8a5f0b8e4fd14f9ea94d54b9f3b8a1c2"


class Floor(Asked):
    """A read is a GET, a change a GET and a SET."""

    def __init__(self, get: Callable[[str], bytes], put: Callable[[str, bytes], object]) -> None:
        self.get, self.put = get, put
        self._keys: dict[int, tuple[str, bytes]] = {}

    def run(self, ask: Ask) -> Block:
        wall, cpu = [], []
        get, put = self.get, self.put
        key, value = self._entry(ask.size)
        for _ in range(ask.requests):
            computed, started = process_time_ns(), perf_counter_ns()
            found = get(key)
            if ask.case != READ:
                put(key, value)
            wall.append(perf_counter_ns() - started)
            cpu.append(process_time_ns() - computed)
            assert found == value, "the floor read something else than it wrote"
        return Block(tuple(wall), tuple(cpu))

    def _entry(self, size: int) -> tuple[str, bytes]:
        if size not in self._keys:
            import ormsgpack

            key, value = f"{KEY}:{size}", ormsgpack.packb(content(size))
            self.put(key, value)
            self._keys[size] = key, value
        return self._keys[size]


def redis_py(site: Site) -> Floor:
    import redis

    client: Any = redis.Redis(port=site.valkey_port)
    return Floor(client.get, lambda key, value: client.set(key, value, ex=LIFETIME))


def valkey_py(site: Site) -> Floor:
    """With libvalkey, where it is installed."""
    import valkey

    client: Any = valkey.Valkey(port=site.valkey_port)
    return Floor(client.get, lambda key, value: client.set(key, value, ex=LIFETIME))


def pymemcache(site: Site) -> Floor:
    from pymemcache.client.base import PooledClient

    client: Any = PooledClient(("127.0.0.1", site.memcached_port), no_delay=True, default_noreply=False)
    return Floor(client.get, lambda key, value: client.set(key, value, expire=LIFETIME))


def _connection(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def hiredis_socket(site: Site) -> Floor:
    """A socket and hiredis, with nothing around them: what our own client stands on."""
    import hiredis

    connection, reader = _connection(site.valkey_port), hiredis.Reader()

    def ask(*words: Any) -> Any:
        connection.sendall(hiredis.pack_command(words))
        while (reply := reader.gets()) is False:
            reader.feed(connection.recv(65_536))
        return reply

    return Floor(lambda key: ask("GET", key), lambda key, value: ask("SET", key, value, "EX", LIFETIME))


def raw_socket(site: Site) -> Floor:
    """The same with the least that Python can do to read these two replies."""
    connection = _connection(site.valkey_port)

    def get(key: str) -> bytes:
        connection.sendall(b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(key), key.encode()))
        reply = connection.recv(65_536)
        head, _, value = reply.partition(b"\r\n")
        length = int(head[1:])
        if length < 0:
            return b""
        while len(value) < length + 2:
            value += connection.recv(65_536)
        return value[:length]

    def put(key: str, value: bytes) -> None:
        lifetime = str(LIFETIME).encode()
        connection.sendall(
            b"*5\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n$2\r\nEX\r\n$%d\r\n%s\r\n"
            % (len(key), key.encode(), len(value), value, len(lifetime), lifetime)
        )
        assert connection.recv(64) == b"+OK\r\n"

    return Floor(get, put)


def raw_memcached(site: Site) -> Floor:
    connection = _connection(site.memcached_port)

    def get(key: str) -> bytes:
        connection.sendall(b"get %s\r\n" % key.encode())
        reply = connection.recv(65_536)
        while not reply.endswith(b"END\r\n"):
            reply += connection.recv(65_536)
        head, _, value = reply.partition(b"\r\n")
        return value[: int(head.rpartition(b" ")[2])] if head.startswith(b"VALUE") else b""

    def put(key: str, value: bytes) -> None:
        connection.sendall(b"set %s 0 %d %d\r\n%s\r\n" % (key.encode(), LIFETIME, len(value), value))
        assert connection.recv(64) == b"STORED\r\n"

    return Floor(get, put)
