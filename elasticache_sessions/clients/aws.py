"""The door to AWS: imports botocore only when a URL needs it, and names the extra where it is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..endpoint import Endpoint
from ..exceptions import MissingExtra
from ..settings import Settings

if TYPE_CHECKING:
    from .aws_iam import Signer


def signer(endpoint: Endpoint) -> Signer | None:
    """What signs the tokens that take us for the endpoint's IAM user; None where it has none.

    Raises:
        ConfigurationError: there is no region.
        MissingExtra
    """
    if endpoint.iam is None:
        return None
    try:
        from . import aws_credentials, aws_iam
    except ImportError as error:
        raise _missing() from error
    region = aws_credentials.region_or_default(endpoint.region)
    return aws_iam.Signer(endpoint.iam, region, aws_credentials.shared())


def located(settings: Settings) -> Settings:
    """The same settings with the URL of the cache that `elasticache://` names.

    AWS is asked once in a process and for a URL, however many ask; what failed is asked again by whoever comes next.

    Raises:
        ConfigurationError: there is no such cache, or the URL or the rights do not fit it.
        StoreUnavailable: AWS did not answer, or the cache is not there yet or any more.
        MissingExtra
    """
    try:
        from . import aws_lookup
    except ImportError as error:
        raise _missing() from error
    return aws_lookup.located(settings)


def _missing() -> MissingExtra:
    return MissingExtra(
        "IAM and elasticache:// need the package 'botocore': pip install 'elasticache-sessions[aws]'"
    )
