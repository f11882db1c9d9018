"""What an ASGI server runs: `uvicorn example_django_project.asgi:application`."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_django_project.settings")
application = get_asgi_application()
