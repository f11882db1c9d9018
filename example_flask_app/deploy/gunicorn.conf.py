"""How one instance of the shop runs: a gunicorn master, and one worker that answers on several threads."""

import signal
import threading
from types import FrameType
from typing import Any

from example_flask_app.processes import die_with
from example_flask_app.status import leaving

workers = 1
worker_class = "gthread"
threads = 8

# Load the shop before opening the port: until it can answer, the load balancer is refused and asks another.
preload_app = True

# Keep idle connections for longer than the load balancer does (2 s, see Caddyfile), so that it never sends a
# request down one that is just being closed here.
keepalive = 10

# Seconds that a request under way has to finish when the instance is told to stop, the goodbye included.
graceful_timeout = 10
GOODBYE = 1.0

# supervisor is in control here; gunicorn's own socket would be left lying in the home directory.
control_socket_disable = True


def post_fork(server: Any, _worker: Any) -> None:
    # Else a worker whose master was killed holds the port for many seconds, and no new instance can have it.
    die_with(server.pid, signal.SIGKILL)


def post_worker_init(worker: Any) -> None:
    """On SIGTERM tell the load balancer first, answer for another second, and only then stop taking requests.

    A worker that stops at once resets the connections that wait to be accepted, and a POST on one of those is
    lost: the load balancer cannot know whether it was seen, so it rightly does not send it again.
    """
    stop = worker.handle_exit

    def leave(signum: int, frame: FrameType | None) -> None:
        if not leaving.is_set():
            leaving.set()  # /healthz says 503 from now on.
            threading.Timer(GOODBYE, stop, (signum, frame)).start()

    signal.signal(signal.SIGTERM, leave)
