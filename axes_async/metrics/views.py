"""A ready view for Prometheus to scrape."""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from axes_async.conf import get_settings


@require_safe
@never_cache
@transaction.non_atomic_requests  # A database that is away is told as such.
def metrics(request: HttpRequest) -> HttpResponse:
    """Return what the default registry of ``prometheus_client`` has, ours included; ``?name[]=`` asks for some of it.

    For whoever sends ``AXES_METRICS_TOKEN`` as a bearer token, and for users who may view access attempts.
    """
    settings = get_settings()
    if "prometheus" not in settings.metrics:
        raise ImproperlyConfigured('axes_async.metrics.views.metrics needs AXES_METRICS = ["prometheus"].')
    if not _may_read(request, settings.metrics_token):
        if settings.metrics_token is None:
            raise PermissionDenied
        return HttpResponse(status=401, headers={"WWW-Authenticate": "Bearer"})
    from axes_async.metrics.prometheus import exposed

    body, content_type = exposed(request.headers.get("Accept", ""), request.GET.getlist("name[]"))
    return HttpResponse(body, content_type=content_type)


def _may_read(request: HttpRequest, token: str | None) -> bool:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if token is not None and scheme.lower() == "bearer" and constant_time_compare(given.strip(), token):
        return True
    user = getattr(request, "user", None)
    return user is not None and bool(user.has_perm("axes_async.view_accessattempt"))
