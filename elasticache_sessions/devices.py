"""What a person calls the device that a User-Agent header speaks of. Pure: no I/O.

Only names: browsers say more, but versions change faster than a table, and "Chrome on Windows" is what somebody recognises.
"""

from __future__ import annotations

from typing import Final

UNKNOWN: Final = "an unknown device"
_LOOKED_AT: Final = 512
"""Characters: more does not come from a browser."""

# The first that is found counts: nearly every browser also claims to be those further down.
_PROGRAMS: Final = (
    ("Edge", ("Edg/", "EdgA/", "EdgiOS/", "Edge/")),
    ("Opera", ("OPR/", "OPT/", "OPiOS/", "Opera")),
    ("Samsung Internet", ("SamsungBrowser/",)),
    ("Vivaldi", ("Vivaldi/",)),
    ("Yandex Browser", ("YaBrowser/",)),
    ("DuckDuckGo", ("DuckDuckGo/", "Ddg/")),
    ("UC Browser", ("UCBrowser/",)),
    ("Silk", ("Silk/",)),
    ("Firefox", ("Firefox/", "FxiOS/")),
    ("Chromium", ("HeadlessChrome/", "Chromium/")),
    ("Chrome", ("Chrome/", "CriOS/")),
    ("Internet Explorer", ("MSIE ", "Trident/")),
    ("curl", ("curl/",)),
    ("Wget", ("Wget/",)),
    ("HTTPie", ("HTTPie/",)),
    ("Postman", ("PostmanRuntime/",)),
    ("a Python program", ("python-requests/", "python-httpx/", "Python-urllib/", "aiohttp/")),
    ("a Java program", ("okhttp/", "Java/", "Apache-HttpClient/")),
    ("a Go program", ("Go-http-client/",)),
    ("Safari", ("Safari/",)),
)
_SYSTEMS: Final = (
    ("iPhone", ("iPhone", "iPod")),
    ("iPad", ("iPad",)),
    ("Android", ("Android",)),
    ("Windows", ("Windows",)),
    ("ChromeOS", ("CrOS",)),
    ("Mac", ("Macintosh", "Mac OS X", "macOS")),
    ("Linux", ("Linux", "X11")),
)


def describe(user_agent: str) -> str:
    """A browser and what it runs on, as far as `user_agent` tells: "Firefox on Linux"."""
    known = user_agent[:_LOOKED_AT]
    program, system = _first(_PROGRAMS, known), _first(_SYSTEMS, known)
    if program and system:
        return f"{program} on {system}"
    return program or (f"a browser on {system}" if system else UNKNOWN)


def _first(table: tuple[tuple[str, tuple[str, ...]], ...], text: str) -> str | None:
    return next((name for name, marks in table if any(mark in text for mark in marks)), None)
