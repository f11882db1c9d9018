"""The shop of example_flask_app as a Django project, with the admin behind the counter.

`python example_django_project/manage.py runserver` serves it alone; `make demo` serves several of it behind a load
balancer, beside those of Flask. The pages, the pictures and the rules of the cart are the ones of example_flask_app.
"""
