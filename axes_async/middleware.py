"""The way out: what attempts of a request left open is released, and a denied one gets the lockout response."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import copy_context
from typing import Any, cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from axes_async.conf import get_settings
from axes_async.login.frames import ViewTask, current_task
from axes_async.login.renewal import LEASES
from axes_async.login.reservation import arelease, release, release_joined
from axes_async.login.responses import alockout_response, lockout_response
from axes_async.login.state import AxesState, current, state_of
from axes_async.login.steps import end_request, mark_locked_by_site
from axes_async.stores.shared import RequestEnd, request_end

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
        if not get_settings().enabled:
            return self.get_response(request)
        if self.is_async:
            return self._serve_async(request)
        state = state_of(request)
        state.joins = True
        end = RequestEnd()
        token, end_token = current.set(state), request_end.set(end)
        try:
            response = cast("Response", self.get_response(request))
        finally:
            current.reset(token)
            request_end.reset(end_token)
            state.is_over = end.is_over = True
            end_request(end)
            release_joined(state.attempts)
        _release_at_close(response, state)
        return response if _stands(request, response, state) else lockout_response(request, state, response)

    def process_exception(self, request: HttpRequest, exception: Exception) -> None:
        """Note which checks an error in the view has ended."""
        for attempt in state_of(request).attempts:
            attempt.see_error(exception)

    async def _serve_async(self, request: HttpRequest) -> Response:
        state = state_of(request)
        end = RequestEnd()
        token, end_token = current.set(state), request_end.set(end)
        try:
            response = await _unhurried(cast("Coroutine[Any, Any, Response]", self.get_response(request)), state)
        finally:
            current.reset(token)
            request_end.reset(end_token)
            state.is_over = end.is_over = True
            if end:
                await sync_to_async(end_request)(end)
            await arelease(state.attempts)
        _release_at_close(response, state)
        return response if _stands(request, response, state) else await alockout_response(request, state, response)


async def _unhurried(serving: Coroutine[Any, Any, Response], state: AxesState) -> Response:
    """Await the view, and if the client hangs up while its password is being looked at, let the view end first.

    A check goes on in its thread when nobody waits for it any more, and only the view knows how to tell of its result.
    It has the time that its reservations last.
    """
    context = copy_context()
    task = ViewTask(serving, state.give_up, context)
    try:
        response = await asyncio.shield(task)
    except asyncio.CancelledError:
        try:
            for attempt in state.attempts:
                attempt.abandon()
            if any(attempt.open for attempt in state.attempts):
                await asyncio.wait({task}, timeout=get_settings().reserve_lease * LEASES)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        raise
    # As if there were no task between a middleware and the view: what the view has set, the middleware may read.
    for variable, value in context.items():
        if variable.get(None) is not value:
            variable.set(value)
    return cast("Response", response)


def _release_at_close(response: Response, state: AxesState) -> None:
    """Have what is reserved while the response is streamed released when that ends, however it ends.

    From Django 6.1 on, the task that streams it has it closed in a thread, and is not over then.
    """
    if response.streaming:
        closer = current_task()
        response._resource_closers.append(lambda: release(state.attempts, closer=closer))  # type: ignore[attr-defined]


def _stands(request: HttpRequest, response: Response, state: AxesState) -> bool:
    """Return whether a view's response is the last word: nothing was denied, or it is the lockout response already."""
    if not state.denied and getattr(request, "axes_locked_out", False):  # By the view: nobody here denied anything.
        mark_locked_by_site(state, request)
    return not state.denied or response is state.answer
