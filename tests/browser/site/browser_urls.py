"""The pages of the example site, and those of unlocking by mail."""

from django.urls import include, path

from example_project.urls import urlpatterns as pages

urlpatterns = [*pages, path("axes/", include("axes_async.unlock.urls"))]
