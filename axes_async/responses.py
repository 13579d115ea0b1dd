"""What a client that was turned away is told."""

from __future__ import annotations

from math import ceil

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.utils.translation import gettext as _

from axes_async.clock import now_ms
from axes_async.conf import get_settings
from axes_async.state import AxesState, state_of


def lockout_response(
    request: HttpRequest, state: AxesState | None = None, response: HttpResponseBase | None = None
) -> HttpResponse:
    """Return the response to an attempt that was denied, or that set the lockout.

    ``AXES_HTTP_RESPONSE_CODE`` (429 by default) for a lockout, 429 for a busy client, 503 where the store could not be
    asked. ``Retry-After`` holds the seconds that remain (RFC 9110, 10.2.3), and is missing where only a reset helps.
    Never stored by a cache (RFC 6585, 4). JSON where the client prefers it, or where ``response``, the view's own,
    is JSON; else plain text. The message is the object's ``detail``, as in problem details (RFC 9457) and in
    what Django REST framework and django-ninja tell of errors.
    """
    state = state or state_of(request)
    if state.locked_out:
        status, wait = get_settings().http_response_code, _remaining(state.locked_until)
        message = (
            _("Too many failed login attempts. This lockout lasts until an administrator lifts it.")
            if wait is None
            else _("Too many failed login attempts. Please try again later.")
        )
    else:
        status, wait = (503, 1) if state.unavailable else (429, 1)
        message = _("Too many login attempts at once. Please try again in a moment.")
    answer: HttpResponse
    if wants_json(request) or is_json(response):
        body = {"detail": message, "failure_limit": state.failure_limit or None, "username": state.username}
        answer = JsonResponse({**body, "retry_after": wait}, status=status)
    else:
        answer = HttpResponse(message, status=status, content_type="text/plain; charset=utf-8")
    if wait is not None:
        answer["Retry-After"] = str(wait)
    answer["Cache-Control"] = "no-store"
    return answer


def wants_json(request: HttpRequest) -> bool:
    """Return whether JSON is the better answer: by ``Accept``, or by what was sent where any type is accepted."""
    if "HTTP_ACCEPT" in request.META and request.META["HTTP_ACCEPT"].strip() != "*/*":
        try:
            return request.get_preferred_type(["text/html", "text/plain", "application/json"]) == "application/json"
        except ValueError:  # Django 6 does not read headers beyond some length.
            return False
    return request.content_type == "application/json"


def is_json(response: HttpResponseBase | None) -> bool:
    """Return whether ``response`` is there and of a JSON type (RFC 6839, 3.1)."""
    kind = "" if response is None else response.get("Content-Type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _remaining(until: int) -> int | None:
    """Return the whole seconds until ``until`` (epoch milliseconds), at least one; ``None`` for a permanent lockout."""
    return None if until < 0 else max(1, ceil((until - now_ms()) / 1000))
