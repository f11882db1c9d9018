"""Where the pages are: the addresses are those of example_flask_app."""

from django.urls import path

from example_flask_app.house import PASSWORD

from . import views

app_name = "shop"
urlpatterns = [
    path("", views.home, name="home"),
    path("cart", views.show_cart, name="show_cart"),
    path("cart/<slug:slug>/add", views.add, name="add"),
    path("cart/<slug:slug>", views.change, name="change"),
    path("order", views.order, name="order"),
    path("sign-in", views.SignIn.as_view(extra_context={"password": PASSWORD}), name="sign_in"),
    path("sign-out", views.SignOut.as_view(), name="sign_out"),
    path("devices", views.show_devices, name="show_devices"),
    path("devices/<str:handle>/end", views.end_device, name="end_device"),
    path("devices/end-others", views.end_others, name="end_others"),
    path("status.json", views.tell, name="tell"),
]
