"""Django's settings. What differs from place to place comes from the environment:

ELASTICACHE_SESSIONS_URL   where the sessions are; without it in this process
DJANGO_DATABASE            the SQLite file of products and users; without it beside this file
DJANGO_DEBUG               1 while developing: manage.py sets it, wsgi.py does not
DJANGO_SECRET_KEY          the same for every instance; needed where DJANGO_DEBUG is not 1
"""

import os
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from example_flask_app.status import store_url

HERE = Path(__file__).resolve().parent

DEBUG = os.environ.get("DJANGO_DEBUG") == "1"
SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY") or ("known to everybody: for development" if DEBUG else "")
if not SECRET_KEY:
    raise ImproperlyConfigured(
        "DJANGO_SECRET_KEY is not set. Set it to a secret that all instances share, made by: "
        "python -c 'import secrets; print(secrets.token_urlsafe(50))'"
    )
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]

INSTALLED_APPS = [
    "example_django_project.shop",  # Before those whose templates and commands it extends.
    "elasticache_sessions.django",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]

MIDDLEWARE = [
    "example_django_project.shop.middleware.healthz",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "example_django_project.shop.middleware.guard",
    "elasticache_sessions.django.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "example_django_project.shop.middleware.EndedElsewhere",
]

# The sessions, and what is kept in them.
SESSION_ENGINE = "elasticache_sessions.django"
ELASTICACHE_SESSIONS_URL = store_url()
# Reading a session is use, so that "Your devices" can say when each was last active.
ELASTICACHE_SESSIONS_IDLE_TIMEOUT = 14 * 86_400
SESSION_COOKIE_NAME = "elsewhere_django"  # Cookies do not tell ports apart.
CSRF_USE_SESSIONS = True
CSRF_FAILURE_VIEW = "example_django_project.shop.views.form_refused"
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"

ROOT_URLCONF = "example_django_project.urls"
WSGI_APPLICATION = "example_django_project.wsgi.application"
LOGIN_URL = "shop:sign_in"
LOGIN_REDIRECT_URL = "shop:home"
LOGOUT_REDIRECT_URL = "shop:home"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.jinja2.Jinja2",  # The shop.
        "DIRS": [HERE.parent / "example_flask_app" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "environment": "example_django_project.shop.pages.environment",
            "context_processors": ["example_django_project.shop.pages.what_every_page_shows"],
        },
    },
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",  # The admin.
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "example_django_project.shop.pages.strip",
            ],
        },
    },
]

# Products and users. No session touches it: any number of instances may share it, and a read is all that most pages need.
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("DJANGO_DATABASE") or HERE / "db.sqlite3",
        "OPTIONS": {
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",  # Readers do not wait for a writer.
            "transaction_mode": "IMMEDIATE",
        },
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

STATIC_URL = "/static/"
STATICFILES_DIRS = [HERE.parent / "example_flask_app" / "static"]
WHITENOISE_USE_FINDERS = True  # From where they are, the admin's too: nothing to collect before a start.

LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
    "loggers": {"django": {"handlers": []}},  # Passed on to the root, also where DEBUG is off.
}
