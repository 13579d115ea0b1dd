"""What a site's own code calls around a password check of its own: ``attempt``, and ``look`` where none is made.

What they stand on is in ``login``: reservations before a password is looked at, settlements afterwards.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Token
from typing import Self

from asgiref.sync import sync_to_async
from django.http import HttpRequest

from axes_async.client.exemptions import Exemption, exemption_of
from axes_async.client.identity import Client
from axes_async.conf import get_settings
from axes_async.conf.lockout_rules import Credentials
from axes_async.errors import AttemptDenied
from axes_async.login.attempt import Attempt
from axes_async.login.reservation import arelease, areserve, release, reserve
from axes_async.login.settlement import fail, succeed
from axes_async.login.state import AxesState, current, served, state_of
from axes_async.login.steps import client_and_counters, in_store, mark_locked
from axes_async.stores.results import PERMANENT
from axes_async.stores.step import Step, StepKind

__all__ = ["attempt", "look"]


def look(request: HttpRequest, credentials: Credentials = None) -> AxesState:
    """Return the state of ``request``, marked as locked out if its client is; counts and records nothing."""
    settings = get_settings()
    state = state_of(request)
    if not settings.enabled or state.denied:
        return state
    client, counters = client_and_counters(settings, request, credentials)
    held = state.attempt
    exemption = held.exemption if held is not None else exemption_of(settings, request, credentials, client)
    if exemption is Exemption.REFUSED:
        state.client = client
        state.mark_locked(PERMANENT)
    elif exemption is Exemption.NONE:
        result = in_store("Lockout not checked", Step(StepKind.PEEK, counters=counters))
        if result is None:
            state.unavailable = True
        elif result.locked_until:
            state.client = client
            mark_locked(state, counters, result)
    return state


class attempt:  # noqa: N801  (used as a context manager, which are named in lower case)
    """Protect a password check of one's own: ``with guard.attempt(request, credentials):``, or ``async with``.

    Inside the block the attempt holds a reservation. Django's ``user_login_failed`` and ``user_logged_in`` signals
    settle it. Code that sends none calls ``failed()`` or ``logged_in(username)``, or their async twins ``afailed()``
    and ``alogged_in(username)``. Whatever is left open at the end of the block, also by an exception, is released and
    counts as nothing. A block within another one shares its reservation.

    :param request: the request, or ``None``: the one being served, if there is one.
    :param credentials: what is being tried; the name under the user model's ``USERNAME_FIELD`` or ``username``.
    :raises AttemptDenied: on entering, if the client is locked out, or other attempts left no room. It is a
        ``PermissionDenied``; uncaught, ``AxesMiddleware`` answers with the lockout response.
    """

    def __init__(self, request: HttpRequest | None, credentials: Credentials) -> None:
        self.request = request
        self.credentials = credentials
        self._reserved: Attempt | None = None
        self._around: Client | None = None
        self._block: Token[AxesState | None] | None = None

    def failed(self) -> None:
        """Count a failure, unless a signal has settled the attempt already."""
        if self._reserved is None or not self._reserved.recorded:
            fail(self.request, self.credentials)

    def logged_in(self, username: object) -> None:
        """Record a login of ``username``, unless a signal has settled the attempt already."""
        if self._reserved is None or not self._reserved.recorded:
            succeed(self.request, username)

    async def afailed(self) -> None:
        """Do as ``failed``, without holding up the event loop."""
        await sync_to_async(self.failed)()

    async def alogged_in(self, username: object) -> None:
        """Do as ``logged_in``, without holding up the event loop."""
        await sync_to_async(self.logged_in)(username)

    def __enter__(self) -> Self:
        with self._entering():
            self._reserved = reserve(self.request, self.credentials, sys._getframe())
        return self

    def __exit__(self, *exc_info: object) -> None:
        release(self._ended())
        self._close_block()

    async def __aenter__(self) -> Self:
        with self._entering():
            self._reserved = await areserve(self.request, self.credentials)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: object
    ) -> None:
        """Release what is still open; leave it to its lease if the check is given up."""
        ended = self._ended()
        for each in ended:
            each.see_error(error)
        await arelease(ended)
        self._close_block()

    @contextmanager
    def _entering(self) -> Iterator[None]:
        """Without a request, let the block stand for one: at its end, a reservation can be released."""
        around = current.get()
        if served(self.request) is None and (around is None or around.detached):
            self._block = current.set(AxesState())
        held = state_of(self.request).attempt
        self._around = held.client if held is not None else None
        try:
            yield
        except BaseException:
            self._close_block()
            raise
        if self._reserved is not None and self._reserved.denied:
            self._close_block()
            raise AttemptDenied("This client may not try a password now.")
        if self._reserved is not None:
            self._reserved.share()

    def _close_block(self) -> None:
        if self._block is not None:
            current.reset(self._block)
            self._block = None

    def _ended(self) -> list[Attempt]:
        """Note the end of the block; return the attempts that it has to release."""
        reserved = self._reserved
        if reserved is not None and reserved.blocks > 1 and reserved.client != self._around:
            reserved.recorded = False  # This block's client was; that of the block around it is yet to be.
        state = state_of(self.request)
        ended = state.end_block(reserved)
        return ended if self._block is None else state.attempts
