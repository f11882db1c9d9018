"""What a WSGI server runs: `gunicorn example_django_project.wsgi:application`."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_django_project.settings")
application = get_wsgi_application()
