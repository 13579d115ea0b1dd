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
from axes_async.login.state import AxesState, state_of


def lockout_response(
    request: HttpRequest, state: AxesState | None = None, response: HttpResponseBase | None = None
) -> HttpResponseBase:
    """Return the response to an attempt that was denied, or that set the lockout.

    A lockout is answered by ``AXES_LOCKOUT_CALLABLE``, which is given ``response``, the one that the view has made, if
    there is one; else as JSON where the client prefers that or the view's response is JSON; else with
    ``AXES_LOCKOUT_TEMPLATE``, a redirect to ``AXES_LOCKOUT_URL``, or plain text. Its status is
    ``AXES_HTTP_RESPONSE_CODE`` (429 by default), and ``Retry-After`` holds the seconds that remain (RFC 9110, 10.2.3);
    it is missing where only a reset helps.

    A busy client gets 429, or 503 where the store could not be asked. Never stored by a cache (RFC 6585, 4).
    """
    state = state or state_of(request)
    state.answer = _locked_out(request, state, response) if state.locked_out else _turned_away(request, state, response)
    return state.answer


async def alockout_response(
    request: HttpRequest, state: AxesState, response: HttpResponseBase | None = None
) -> HttpResponseBase:
    """Do as ``lockout_response``, with what is the site's own in a thread: it may ask the database."""
    settings = get_settings()
    if state.locked_out and (settings.lockout_callable or settings.lockout_template):
        return await sync_to_async(lockout_response)(request, state, response)
    return lockout_response(request, state, response)


def lockout_message(*, permanent: bool) -> str:
    """Return what a locked out client is told, in the language of the request."""
    settings = get_settings()
    if permanent:
        own = settings.permalock_message
        return str(own or _("Too many failed login attempts. This lockout lasts until an administrator lifts it."))
    return str(settings.cooloff_message or _("Too many failed login attempts. Please try again later."))


def _locked_out(request: HttpRequest, state: AxesState, response: HttpResponseBase | None) -> HttpResponseBase:
    settings, wait = get_settings(), _remaining(state.locked_until)
    if settings.lockout_callable is not None:
        made = settings.lockout_callable(request, response, _credentials(state))
        if isinstance(made, HttpResponseBase):
            return made
        raise ImproperlyConfigured(f"AXES_LOCKOUT_CALLABLE returned {made!r}; it returns an HttpResponse.")
    context: dict[str, Any] = {
        "message": lockout_message(permanent=wait is None),
        "failure_limit": state.failure_limit or None,
        "username": state.username or "",
        "retry_after": wait,
    }
    if state.cooloff:
        length = timedelta(seconds=state.cooloff)
        context |= {"cooloff_time": iso_duration(length), "cooloff_timedelta": length}
    header = wait if settings.enable_retry_after_header else None
    status = settings.http_response_code
    if wants_json(request) or is_json(response):
        return _finished(_json(request, context, status, settings), header)
    if settings.lockout_template is not None:
        return _finished(render(request, settings.lockout_template, context, status=status), header)
    if settings.lockout_url is not None:
        parts = urlsplit(resolve_url(str(settings.lockout_url)))
        query = "&".join(filter(None, [parts.query, urlencode({"username": context["username"]})]))
        # Without Retry-After, which would ask the client to wait before it follows (RFC 9110, 10.2.3).
        return _finished(HttpResponseRedirect(parts._replace(query=query).geturl()), None)
    return _finished(_text(context["message"], status), header)


def _turned_away(request: HttpRequest, state: AxesState, response: HttpResponseBase | None) -> HttpResponse:
    status = 503 if state.unavailable else 429
    message = (
        _("Logging in is not possible at the moment. Please try again in a moment.")
        if state.unavailable
        else _("Too many login attempts at once. Please try again in a moment.")
    )
    if not (wants_json(request) or is_json(response)):
        return _finished(_text(message, status), 1)
    body = {"message": message, "failure_limit": None, "username": state.username, "retry_after": 1}
    return _finished(_json(request, body, status, get_settings()), 1)


def _text(message: str, status: int) -> HttpResponse:
    return HttpResponse(message, status=status, content_type="text/plain; charset=utf-8")


def _json(request: HttpRequest, body: dict[str, Any], status: int, settings: AxesSettings) -> HttpResponse:
    """Return ``body`` as JSON, which pages of the origins in ``AXES_ALLOWED_CORS_ORIGINS`` may read.

    The message is its ``detail``, too, as in problem details (RFC 9457), and in what Django REST framework and
    django-ninja tell of errors.
    """
    response = JsonResponse({"detail": body["message"], **body}, status=status)
    origins = settings.allowed_cors_origins
    if not origins:
        return response
    origin = "*" if "*" in origins else request.headers.get("Origin", "").lower()
    if origin != "*":
        patch_vary_headers(response, ["Origin"])
    if origin in origins:
        response["Access-Control-Allow-Origin"] = origin
        response["Access-Control-Expose-Headers"] = "Retry-After"
    return response


def _finished(response: HttpResponse, wait: int | None) -> HttpResponse:
    if wait is not None:
        response["Retry-After"] = str(wait)
    response["Cache-Control"] = "no-store"
    return response


def _credentials(state: AxesState) -> dict[str, str]:
    """Return what a site's callable is told of the credentials: the name, and never a password."""
    name = state.username
    return {} if name is None else {"username": name, get_user_model().USERNAME_FIELD: name}


def wants_json(request: HttpRequest) -> bool:
    """Return whether JSON is the better answer.

    It is for a script that says so (``X-Requested-With``), by ``Accept``, or, where any type is accepted, by what was
    sent.
    """
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


def is_json(response: HttpResponseBase | None) -> bool:
    """Return whether ``response`` is there and of a JSON type (RFC 6839, 3.1)."""
    kind = "" if response is None else response.get("Content-Type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _remaining(until: int) -> int | None:
    """Return the whole seconds until ``until`` (epoch milliseconds), at least one; ``None`` for a permanent lockout."""
    return None if until < 0 else max(1, ceil((until - now_ms()) / 1000))
