"""The login path: client, rules and store brought together, for every way in.

``reserve`` before a password is looked at; ``fail`` or ``succeed`` when it has been; ``release`` for what is left open.
Everything else in the package calls these and decides nothing of its own.
"""

from __future__ import annotations

import logging
from contextvars import Token
from types import TracebackType
from typing import Self

from asgiref.sync import sync_to_async
from django.http import HttpRequest

from axes_async.client.exemptions import Treatment, treatment_of
from axes_async.client.identity import Client
from axes_async.clock import now_ms
from axes_async.conf import get_settings
from axes_async.conf.rules import Credentials
from axes_async.errors import AttemptDenied, StoreUnavailable
from axes_async.login.attempt import client_behind, mark_locked
from axes_async.login.reservation import REFUSED, arelease, areserve, release, reserve
from axes_async.login.rules import counters_of
from axes_async.login.settlement import fail, log_out, succeed
from axes_async.login.state import Attempt, AxesState, end_block, enter_block, is_detached, leave, state_of
from axes_async.stores.factory import get_failover

__all__ = ["arelease", "areserve", "attempt", "fail", "log_out", "look", "release", "reserve", "succeed"]

log = logging.getLogger(__name__)


def look(request: HttpRequest, credentials: Credentials = None) -> AxesState:
    """Return the state of ``request``, marked as locked out if its client is; counts and records nothing."""
    settings = get_settings()
    state = state_of(request)
    if settings.enabled and not state.denied:
        client = client_behind(request, credentials)
        counters = counters_of(settings, request, credentials, client)
        held = state.attempt
        treatment = held.treatment if held is not None else treatment_of(settings, request, credentials, client)
        if treatment is Treatment.REFUSED:
            state.client = client
            mark_locked(state, (), REFUSED, request)
        if treatment is not Treatment.GUARDED:
            return state
        try:
            outcome = get_failover().peek(counters, now=now_ms())
        except StoreUnavailable as error:
            log.error("Lockout not checked, the store is unavailable (%s).", error)
            state.unavailable = True
        else:
            if outcome.locked_until:
                state.client = client
                mark_locked(state, counters, outcome, request)
    return state


class attempt:  # noqa: N801  (used as a context manager, which are named in lower case)
    """Protect a password check of one's own: ``with guard.attempt(request, credentials):``, or ``async with``.

    Inside the block the attempt holds its place. Django's ``user_login_failed`` and ``user_logged_in`` signals settle
    it; a module that sends none calls ``failed()`` or ``logged_in(username)``, or their async twins
    ``afailed()`` and ``alogged_in(username)``. Whatever is left open at the end of the
    block, also by an exception, is given back and counts as nothing. A block within another one shares its place.

    :param request: the request, or ``None``.
    :param credentials: what is being tried; the name under the user model's ``USERNAME_FIELD`` or ``username``.
    :raises AttemptDenied: on entering, if the client is locked out or no place came free. It is a
        ``PermissionDenied``; uncaught, ``AxesMiddleware`` answers with the lockout response.
    """

    def __init__(self, request: HttpRequest | None, credentials: Credentials) -> None:
        """Keep what is needed on entering."""
        self.request = request
        self.credentials = credentials
        self._reserved: Attempt | None = None
        self._around: Client | None = None
        self._block: Token[AxesState | None] | None = None

    def failed(self) -> None:
        """Count a failure, unless a signal has settled the attempt already."""
        if self._reserved is None or not self._reserved.told:
            fail(self.request, self.credentials)

    def logged_in(self, username: object) -> None:
        """Record a login of ``username``, unless a signal has settled the attempt already."""
        if self._reserved is None or not self._reserved.told:
            succeed(self.request, username)

    async def afailed(self) -> None:
        """Do as ``failed``, without holding up the event loop."""
        await sync_to_async(self.failed)()

    async def alogged_in(self, username: object) -> None:
        """Do as ``logged_in``, without holding up the event loop."""
        await sync_to_async(self.logged_in)(username)

    def __enter__(self) -> Self:
        """Reserve, or raise ``AttemptDenied``."""
        self._open_block()
        try:
            reserved = reserve(self.request, self.credentials)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self._entered(reserved)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give back what is still open."""
        if self._ended():
            release(state_of(self.request))
        self._close_block()

    async def __aenter__(self) -> Self:
        """Reserve, or raise ``AttemptDenied``."""
        self._open_block()
        try:
            reserved = await areserve(self.request, self.credentials)
        except BaseException:  # A client that went away, too: its place may have come all the same.
            await self.__aexit__(None, None, None)
            raise
        return self._entered(reserved)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give back what is still open."""
        if self._ended():
            await arelease(state_of(self.request))
        else:
            state_of(self.request).turns.back()
        self._close_block()

    def _open_block(self) -> None:
        """Without a request, have the block stand for one: at its end, a place can be given back."""
        if self.request is None and is_detached():
            _, self._block = enter_block()
        held = state_of(self.request).attempt
        self._around = held.client if held is not None else None

    def _close_block(self) -> None:
        if self._block is not None:
            leave(self._block)
            self._block = None

    def _entered(self, reserved: Attempt | None) -> Self:
        self._reserved = reserved
        if reserved is not None and reserved.denied:
            self._close_block()
            raise AttemptDenied("This client may not try a password now.")
        if reserved is not None:
            reserved.blocks += 1
        return self

    def _ended(self) -> bool:
        """Note the end of the block; return whether no block around it shares its place."""
        reserved = self._reserved
        if reserved is not None and reserved.blocks > 1 and reserved.client != self._around:
            reserved.told = False  # Of this block's client; that of the block around it has yet to be told of.
        return end_block(state_of(self.request), reserved)
