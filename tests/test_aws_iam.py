"""IAM: the tokens, the credentials behind them, and who waits for those."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from elasticache_sessions import ConfigurationError, StoreUnavailable
from elasticache_sessions.clients import aws
from elasticache_sessions.clients.aws_credentials import AwsCredentials, region_or_default
from elasticache_sessions.clients.aws_iam import Signer
from elasticache_sessions.endpoint import Endpoint, Iam
from elasticache_sessions.limit import TimeLimit
from tests.support.aws import KEYS, NOON, REGION, Process, isolate, stop_clock, token, with_keys
from tests.support.demo import wait_until
from tests.support.load import PATIENT
from tests.support.scripts import run


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Process:
    return Process(monkeypatch, tmp_path)


def signer(credentials: AwsCredentials) -> Signer:
    return Signer(Iam("app", "shop"), REGION, credentials)


def sign(ours: Signer, within: float = PATIENT) -> tuple[str, str]:
    """As part of an operation that has so many seconds left."""
    with TimeLimit(within, 0):
        return ours.sign()


def sign_on_a_loop(ours: Signer, within: float = PATIENT) -> tuple[str, str]:
    async def run() -> tuple[str, str]:
        with TimeLimit(within, 0):
            return await ours.sign_async()

    return asyncio.run(run())


def key_of(signed: tuple[str, str]) -> str:
    return signed[1].partition("X-Amz-Credential=")[2].partition("%2F")[0]


# The token


@pytest.mark.parametrize("session_token", [None, "a/session+token="])
@pytest.mark.parametrize(
    ("options", "cache", "serverless"),
    [
        ("iam_user=app&iam_cache=shop-1", "shop-1", False),
        ("iam_user=App-2&iam_cache=Shop-1&serverless=true", "Shop-1", True),
        ("iam_user=default.app&iam_cache=SHOP", "shop", False),
    ],
)
def test_a_token_is_what_aws_itself_signs_byte_for_byte(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    options: str,
    cache: str,
    serverless: bool,
    session_token: str | None,
) -> None:
    with_keys(monkeypatch, tmp_path)
    if session_token:
        monkeypatch.setenv("AWS_SESSION_TOKEN", session_token)
    stop_clock(monkeypatch, NOON)
    endpoint = Endpoint.from_url(f"rediss://cache?{options}")
    ours = aws.signer(endpoint)
    assert ours is not None and endpoint.iam is not None
    user = endpoint.iam.user
    theirs = token(user, cache, serverless=serverless, session_token=session_token)
    assert "X-Amz-Date=20260304T120000Z" in theirs
    assert sign(ours) == (user, theirs)
    assert sign_on_a_loop(ours) == (user, theirs)
    stop_clock(monkeypatch, NOON + timedelta(seconds=1))  # none is kept
    assert sign(ours)[1] != theirs


def test_the_region_is_the_urls_or_what_aws_has_in_its_usual_places(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    isolate(monkeypatch, tmp_path)
    with pytest.raises(ConfigurationError, match=r"no AWS region is set. Add region=… .* or set AWS_REGION"):
        region_or_default(None)
    (tmp_path / "config").write_text("[default]\nregion = eu-west-1\n[profile shop]\nregion = eu-west-2\n")
    assert region_or_default(None) == "eu-west-1"
    monkeypatch.setenv("AWS_PROFILE", "shop")
    assert region_or_default(None) == "eu-west-2"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-3")
    assert region_or_default(None) == "eu-west-3"
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    assert region_or_default(None) == "eu-north-1"
    assert region_or_default(REGION) == REGION


def test_a_profile_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    isolate(monkeypatch, tmp_path, AWS_PROFILE="gone")
    with pytest.raises(ConfigurationError, match=r"gone.*could not be found"):
        region_or_default(None)
    with pytest.raises(StoreUnavailable, match=r"gone.*could not be found"):
        sign(signer(AwsCredentials()))


# The credentials behind it


def test_credentials_are_renewed_ahead_of_their_end_by_a_thread_of_their_own(process: Process) -> None:
    process.says("FIRST", timedelta(minutes=14))  # botocore renews what has less than 15 left
    credentials = AwsCredentials(look_again=0.01)
    ours = signer(credentials)
    assert key_of(sign(ours)) == "FIRST"
    process.says("SECOND", timedelta(hours=6))

    def renewed() -> bool:
        held = credentials.held()  # asks nobody
        return held is not None and held.access_key == "SECOND"

    wait_until(renewed, PATIENT, "the thread has renewed them")
    assert key_of(sign(ours)) == "SECOND"


def test_whoever_signs_does_not_wait_for_credentials_that_are_being_renewed(process: Process) -> None:
    process.says("FIRST", timedelta(minutes=14))
    credentials = AwsCredentials(look_again=0.01)
    assert key_of(sign(signer(credentials))) == "FIRST"
    process.hangs()
    ours = signer(credentials)
    with process.said.open("w"):  # somebody asks, and hangs
        for _ in range(20):
            assert key_of(sign(ours, within=0)) == "FIRST"  # who waits at all fails
            assert key_of(sign_on_a_loop(ours, within=0)) == "FIRST"


def test_a_first_connection_waits_for_credentials_only_so_long(process: Process) -> None:
    process.hangs()
    credentials = AwsCredentials()
    ours = signer(credentials)
    slow = "did not come within CONNECT_TIMEOUT"
    with pytest.raises(StoreUnavailable, match=slow) as failed:
        sign(ours, within=0.05)
    # It says nothing of the node, and the next request does not wait for the same thing.
    assert (failed.value.sent, failed.value.retry, failed.value.silent) == (False, False, None)
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match=slow):
        sign(ours, within=PATIENT)
    assert time.monotonic() - began < PATIENT / 2
    ours = signer(credentials)

    async def others_go_on() -> int:
        with TimeLimit(0.05, 0):
            turns, asking = 0, asyncio.create_task(ours.sign_async())
        while not asking.done():
            turns += 1
            await asyncio.sleep(0)
        with pytest.raises(StoreUnavailable, match=slow):
            await asking
        return turns

    assert asyncio.run(others_go_on()) > 2
    process.answers("LATE", timedelta(hours=6))
    wait_until(lambda: signs(ours), PATIENT, "the fetching that nobody waited for comes to an end")
    assert key_of(sign(ours)) == "LATE"


def signs(ours: Signer) -> bool:
    try:
        sign(ours)
    except StoreUnavailable:
        return False
    return True


def test_expired_credentials_sign_nothing_until_there_are_new_ones(process: Process) -> None:
    process.says("SHORT", timedelta(seconds=1))
    ours = signer(AwsCredentials())
    wait_until(lambda: not signs(ours), PATIENT, "they end")
    with pytest.raises(StoreUnavailable, match=r"the AWS credentials have expired.*Check the role") as failed:
        sign(ours)
    assert not failed.value.retry
    with pytest.raises(StoreUnavailable, match="have expired"):
        sign_on_a_loop(ours)
    process.says("NEW", timedelta(hours=6))
    wait_until(lambda: signs(ours), PATIENT, "there are new ones")
    assert key_of(sign(ours)) == "NEW"


def test_where_there_are_no_credentials_the_places_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    isolate(monkeypatch, tmp_path)
    ours = signer(AwsCredentials())
    with pytest.raises(StoreUnavailable, match=r"no AWS credentials: not in AWS_ACCESS_KEY_ID.*a role"):
        sign(ours)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEYS[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEYS[1])
    wait_until(lambda: signs(ours), PATIENT, "they are looked for again")


def test_what_fails_is_asked_once_for_all_who_ask_meanwhile(process: Process) -> None:
    process.hangs()
    ours = signer(AwsCredentials())
    failures: list[str] = []

    def ask() -> None:
        try:
            sign(ours)
        except StoreUnavailable as error:
            failures.append(str(error))

    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(ask) for _ in range(8)]
        process.said.write_text("no JSON")  # for one that asks; a second one would hang
        for job in jobs:
            job.result(PATIENT)
    assert len(failures) == 8
    assert all("Check where they come from" in failure for failure in failures)


def test_the_thread_ends_with_the_last_who_signs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_keys(monkeypatch, tmp_path)

    def threads() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name == "keeps-aws-credentials"}

    before = threads()
    endpoint = Endpoint.from_url("rediss://cache?iam_user=app&iam_cache=shop")
    several = [aws.signer(endpoint) for _ in range(3)]
    for ours in several:
        assert ours is not None and sign(ours)
    assert len(threads() - before) == 1
    several.clear()
    del ours

    def ended() -> bool:
        gc.collect()
        return threads() <= before

    wait_until(ended, PATIENT, "nobody needs it any more")


def test_a_forked_child_has_a_thread_of_its_own_and_no_lock_of_its_parents(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with_keys(monkeypatch, tmp_path)
    script = """
        import os, signal, threading
        from elasticache_sessions.clients import aws, aws_credentials, aws_lookup
        from elasticache_sessions.endpoint import Endpoint
        from elasticache_sessions.limit import TimeLimit
        endpoint = Endpoint.from_url("rediss://cache?iam_user=app&iam_cache=shop")
        signer = aws.signer(endpoint)
        limit = TimeLimit(20, 0)
        with limit:
            signer.sign()
        shared = aws_credentials.shared()
        shared._lock.acquire()
        aws_credentials._sharing.acquire()
        aws_lookup._lock.acquire()
        aws_lookup._under_way["elasticache://shop"] = None
        pid = os.fork()
        if pid == 0:
            signal.alarm(30)
            with limit:
                signer.sign()
            held = [thread.name for thread in threading.enumerate()]
            assert "keeps-aws-credentials" in held, held
            assert aws_credentials.shared() is shared
            assert shared.fetching().result(20).access_key
            assert aws_lookup._lock.acquire(timeout=20) and not aws_lookup._under_way
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        print("done")
    """
    assert run(script) == "done\n"
