"""AWS credentials that are there when a request needs them.

botocore renews credentials in whoever asks for them, who then waits for the metadata service or for STS. Here a thread
asks, ahead of their end; requests take what is held. Only where nothing is held, a request waits, as long as it may.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

import botocore.session
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError

from ..exceptions import ConfigurationError, StoreUnavailable

# botocore renews in the last 15 minutes of a set of credentials; so there are some 15 tries.
_LOOK_AGAIN: Final = 60.0
# For so many seconds a failure answers whoever asks, too: the metadata service is not to be asked by every request.
FAILURE_HOLDS: Final = 1.0
NOT_FOUND: Final = (
    "there are no AWS credentials: not in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, not in AWS's shared files "
    "(AWS_PROFILE), and not from the container or the instance. Give the instance, task or pod a role, or set the "
    "variables."
)


def region_or_default(region: str | None) -> str:
    """`region`, or else what the environment or AWS's configuration says.

    Raises:
        ConfigurationError
    """
    try:
        # botocore does not know AWS_REGION, which AWS itself sets for containers and functions.
        found = (
            region
            or os.environ.get("AWS_REGION")
            or botocore.session.get_session().get_config_variable("region")
        )
    except BotoCoreError as error:
        raise ConfigurationError(f"AWS's configuration cannot be used: {error}. Correct it.") from error
    if not found:
        raise ConfigurationError(
            "no AWS region is set. Add region=… to the URL, for example region=us-east-1, or set AWS_REGION."
        )
    return str(found)


@dataclass(frozen=True, slots=True)
class _Held:
    frozen: ReadOnlyCredentials
    source: Any
    """What botocore renews them in."""

    @property
    def over(self) -> bool:
        return _is_over(self.source)


def _is_over(source: Any) -> bool:
    # Those without an end have no such method.
    return hasattr(source, "refresh_needed") and bool(source.refresh_needed(refresh_in=0))


class AwsCredentials:
    """Those that botocore finds in this process. The thread begins with the first question, and ends with the object."""

    def __init__(self, look_again: float = _LOOK_AGAIN) -> None:
        self._look_again = look_again
        self._held: _Held | None = None
        self.begin()
        _living.add(self)

    def begin(self) -> None:
        """Nothing is under way: as at first, and again in a forked child, which has no such thread, and whose locks may
        be held for ever.
        """
        self._lock = threading.Lock()
        self._source: Any = None
        self._thread: threading.Thread | None = None
        self._under_way: Future[ReadOnlyCredentials | str] | None = None
        self._failure = ("", 0.0)
        self._asked = threading.Event()
        weakref.finalize(self, self._asked.set).atexit = False

    def held(self) -> ReadOnlyCredentials | None:
        """What can be signed with now, without waiting; None where nothing is held, or it has ended."""
        if self._thread is None:
            self.fetching()
        held = self._held
        return None if held is None or held.over else held.frozen

    def fetching(self) -> Future[ReadOnlyCredentials | str]:
        """What the fetching that is under way comes to, or a new one: credentials, or why there are none."""
        with self._lock:
            if self._under_way is not None:
                return self._under_way
            coming = Future[ReadOnlyCredentials | str]()
            coming.set_running_or_notify_cancel()  # so that nobody who waits for it can cancel it for the others
            failure, until = self._failure
            if time.monotonic() < until:
                coming.set_result(failure)
                return coming
            self._under_way = coming
            try:
                self._wake()
            except RuntimeError as error:  # no thread to be had, or the interpreter is ending
                self._under_way = None
                coming.set_result(f"AWS credentials could not be fetched: {error}. Try again.")
            return coming

    def _wake(self) -> None:
        self._asked.set()
        if self._thread is None or not self._thread.is_alive():
            thread = threading.Thread(
                target=_keep,
                args=(weakref.ref(self), self._asked, self._look_again),
                name="keeps-aws-credentials",
                daemon=True,
            )
            thread.start()
            self._thread = thread

    def look(self) -> None:
        """Fetch them where they are not there, and have botocore renew them where it is time. May take long."""
        with self._lock:
            if self._under_way is None:
                self._under_way = Future()
                self._under_way.set_running_or_notify_cancel()
            coming = self._under_way
        result = self._fetched()
        with self._lock:
            self._under_way = None
            if isinstance(result, str):
                self._failure = result, time.monotonic() + FAILURE_HOLDS
            else:
                self._held = result
        coming.set_result(result if isinstance(result, str) else result.frozen)

    def _fetched(self) -> _Held | str:
        try:
            if self._source is None:
                self._source = botocore.session.get_session().get_credentials()
            if self._source is None:
                return NOT_FOUND
            return _Held(self._source.get_frozen_credentials(), self._source)
        # Whatever a provider of credentials may raise, the thread goes on and says so.
        except Exception as error:  # noqa: BLE001
            why = f"{type(error).__name__}: {error}"
            if self._source is not None and _is_over(self._source):
                self._source = None  # next time, look in every place again
                return (
                    f"the AWS credentials have expired, and new ones could not be had ({why}). Check the role of the "
                    "instance, task or pod, or set new ones."
                )
            return f"AWS credentials could not be had ({why}). Check where they come from."


_living: weakref.WeakSet[AwsCredentials] = weakref.WeakSet()
_sharing: Final = threading.Lock()
_shared: weakref.ref[AwsCredentials] | None = None


def _keep(reference: weakref.ref[AwsCredentials], asked: threading.Event, look_again: float) -> None:
    """Look at the credentials now and then, for as long as anybody holds them."""
    while (credentials := reference()) is not None:
        asked.clear()
        credentials.look()
        del credentials
        asked.wait(look_again)


def shared() -> AwsCredentials:
    """This process's own: one thread, whoever signs with them."""
    global _shared  # noqa: PLW0603 - one for each process
    with _sharing:
        found = None if _shared is None else _shared()
        if found is None:
            found = AwsCredentials()
            _shared = weakref.ref(found)
        return found


def answered(result: ReadOnlyCredentials | str) -> ReadOnlyCredentials:
    if isinstance(result, str):
        raise StoreUnavailable(result, sent=False, silent=None)
    return result


def _in_a_forked_child() -> None:
    _sharing._at_fork_reinit()  # type: ignore[attr-defined]  # as the standard library's own modules do
    for credentials in _living:
        credentials.begin()


os.register_at_fork(after_in_child=_in_a_forked_child)  # the threads stay with the parent
