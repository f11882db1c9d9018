"""What the servers, the stores and the proxy must know of a protocol: Redis's and Valkey's, and Memcached's."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from tests.support import memcached, resp
from tests.support.certificates import authority

HOST = "127.0.0.1"
Command = list[bytes]
Connect = Callable[[int], resp.Connection]

_ADMIN: Final = ("default", "the-tests-password")
PASSWORD: Final = "the-package-password"
"""Of whom the package signs in as."""


@dataclass(frozen=True, slots=True)
class Access:
    """How a store lets anybody in. The tests themselves may do everything."""

    tls: bool = False
    user: str = ""
    """Whom the package signs in as; nobody needs to where it is empty."""
    rights: tuple[str, ...] = ()
    """What that user may do, as ACL SETUSER is told."""


OPEN: Final = Access()


@dataclass(frozen=True, slots=True)
class Dialect:
    """One protocol, and the program that speaks it."""

    url: Callable[[tuple[int, ...]], str]
    """What the package is told, for servers on these ports of this machine."""
    options: Callable[[int, Path], list[str]]
    """How the program is told its port, and the directory that it may write to."""
    pid: Callable[[int], int]
    """The process id of the server on that port, as it says."""
    clients: Callable[[int], int]
    """How many clients the server on that port has, the one that asks left out."""
    connection: Connect
    parse_command: Callable[[bytes | bytearray], tuple[Command, int]]
    """The command at the beginning of these bytes, and where it ends; raises `resp.Incomplete`."""
    parse_reply: Callable[[bytes | bytearray, Command], tuple[object, int]]
    """The same for the reply to a command."""
    routed: bool = False
    """Whether each key belongs to one server, by the clients' own choice among the ports."""
    copies: int = 1
    """To how many of them, the one that is asked first in front."""
    tls: bool = False
    login: tuple[str, str] | None = None
    """Who the tests are, and their password, where somebody has to be."""

    def command(self, port: int, *arguments: resp.Argument) -> object:
        """One command to the server on a port, on a connection of its own: `command(port, "get", "key")`."""
        with self.connection(port) as connection:
            return connection(*arguments)


def resp_for(access: Access = OPEN) -> Dialect:
    """Redis's and Valkey's."""
    login = _ADMIN if access.user else None
    connect: Connect = partial(resp.Connection, tls=access.tls, login=login)
    return Dialect(
        partial(_redis_url, access),
        partial(_redis_options, access),
        partial(_redis_pid, connect),
        partial(_redis_clients, connect),
        connect,
        resp.parse_command,
        lambda data, asked: resp.parse(data),
        tls=access.tls,
        login=login,
    )


def _redis_url(access: Access, ports: tuple[int, ...]) -> str:
    options = ["cluster=true"] if len(ports) > 1 else []
    options += [f"ca_file={authority().ca_file}"] if access.tls else []
    user = f"{access.user}:{PASSWORD}@" if access.user else ""
    url = f"redis{'s' * access.tls}://{user}{HOST}:{ports[0]}"
    return f"{url}?{'&'.join(options)}" if options else url


def _redis_options(access: Access, port: int, directory: Path) -> list[str]:
    options = [
        *("--port", str(0 if access.tls else port), "--bind", HOST, "--dir", str(directory)),
        *("--save", "", "--appendonly", "no", "--daemonize", "no"),
    ]
    if access.tls:
        files = authority()
        options += ["--tls-port", str(port), "--tls-auth-clients", "no"]
        options += ["--tls-replication", "yes", "--tls-cluster", "yes"]
        options += ["--tls-cert-file", str(files.certificate), "--tls-key-file", str(files.key)]
        options += ["--tls-ca-cert-file", str(files.ca_file)]
    if access.user:
        options += ["--requirepass", _ADMIN[1], "--masterauth", _ADMIN[1]]
        options += ["--user", access.user, "on", f">{PASSWORD}", *access.rights]
    return options


def _redis_pid(connect: Connect, port: int) -> int:
    with connect(port) as connection:
        info = connection("INFO", "server")
    # Whatever else may answer at that port, while this one does not listen there.
    found = re.search(rb"process_id:(\d+)\r\n", info) if isinstance(info, bytes) else None
    return int(found[1]) if found else 0


def _redis_clients(connect: Connect, port: int) -> int:
    with connect(port) as connection:
        listed = connection("CLIENT", "LIST", "TYPE", "normal")
    assert isinstance(listed, bytes)
    return len(listed.splitlines()) - 1


def memcached_for(access: Access = OPEN, copies: int = 1) -> Dialect:
    """Memcached's, which knows no users."""
    connect: Connect = partial(memcached.Connection, tls=access.tls)
    return Dialect(
        partial(_memcached_url, access, copies),
        partial(_memcached_options, access),
        partial(_memcached_pid, connect),
        partial(_memcached_clients, connect),
        connect,
        memcached.parse_command,
        memcached.parse_reply,
        routed=True,
        copies=copies,
        tls=access.tls,
    )


def _memcached_url(access: Access, copies: int, ports: tuple[int, ...]) -> str:
    options = [f"copies={copies}"] if copies > 1 else []
    options += ["tls=true", f"ca_file={authority().ca_file}"] if access.tls else []
    url = "memcached://" + ",".join(f"{HOST}:{port}" for port in ports)
    return f"{url}?{'&'.join(options)}" if options else url


def _memcached_options(access: Access, port: int, directory: Path) -> list[str]:
    user = ["-u", "root"] if os.geteuid() == 0 else []  # it refuses to be root without having been told
    options = ["-l", HOST, "-p", str(port), "-U", "0", "-m", "64", *user]
    if access.tls:
        files = authority()
        options += ["-Z", "-o", f"ssl_chain_cert={files.certificate},ssl_key={files.key}"]
    return options


def _memcached_pid(connect: Connect, port: int) -> int:
    return int(memcached.stats(port, connect=connect)["pid"])


def _memcached_clients(connect: Connect, port: int) -> int:
    told = memcached.stats(port, "conns", connect=connect)
    return sum(name.endswith(":state") and state != "conn_listening" for name, state in told.items()) - 1


def of(url: str) -> Dialect:
    """That of the servers which such a URL is for, in a program that is told no more."""
    access = Access(tls="ca_file=" in url, user="somebody" if "@" in url else "")
    if url.startswith("memcached"):
        return memcached_for(access, copies=2 if "copies=2" in url else 1)
    return resp_for(access)


RESP = resp_for()
MEMCACHED = memcached_for()
