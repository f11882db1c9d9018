"""A store that is down, behind Django's whole chain: an error, before or after the view; the cookie is left alone.

Our middleware answers 503, Django's own 500. What needs no session goes on.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import pytest
from django.contrib import auth, messages
from django.http import (
    FileResponse,
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseNotFound,
    HttpResponseRedirect,
    StreamingHttpResponse,
)
from django.template import engines
from django.test import AsyncClient, Client, override_settings

from elasticache_sessions.exceptions import StoreUnavailable
from tests.support.django_pages import (
    ADA,
    CHAIN,
    DJANGOS,
    GRACE,
    OURS,
    STRICT,
    Do,
    Site,
    asks_for_a_session,
    session_of,
    set_cookies,
)
from tests.support.flask_apps import log_lines
from tests.support.load import PATIENTLY
from tests.support.proxy import Command, Proxy

pytestmark = pytest.mark.usefixtures("never_left_alone")

KINDS = ("wsgi", "asgi", "asgi, sync views")
STACKS: dict[str, tuple[tuple[str, ...], dict[str, object]]] = {
    "ours": ((OURS, *CHAIN), {}),
    "ours alone": ((OURS,), {}),
    "ours, strict": ((OURS, *STRICT), {"CSRF_USE_SESSIONS": True}),
    "ours, saving every request": ((OURS, *CHAIN), {"SESSION_SAVE_EVERY_REQUEST": True}),
    "ours, debugging": ((OURS, *CHAIN), {"DEBUG": True}),
    "Django's": ((DJANGOS, *CHAIN), {}),
    "Django's, strict": ((DJANGOS, *STRICT), {"CSRF_USE_SESSIONS": True}),
    "Django's, saving every request": ((DJANGOS, *CHAIN), {"SESSION_SAVE_EVERY_REQUEST": True}),
    "Django's, debugging": ((DJANGOS, *CHAIN), {"DEBUG": True}),
}
SHORT = ("ours", "ours, strict", "Django's")


@dataclass
class Outage:
    """A site whose browser has a session; `signed_in` is another that is signed in as Ada."""

    site: Site
    proxy: Proxy
    stack: str
    caplog: pytest.LogCaptureFixture

    def __post_init__(self) -> None:
        self.site.visit(begin_and_sign_in)
        self.cookie = self.site.cookie() or ""
        self.contents = self.site.contents()
        assert self.contents["name"] == "Ada"
        self.caplog.clear()

    @property
    def ours(self) -> bool:
        return self.stack.startswith("ours")

    def refuses(self, do: Do, client: Client | AsyncClient | None = None, **how: Any) -> None:
        """A request whose view does that is answered with an error, and with nothing else."""
        try:
            response = self.site.visit(do, client, **how)
        except StoreUnavailable:
            # Django's own page for errors needs the session, too: a server answers 500 for what leaves its handler.
            assert self.stack == "Django's, strict"
        else:
            self.check_refused(response)

    def check_refused(self, response: HttpResponse) -> None:
        assert set_cookies(response) == {}
        if not self.ours:
            assert response.status_code == 500
            return
        assert response.status_code == 503
        assert int(response["Retry-After"]) >= 1
        assert response["Cache-Control"] == "no-store"
        assert b"try again" in response.content

    def check_it_still_works(self) -> None:
        """The store is back, and so is the session as it was, by the cookie from before."""
        assert self.site.cookie() == self.cookie
        self.proxy.heal()
        assert self.site.contents() == self.contents
        assert self.site.ask(lambda request: request.session["name"]) == "Ada"
        if self.stack != "ours alone":
            assert self.site.ask(lambda request: request.user.get_username()) == "ada"
        assert self.site.cookie() == self.cookie
        assert self.cookie not in self.caplog.text
        assert not any(self.cookie in str(record.__dict__) for record in self.caplog.records)


def begin_and_sign_in(request: HttpRequest) -> None:
    auth.login(request, ADA, "tests.support.django_pages.Members")
    request.session["name"] = "Ada"


@pytest.fixture
def outage(
    request: pytest.FixtureRequest, single_proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> Iterator[Outage]:
    """Parametrised by kind and stack; `go_down()` of its proxy is the outage."""
    kind, stack = request.param
    chain, settings = STACKS[stack]
    with Site(
        kind,
        single_proxy.url,
        chain,
        **PATIENTLY,
        **settings,
    ) as site:
        yield Outage(site, single_proxy, stack, caplog)


def over(*stacks: str, kinds: tuple[str, ...] = KINDS) -> pytest.MarkDecorator:
    cases = [(kind, stack) for kind in kinds for stack in stacks]
    return pytest.mark.parametrize("outage", cases, ids=[", ".join(case) for case in cases], indirect=True)


# In the view


@dataclass(frozen=True)
class Verb:
    """Something that a view does, and the same in an async view."""

    do: Do
    asynchronous: Do
    needs_chain: bool = False
    fails_late: bool = False
    """Whether the view itself does not notice."""

    def of(self, outage: Outage) -> Do:
        return self.asynchronous if outage.site.kind == "asgi" else self.do


def put_user(request: HttpRequest, user: Any = GRACE) -> None:
    auth.login(request, user, "tests.support.django_pages.Members")


async def aput_user(request: HttpRequest, user: Any = GRACE) -> None:
    await auth.alogin(request, user, "tests.support.django_pages.Members")


def clear(request: HttpRequest) -> None:
    request.session.clear()


async def aclear(request: HttpRequest) -> None:
    request.session.clear()


def modify(request: HttpRequest) -> None:
    request.session.modified = True


async def amodify(request: HttpRequest) -> None:
    request.session.modified = True


def use_message(request: HttpRequest) -> None:
    messages.success(request, "bought")


async def ause_message(request: HttpRequest) -> None:
    messages.success(request, "bought")


async def ause_user(request: HttpRequest) -> str:
    return str((await request.auser()).get_username())


async def use_user_on_the_loop(request: HttpRequest) -> str:
    return str(request.user.get_username())


READS: dict[str, Verb] = {
    "read": Verb(lambda r: r.session["name"], lambda r: r.session.aget("name")),
    "has": Verb(lambda r: "name" in r.session, lambda r: r.session.ahas_key("name")),
    "user": Verb(lambda r: r.user.get_username(), ause_user, needs_chain=True),
    "user on the loop": Verb(lambda r: r.user.get_username(), use_user_on_the_loop, needs_chain=True),
    "exists": Verb(lambda r: r.session.exists("A" * 40), lambda r: r.session.aexists("A" * 40)),
}
WRITES: dict[str, Verb] = {
    "write": Verb(lambda r: r.session.__setitem__("a", 1), lambda r: r.session.aset("a", 1)),
    "pop": Verb(lambda r: r.session.pop("name"), lambda r: r.session.apop("name")),
    "apply": Verb(lambda r: session_of(r).apply(len), lambda r: session_of(r).aapply(len)),
    "set_expiry": Verb(lambda r: r.session.set_expiry(60), lambda r: r.session.aset_expiry(60)),
    "save": Verb(lambda r: r.session.save(), lambda r: r.session.asave()),
}
# Whoever swallows their failure must not answer as if they had happened.
DECISIVE: dict[str, Verb] = {
    "clear": Verb(clear, aclear, fails_late=True),
    "modified": Verb(modify, amodify, fails_late=True),
    "cycle": Verb(lambda r: r.session.cycle_key(), lambda r: r.session.acycle_key()),
    "flush": Verb(lambda r: r.session.flush(), lambda r: r.session.aflush()),
    "delete": Verb(lambda r: r.session.delete(), lambda r: r.session.adelete()),
    "login": Verb(put_user, aput_user),
    "login again": Verb(lambda r: put_user(r, ADA), lambda r: aput_user(r, ADA)),
    "logout": Verb(auth.logout, auth.alogout),
    "message": Verb(use_message, ause_message, needs_chain=True, fails_late=True),
}
VERBS = READS | WRITES | DECISIVE


def verbs(table: dict[str, Verb]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("verb", table.values(), ids=table.keys())


@over(*SHORT)
@verbs(VERBS)
def test_a_view_that_uses_the_session_in_an_outage_is_refused(outage: Outage, verb: Verb) -> None:
    outage.proxy.go_down()
    outage.refuses(verb.of(outage))
    outage.check_it_still_works()


@over(
    "ours alone", "ours, saving every request", "ours, debugging", "Django's, strict", "Django's, debugging"
)
@verbs({name: VERBS[name] for name in ("read", "write", "flush", "login")})
def test_whatever_else_is_in_the_chain(outage: Outage, verb: Verb) -> None:
    outage.proxy.go_down()
    outage.refuses(verb.of(outage))
    outage.check_it_still_works()


@over(*SHORT)
@verbs(DECISIVE)
def test_a_view_that_swallows_the_failure_cannot_answer_as_if_it_had_happened(
    outage: Outage, verb: Verb
) -> None:
    do = verb.of(outage)

    def view(request: HttpRequest) -> HttpResponse:
        with suppress(StoreUnavailable):
            do(request)
        return HttpResponseRedirect("/goodbye")

    async def async_view(request: HttpRequest) -> HttpResponse:
        with suppress(StoreUnavailable):
            await do(request)
        return HttpResponseRedirect("/goodbye")

    outage.proxy.go_down()
    outage.refuses(async_view if outage.site.kind == "asgi" else view)
    outage.check_it_still_works()


def comes_back(outage: Outage, verb: Verb) -> tuple[Do, Do]:
    """Views, sync and not, that swallow the failure, and see the store come back, and be asked again, before the response."""

    def back() -> None:
        outage.proxy.heal()
        time.sleep(1.05)  # past Retry-After

    def view(request: HttpRequest) -> None:
        with suppress(StoreUnavailable):
            verb.do(request)
        back()

    async def async_view(request: HttpRequest) -> None:
        with suppress(StoreUnavailable):
            await verb.asynchronous(request)
        back()

    return view, async_view


@over("ours", kinds=("wsgi", "asgi"))
@verbs({name: DECISIVE[name] for name in ("cycle", "delete", "login", "logout")})
def test_nor_if_the_store_is_back_before_the_response(outage: Outage, verb: Verb) -> None:
    outage.proxy.go_down()
    outage.refuses(comes_back(outage, verb)[outage.site.kind == "asgi"])
    outage.check_it_still_works()


@over("ours", "Django's", kinds=("wsgi", "asgi"))
def test_a_flush_that_failed_is_tried_again_by_the_save(outage: Outage) -> None:
    """Either it has happened, or the answer is an error (above)."""
    outage.proxy.go_down()
    response = outage.site.visit(comes_back(outage, DECISIVE["flush"])[outage.site.kind == "asgi"])
    assert response.status_code == 200
    assert outage.site.contents(outage.cookie) == {}
    assert outage.site.cookie() != outage.cookie
    assert outage.site.ask(lambda request: request.user.is_authenticated) is False


@over("ours", "Django's")
def test_a_flush_that_the_store_was_not_even_asked_for_has_not_happened(outage: Outage) -> None:
    """The read before it failed just now, so it fails at once."""

    def view(request: HttpRequest) -> str:
        with suppress(StoreUnavailable):
            request.session.get("name")
        with suppress(StoreUnavailable):
            request.session.flush()
        return "signed out"

    async def async_view(request: HttpRequest) -> str:
        with suppress(StoreUnavailable):
            await request.session.aget("name")
        with suppress(StoreUnavailable):
            await request.session.aflush()
        return "signed out"

    outage.proxy.go_down()
    outage.check_refused(outage.site.visit(async_view if outage.site.kind == "asgi" else view))
    outage.check_it_still_works()


@over("ours", "Django's")
@verbs(READS | {name: WRITES[name] for name in ("write", "set_expiry")})
def test_a_view_may_go_on_without_the_session(outage: Outage, verb: Verb) -> None:
    do = verb.of(outage)

    def view(request: HttpRequest) -> str:
        try:
            return str(do(request))
        except StoreUnavailable:
            return "somebody"

    async def async_view(request: HttpRequest) -> str:
        try:
            return str(await do(request))
        except StoreUnavailable:
            return "somebody"

    outage.proxy.go_down()
    response = outage.site.visit(async_view if outage.site.kind == "asgi" else view)
    assert (response.status_code, response.content) == (200, b"somebody")
    assert set_cookies(response) == {}
    outage.check_it_still_works()


@over("ours", "Django's")
def test_a_page_that_went_on_without_its_session_is_kept_by_no_cache(outage: Outage) -> None:
    """A template takes any exception in `{% if user.is_authenticated and … %}` for False."""
    template = engines["django"].from_string("{% if user.is_authenticated and 1 %}in{% else %}out{% endif %}")

    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(template.render({"user": request.user}), headers={"Cache-Control": "max-age=600"})

    async def async_view(request: HttpRequest) -> HttpResponse:
        return view(request)

    do = async_view if outage.site.kind == "asgi" else view
    assert outage.site.visit(do).content == b"in"
    outage.proxy.go_down()
    response = outage.site.visit(do)
    assert (response.status_code, response.content, set_cookies(response)) == (200, b"out", {})
    assert response["Vary"] == "Cookie"
    if outage.ours:
        assert "private" in response["Cache-Control"] and "max-age=0" in response["Cache-Control"]
        assert [line for line in log_lines(outage.caplog) if "went on without its session" in line]
    outage.check_it_still_works()


@over("ours", "ours alone", "ours, debugging", "ours, saving every request", "Django's")
def test_a_view_that_does_not_touch_the_session_answers_200(outage: Outage) -> None:
    outage.proxy.go_down()
    response = outage.site.visit(async_done if outage.site.kind == "asgi" else done)
    assert (response.status_code, response.content) == (200, b"done")
    assert set_cookies(response) == {}
    lines = log_lines(outage.caplog)
    if outage.stack == "ours, saving every request":
        assert len(lines) == 1 and "was not refreshed" in lines[0]
    else:
        assert lines == []
    outage.check_it_still_works()


@over("Django's, saving every request")
def test_but_with_djangos_middleware_where_every_request_saves(outage: Outage) -> None:
    outage.proxy.go_down()
    outage.refuses(async_done if outage.site.kind == "asgi" else done)
    outage.check_it_still_works()


@over("ours", "Django's")
@pytest.mark.parametrize("verb", ["write", "login"])
def test_a_visitor_without_a_cookie(outage: Outage, verb: str) -> None:
    """What cannot be stored is refused; reading nothing needs no store."""
    client = outage.site.client()
    outage.proxy.go_down()
    outage.refuses(VERBS[verb].of(outage), client)
    assert outage.site.ask(nobody_async if outage.site.kind == "asgi" else nobody, client) == "nobody"
    assert outage.site.cookie(client) is None
    outage.check_it_still_works()


def done(request: HttpRequest) -> str:
    return "done"


async def async_done(request: HttpRequest) -> str:
    return "done"


def nobody(request: HttpRequest) -> str:
    return str(request.session.get("name", "nobody"))


async def nobody_async(request: HttpRequest) -> str:
    return str(await request.session.aget("name", "nobody"))


@over("ours", "Django's")
def test_a_head_request_is_answered_without_a_body(outage: Outage) -> None:
    outage.proxy.go_down()
    response = outage.site.visit(VERBS["read"].of(outage), method="head")
    assert (response.status_code, response.content) == (503 if outage.ours else 500, b"")
    assert set_cookies(response) == {}
    assert ("Retry-After" in response) is outage.ours


@over("ours", "ours, debugging", "Django's")
def test_a_page_that_is_not_there_is_none_in_an_outage_either(outage: Outage) -> None:
    outage.proxy.go_down()
    response = outage.site.visit(path="/nowhere")
    assert (response.status_code, set_cookies(response)) == (404, {})
    outage.check_it_still_works()


@over("ours, debugging", kinds=("wsgi", "asgi"))
def test_the_page_for_debugging_is_not_shown_for_an_outage(outage: Outage) -> None:
    def view(request: HttpRequest) -> None:
        raise RuntimeError("wrapped") from StoreUnavailable("another store")

    async def async_view(request: HttpRequest) -> None:
        try:
            await request.session.aget("name")
        except StoreUnavailable as error:
            raise RuntimeError("wrapped") from error

    if outage.site.kind == "wsgi":  # somebody else's outage is an error like any other
        assert b"RuntimeError" in outage.site.visit(view).content
        return
    outage.proxy.go_down()
    outage.refuses(async_view)


@over("ours", "ours, strict")
def test_the_projects_own_template_is_shown(outage: Outage, tmp_path: Path) -> None:
    (tmp_path / "503.html").write_text("Back in a minute. {{ request }}{{ user }}")
    templates = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [tmp_path]}]
    with override_settings(TEMPLATES=templates):
        outage.proxy.go_down()
        for do in (VERBS["read"], VERBS["clear"]):
            response = outage.site.visit(do.of(outage))
            assert (response.status_code, response.content) == (503, b"Back in a minute. ")
            assert response["Content-Type"] == "text/html; charset=utf-8"
            assert response["Retry-After"] == "1"
            assert set_cookies(response) == {}
    outage.check_it_still_works()


# After the view


def with_cookies() -> HttpResponse:
    response = HttpResponseRedirect("/thanks")
    response.set_cookie("theme", "dark")
    response.delete_cookie("sessionid")
    return response


def with_headers() -> HttpResponse:
    headers = {
        "ETag": '"1"',
        "Content-Disposition": "attachment",
        "Clear-Site-Data": '"cookies"',
        "Refresh": "0; url=/thanks",
    }
    return HttpResponse(b"paid", "application/pdf", 201, headers=headers)


class Closing(BytesIO):
    """Knows how often it was closed. All that were opened are kept, so that none is closed by the garbage collector."""

    opened: ClassVar[list[Closing]] = []

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.closings = 0
        self.opened.append(self)

    def close(self) -> None:
        self.closings += 1
        super().close()


async def parts() -> AsyncIterator[bytes]:
    yield b"par"
    yield b"ts"


ANSWERS: dict[str, Callable[[], HttpResponseBase]] = {
    "text": lambda: HttpResponse("saved"),
    "redirect with cookies": with_cookies,
    "headers": with_headers,
    "stream": lambda: StreamingHttpResponse(iter([b"sav", b"ed"])),
    "asynchronous stream": lambda: StreamingHttpResponse(parts()),
    "file": lambda: FileResponse(Closing(b"a bill"), filename="bill.pdf"),
    "not found": lambda: HttpResponseNotFound("no"),
}


@over("ours", "ours, strict", "ours, saving every request", "Django's")
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
def test_a_save_that_fails_turns_the_response_into_an_error(
    outage: Outage, answer: Callable[[], HttpResponseBase]
) -> None:
    def view(request: HttpRequest) -> HttpResponseBase:
        request.session["name"] += "!"
        outage.proxy.go_down()
        return answer()

    async def async_view(request: HttpRequest) -> HttpResponseBase:
        await request.session.aset("name", f"{await request.session.aget('name')}!")
        outage.proxy.go_down()
        return answer()

    Closing.opened.clear()
    response = outage.site.visit(async_view if outage.site.kind == "asgi" else view)
    outage.check_refused(response)
    if outage.ours:
        allowed = {"Retry-After", "Cache-Control", "Vary", "Content-Type", "Content-Length"}
        assert set(response.headers.keys()) <= allowed
        assert response["Vary"] == "Cookie"
        assert [file.closings for file in Closing.opened] == ([1] if answer is ANSWERS["file"] else [])
    outage.check_it_still_works()


@over("ours", "Django's")
def test_a_404_of_the_view_after_a_change(outage: Outage) -> None:
    """Django saves the session of a 404, too."""

    def view(request: HttpRequest) -> None:
        request.session["a"] = 1
        outage.proxy.go_down()
        raise Http404

    async def async_view(request: HttpRequest) -> None:
        await request.session.aset("a", 1)
        outage.proxy.go_down()
        raise Http404

    outage.refuses(async_view if outage.site.kind == "asgi" else view)
    outage.check_it_still_works()


@over("ours", "ours, saving every request", "Django's")
def test_a_view_that_only_read_never_notices_an_outage_after_it(outage: Outage) -> None:
    def view(request: HttpRequest) -> str:
        name = request.session["name"]
        outage.proxy.go_down()
        return str(name)

    async def async_view(request: HttpRequest) -> str:
        name = await request.session.aget("name")
        outage.proxy.go_down()
        return str(name)

    response = outage.site.visit(async_view if outage.site.kind == "asgi" else view)
    assert (response.status_code, response.content, set_cookies(response)) == (200, b"Ada", {})
    assert "Cache-Control" not in response
    outage.check_it_still_works()


# In the middle of what takes several commands


def dies_at(proxy: Proxy, nth: int) -> Callable[[], None]:
    """The server dies before it hears of the `nth` command from now. Call the result at the end."""
    left = nth

    def is_it(command: Command) -> bool:
        nonlocal left
        left -= asks_for_a_session(command)
        return left == 0

    hook = proxy.on_request(lambda exchange: proxy.go_down(), when=is_it)

    def it_happened() -> None:
        assert hook.fired == 1, f"there was no command number {nth}"

    return it_happened


@over("ours", "ours, strict", "Django's")
@pytest.mark.parametrize("nth", [1, 2])
def test_a_logout_that_did_not_reach_the_store_is_none(outage: Outage, nth: int) -> None:
    it_happened = dies_at(outage.proxy, nth)
    outage.refuses(VERBS["logout"].of(outage))
    it_happened()
    outage.check_it_still_works()


@over("ours", "ours, strict", "Django's")
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_login_that_did_not_reach_the_store_is_none(outage: Outage, nth: int) -> None:
    """The visitor's cart is as it was, and they are nobody still."""
    client = outage.site.client()
    outage.site.visit(begin_async if outage.site.kind == "asgi" else begin, client)
    cookie = outage.site.cookie(client)
    contents = outage.site.contents(cookie)
    it_happened = dies_at(outage.proxy, nth)
    outage.refuses(VERBS["login"].of(outage), client)
    it_happened()
    assert outage.site.cookie(client) == cookie
    outage.proxy.heal()
    assert outage.site.contents(cookie) == contents
    assert outage.site.ask(lambda request: request.user.is_authenticated, client) is False
    outage.check_it_still_works()


