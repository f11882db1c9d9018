from django.apps import AppConfig


class ShopConfig(AppConfig):
    name = "example_django_project.shop"
