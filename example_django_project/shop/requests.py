"""What the middleware in settings.py makes of a request: for type checkers, who cannot know."""

from django.contrib.auth.models import AnonymousUser, User
from django.http import HttpRequest

from elasticache_sessions.django import SessionStore


class Request(HttpRequest):
    session: SessionStore
    user: User | AnonymousUser
