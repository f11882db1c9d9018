"""The pages of allauth, which can be imported only where it is installed."""

from __future__ import annotations

from django.urls import include, path

from tests.django_site.contrib_urls import urlpatterns as ours

urlpatterns = [*ours, path("accounts/", include("allauth.urls"))]
