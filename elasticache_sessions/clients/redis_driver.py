"""The driver that a client object is made of (redis-py or valkey-py), and its exceptions in our words."""

from __future__ import annotations

import importlib
import os
import threading
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Final

from ..exceptions import MissingExtra, StoreUnavailable
from ..limit import TimeIsUp, exhausted
from .redis_wire import Refusal
from .tls import advice, is_about

_BY_IAM: Final = (
    " With IAM, check that the user signs in by IAM, and is in the cache's user group; that iam_cache, serverless and region "
    "are the cache's own; that this role is allowed elasticache:Connect; and this machine's clock."
)


# Held while the driver is imported, and while the process forks.
_loading: Final = threading.RLock()
os.register_at_fork(
    before=_loading.acquire,
    after_in_parent=_loading.release,
    after_in_child=_loading._at_fork_reinit,  # type: ignore[attr-defined]  # as the standard library's own modules do
)


def loaded(name: str) -> ModuleType:
    """The module of that name: one after the other. The drivers' modules import each other in circles, so that of two threads
    that import them at once, as the first two requests of a process do, one gets half a module, and the driver is of no use
    to that process any more.
    """
    with _loading:
        return importlib.import_module(name, __package__)


class Refused(Exception):
    """The server answered with an error that says something."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.value)
        self.refusal = refusal


class Redirected(Exception):
    """The node answered that another one serves the slot: for good, or (`asking`) for this one command."""

    def __init__(self, host: str, port: int, asking: bool) -> None:
        super().__init__(f"served by {host}:{port}")
        self.host, self.port, self.asking = host, port, asking


class Driver:
    """What differs between redis-py and valkey-py. `tls`: whether it was asked to speak TLS."""

    def __init__(self, root: str, *, tls: bool = False) -> None:
        try:
            self.errors: ModuleType = loaded(f"{root}.exceptions")
        except ImportError as error:
            raise MissingExtra(
                f"sessions in Valkey or Redis need the package {root!r}: "
                f"pip install 'elasticache-sessions[{root}]'"
            ) from error
        redis = root == "redis"
        self.root, self._tls = root, tls
        self.base: type[Exception] = self.errors.RedisError if redis else self.errors.ValkeyError
        # No child of the base. It may hide the failure for which the cluster's slots were asked for anew.
        self.lost: type[Exception] = (
            self.errors.RedisClusterException if redis else self.errors.ValkeyClusterException
        )
        # valkey-py wants a command's name there, redis-py warns of one.
        self.pool_args: tuple[str, ...] = () if redis else ("",)
        self.failures = (self.base, self.lost, OSError, ValueError)
        """What it raises; the last one for a MOVED, say, that does not name an address."""
        self._sent, self._unsent = _Translated(self, sent=True), _Translated(self, sent=False)

    def translated(self, *, sent: bool = True) -> AbstractContextManager[None]:
        """Driver exceptions never leave the block. `sent`: whether the command may have reached the server."""
        return self._sent if sent else self._unsent

    def said(self, error: Exception) -> Refusal | Redirected:
        """What an error that the server answered with says, where it is an answer. Raises it, in our words, where it is none."""
        said = self.in_our_words(error, sent=True)
        if isinstance(said, Refused):
            return said.refusal
        if isinstance(said, Redirected):
            return said
        raise said from error

    def in_our_words(self, error: Exception, sent: bool) -> Exception:
        """`error` as `StoreUnavailable`, `Refused` or `Redirected`. `sent`: as for `translated`."""
        if _ECHO in str(error):  # of the command: what a session holds, perhaps
            error.args = (str(error).partition(_ECHO)[0],)
        if isinstance(error, self.lost):
            reason = error.__context__ or error.__cause__
            error = reason if isinstance(reason, self.base) else error
        if isinstance(error.__cause__, StoreUnavailable):
            return error.__cause__  # said by our own code, called by the driver: there is no token
        errors, kind = self.errors, type(error).__name__
        if isinstance(error, errors.AskError):  # MOVED is a child of it
            return Redirected(error.host, error.port, not isinstance(error, errors.MovedError))
        if isinstance(error, errors.NoScriptError):
            return Refused(Refusal.NO_SCRIPT)
        if "WRONGTYPE" in str(error):
            return Refused(Refusal.WRONG_TYPE)
        if isinstance(error, errors.MaxConnectionsError) or str(error) in _NONE_FREE:
            return exhausted()
        denied = errors.AuthenticationError | errors.AuthorizationError | errors.NoPermissionError
        # An error that the server answered with: the command was not carried out.
        answered = isinstance(error, denied | errors.ResponseError | errors.BusyLoadingError)
        if isinstance(error, denied):
            by_iam = _BY_IAM if isinstance(error, errors.AuthenticationError) else ""
            return StoreUnavailable(
                f"the store refused the user or the command ({kind}: {error}). Check the URL's user and ACL.{by_iam}",
                sent=False,
            )
        if isinstance(error, errors.OutOfMemoryError):
            return StoreUnavailable(
                f"the store is out of memory and refused the write ({error}). Give it more memory, or set its parameter "
                "maxmemory-policy to volatile-lru, so that it makes room by dropping sessions that were not used for long.",
                sent=False,
            )
        passing = (
            errors.ConnectionError
            | errors.ReadOnlyError
            | errors.ClusterDownError
            | errors.TryAgainError
            | errors.MasterDownError
        )
        # Asking again after a timeout would take longer than the operation may.
        retry = isinstance(error, passing) and not isinstance(error, errors.TimeoutError)
        said = "refused the command" if answered and not retry else "did not answer"
        # A connection that broke in the middle says nothing of the node: the next one does.
        says_nothing = (sent and retry) or is_about(error, TimeIsUp)
        silent = False if answered else None if says_nothing else True
        check = "" if answered else advice(error, tls=self._tls, connecting=not sent)
        return StoreUnavailable(
            f"the store {said} ({kind}: {error}).{check}",
            retry=retry,
            sent=sent and not answered,
            silent=silent,
        )


class _Translated(AbstractContextManager[None]):
    """A class, and one object for all, as each command has two of these."""

    def __init__(self, driver: Driver, *, sent: bool) -> None:
        self._driver, self._is_sent = driver, sent

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, self._driver.failures):
            raise self._driver.in_our_words(error, self._is_sent) from error


_ECHO: Final = ", with args beginning with"
# What pools say that hand out no more; to valkey-py it is a ConnectionError like any other.
_NONE_FREE: Final = ("No connection available.", "Too many connections")
