"""`runserver`, which makes the database first, so that there is nothing to prepare in a fresh checkout."""

from typing import Any

from django.contrib.staticfiles.management.commands import runserver
from django.core.management import call_command


class Command(runserver.Command):
    def inner_run(self, *args: Any, **options: Any) -> None:
        call_command("migrate", verbosity=0)
        super().inner_run(*args, **options)
