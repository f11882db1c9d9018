"""Settings of the project that the tests serve by uvicorn and gunicorn. The environment alone says where sessions are."""

from __future__ import annotations

import os

from tests.django_site import settings as site

SECRET_KEY = site.SECRET_KEY
ALLOWED_HOSTS = ["*"]
USE_TZ = True
DATABASES = site.DATABASES
INSTALLED_APPS = site.INSTALLED_APPS
TEMPLATES = site.TEMPLATES
SESSION_ENGINE = site.SESSION_ENGINE
ROOT_URLCONF = "tests.django_site.served_pages"
MIDDLEWARE = [path for path in os.environ.get("SERVED_MIDDLEWARE", "").split(",") if path]