def begin(request: HttpRequest) -> None:
    request.session["cart"] = ["tea"]


async def begin_async(request: HttpRequest) -> None:
    await request.session.aset("cart", ["tea"])


@over("ours", "Django's")
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_nor_is_half_a_new_key(outage: Outage, nth: int) -> None:
    """Somebody who is signed in gets it at once."""
    it_happened = dies_at(outage.proxy, nth)
    outage.refuses(VERBS["cycle"].of(outage))
    it_happened()
    outage.check_it_still_works()


# A store that does not answer


@over("ours", "ours, strict", "Django's")
@verbs({name: VERBS[name] for name in ("read", "write", "logout", "clear")})
def test_a_store_that_hangs_is_asked_once_in_a_request(outage: Outage, verb: Verb) -> None:
    """However often the view tries, and whatever the middleware wants after it: it costs TIMEOUT once."""
    do = verb.of(outage)

    def view(request: HttpRequest) -> None:
        for attempt in (VERBS["read"].do, do, do):
            with suppress(StoreUnavailable):
                attempt(request)
        do(request)

    async def async_view(request: HttpRequest) -> None:
        for attempt in (VERBS["read"].asynchronous, do, do):
            with suppress(StoreUnavailable):
                await attempt(request)
        await do(request)

    outage.proxy.hold_replies()
    with override_settings(ELASTICACHE_SESSIONS_TIMEOUT=0.2), outage.proxy.counting() as count:
        outage.refuses(async_view if outage.site.kind == "asgi" else view)
    assert sum(map(asks_for_a_session, count.commands)) == 1
    outage.check_it_still_works()


@over("ours, saving every request")
def test_a_store_that_hangs_is_not_asked_again_to_refresh_the_cookie(outage: Outage) -> None:
    outage.proxy.hold_replies()
    with override_settings(ELASTICACHE_SESSIONS_TIMEOUT=0.2), outage.proxy.counting() as count:
        outage.refuses(VERBS["read"].of(outage))
    assert sum(map(asks_for_a_session, count.commands)) == 1
    outage.check_it_still_works()


# Every store


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
@pytest.mark.parametrize("stack", SHORT)
def test_whatever_the_store_nobody_is_signed_out(
    proxy: Proxy, kind: str, stack: str, caplog: pytest.LogCaptureFixture
) -> None:
    chain, settings = STACKS[stack]
    with Site(
        kind,
        proxy.url,
        chain,
        **PATIENTLY,
        **settings,
    ) as site:
        outage = Outage(site, proxy, stack, caplog)
        for name in ("read", "write", "logout", "login", "clear"):
            proxy.go_down()
            outage.refuses(VERBS[name].of(outage))
            proxy.heal()
            assert outage.site.contents() == outage.contents
        outage.check_it_still_works()
