"""What is known of the attempts in one request: ``request.axes``.

One typed object, the same for sync and async code. It decides nothing: the login path writes it, the ways out read it.
"""

from __future__ import annotations

from asyncio import Task
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from weakref import ref

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from axes_async.client.identity import Client
from axes_async.login.attempt import Attempt, latest


@dataclass(slots=True, eq=False, weakref_slot=True)
class AxesState:
    """``request.axes``: how the login attempts of this request stand."""

    client: Client | None = None
    """The client as it was seen last."""
    attempts: list[Attempt] = field(default_factory=list)
    """The latest attempt of each thread or task, and all that are not settled yet."""
    locked_out: bool = False
    """Whether the client is locked out: the attempt met a lockout, or set one."""
    busy: bool = False
    """Whether the attempt was turned away because open reservations of the same client left no room."""
    unavailable: bool = False
    """Whether the attempt was turned away because the store could not be asked."""
    locked_until: int = 0
    """When the lockout ends, in epoch milliseconds; -1 if only a reset ends it."""
    failure_limit: int = 0
    """The limit that was reached, the lowest of several; 0 while not locked out."""
    cooloff: float | None = None
    """How long reaching it locks, in seconds; ``None`` if only a reset ends the lockout."""
    answer: HttpResponseBase | None = None
    """The lockout response, once it was made."""
    is_over: bool = False
    """Whether the request has been served."""
    joins: bool = False
    """Whether it is so only when the threads of its tasks have ended: under WSGI."""
    detached: bool = False
    """Whether there is no request at whose end a reservation could be released."""
    seen_request: ref[HttpRequest] | None = None
    """The request, which is gone when it is served: a state that is kept for longer must not keep it, and its body."""

    @property
    def request(self) -> HttpRequest | None:
        """The request, as long as it is there."""
        return None if self.seen_request is None else self.seen_request()

    @property
    def own_attempt(self) -> Attempt | None:
        """The latest attempt of this thread or task alone; of the block around it, where it has made none."""
        known = latest.get()
        return known[0] if known is not None and known[0] in self.attempts else None

    @property
    def attempt(self) -> Attempt | None:
        """The latest attempt: of this thread or task, or else of the request."""
        return self.own_attempt or (self.attempts[-1] if self.attempts else None)

    @property
    def denied(self) -> bool:
        """Whether the response is to be the lockout response."""
        return self.locked_out or self.busy or self.unavailable

    @property
    def username(self) -> str | None:
        """The name tried last, as rows keep it."""
        return self.client.username if self.client else None

    def add(self, attempt: Attempt) -> None:
        """Make ``attempt`` the latest one of this thread or task."""
        for each in [*self.attempts]:
            if each.settled or self.detached:
                self.drop(each)
        self.attempts.append(attempt)
        latest.set((attempt, 0))

    def give_up(self, task: Task[Any]) -> None:
        """Note that the task of the view is told to stop; what other tasks do is asked of these."""
        for attempt in self.attempts:  # Where no code has said what is tried, it may be anything that is stopped.
            if attempt.informed and (attempt.task is None or attempt.task is task):
                attempt.given_up = not attempt.is_checked

    def drop(self, attempt: Attempt) -> None:
        """Forget ``attempt``: it holds nothing, and nothing will settle it."""
        with suppress(ValueError):  # Another thread of the request may have been faster.
            self.attempts.remove(attempt)

    def end_block(self, attempt: Attempt | None) -> list[Attempt]:
        """Note the end of a block that shared ``attempt``; return the attempts that no block around it shares."""
        if attempt is not None:
            attempt.blocks -= 1
            if self.own_attempt is attempt:
                latest.set((attempt, attempt.blocks))
        return [each for each in {attempt, self.own_attempt} if each is not None and not each.blocks]

    def mark_locked(self, until: int, *, lasts: int = 0, limit: int = 0) -> None:
        """Note that the client is locked out.

        :param until: epoch milliseconds; -1 if only a reset ends it.
        :param lasts: how long such a lockout lasts, in milliseconds; 0 until a reset.
        """
        self.locked_out, self.locked_until, self.failure_limit = True, until, limit
        self.cooloff = lasts / 1000 if lasts and until > 0 else None
        _flag(self.request, locked_out=True)

    def clear(self) -> None:
        """Forget what the attempt before met."""
        if self.locked_out:
            _flag(self.request, locked_out=False)
        self.locked_out = self.busy = self.unavailable = False
        self.locked_until, self.failure_limit, self.cooloff = 0, 0, None


current: ContextVar[AxesState | None] = ContextVar("axes_async_state", default=None)
"""The state of the request being served, for code that authenticates without passing the request on.

A block of code outside of any request may set one of its own, at whose end its reservations are released.
"""


def state_of(request: HttpRequest | None) -> AxesState:
    """Return the state of ``request``, making one where no middleware did.

    Wrappers such as Django REST framework's share the state of the request they wrap. Without a request, the state of
    the one being served is returned, and outside of any, one that lasts as long as the surrounding context.
    """
    if request is None:
        state = current.get()
        if state is None:
            state = AxesState(detached=True)
            current.set(state)
        return state
    wrapped: Any = getattr(request, "_request", request)
    state = getattr(wrapped, "axes", None)
    if not isinstance(state, AxesState):
        wrapped.axes = state = AxesState(seen_request=ref(wrapped))
        _flag(wrapped, locked_out=False)
    return state


def served(request: HttpRequest | None) -> HttpRequest | None:
    """Return ``request``, or the one being served where code that authenticates has not passed it on."""
    if request is None and (state := current.get()) is not None:
        return state.request
    return request


def _flag(request: HttpRequest | None, *, locked_out: bool) -> None:
    """Set ``request.axes_locked_out``, where code that was written for django-axes looks; a view may set it, too."""
    if request is not None:
        request.axes_locked_out = locked_out  # type: ignore[attr-defined]
