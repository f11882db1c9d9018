"""What the list of a user's sessions calls the devices."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, strategies as st

from elasticache_sessions.devices import UNKNOWN, describe
from elasticache_sessions.index import SessionInfo

LINUX = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)"
WINDOWS = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko)"
MAC = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)"
PHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
PAD = "Mozilla/5.0 (iPad; CPU OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
ANDROID = "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko)"


@pytest.mark.parametrize(
    ("user_agent", "device"),
    [
        (f"{WINDOWS} Chrome/142.0.0.0 Safari/537.36", "Chrome on Windows"),
        (f"{LINUX} HeadlessChrome/142.0.0.0 Safari/537.36", "Chromium on Linux"),
        (f"{LINUX} Ubuntu Chromium/142.0.0.0 Chrome/142.0.0.0 Safari/537.36", "Chromium on Linux"),
        (f"{WINDOWS} Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0", "Edge on Windows"),
        (f"{MAC} Chrome/142.0.0.0 Safari/537.36 OPR/125.0.0.0", "Opera on Mac"),
        (f"{MAC} Version/26.0 Safari/605.1.15", "Safari on Mac"),
        (f"{PHONE} Version/26.0 Mobile/15E148 Safari/604.1", "Safari on iPhone"),
        (f"{PHONE} CriOS/142.0.0.0 Mobile/15E148 Safari/604.1", "Chrome on iPhone"),
        (f"{PAD} FxiOS/145.0 Mobile/15E148 Safari/605.1.15", "Firefox on iPad"),
        (f"{ANDROID} Chrome/142.0.0.0 Mobile Safari/537.36", "Chrome on Android"),
        (
            f"{ANDROID} SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36",
            "Samsung Internet on Android",
        ),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0", "Firefox on Linux"),
        (
            "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 Chrome/142.0.0.0 Safari/537.36",
            "Chrome on ChromeOS",
        ),
        (
            "Mozilla/5.0 (Windows NT 10.0; WOW64; Trident/7.0; rv:11.0) like Gecko",
            "Internet Explorer on Windows",
        ),
        ("Mozilla/5.0 (PlayStation 5) AppleWebKit/605.1.15 Version/17.4 Safari/605.1.15", "Safari"),
        ("Mozilla/5.0 (Linux; U; en-us)", "a browser on Linux"),
        ("curl/8.14.1", "curl"),
        ("python-requests/2.32.5", "a Python program"),
        ("Werkzeug/3.1.9", UNKNOWN),
        ("", UNKNOWN),
    ],
)
def test_a_device_has_the_name_that_a_person_gives_it(user_agent: str, device: str) -> None:
    assert describe(user_agent) == device
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    assert SessionInfo("h", moment, moment, None, user_agent, "::1").device == device


@given(
    st.text() | st.lists(st.sampled_from(["Edg/", "Windows", "(", "\0", "\ud800", "<b>", "é"])).map("".join)
)
def test_whatever_a_header_says_the_name_is_one_of_ours(user_agent: str) -> None:
    name = describe(user_agent)
    assert 0 < len(name) < 40
    assert name.isascii() and name.isprintable() and "<" not in name


def test_a_header_without_end_takes_no_time() -> None:
    assert describe("x" * 10_000_000 + "Firefox/1") == UNKNOWN
