"""What the options of a URL have in common: which are known, and what their values mean."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Final

from .exceptions import ConfigurationError

NAME: Final = "ELASTICACHE_SESSIONS_"
"""What the name of every setting begins with, in `app.config`, in Django's settings and in the
environment.
"""
QUOTE: Final = "A password that holds / ? # @ or : is written as urllib.parse.quote(password, safe='')."
"""Part of a password may end up anywhere in a URL that is taken apart wrongly, so an error repeats nothing of it."""


def refuse_unknown(options: Mapping[str, str], known: tuple[str, ...]) -> None:
    for name in options:
        if name not in known:
            allowed = f"allowed here: {', '.join(known)}" if known else "this kind of URL takes none"
            shown = f" {name!r}" if name.isidentifier() else ""
            raise ConfigurationError(
                f"{NAME}URL has an unknown option{shown}; {allowed}.{suggestion(name, known)} {QUOTE}"
            )


def suggestion(name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f" Did you mean {close[0]!r}?" if close else ""


def boolean(name: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    words = {
        "true": True,
        "yes": True,
        "on": True,
        "1": True,
        "false": False,
        "no": False,
        "off": False,
        "0": False,
    }
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise ConfigurationError(f"{name} is {value!r}. Write true or false.")


def ca_file(options: Mapping[str, str], tls: bool) -> str | None:
    """The file that the URL names; `tls`: whether the URL asks for TLS."""
    path = options.get("ca_file")
    if path == "":
        raise ConfigurationError(
            f"{NAME}URL has an empty ca_file. Write ca_file=/path/to/ca.pem, or nothing."
        )
    if path is not None and not tls:
        raise ConfigurationError(
            f"{NAME}URL names a ca_file, but asks for no TLS. Write rediss:// or valkeys://, or tls=true behind memcached://."
        )
    return path


def is_host(name: str) -> bool:
    try:
        name.encode("idna")
    except UnicodeError:
        return False
    return True
