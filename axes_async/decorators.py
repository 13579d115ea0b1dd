"""The way in for views of one's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, suppress
from functools import wraps
from typing import Any, TypeVar, cast

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.http import HttpRequest

from axes_async.errors import AttemptDenied
from axes_async.guard import attempt, look
from axes_async.login.responses import alockout_response, lockout_response
from axes_async.login.state import state_of

View = TypeVar("View", bound=Callable[..., Any])

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods that try no password (RFC 9110, 9.2.1)."""


def axes_dispatch(view: View) -> View:
    """Keep locked out clients from a view, sync or async; on a method that is a dispatch, use ``method_decorator``.

    A request that may change something runs the view in ``guard.attempt``: the auth signals sent in it settle what that
    holds. One that may not (``GET``) is only looked at, and is no attempt.
    """
    # The ``dispatch`` of a view whose handlers are async returns something to await, and is no coroutine function: the
    # view says so. ``method_decorator`` hands a partial of the bound method.
    bound = getattr(view, "func", view)
    if iscoroutinefunction(view) or getattr(getattr(bound, "__self__", None), "view_is_async", False):

        @wraps(view)
        async def aguarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            async with AsyncExitStack() as block:
                if request.method in SAFE_METHODS:
                    await sync_to_async(look)(request)
                else:
                    with suppress(AttemptDenied):
                        await block.enter_async_context(attempt(request, None))
                if (state := state_of(request)).denied:
                    return await alockout_response(request, state)
                return await cast("Awaitable[Any]", view(request, *args, **kwargs))

        return cast("View", aguarded)

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        with ExitStack() as block:
            if request.method in SAFE_METHODS:
                look(request)
            else:
                with suppress(AttemptDenied):
                    block.enter_context(attempt(request, None))
            state = state_of(request)
            return lockout_response(request, state) if state.denied else view(request, *args, **kwargs)

    return cast("View", guarded)


def axes_form_invalid(method: View) -> View:
    """Answer for a locked out client in place of a view's ``form_invalid``, which would show the form again."""

    @wraps(method)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        state = look(self.request)
        return lockout_response(self.request, state) if state.denied else method(self, *args, **kwargs)

    return cast("View", guarded)
