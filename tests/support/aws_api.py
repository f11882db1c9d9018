"""The API of ElastiCache as a server of the tests: so botocore's own time limits and repetitions are what is tested."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

Answer = tuple[int, str]
"""HTTP's status, and the body."""

_NOT_FOUND = {
    "DescribeReplicationGroups": "ReplicationGroupNotFoundFault",
    "DescribeServerlessCaches": "ServerlessCacheNotFoundFault",
    "DescribeCacheClusters": "CacheClusterNotFound",
}


def error(code: str, status: int = 400, message: str = "so it is") -> Answer:
    return status, (
        '<ErrorResponse xmlns="http://elasticache.amazonaws.com/doc/2015-02-02/"><Error><Type>Sender</Type>'
        f"<Code>{code}</Code><Message>{message}</Message></Error><RequestId>1</RequestId></ErrorResponse>"
    )


def _described(action: str, members: str, member: str, content: str) -> Answer:
    return 200, (
        f'<{action}Response xmlns="http://elasticache.amazonaws.com/doc/2015-02-02/"><{action}Result>'
        f"<{members}><{member}>{content}</{member}></{members}></{action}Result></{action}Response>"
    )


def _place(port: int) -> str:
    return f"<Address>127.0.0.1</Address><Port>{port}</Port>"


def group(port: int) -> Answer:
    """A replication group whose primary is a server of this machine, without TLS."""
    nodes = f"<NodeGroup><PrimaryEndpoint>{_place(port)}</PrimaryEndpoint></NodeGroup>"
    content = f"<Status>available</Status><Engine>valkey</Engine><NodeGroups>{nodes}</NodeGroups>"
    return _described("DescribeReplicationGroups", "ReplicationGroups", "ReplicationGroup", content)


def memcached(port: int) -> Answer:
    """A cluster whose configuration endpoint is there."""
    content = (
        "<CacheClusterStatus>available</CacheClusterStatus><Engine>memcached</Engine>"
        f"<ConfigurationEndpoint>{_place(port)}</ConfigurationEndpoint>"
    )
    return _described("DescribeCacheClusters", "CacheClusters", "CacheCluster", content)


class Api:
    """What it is asked, by the names of the actions; and what it answers: that there is no such cache, at first."""

    url: str

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, Answer | Callable[[], Answer]] = {}
        self.flowing = threading.Event()
        self.flowing.set()
        self.over = threading.Event()

    def answer(self, action: str) -> Answer:
        self.asked.append(action)
        while not self.flowing.wait(0.02) and not self.over.is_set():
            pass
        answer = self.answers.get(action, error(_NOT_FOUND[action], 404))
        return answer if isinstance(answer, tuple) else answer()


@contextmanager
def serving() -> Iterator[Api]:
    api = Api()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            status, text = api.answer(parse_qs(body)["Action"][0])
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/xml")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # who asked did not wait for the answer

    with Quiet(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        api.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield api
        finally:
            api.over.set()
            server.shutdown()
            thread.join()
