"""Django outside a single server process: prefork servers and greenlets, and scripts without requests."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.demo import wait_until
from tests.support.django_pages import CHAIN, OURS
from tests.support.load import at_once
from tests.support.proxy import Proxy
from tests.support.scripts import ROOT, run
from tests.support.served import GUNICORN, served
from tests.support.stores import Store

# Prefork servers


def check_counts_exactly(proxy: Proxy, folder: Path, *flags: str) -> None:
    """The master has asked the store, by the managers of the process, before it forks."""
    with served(proxy.url, folder, *GUNICORN, "--preload", *flags) as site:
        cookie = site.begin("sync/add/begun")
        answers = [
            answer
            for each in at_once(*[lambda: [site.ask("sync/count", cookie) for _ in range(10)]] * 8)
            for answer in each
        ]
        assert sorted(answer["count"] for answer in answers) == list(range(1, 81))
        assert len({answer["pid"] for answer in answers}) > 1, "one worker answered everything"
        assert site.ask("sync/contents", cookie)["contents"] == {"begun": 1, "count": 80}
        # The master's, with one to learn a cluster's slots, and one for each request at a time of each worker.
        assert proxy.total.connections <= (2 + 4 * 8) * len(proxy.ports)


def test_a_prefork_server_that_loads_the_project_first_counts_exactly(proxy: Proxy, tmp_path: Path) -> None:
    check_counts_exactly(proxy, tmp_path, "--workers", "2", "--threads", "4")


@pytest.mark.parametrize("workers", [("--workers", "4"), ("--workers", "2", "--worker-class", "gevent")])
def test_so_do_its_other_kinds_of_workers(
    single_proxy: Proxy, tmp_path: Path, workers: tuple[str, ...]
) -> None:
    check_counts_exactly(single_proxy, tmp_path, *workers)


def test_greenlets_take_turns(single_proxy: Proxy, tmp_path: Path) -> None:
    """While one waits for the store, the others of its worker go on."""
    flags = ("--preload", "--workers", "1", "--worker-class", "gevent")
    with served(single_proxy.url, tmp_path, *GUNICORN, *flags) as site:
        cookies = [site.begin("sync/add/begun") for _ in range(5)]
        single_proxy.hold_replies()
        asked = []
        single_proxy.on_request(lambda exchange: asked.append(exchange.command), times=None)
        jobs = [lambda cookie=cookie: site.ask("sync/contents", cookie) for cookie in cookies]

        def release() -> None:
            wait_until(lambda: len(asked) == 5, 20, "five greenlets wait for the store at once")
            single_proxy.release_replies()

        *answers, _ = at_once(*jobs, release)
        assert [answer["contents"] for answer in answers] == [{"begun": 1}] * 5


# Scripts


SETTINGS = """
    import os, sys
    from django.conf import settings
    settings.configure(SESSION_ENGINE="elasticache_sessions.django", INSTALLED_APPS=["elasticache_sessions.django"])
    import django; django.setup()
    from elasticache_sessions import ConfigurationError
    from elasticache_sessions.django import SessionStore
"""


def test_a_script_uses_sessions_without_requests(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment alone says where they are."""
    script = """
        import asyncio
        session = SessionStore()
        session["name"] = "Ada"
        session.save()
        key = session.session_key
        again = SessionStore(key)
        assert again["name"] == "Ada" and again.exists(key) and not again.exists("A" * 40)
        again["cart"] = {"tea"}
        again.save()
        assert dict(SessionStore(session_key=key).items()) == {"name": "Ada", "cart": {"tea"}}

        async def main():
            session = SessionStore(key)
            assert await session.aget("cart") == {"tea"}
            await session.aset("name", "Grace")
            await session.asave()
        asyncio.run(main())
        session = SessionStore(key)
        assert session["name"] == "Grace"
        session.delete()
        assert not session.exists(key) and dict(SessionStore(key).items()) == {}
        made = SessionStore()
        made.create()
        print(made.session_key != key, made.exists(made.session_key))
    """
    monkeypatch.setenv("ELASTICACHE_SESSIONS_URL", store.url)
    monkeypatch.setenv("ELASTICACHE_SESSIONS_TIMEOUT", "10")
    assert run_with_settings(script) == "True True\n"


def run_with_settings(script: str) -> str:
    return run(f"{textwrap.dedent(SETTINGS)}\n{textwrap.dedent(script)}")


@pytest.mark.parametrize(
    "touch",
    [
        "SessionStore().get('a')",
        "SessionStore().__setitem__('a', 1)",
        "SessionStore('A' * 40).get('a')",
        "SessionStore().create()",
        "SessionStore().exists('A' * 40)",
        "asyncio.run(SessionStore().aset('a', 1))",
        "asyncio.run(SessionStore('A' * 40).aget('a'))",
    ],
)
def test_without_a_url_the_first_touch_says_what_to_set(touch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ELASTICACHE_SESSIONS_URL", raising=False)
    script = f"""
        import asyncio
        from django.core import checks
        session = SessionStore("A" * 40)  # a request that does not touch it never notices
        assert not session.is_empty() and not session.modified
        print([message.id for message in checks.run_checks()])
        try:
            {touch}
        except ConfigurationError as error:
            print(error)
    """
    identifiers, said = run_with_settings(script).splitlines()
    assert "elasticache_sessions.E001" in identifiers
    assert said.startswith("ELASTICACHE_SESSIONS_URL is not set. Set it to where the sessions are kept: ")


def test_manage_py_check_fails_without_a_url_and_passes_with_one() -> None:
    def check(**environment: str) -> subprocess.CompletedProcess[str]:
        inherited = {name: value for name, value in os.environ.items() if name != "ELASTICACHE_SESSIONS_URL"}
        return subprocess.run(
            [sys.executable, "-m", "django", "check"],
            env=inherited
            | {"DJANGO_SETTINGS_MODULE": "tests.django_site.served", "PYTHONPATH": str(ROOT)}
            | environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )

    without = check()
    assert without.returncode == 1 and "ELASTICACHE_SESSIONS_URL is not set" in without.stderr
    assert "(elasticache_sessions.E001)" in without.stderr
    # Nothing listens there: checks ask no store.
    assert (
        check(
            ELASTICACHE_SESSIONS_URL="redis://127.0.0.1:1", SERVED_MIDDLEWARE=",".join((OURS, *CHAIN))
        ).returncode
        == 0
    )
