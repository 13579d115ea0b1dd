"""The URLs of the test site."""

from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from tests import site

urlpatterns = [
    path("admin/", admin.site.urls),
    path("home/", site.home),
    path("login/", LoginView.as_view(template_name="admin/login.html")),
    path("logout/", LogoutView.as_view(next_page="/home/")),
    path("sign-in/", site.sign_in),
    path("nobody/", site.nobody),
    path("async-sign-in/", site.async_sign_in),
    path("check-only/", site.check_only),
]
