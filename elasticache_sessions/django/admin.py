"""For the project's own admin of its users: their sessions, to see and to end. Registers nothing by itself.

from django.contrib.auth.admin import UserAdmin
from elasticache_sessions.django.admin import UserSessionsMixin

@admin.register(User)
class MyUserAdmin(UserSessionsMixin, UserAdmin): ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import django
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import router, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.loader import select_template
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.timesince import timesince
from django.utils.timezone import now
from django.views.decorators.http import require_http_methods

from ..exceptions import IndexLost
from ..index import SessionInfo
from . import user_sessions

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin
    from django.contrib.auth.base_user import AbstractBaseUser
    from django.db.models import QuerySet

    _Admin = ModelAdmin[AbstractBaseUser]
else:
    # Django's admin imports this module in any project that has it; one that does not have it may look at this module, too.
    _Admin = object

ACTION: Final = "end_all_sessions"
_TEMPLATES: Final = "admin/elasticache_sessions"
_END: Final = "end:"
_LISTS_BREADCRUMBS: Final = (6, 1)


class UserSessionsMixin(_Admin):
    """A page for each user that lists what he is signed in with, and an action that ends all sessions of those selected.

    Who may view a user sees the list; who may change him may end sessions. Nothing shows what a session holds.
    """

    change_form_template = f"{_TEMPLATES}/change_form.html"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        if self.actions is not None and ACTION not in self.actions:
            self.actions = [*self.actions, ACTION]

    # The way to the page.

    def get_urls(self) -> list[Any]:
        ours: list[URLPattern] = [
            path(
                "<path:object_id>/sessions/",
                self.admin_site.admin_view(require_http_methods(["GET", "HEAD", "POST"])(self.sessions_view)),
                name=self._url_name("sessions"),
            )
        ]
        return [*ours, *super().get_urls()]

    def _url_name(self, page: str) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_{page}"

    def _url(self, page: str, *arguments: str) -> str:
        return reverse(f"{self.admin_site.name}:{self._url_name(page)}", args=arguments)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *arguments: Any, **named: Any
    ) -> HttpResponse:
        """The usual one, with a link to the sessions."""
        from django.contrib.admin.utils import quote

        label, name = self.opts.app_label, self.opts.model_name
        usual = (f"admin/{label}/{name}/change_form.html", f"admin/{label}/change_form.html")
        context["usual_change_form"] = select_template([*usual, "admin/change_form.html"])
        user = context.get("original")
        if user is not None and self.has_view_permission(request, user):
            context["sessions_url"] = self._url("sessions", quote(user.pk))
        return super().render_change_form(request, context, *arguments, **named)

    # The page.

    def sessions_view(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        """What a user is signed in with. POST ends one (`end:` and its handle), or all (`end_all`)."""
        from django.contrib.admin.utils import unquote

        user = self.get_object(request, unquote(object_id))
        if not self.has_view_permission(request, user):
            raise PermissionDenied
        if user is None:
            missing: HttpResponseBase = self._get_obj_does_not_exist_redirect(  # type: ignore[attr-defined]  # the stubs forgot it
                request, self.opts, object_id
            )
            return missing
        if request.method == "POST":
            if not self.has_change_permission(request, user):
                raise PermissionDenied
            if "end_all" in request.POST:
                self._end_all(request, [user])
            for name in request.POST:
                if name.startswith(_END):
                    self._end_one(request, user, name.removeprefix(_END))
            return HttpResponseRedirect(request.get_full_path())
        lost, sessions = None, list[SessionInfo]()
        try:
            sessions = user_sessions.for_user(user, request)
        except IndexLost as error:
            lost = error
        return self._page(
            request,
            "sessions.html",
            title=f"Sessions of {user}",
            original=user,
            lost=lost,
            sessions=[(session, _ago(session.created_at), _used(session)) for session in sessions],
            may_end=self.has_change_permission(request, user),
        )

    def _page(self, request: HttpRequest, template: str, **more: Any) -> HttpResponse:
        request.current_app = self.admin_site.name  # as the admin's own pages do
        context = self.admin_site.each_context(request) | {
            "opts": self.opts,
            "media": self.media,
            "breadcrumbs_are_a_list": django.VERSION >= _LISTS_BREADCRUMBS,
            **more,
        }
        return TemplateResponse(request, f"{_TEMPLATES}/{template}", context)

    # The action.

    def end_all_sessions(
        self, request: HttpRequest, queryset: QuerySet[AbstractBaseUser]
    ) -> HttpResponse | None:
        """Asks first."""
        from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME

        users = list(queryset)
        if not all(self.has_change_permission(request, user) for user in users):
            raise PermissionDenied
        if request.POST.get("post") == "yes":
            self._end_all(request, users)
            return None
        return self._page(
            request,
            "end_all_confirmation.html",
            title="Are you sure?",
            users=users,
            action=ACTION,
            checkbox=ACTION_CHECKBOX_NAME,
        )

    end_all_sessions.allowed_permissions = ("change",)  # type: ignore[attr-defined]  # as `admin.action` does
    end_all_sessions.short_description = "End all sessions of the selected %(verbose_name_plural)s"  # type: ignore[attr-defined]

    # What both do.

    def _end_one(self, request: HttpRequest, user: AbstractBaseUser, handle: str) -> None:
        with self._written_down(request, user, "Ended a session.") as never_mind:
            ended = user_sessions.end(user, handle, request)
            if not ended:
                never_mind()
        if ended:
            messages.success(request, f"The session of {user} was ended.")
        else:
            messages.warning(request, f"{user} has no such session any more.")

    def _end_all(self, request: HttpRequest, users: list[AbstractBaseUser]) -> None:
        ended, mine, lost = 0, request.user.pk, ""
        for user in sorted(users, key=lambda user: user.pk == mine):  # whoever does it comes last
            with self._written_down(request, user, "Ended all sessions."):
                try:
                    ended += user_sessions.end_all(user, False, request)
                except IndexLost as error:
                    lost = f"There may be more sessions of {user}. {error}"
        whose = users[0] if len(users) == 1 else f"{len(users)} {self.opts.verbose_name_plural}"
        messages.success(request, f"{ended} session{'' if ended == 1 else 's'} of {whose} ended.")
        if lost:
            messages.error(request, lost)

    @contextmanager
    def _written_down(
        self, request: HttpRequest, user: AbstractBaseUser, what: str
    ) -> Iterator[Callable[[], None]]:
        """What the block does is written down in the user's history, unless it fails, or says never mind."""
        from django.contrib.admin.models import LogEntry

        using = router.db_for_write(LogEntry)
        with transaction.atomic(using=using):
            # First: who has ended his own session is nobody any more.
            self.log_change(request, user, what)
            yield partial(transaction.set_rollback, True, using)


def _used(session: SessionInfo) -> str:
    if session.current:
        return "now"
    if session.last_seen is not None:
        return _ago(session.last_seen)
    return "" if session.last_changed is None else f"changed {_ago(session.last_changed)}"


def _ago(moment: datetime) -> str:
    return "just now" if now() - moment < timedelta(minutes=1) else f"{timesince(moment)} ago"
