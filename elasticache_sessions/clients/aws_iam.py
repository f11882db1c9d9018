"""Tokens that take us for an IAM user of the cache.

A token is signed for each connection, and kept for none: it ends after 15 minutes, or earlier, with the credentials that
signed it.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future
from typing import Final
from urllib.parse import urlencode

from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials

from ..endpoint import Iam
from ..exceptions import StoreUnavailable
from ..limit import running
from .aws_credentials import FAILURE_HOLDS, AwsCredentials, answered

_SECONDS: Final = 900
# Of what CONNECT_TIMEOUT leaves: this wait is to end before it is over, and say what it was for.
_SHARE: Final = 0.8


class Signer:
    """Signs in one IAM user, as part of making a connection: within what CONNECT_TIMEOUT leaves."""

    def __init__(self, iam: Iam, region: str, credentials: AwsCredentials) -> None:
        self._iam, self._region, self._credentials = iam, region, credentials
        self._slow_until = 0.0

    def sign(self) -> tuple[str, str]:
        """The user, and a token as his password.

        Raises:
            StoreUnavailable: there are no AWS credentials, they have expired, or they did not come in time.
        """
        credentials = self._credentials.held()
        if credentials is None:
            coming = self._coming()
            try:
                result = coming.result(running().need() * _SHARE)
            except TimeoutError:
                raise self._too_slow() from None
            credentials = answered(result)
        return self._signed(credentials)

    async def sign_async(self) -> tuple[str, str]:
        """`sign`, for asyncio."""
        credentials = self._credentials.held()
        if credentials is None:
            coming = asyncio.wrap_future(self._coming())
            try:
                async with asyncio.timeout(running().need() * _SHARE):
                    result = await coming
            except TimeoutError:
                raise self._too_slow() from None
            credentials = answered(result)
        return self._signed(credentials)

    def _coming(self) -> Future[ReadOnlyCredentials | str]:
        """What is being fetched. Where somebody has just waited for it in vain, nobody else does for a moment."""
        coming = self._credentials.fetching()
        if time.monotonic() < self._slow_until and not coming.done():
            raise _too_slow()
        return coming

    def _too_slow(self) -> StoreUnavailable:
        self._slow_until = time.monotonic() + FAILURE_HOLDS
        return _too_slow()

    def _signed(self, credentials: ReadOnlyCredentials) -> tuple[str, str]:
        query = {"Action": "connect", "User": self._iam.user}
        if self._iam.serverless:
            query["ResourceType"] = "ServerlessCache"
        request = AWSRequest("GET", f"https://{self._iam.cache}/?{urlencode(query)}")
        SigV4QueryAuth(credentials, "elasticache", self._region, expires=_SECONDS).add_auth(request)
        return self._iam.user, request.url.removeprefix("https://")


def _too_slow() -> StoreUnavailable:
    return StoreUnavailable(
        "AWS credentials did not come within CONNECT_TIMEOUT. They are still being fetched. Check the metadata service, or "
        "where else they come from.",
        sent=False,
        silent=None,
    )
