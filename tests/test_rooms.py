"""Who may import whom: frameworks and drivers stay in their own rooms, and imports point one way."""

from __future__ import annotations

import ast
import importlib.util
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import elasticache_sessions

PACKAGE = Path(elasticache_sessions.__file__).parent
MODULES = [
    *sorted(module.name for module in pkgutil.walk_packages([str(PACKAGE)], "elasticache_sessions.")),
    "elasticache_sessions",
]
OUTSIDERS = {
    "flask",
    "werkzeug",
    "blinker",
    "flask_login",
    "django",
    "redis",
    "hiredis",
    "valkey",
    "pymemcache",
    "botocore",
    "pytest",
    "cryptography",
    "zstandard",
}
MAY_IMPORT = {
    **{
        f"elasticache_sessions.flask{room}": {"flask", "werkzeug", "blinker"}
        for room in ("", "_errors", "_interface", "_outage", "_owners", "_session", "_signals", "_users")
    },
    **{
        f"elasticache_sessions.clients.redis_{room}": {"redis", "hiredis"}
        for room in ("connection", "stream", "shared")
    },
    **{f"elasticache_sessions.clients.aws_{room}": {"botocore"} for room in ("credentials", "iam", "lookup")},
} | {module: {"django"} for module in MODULES if module.startswith("elasticache_sessions.django")}

# From the ground up: a room may import only those before it in the list.
ORDER = [
    "exceptions",
    "opaque",
    "scalars",
    "codec",
    "fields",
    "compressing",
    "sealing",
    "record",
    "merging",
    "devices",
    "index",
    "session",
    "limit",
    "endpoint_options",
    "endpoint_memcached",
    "endpoint",
    "settings",
    "hardening",
    "drive",
    "outage",
    "clients",
    "clients.base",
    "clients.memory",
    "clients.breaker",
    "clients.network",
    "clients.tls",
    "clients.aws_credentials",
    "clients.aws_iam",
    "clients.aws_caches",
    "clients.aws_lookup",
    "clients.aws",
    "clients.pool",
    "clients.redis_wire",
    "clients.redis_survey",
    "clients.redis_search",
    "clients.redis_driver",
    "clients.redis_tokens",
    "clients.redis_transport",
    "clients.redis_transport_async",
    "clients.redis_stream",
    "clients.redis_shared",
    "clients.redis_cluster",
    "clients.redis_cluster_async",
    "clients.redis_connection",
    "clients.redis",
    "clients.memcached_nodes",
    "clients.memcached_asks",
    "clients.memcached_wire",
    "clients.memcached_views",
    "clients.memcached_handover",
    "clients.memcached_look",
    "clients.memcached_copies",
    "clients.memcached_survey",
    "clients.rounds",
    "clients.memcached_listing",
    "clients.memcached_known",
    "clients.memcached_history",
    "clients.memcached_discovery",
    "clients.memcached_connection",
    "clients.memcached_flight",
    "clients.memcached_group",
    "clients.memcached_async",
    "clients.memcached",
    "clients.choice",
    "turns",
    "settle",
    "seen",
    "owner_list",
    "enrolment",
    "owners",
    "events",
    "reading",
    "flows",
    "operation",
    "loops",
    "manager",
    "flask_session",
    "flask_outage",
    "flask_errors",
    "flask_interface",
    "flask_signals",
    "flask_owners",
    "flask_users",
    "flask",
    "django.content",
    "django.signals",
    "django.managers",
    "django.state",
    "django.asking",
    "django.lazy",
    "django.signing_in",
    "django.store",
    "django",
    "django.current",
    "django.user_sessions",
    "django.receivers",
    "django.middleware",
    "django.checks",
    "django.admin",
    "django.apps",
    "testing.checks",
    "testing.commands",
    "testing.surveys",
    "testing",
]

BLOCKED = """
import sys
from importlib.abc import MetaPathFinder

class Blocked(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(f"{{name}} is blocked")

sys.meta_path.insert(0, Blocked())
import {module}
"""


