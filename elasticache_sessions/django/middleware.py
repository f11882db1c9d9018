"""The middleware for the place of Django's own: saves natively under ASGI, and answers 503 while the store is down."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any, Final, Literal

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.conf import settings
from django.contrib.sessions import middleware
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template import TemplateDoesNotExist, loader
from django.urls import get_resolver, get_urlconf
from django.utils.cache import add_never_cache_headers, patch_vary_headers
from django.utils.http import http_date

from ..drive import drive, drive_async
from ..exceptions import IndexLost, SessionEnded, StoreUnavailable, TooManySessions
from ..outage import SORRY, is_safe, signs_in_or_out
from .asking import SessionGone
from .current import serving
from .lazy import logger
from .store import SessionStore

Step = Literal["max_age", "save"]
INTERRUPTED: Final = "Your session ended meanwhile. Please try again.\n"


class SessionMiddleware(middleware.SessionMiddleware):
    """Django's, where only these differ:

    - Under ASGI it saves on the event loop, without a thread.
    - While the store is down, a request that needs its session is answered with 503 and Retry-After (by the template
      `503.html` where there is one), and the cookie is left alone. One that does not need it never notices. With
      ELASTICACHE_SESSIONS_ON_OUTAGE = "anonymous", it goes on with an empty session instead, unless it signs in or out.
    - When a session was ended, or got a new id, while a request was using it, the response goes out, without a cookie;
      what the request changed is dropped with a line in the log. (Django's own answers 400, SessionInterrupted.) Where the
      view itself could not go on without it, the answer is 409.
    """

    def __call__(self, request: HttpRequest) -> Any:
        if iscoroutinefunction(self.get_response):
            return self.__acall__(request)
        self.process_request(request)
        _introduce(request)
        try:
            with serving(request):
                response = self.get_response(request)
        except StoreUnavailable as error:
            response = _instead_of_nothing(request, error)
        return self.process_response(request, response)

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        self.process_request(request)  # asks the store nothing
        _introduce(request)
        try:
            with serving(request):
                response = await self.get_response(request)  # type: ignore[misc]  # a coroutine function under ASGI
        except StoreUnavailable as error:
            response = _instead_of_nothing(request, error)
        session = request.session
        if not isinstance(session, SessionStore):
            finish = sync_to_async(super().process_response, thread_sensitive=True)
            return await finish(request, response)

        async def answer(step: Step) -> object:
            return await (_max_age_async(session) if step == "max_age" else _save_async(session))

        return await drive_async(_finish(request, response, session), answer)

    def process_response(self, request: HttpRequest, response: Any) -> Any:
        session = getattr(request, "session", None)
        if not isinstance(session, SessionStore):
            return super().process_response(request, response)
        return drive(
            _finish(request, response, session),
            lambda step: _max_age(session) if step == "max_age" else _save(session),
        )

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        """A view that could not have its session, or not those of a user (`user_sessions`), or that let one too many in."""
        if isinstance(exception, StoreUnavailable | IndexLost):
            return _unavailable(exception)
        if isinstance(exception, SessionEnded):
            return _interrupted(exception)
        return _refused(request, exception) if isinstance(exception, TooManySessions) else None


def _introduce(request: HttpRequest) -> None:
    """Tell the session what it may rely on: where the settings say so, it is an empty one in an outage."""
    if isinstance(request.session, SessionStore):
        request.session.tolerant = True
        request.session.comes_with(request)


def _refused(request: HttpRequest, error: TooManySessions) -> HttpResponseBase:
    """The project's answer to what is not permitted."""
    logger.warning("a sign-in was refused: %s", error)
    handler: Callable[..., HttpResponseBase] = get_resolver(get_urlconf()).resolve_error_handler(403)
    return handler(request, exception=PermissionDenied(str(error)))


def _failure_of(request: HttpRequest) -> StoreUnavailable | None:
    return getattr(request.session, "failure", None)


def _instead_of_nothing(request: HttpRequest, error: StoreUnavailable) -> HttpResponseBase:
    """The answer where Django's own page for errors needed the session as well, as it does under CSRF_USE_SESSIONS."""
    if _failure_of(request) is None:
        raise error
    return _unavailable(error)


def _finish(
    request: HttpRequest, response: HttpResponseBase, session: SessionStore
) -> Generator[Step, Any, HttpResponseBase]:
    """What becomes of the response. Yields what must be asked of the session: "max_age" of its cookie (None: until the
    browser closes), and to "save" it (whether it was, or what its user has too many of).
    """
    accessed = session.accessed
    response = yield from _settle(request, response, session)
    failed = response.status_code >= 500 or isinstance(response, Interrupted)
    if failed and (key := session.moved_to) is not None:
        # The store has ended the old key, so the browser needs the new one, though the request failed after that.
        _set_cookie(response, key, (yield "max_age"))
    session.accessed = accessed
    if accessed:
        patch_vary_headers(response, ("Cookie",))
    return response


def _settle(
    request: HttpRequest, response: HttpResponseBase, session: SessionStore
) -> Generator[Step, Any, HttpResponseBase]:
    modified, failure = session.modified, session.failure
    matters = modified or failure is not None  # whether anything hangs on what follows
    by_name = matters and _by_name(request, modified)
    decides = matters and (session.decides or by_name)
    try:
        if failure is not None and response.status_code >= 500:
            return response if isinstance(response, Unavailable) else _unavailable(failure, response)
        if failure is not None and (session.went_without or by_name):
            if decides or _lacked_its_token(request, response):
                return _unavailable(failure, response)
        elif isinstance(response, Interrupted) or _is_to_be_left_alone(session):
            pass
        elif session.is_empty():
            _delete_cookie(request, response)
        elif (modified or settings.SESSION_SAVE_EVERY_REQUEST) and response.status_code < 500:
            max_age = yield "max_age"
            if _is_to_be_left_alone(session):
                pass
            elif session.is_empty():  # the store does not know it
                _delete_cookie(request, response)
            elif isinstance(saved := (yield "save"), TooManySessions):
                return _refused(request, saved)
            elif saved:
                if session.session_key is not None:
                    _set_cookie(response, session.session_key, max_age)
                elif modified:  # it was given a lifetime that is over
                    _delete_cookie(request, response)
    except StoreUnavailable as error:
        if modified and (decides or not session.anonymous):
            return _unavailable(error, response)
        if modified:
            failure = error
        elif failure is None:
            logger.warning("a session's cookie was not refreshed: %s", error)
    if failure is not None:
        # The view, or its template, took what failed for an answer, or was given an empty session, or what it changed is
        # lost. Nobody else is to get this page, nor the user later.
        dropped = "; its changes are dropped" if modified else ""
        logger.warning("a request went on without its session: %s%s", failure, dropped)
        add_never_cache_headers(response)
    return response


def _by_name(request: HttpRequest, modified: bool) -> bool:
    route = request.resolver_match.url_name if request.resolver_match else None
    return signs_in_or_out(route, request.method, modified)


def _lacked_its_token(request: HttpRequest, response: HttpResponseBase) -> bool:
    """Whether Django's protection against forged requests refused this one, since it keeps its token in the session."""
    accepted = is_safe(request.method) or getattr(request, "csrf_processing_done", False)
    return settings.CSRF_USE_SESSIONS and response.status_code == 403 and not accepted


def _is_to_be_left_alone(session: SessionStore) -> bool:
    """Whether there is nothing to store, and the browser's cookie may be a newer one than the request brought."""
    return session.ended_elsewhere and session.is_blank


def _max_age(session: SessionStore) -> int | None:
    return None if session.get_expire_at_browser_close() else session.get_expiry_age()


async def _max_age_async(session: SessionStore) -> int | None:
    return None if await session.aget_expire_at_browser_close() else await session.aget_expiry_age()


def _save(session: SessionStore) -> bool | TooManySessions:
    try:
        session.save()
    except SessionGone as gone:
        return _dropped(session, gone)
    except TooManySessions as error:
        return error
    return True


async def _save_async(session: SessionStore) -> bool | TooManySessions:
    try:
        await session.asave()
    except SessionGone as gone:
        return _dropped(session, gone)
    except TooManySessions as error:
        return error
    return True


def _dropped(session: SessionStore, gone: SessionGone) -> bool:
    if session.modified:
        logger.warning("%s; its changes are dropped", gone)
    return False


def _set_cookie(response: HttpResponseBase, session_key: str, max_age: int | None) -> None:
    response.set_cookie(
        settings.SESSION_COOKIE_NAME,
        session_key,
        max_age=max_age,
        expires=None if max_age is None else http_date(time.time() + max_age),
        domain=settings.SESSION_COOKIE_DOMAIN,
        path=settings.SESSION_COOKIE_PATH,
        secure=settings.SESSION_COOKIE_SECURE or False,
        httponly=settings.SESSION_COOKIE_HTTPONLY or False,
        samesite=settings.SESSION_COOKIE_SAMESITE,
    )
    patch_vary_headers(response, ("Cookie",))


def _delete_cookie(request: HttpRequest, response: HttpResponseBase) -> None:
    if settings.SESSION_COOKIE_NAME not in request.COOKIES:
        return
    response.delete_cookie(
        settings.SESSION_COOKIE_NAME,
        path=settings.SESSION_COOKIE_PATH,
        domain=settings.SESSION_COOKIE_DOMAIN,
        samesite=settings.SESSION_COOKIE_SAMESITE,
    )
    patch_vary_headers(response, ("Cookie",))


class Interrupted(HttpResponse):
    """The session ended while the view was using it."""

    status_code = 409


def _interrupted(error: SessionEnded) -> Interrupted:
    """The answer to the second of two clicks on "Sign in", say: what the first brought is the session now."""
    logger.warning("a request was given up: %s", error)
    answer = Interrupted(INTERRUPTED, content_type="text/plain; charset=utf-8")
    answer.headers["Cache-Control"] = "no-store"
    return answer


class Unavailable(HttpResponse):
    """The store is down."""

    status_code = 503


def _unavailable(
    error: StoreUnavailable | IndexLost, instead_of: HttpResponseBase | None = None
) -> Unavailable:
    """The answer to a request that could not have its session, or whose session could not be stored."""
    logger.error("a request could not have its session: %s", error)
    try:
        answer = Unavailable(loader.get_template("503.html").render())
    except TemplateDoesNotExist:
        answer = Unavailable(SORRY, content_type="text/plain; charset=utf-8")
    if isinstance(error, StoreUnavailable):
        answer.headers["Retry-After"] = str(error.retry_after)
    answer.headers["Cache-Control"] = "no-store"
    if instead_of is not None:
        # What was to be closed with the response that nobody gets (a file, say) is closed with this one.
        answer._resource_closers.extend(instead_of._resource_closers)  # type: ignore[attr-defined]
    return answer
