"""A private CA of this test run, and a certificate of this machine and ENDPOINT, for servers and proxies that speak TLS."""

from __future__ import annotations

import os
import ssl
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import trustme

ENDPOINT: Final = "primary.cache.test"
"""The host name that `endpoints.Name` goes by."""
# Programs that the tests start look in, too.
_FOLDER: Final = "TESTS_CERTIFICATES"


@dataclass(frozen=True, slots=True)
class Authority:
    """One CA and what it signed. `server` and `client` are the two sides of a connection."""

    ca_file: Path
    certificate: Path
    key: Path
    server: ssl.SSLContext
    client: ssl.SSLContext


@cache
def authority() -> Authority:
    """That of this test run, made when somebody first asks."""
    if _FOLDER not in os.environ:
        os.environ[_FOLDER] = _made()
    folder = Path(os.environ[_FOLDER])
    ca_file, certificate, key = folder / "ca.pem", folder / "certificate.pem", folder / "key.pem"
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificate, key)
    return Authority(ca_file, certificate, key, server, ssl.create_default_context(cafile=ca_file))


def _made() -> str:
    ca = trustme.CA()
    certificate = ca.issue_cert("127.0.0.1", "localhost", ENDPOINT)
    folder = Path(_kept().name)
    ca.cert_pem.write_to_path(folder / "ca.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(folder / "certificate.pem", append=True)
    return str(folder)


@cache
def _kept() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="certificates-")
