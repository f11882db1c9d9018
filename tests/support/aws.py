"""AWS as the tests have it: made-up credentials, a clock that stands still for those who sign, and no network."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import botocore.auth
import pytest
from botocore.credentials import Credentials
from developer_toolkit_elasticache import generate_iam_auth_token

from elasticache_sessions.clients import aws_credentials
from elasticache_sessions.endpoint import Endpoint
from elasticache_sessions.settings import Settings

NOON = datetime(2026, 3, 4, 12, 0, 0, tzinfo=UTC)
KEYS = ("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
REGION = "eu-central-1"


class Plain(Settings):
    """Settings for a server of the tests without TLS, which no URL with IAM can ask for."""

    __slots__ = ()

    @property
    def endpoint(self) -> Endpoint:
        return replace(super().endpoint, tls=False)


def isolate(patch: pytest.MonkeyPatch, tmp_path: Path, **environment: str) -> None:
    """No AWS but what `environment` says."""
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN", "AWS_ROLE_ARN"):
        patch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        patch.delenv(name, raising=False)
    patch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, value in environment.items():
        patch.setenv(name, value)
    patch.setattr(aws_credentials, "_shared", None)


def with_keys(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    isolate(patch, tmp_path, AWS_ACCESS_KEY_ID=KEYS[0], AWS_SECRET_ACCESS_KEY=KEYS[1], AWS_REGION=REGION)


def stop_clock(patch: pytest.MonkeyPatch, moment: datetime) -> None:
    """Whoever signs takes it to be `moment`, by this package and by AWS's own."""

    class Stopped(datetime):
        @classmethod
        def utcnow(cls) -> datetime:  # type: ignore[override]  # Self, which a stopped clock need not return
            return moment.replace(tzinfo=None)

    if hasattr(botocore.auth, "get_current_datetime"):
        patch.setattr(botocore.auth, "get_current_datetime", lambda: moment.replace(tzinfo=None))
    else:
        patch.setattr(botocore.auth, "datetime", SimpleNamespace(datetime=Stopped))


def token(user: str, cache: str, *, serverless: bool = False, session_token: str | None = None) -> str:
    """What AWS's own package signs."""
    return generate_iam_auth_token(
        user_id=user,
        region=REGION,
        credentials=Credentials(*KEYS, session_token),
        **{"serverless_cache_name" if serverless else "replication_group_id": cache},
    )


class Process:
    """A `credential_process`: what it says is read from a file each time, by botocore itself."""

    def __init__(self, patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        isolate(patch, tmp_path, AWS_REGION=REGION)
        self.said = tmp_path / "said"
        # One that hangs, and that nobody waits for any more, ends by itself.
        (tmp_path / "config").write_text(
            f"[default]\ncredential_process = timeout 60 cat {shlex.quote(str(self.said))}\n"
        )

    def says(self, key: str, lives: timedelta) -> None:
        """From now on, credentials with that access key, which end so long from now."""
        temporary = self.said.with_suffix(".new")
        temporary.write_text(_said(key, lives))
        temporary.replace(self.said)

    def hangs(self) -> None:
        """From now on, who asks waits for `answers`."""
        self.said.unlink(missing_ok=True)
        os.mkfifo(self.said)

    def answers(self, key: str, lives: timedelta) -> None:
        """Once somebody asks, he gets that; who asks after him waits again."""
        self.said.write_text(_said(key, lives))


def _said(key: str, lives: timedelta) -> str:
    end = (datetime.now(UTC) + lives).isoformat()
    said = {"Version": 1, "AccessKeyId": key, "SecretAccessKey": KEYS[1], "SessionToken": "t"}
    return json.dumps(said | {"Expiration": end})
