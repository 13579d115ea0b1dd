"""The way out: what attempts of a request left open is released, and a denied one gets the lockout response."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from axes_async.conf import get_settings
from axes_async.login import reservation, state
from axes_async.login.attempt import client_behind, mark_locked_by_site
from axes_async.login.responses import alockout_response, lockout_response

Response = HttpResponseBase
GetResponse = Callable[[HttpRequest], Response | Awaitable[Response]]


class AxesMiddleware:
    """Gives each request its ``request.axes``, and answers for attempts that were turned away.

    Last in ``MIDDLEWARE``, so that it sees the view's response first and every other middleware sees the final one.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        """Follow ``get_response`` in being sync or async.

        Raises ``ImproperlyConfigured`` for a setting of a wrong type: a web server makes no system checks, and would
        start, and answer every request with 500.
        """
        get_settings()
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Response | Awaitable[Response]:
        """Serve one request."""
        if self.is_async:
            return self._serve_async(request)
        if not get_settings().enabled:
            return self.get_response(request)
        current, token = state.enter(request)
        try:
            response = cast("Response", self.get_response(request))
        finally:
            state.leave(token)
            reservation.release(current.attempts)
        return response if _stands(request, response, current) else lockout_response(request, current, response)

    async def _serve_async(self, request: HttpRequest) -> Response:
        if not get_settings().enabled:
            return await cast("Awaitable[Response]", self.get_response(request))
        current, token = state.enter(request)
        try:
            response = await cast("Awaitable[Response]", self.get_response(request))
        finally:
            state.leave(token)
            await reservation.arelease(current.attempts)
        return response if _stands(request, response, current) else await alockout_response(request, current, response)


def _stands(request: HttpRequest, response: Response, current: state.AxesState) -> bool:
    """Return whether a view's response is the last word: nothing was denied, or it is the lockout response already."""
    if not current.denied and state.is_flagged(request):  # By the view: nobody here has denied anything.
        mark_locked_by_site(current, request, client_behind(request, None))
    return not current.denied or response is current.answer
