"""TLS to the store: whom it trusts, and what to check where it comes to nothing."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from ..endpoint import Endpoint
from ..endpoint_options import NAME
from ..exceptions import ConfigurationError
from .network import SlowName

# OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH.
_OTHER_NAME: Final = (62, 64)


def context(endpoint: Endpoint) -> ssl.SSLContext | None:
    """What every connection to `endpoint` is wrapped in, if in anything: it trusts the CAs in the file that the URL names,
    or the system's, and always verifies certificates and host names.

    Raises:
        ConfigurationError
    """
    return _context(endpoint.ca_file) if endpoint.tls else None


@lru_cache  # reading the system's CAs takes 30 ms
def _context(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ConfigurationError(
            f"the ca_file {ca_file!r} that {NAME}URL names cannot be read as certificates ({error}). Name a file in PEM "
            "format that holds the certificate of the CA."
        ) from error


def advice(error: BaseException, *, tls: bool, connecting: bool) -> str:
    """What to check when a connection failed by `error`, as one more sentence; empty where there is nothing more to say.

    `tls`: whether TLS was asked for; `connecting`: whether there was no connection yet.
    """
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            if cause.verify_code in _OTHER_NAME:
                return (
                    f" The certificate there is for another name: {cause.verify_message} "
                    f"Write one of its names in {NAME}URL."
                )
            return (
                f" The certificate there is not to be trusted: {cause.verify_message}. Check that it is the right server; "
                f"if a CA of your own signed it, write ca_file=/path/to/ca.pem in {NAME}URL."
            )
        if isinstance(cause, ssl.SSLError):
            return f" Check that TLS is on there; if it is not, write {NAME}URL for a store without TLS."
        if isinstance(cause, SlowName):
            return " Its name was being looked up: check this machine's DNS."
        if isinstance(cause, TimeoutError) and tls and connecting:
            return " Check the address, the security group, and that TLS is on there."
        if isinstance(cause, ConnectionResetError) and not tls:
            return f" If TLS is on there, write {NAME}URL with rediss://, or with tls=true for Memcached."
    return ""


def is_about(error: BaseException, kind: type[BaseException]) -> bool:
    """Whether one of that kind is behind `error`."""
    return any(isinstance(cause, kind) for cause in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
