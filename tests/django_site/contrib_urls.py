"""The pages that Django's own apps bring."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView, PasswordChangeView
from django.http import HttpResponse
from django.urls import URLPattern, URLResolver, path

from tests.support.django_browser import urlpatterns as ours

urlpatterns: list[URLPattern | URLResolver] = [
    *ours,
    path("admin/", admin.site.urls),
    path("sign-in", LoginView.as_view(template_name="form.html", next_page="/"), name="sign-in"),
    path("sign-out", LogoutView.as_view(next_page="/")),
    path("password", PasswordChangeView.as_view(template_name="form.html", success_url="/")),
    path("accounts/profile/", lambda request: HttpResponse("profile")),
]
