"""One manager in many greenlets and processes: no two of them ever talk over one connection."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path

from tests.support.demo import wait_until
from tests.support.load import at_once
from tests.support.proxy import Proxy
from tests.support.scripts import ROOT, run
from tests.support.servers import free_port
from tests.support.stores import Store


def test_fifty_greenlets_share_five_connections(proxy: Proxy) -> None:
    script = """
        from gevent import monkey; monkey.patch_all()
        import sys, gevent
        from elasticache_sessions import *
        manager = SessionManager.connect(Settings(url=sys.argv[1], timeout=20, max_connections=5))
        shared = Session()
        shared.fields["count"] = 0
        manager.save(shared)
        def increment(fields):
            fields["count"] += 1
        def work(greenlet):
            for number in range(5):
                own = Session()
                own.fields.update(greenlet=greenlet, number=number)
                manager.save(own)
                assert manager.load(own.id).fields == {"greenlet": greenlet, "number": number}
                if number == 0:
                    manager.apply(manager.load(shared.id), increment)
        jobs = [gevent.spawn(work, greenlet) for greenlet in range(50)]
        # Those that are killed while they wait leave no reply behind for the next.
        killed = [gevent.spawn(work, 1000 + greenlet) for greenlet in range(10)]
        gevent.sleep(0.02)
        gevent.killall(killed)
        gevent.joinall(jobs, raise_error=True)
        print(manager.load(shared.id).fields["count"])
    """
    proxy.delay_replies(0.001)
    count = int(run(script, proxy.url))
    assert 50 <= count <= 60
    assert proxy.total.connections <= (5 + 10 + 1) * len(proxy.ports)


# Processes

FORKS = """
    import os, signal, sys, threading, time
    from elasticache_sessions import *
    manager = SessionManager.connect(Settings(url=sys.argv[1], timeout=20))
    def make(**values):
        session = Session()
        session.fields.update(values)
        manager.save(session)
        return session
    shared = make(count=0)
    def increment(fields):
        fields["count"] += 1
    def work(worker):
        for number in range(30):
            own = make(worker=worker, number=number)
            assert manager.load(own.id).fields == {"worker": worker, "number": number}
            assert manager.load(shared.id).fields["count"] >= 0
            if number % 10 == 0:
                manager.apply(manager.load(shared.id), increment)
    busy = threading.Event()
    def keep_busy():
        while not busy.is_set():
            manager.load(shared.id)
    threads = [threading.Thread(target=keep_busy) for _ in range(int(sys.argv[2]))]
    for thread in threads:
        thread.start()
    children = []
    for worker in range(4):
        pid = os.fork()
        if pid == 0:
            signal.alarm(30)  # a lock that was held while forking would be held for ever
            try:
                work(worker)
            except BaseException:
                import traceback; traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(pid)
    work("parent")
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    work("parent")
    busy.set()
    for thread in threads:
        thread.join()
    print(manager.load(shared.id).fields["count"])
"""


def test_forked_children_have_connections_of_their_own_from_the_first_moment(proxy: Proxy) -> None:
    assert int(run(FORKS, proxy.url, "0")) == 6 * 3
    nodes = len(proxy.ports)
    # The parent's, with one to learn a cluster's slots, and each child's; the parent's outlived the children.
    assert 5 <= proxy.total.connections <= 5 * nodes + (nodes > 1)


def test_a_process_whose_threads_are_busy_can_fork(proxy: Proxy) -> None:
    assert int(run(FORKS, proxy.url, "3")) == 6 * 3


APP = """
import os
from flask import Flask, session
from elasticache_sessions.flask import ElastiCacheSessions

app = Flask(__name__)
sessions = ElastiCacheSessions(app)

@app.get("/")
def count():
    def increment(fields):
        fields["count"] = fields.get("count", 0) + 1
        return fields["count"]
    return f"{os.getpid()} {sessions.apply(increment)}"

# In the master, before it forks: its connection is there when the workers are made.
with app.test_request_context():
    session["begun"] = True
    assert app.session_interface.manager.load("x" * 40) is None
"""


def test_a_prefork_server_that_loads_the_app_first_counts_exactly(proxy: Proxy, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APP)
    port = free_port()
    environment = os.environ | {
        "ELASTICACHE_SESSIONS_URL": proxy.url,
        "ELASTICACHE_SESSIONS_TIMEOUT": "10",
        "PYTHONPATH": f"{ROOT}:{tmp_path}",
    }
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "2", "--threads", "4"]
    command += ["--bind", f"127.0.0.1:{port}", "--graceful-timeout", "5", "shop:app"]
    log = (tmp_path / "log").open("wb")
    with log, subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log) as server:
        try:

            def ask(cookie: str | None = None) -> tuple[str, int, str | None]:
                headers = {} if cookie is None else {"Cookie": f"session={cookie}"}
                request = urllib.request.Request(f"http://127.0.0.1:{port}/", headers=headers)
                with urllib.request.urlopen(request, timeout=20) as response:
                    pid, number = response.read().decode().split()
                    given = response.headers["Set-Cookie"]
                    return pid, int(number), given and given.partition("=")[2].partition(";")[0]

            def is_up() -> bool:
                assert server.poll() is None, (tmp_path / "log").read_text()
                with suppress(OSError):
                    ask()
                    return True
                return False

            wait_until(is_up, 20, "gunicorn answers")
            _, _, cookie = ask()
            assert cookie
            answers = [
                answer for each in at_once(*[lambda: [ask(cookie) for _ in range(15)]] * 8) for answer in each
            ]
            assert sorted(number for _, number, _ in answers) == list(range(2, 122))
            assert len({pid for pid, _, _ in answers}) == 2, "one worker answered everything"
            # The master's, and one for each thread of the two workers.
            assert proxy.total.connections <= (1 + 2 * 4 + 1) * len(proxy.ports)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(20)
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_requests_that_come_first_and_at_once_find_a_driver(single_store: Store) -> None:
    """What redis-py is made of imports itself in circles, which two threads must not be in at a time."""
    script = """
        import sys, threading, time
        from elasticache_sessions import *
        settings, failures = Settings(url=sys.argv[1], timeout=20, connect_timeout=20), []
        def first(number):
            time.sleep(number * 0.015)  # while others are in the middle of it
            try:
                if number % 2:
                    AsyncSessionManager.connect(settings)._connect()
                else:
                    session = Session()
                    session.fields["number"] = number
                    SessionManager.connect(settings).save(session)
            except BaseException as error:
                failures.append(repr(error))
        threads = [threading.Thread(target=first, args=[number]) for number in range(20)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(failures)
    """
    assert run(script, single_store.url) == "[]\n"
