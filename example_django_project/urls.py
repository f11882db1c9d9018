"""The shop, and the admin behind the counter."""

from django.contrib import admin
from django.urls import include, path

from .shop.views import page_for

admin.site.site_header = admin.site.site_title = "Elsewhere Coffee"
admin.site.index_title = "Behind the counter"

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", include("example_django_project.shop.urls")),
]

handler400 = page_for(400, "That cannot be answered.")
handler403 = page_for(403, "This door is for others.")
handler404 = page_for(404, "There is nothing here.")
handler500 = page_for(500, "Something went wrong, and has been written down.")
