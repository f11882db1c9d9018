"""Behind the counter: what the shop sells, and for how much; and where its people are signed in."""

from collections.abc import Sequence

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User
from django.http import HttpRequest

from elasticache_sessions.django.admin import UserSessionsMixin
from example_flask_app.catalogue import pounds

from .models import Product


@admin.register(Product)
class ProductAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # generic in the stubs only
    list_display = ("name", "kind", "price")
    search_fields = ("name", "kind", "blurb")

    @admin.display(ordering="pence")
    def price(self, product: Product) -> str:
        return pounds(product.pence)

    def get_readonly_fields(self, _request: HttpRequest, product: Product | None = None) -> tuple[str, ...]:
        return ("slug",) if product else ()

    def get_prepopulated_fields(
        self, _request: HttpRequest, product: Product | None = None
    ) -> dict[str, Sequence[str]]:
        return {} if product else {"slug": ("name",)}


admin.site.unregister(User)


@admin.register(User)
class PeopleAdmin(UserSessionsMixin, UserAdmin):  # type: ignore[type-arg]  # generic in the stubs only
    """Django's own, with each user's sessions."""
