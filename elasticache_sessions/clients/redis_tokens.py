"""Signs redis-py's connections in with the tokens of an IAM user."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..endpoint import Endpoint
from ..exceptions import StoreUnavailable
from . import aws
from .redis_driver import Driver

if TYPE_CHECKING:
    from .aws_iam import Signer


def tokens(endpoint: Endpoint, driver: Driver) -> Tokens | None:
    """None where the URL names no IAM user. Raises as `aws.signer`."""
    signer = aws.signer(endpoint)
    return None if signer is None else Tokens(signer, driver)


class Tokens:
    """What redis-py calls a credential provider: it is asked for each connection."""

    def __init__(self, signer: Signer, driver: Driver) -> None:
        self._signer, self._no_token = signer, driver.errors.AuthenticationError

    def get_credentials(self) -> tuple[str, str]:
        try:
            return self._signer.sign()
        except StoreUnavailable as error:  # in the driver's words, so that it closes the connection
            raise self._no_token(str(error)) from error

    async def get_credentials_async(self) -> tuple[str, str]:
        try:
            return await self._signer.sign_async()
        except StoreUnavailable as error:
            raise self._no_token(str(error)) from error
