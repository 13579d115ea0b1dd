"""The way in for views of one's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, TypeVar, cast

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.http import HttpRequest

from axes_async import guard
from axes_async.responses import alockout_response, lockout_response
from axes_async.state import AxesState, state_of

View = TypeVar("View", bound=Callable[..., Any])

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods that try no password (RFC 9110, 9.2.1)."""


def axes_dispatch(view: View) -> View:
    """Keep locked out clients from a view, sync or async; on a method that is a dispatch, use ``method_decorator``.

    A request that may change something holds a place while the view runs, which the auth signals sent in it settle;
    one that may not (``GET``) is only looked at, and is no attempt.
    """
    if iscoroutinefunction(view):

        @wraps(view)
        async def aguarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            state = state_of(request)
            try:  # A client that goes away while its place is reserved must not leave it behind.
                if request.method in SAFE_METHODS:
                    await sync_to_async(guard.look)(request)
                else:
                    await guard.areserve(request, None)
                if state.denied:
                    return await alockout_response(request, state)
                return await cast("Awaitable[Any]", view(request, *args, **kwargs))
            finally:
                await guard.arelease(state)

        return cast("View", aguarded)

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        state = _looked_at(request)
        if state.denied:
            return lockout_response(request, state)
        try:
            return view(request, *args, **kwargs)
        finally:
            guard.release(state)

    return cast("View", guarded)


def _looked_at(request: HttpRequest) -> AxesState:
    if request.method in SAFE_METHODS:
        return guard.look(request)
    guard.reserve(request, None)
    return state_of(request)


def axes_form_invalid(method: View) -> View:
    """Answer for a locked out client in place of a view's ``form_invalid``, which would show the form again."""

    @wraps(method)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        state = guard.look(self.request)
        return lockout_response(self.request, state) if state.denied else method(self, *args, **kwargs)

    return cast("View", guarded)
