"""No pages: a test that needs some names its own module as ROOT_URLCONF."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver

urlpatterns: list[URLPattern | URLResolver] = []
