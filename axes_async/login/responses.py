"""What a client that was turned away is told."""

from __future__ import annotations

from datetime import timedelta
from math import ceil
from typing import Any
from urllib.parse import urlencode, urlsplit

from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render, resolve_url
from django.utils.cache import patch_vary_headers
from django.utils.translation import gettext as _

from axes_async.clock import now_ms
from axes_async.conf import AxesSettings, get_settings
from axes_async.login.lockout_page import lockout_page, wants_page
from axes_async.login.state import AxesState


def lockout_response(
    request: HttpRequest, state: AxesState, response: HttpResponseBase | None = None
) -> HttpResponseBase:
    """Return the response to an attempt that was denied, or that set the lockout.

    A lockout is answered by ``AXES_LOCKOUT_CALLABLE``, which is given ``response``, the one that the view has made, if
    there is one; else as JSON where the client prefers that or the view's response is JSON; else with
    ``AXES_LOCKOUT_TEMPLATE``, a redirect to ``AXES_LOCKOUT_URL``, our own page, or plain text. Its status is
    ``AXES_HTTP_RESPONSE_CODE`` (429 by default), and ``Retry-After`` holds the seconds that remain (RFC 9110, 10.2.3);
    it is missing where only a reset helps.

    A busy client gets 429, or 503 where the store could not be asked. Never stored by a cache (RFC 6585, 4).
    """
    settings = get_settings()
    if state.locked_out and settings.lockout_callable is not None:
        made = settings.lockout_callable(request, response, _credentials(state))
        if not isinstance(made, HttpResponseBase):
            raise ImproperlyConfigured(f"AXES_LOCKOUT_CALLABLE returned {made!r}; it returns an HttpResponse.")
        state.answer = made
        return made
    wait = _remaining(state.locked_until) if state.locked_out else 1
    context: dict[str, Any] = {
        "message": _message(state, permanent=wait is None),
        "failure_limit": state.failure_limit or None,
        "username": state.username or "" if state.locked_out else state.username,
        "retry_after": wait,
    }
    if state.cooloff:
        length = timedelta(seconds=state.cooloff)
        context |= {"cooloff_time": iso_duration(length), "cooloff_timedelta": length}
    state.answer = answer = _rendered(request, settings, state, context, is_json=wants_json(request, response))
    # A redirect has no Retry-After, which would ask the client to wait before it follows (RFC 9110, 10.2.3).
    told = settings.enable_retry_after_header and not answer.has_header("Location") if state.locked_out else True
    if wait is not None and told:
        answer["Retry-After"] = str(wait)
    answer["Cache-Control"] = "no-store"
    return answer


async def alockout_response(
    request: HttpRequest, state: AxesState, response: HttpResponseBase | None = None
) -> HttpResponseBase:
    """Do as ``lockout_response``, with what is the site's own in a thread: it may ask the database."""
    settings = get_settings()
    if (state.locked_out and (settings.lockout_callable or settings.lockout_template)) or wants_page(request):
        return await sync_to_async(lockout_response)(request, state, response)
    return lockout_response(request, state, response)


def lockout_message(*, permanent: bool) -> str:
    """Return what a locked out client is told, in the language of the request."""
    settings = get_settings()
    if permanent:
        own = settings.permalock_message
        return str(own or _("Too many failed login attempts. This lockout lasts until an administrator lifts it."))
    return str(settings.cooloff_message or _("Too many failed login attempts. Please try again later."))


def _message(state: AxesState, *, permanent: bool) -> str:
    if state.locked_out:
        return lockout_message(permanent=permanent)
    if state.unavailable:
        return _("Logging in is not possible at the moment. Please try again in a moment.")
    return _("Too many login attempts at once. Please try again in a moment.")


def _rendered(
    request: HttpRequest, settings: AxesSettings, state: AxesState, context: dict[str, Any], *, is_json: bool
) -> HttpResponse:
    status = settings.http_response_code if state.locked_out else 503 if state.unavailable else 429
    if is_json:
        return _json(request, context, status, settings.allowed_cors_origins)
    if state.locked_out and settings.lockout_template is not None:
        return render(request, settings.lockout_template, context, status=status)
    if state.locked_out and settings.lockout_url is not None:
        parts = urlsplit(resolve_url(str(settings.lockout_url)))
        query = "&".join(filter(None, [parts.query, urlencode({"username": context["username"]})]))
        return HttpResponseRedirect(parts._replace(query=query).geturl())
    page = lockout_page(request, {**context, "locked_out": state.locked_out}, status) if wants_page(request) else None
    return page or HttpResponse(context["message"], status=status, content_type="text/plain; charset=utf-8")


def _json(request: HttpRequest, context: dict[str, Any], status: int, origins: tuple[str, ...]) -> HttpResponse:
    """Return ``context`` as JSON, which pages of the origins in ``AXES_ALLOWED_CORS_ORIGINS`` may read.

    The message is its ``detail``, too, as in problem details (RFC 9457), and in what Django REST framework and
    django-ninja tell of errors.
    """
    response = JsonResponse({"detail": context["message"], **context}, status=status)
    if origins:
        origin = "*" if "*" in origins else request.headers.get("Origin", "").lower()
        if origin != "*":
            patch_vary_headers(response, ["Origin"])
        if origin in origins:
            response["Access-Control-Allow-Origin"] = origin
            response["Access-Control-Expose-Headers"] = "Retry-After"
    return response


def _credentials(state: AxesState) -> dict[str, str]:
    """Return what a site's callable is told of the credentials: the name, and never a password."""
    name = state.username
    return {} if name is None else {"username": name, get_user_model().USERNAME_FIELD: name}


def wants_json(request: HttpRequest, response: HttpResponseBase | None) -> bool:
    """Return whether JSON is the better answer.

    It is where the view's response is JSON (RFC 6839, 3.1), for a script that says so (``X-Requested-With``), by
    ``Accept``, or, where any type is accepted, by what was sent.
    """
    kind = "" if response is None else response.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        return True
    if request.META.get("HTTP_X_REQUESTED_WITH") == "XMLHttpRequest":
        return True
    if "HTTP_ACCEPT" in request.META and request.META["HTTP_ACCEPT"].strip() != "*/*":
        try:
            kinds = [f"{kind.main_type}/{kind.sub_type}" for kind in request.accepted_types]
            likes = [kind for kind in kinds if kind.endswith("+json")]  # JSON:API, problem details and others.
            liked = request.get_preferred_type(["text/html", "text/plain", "application/json", *likes])
            return liked == "application/json" or liked in likes
        except ValueError:  # Django 6 does not read headers beyond some length.
            return False
    return request.content_type == "application/json"


def iso_duration(length: timedelta) -> str:
    """Return ``length`` as ISO 8601 writes it, in whole seconds: ``P1DT2H``, ``PT15M``."""
    minutes, seconds = divmod(max(1, ceil(length.total_seconds())), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    time = "".join(f"{number}{unit}" for number, unit in ((hours, "H"), (minutes, "M"), (seconds, "S")) if number)
    return f"P{f'{days}D' if days else ''}{f'T{time}' if time else ''}"


def _remaining(until: int) -> int | None:
    """Return the whole seconds until ``until`` (epoch milliseconds), at least one; ``None`` for a permanent lockout."""
    return None if until < 0 else max(1, ceil((until - now_ms()) / 1000))
