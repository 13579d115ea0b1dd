"""The pages of unlocking by mail, and the files of all our pages, to be included in the URLs of a site."""

from django.urls import path

from axes_async.unlock import views

app_name = "axes_async"

urlpatterns = [
    path("unlock/", views.ask, name="unlock"),
    path("unlock/<str:token>/", views.confirm, name="unlock-confirm"),
    path("assets/<str:name>", views.asset, name="asset"),
]
