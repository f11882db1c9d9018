"""Asks the AWS API where the cache is that `elasticache://` names: once in a process, in a thread, for a bounded time."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Final

import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError as NotConnected,
    CredentialRetrievalError,
    HTTPClientError,
    MetadataRetrievalError,
    NoCredentialsError,
)

from ..endpoint import Endpoint
from ..exceptions import ConfigurationError, SessionError, StoreUnavailable
from ..settings import Settings
from .aws_caches import KINDS
from .aws_credentials import FAILURE_HOLDS, NOT_FOUND, region_or_default

# How long to wait for what AWS says, in CONNECT_TIMEOUTs: up to three questions, the credentials to sign them with, and
# what was throttled asked again.
_PATIENCE: Final = 5
_ATTEMPTS: Final = 3
_INSTEAD: Final = "Or write the cache's endpoint into the URL; then nobody is asked."

_lock: Final = threading.Lock()
_known: dict[str, str] = {}
_under_way: dict[str, Future[str]] = {}
_slow_until: dict[str, float] = {}


def located(settings: Settings) -> Settings:
    """`settings` with the URL of what their `elasticache://` URL names. Raises as `aws.located`."""
    return replace(settings, url=_known.get(settings.url) or _waited_for(settings))


def _waited_for(settings: Settings) -> str:
    """One thread asks; whoever needs the same answer meanwhile waits for it, too."""
    on_a_loop = _is_on_a_loop()
    with _lock:
        coming = _under_way.get(settings.url)
        if coming is None:
            coming = Future()
            thread = threading.Thread(target=_look_up, args=(settings, coming), name="asks-aws", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # no thread to be had, or the interpreter is ending
                raise StoreUnavailable(f"AWS could not be asked: {error}. Try again.", sent=False) from error
            _under_way[settings.url] = coming
    patience = settings.connect_timeout * _PATIENCE
    if on_a_loop:
        # It stands still meanwhile: so no longer than for a connection, and after that not at all for a moment.
        patience = settings.connect_timeout if time.monotonic() > _slow_until.get(settings.url, 0.0) else 0.0
    try:
        return coming.result(patience)
    except TimeoutError:
        if on_a_loop and patience:
            _slow_until[settings.url] = time.monotonic() + FAILURE_HOLDS
        raise StoreUnavailable(
            f"AWS did not say in time where the cache {settings.endpoint.host!r} is. It is still being asked. "
            f"Check that this machine reaches the API of ElastiCache (a NAT gateway, or a VPC endpoint). {_INSTEAD}",
            sent=False,
        ) from None


def _is_on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _look_up(settings: Settings, coming: Future[str]) -> None:
    try:
        url = _url_of(settings.endpoint, settings.connect_timeout)
    except SessionError as error:
        with _lock:
            del _under_way[settings.url]
        coming.set_exception(error)
    else:
        with _lock:
            _known[settings.url] = url
            del _under_way[settings.url]
        coming.set_result(url)


def _url_of(endpoint: Endpoint, connect_timeout: float) -> str:
    endpoint = replace(endpoint, region=region_or_default(endpoint.region))
    try:
        return found(client_for(endpoint, connect_timeout), endpoint)
    except SessionError:
        raise
    except ClientError as error:
        raise _refused(error, endpoint) from error
    # botocore raises RuntimeError, too, and a proxy in between may have it raise anything.
    except Exception as error:
        raise _failed(error, endpoint) from error


def client_for(endpoint: Endpoint, connect_timeout: float) -> Any:
    """botocore's client for the API of ElastiCache; it asks again by itself where it is throttled."""
    return botocore.session.get_session().create_client(
        "elasticache",
        region_name=endpoint.region,
        config=Config(
            connect_timeout=connect_timeout,
            read_timeout=connect_timeout * _PATIENCE,
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        ),
    )


def found(client: Any, endpoint: Endpoint) -> str:
    """The URL of what `endpoint` names, as botocore's `client` finds it.

    Raises:
        ConfigurationError, StoreUnavailable, and whatever botocore raises.
    """
    for kind in KINDS:
        ask = getattr(client, kind.operation)
        try:
            caches = ask(**{kind.parameter: endpoint.host}, **kind.options)[kind.members]
        except ClientError as error:
            if _code(error) != kind.missing:
                raise
            continue
        if caches:
            return kind.url(caches[0], endpoint)
    raise ConfigurationError(
        f"ElastiCache has no replication group, serverless cache or cluster {endpoint.host!r} in {endpoint.region}. "
        "Correct the name or the region in elasticache://name?region=…, or check whose account the AWS credentials "
        "are for."
    )


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _refused(error: ClientError, endpoint: Endpoint) -> SessionError:
    code = _code(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    asked = f"AWS was asked where the cache {endpoint.host!r} is, and"
    if code in _DENIED:
        return ConfigurationError(
            f"{asked} does not allow it ({error}). Allow this role elasticache:DescribeReplicationGroups, "
            f"elasticache:DescribeServerlessCaches and elasticache:DescribeCacheClusters. {_INSTEAD}"
        )
    if code in _EXPIRED:
        return StoreUnavailable(
            f"{asked} says that the AWS credentials have expired ({code}). Set new ones, or use a role, whose credentials "
            "are renewed.",
            sent=False,
        )
    if code in _BUSY or "Throttl" in code or status == 429 or status >= 500:
        return StoreUnavailable(f"{asked} was too busy ({error}). Try again.", retry=True, sent=False)
    return ConfigurationError(
        f"{asked} refused ({error}). Check the region, and the AWS credentials. {_INSTEAD}"
    )


_DENIED: Final = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})
_EXPIRED: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
_BUSY: Final = frozenset({"RequestLimitExceeded", "TooManyRequestsException", "PriorRequestNotComplete"})


def _failed(error: Exception, endpoint: Endpoint) -> SessionError:
    if isinstance(error, NoCredentialsError):
        return StoreUnavailable(NOT_FOUND, sent=False)
    passing = NotConnected, HTTPClientError, CredentialRetrievalError, MetadataRetrievalError
    if isinstance(error, BotoCoreError) and not isinstance(error, passing):
        return ConfigurationError(
            f"AWS's configuration cannot be used ({type(error).__name__}: {error}). Correct it."
        )
    return StoreUnavailable(
        f"AWS could not be asked where the cache {endpoint.host!r} is ({type(error).__name__}: {error}). Check the region, "
        f"and that this machine reaches the API of ElastiCache (a NAT gateway, or a VPC endpoint). {_INSTEAD}",
        retry=True,
        sent=False,
    )


def _in_a_forked_child() -> None:
    _lock._at_fork_reinit()  # type: ignore[attr-defined]  # as the standard library's own modules do
    _under_way.clear()


os.register_at_fork(after_in_child=_in_a_forked_child)  # the threads stay with the parent