# An interpreter that has imported nothing but the standard library, forked for each module: none begins with what another left.
IMPORTER = """
import asyncio, concurrent.futures, dataclasses, datetime, decimal, importlib
import ipaddress, json, logging, os, ssl, sys, traceback, uuid
from importlib.abc import MetaPathFinder

class Blocked(MetaPathFinder):
    def __init__(self, blocked):
        self.blocked = blocked
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.blocked:
            raise ImportError(f"{name} is blocked")

said = {}
for module, blocked in json.load(sys.stdin):
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        error = ""
        try:
            sys.meta_path.insert(0, Blocked(blocked))
            importlib.import_module(module)
        except BaseException:
            error = traceback.format_exc()
        os.write(write, error.encode()[-30_000:])
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said[module] = pipe.read()
    assert os.waitpid(child, 0)[1] == 0, module
json.dump(said, sys.stdout)
"""


@pytest.fixture(scope="module")
def imported() -> dict[str, str]:
    """What each module says when it is imported with every other room's packages blocked: nothing, or a traceback."""
    asked = [(module, sorted(OUTSIDERS - MAY_IMPORT.get(module, set()))) for module in MODULES]
    done = subprocess.run(
        [sys.executable, "-c", IMPORTER], input=json.dumps(asked), capture_output=True, text=True, check=True
    )
    said: dict[str, str] = json.loads(done.stdout)
    return said


@pytest.mark.xdist_group("rooms")
@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_with_every_other_rooms_packages_blocked(
    module: str, imported: dict[str, str]
) -> None:
    assert imported[module] == ""


def test_a_missing_extra_is_named_with_the_line_that_installs_it() -> None:
    for blocked, code, line in (
        ({"flask"}, "elasticache_sessions.flask", "pip install 'elasticache-sessions[flask]'"),
        ({"django"}, "elasticache_sessions.django", "pip install 'elasticache-sessions[django]'"),
        (
            {"redis"},
            "elasticache_sessions as e; e.SessionManager.connect(e.Settings(url='redis://cache'))",
            "pip install 'elasticache-sessions[redis]'",
        ),
        (
            {"cryptography"},
            "elasticache_sessions as e; e.SessionManager.connect(e.Settings(url='memory://', encryption_keys=['k' * 32]))",
            "pip install 'elasticache-sessions[encryption]'",
        ),
        (
            {"zstandard"},
            "elasticache_sessions as e; e.Settings(compress_min_bytes=1, compress_with='zstd').box",
            "pip install 'elasticache-sessions[zstd]'",
        ),
        (
            {"botocore"},
            "elasticache_sessions as e; e.SessionManager.connect(e.Settings(url='elasticache://cache'))",
            "pip install 'elasticache-sessions[aws]'",
        ),
        (
            {"botocore"},
            "elasticache_sessions as e; e.SessionManager.connect(e.Settings(url='rediss://c?iam_user=u&iam_cache=c'))",
            "pip install 'elasticache-sessions[aws]'",
        ),
    ):
        done = subprocess.run(
            [sys.executable, "-c", BLOCKED.format(blocked=blocked, module=code)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode != 0
        assert "MissingExtra" in done.stderr
        assert line in done.stderr


def test_imports_point_one_way() -> None:
    for number, room in enumerate(ORDER):
        path = PACKAGE.joinpath(*room.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        folder = room if path.name == "__init__.py" else room.rpartition(".")[0]
        package = f"elasticache_sessions.{folder}".rstrip(".")
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or not node.level:
                continue
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names = [f"{base}.{alias.name}" for alias in node.names]
            for name in (base, *names):
                other = name.removeprefix("elasticache_sessions").lstrip(".")
                assert other not in ORDER or ORDER.index(other) < number, f"{room} imports {other}"


def test_every_room_has_its_place_in_the_order() -> None:
    rooms = {module.removeprefix("elasticache_sessions").lstrip(".") for module in MODULES}
    assert rooms - {""} == set(ORDER)


def test_no_production_file_has_grown_out_of_its_room() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 320, f"{path.name}: more than one reason to exist?"
