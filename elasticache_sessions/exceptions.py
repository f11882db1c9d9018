"""What this package raises. Catch `SessionError` to catch all of it; driver exceptions never leave a client.

Wrong use (signing in nobody, or after the response is on its way) is a ValueError or RuntimeError, as anywhere.
"""

from __future__ import annotations


class SessionError(Exception):
    """The parent of every exception of this package."""


class ConfigurationError(SessionError):
    """A setting is missing, unknown or wrong, or an extra is not installed. The message says what to write
    instead.
    """


class MissingExtra(ConfigurationError, ImportError):
    """A package that an extra installs is not there. The message holds the pip line."""


class EncodeError(SessionError, TypeError):
    """A value cannot be stored as it is. Raised before anything is sent; the stored session stays as it was.

    `field` is the session's top-level field that holds the value, where it is known.
    """

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message if field is None else f"session field {field!r}: {message}")
        self.reason = message
        self.field = field


class DecodeError(SessionError, ValueError):
    """Bytes from the store are not a record of this package: corrupt, cut short, or of a newer format.

    Never reaches a view: a record that cannot be read counts as no session.
    """


class ValueTooLarge(SessionError, ValueError):
    """The session is larger than MAX_BYTES, which is found before anything is sent, or than the store takes. The
    stored session stays.
    """


class SessionEnded(SessionError):
    """The session was ended or got another id since this request read it: the change was not stored."""


class TooManySessions(SessionError):
    """The user is signed in as often as MAX_SESSIONS_PER_USER allows, and ON_LIMIT is "refuse": nobody was signed in."""


class IndexLost(SessionError):
    """The store has lost the list of a user's sessions (it evicts what it has no room for), and cannot be searched for
    them. The message says what to do.
    """


class StoreUnavailable(SessionError):
    """The network or the server failed, for now. No session was lost; the cookie is left alone.

    `retry`: whether sending the same command again may help at once. `sent`: whether the command may have
    reached the server. `silent`: whether a node was waited for in vain: it took no connection, or did not reply in
    time; None where that says nothing of the node. `retry_after`: whole seconds, for the Retry-After header of a 503.
    """

    def __init__(
        self,
        message: str,
        *,
        retry: bool = False,
        sent: bool = True,
        silent: bool | None = False,
        retry_after: int = 1,
    ) -> None:
        super().__init__(message)
        self.retry = retry
        self.sent = sent
        self.silent = silent
        self.retry_after = retry_after


class OutcomeUnknown(StoreUnavailable):
    """A change may or may not have been stored, and doing it again could do it twice.

    Raised by `apply` when the reply to its write was lost and too many other writes followed to tell.
    """
