"""A Django project for the tests: its settings; the pages are made by the tests."""
