"""What is known of the attempts in one request: ``request.axes``.

One typed object, the same for sync and async code. It decides nothing: the login path writes it, the ways out read it.
"""

from __future__ import annotations

from asyncio import Task
from contextlib import suppress
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from axes_async.client.exemptions import Exemption
from axes_async.client.identity import Client
from axes_async.counters.rules import Counter
from axes_async.stores.results import Verdict


@dataclass(slots=True, kw_only=True, eq=False)
class Attempt:
    """One try of a password, from before it is looked at until it is settled."""

    id: str
    """Also the id of the event that the attempt becomes."""
    client: Client
    counters: tuple[Counter, ...]
    own: tuple[Counter, ...]
    """Those of ``counters`` that the client belongs to; the others are of names that were tried before."""
    exemption: Exemption = Exemption.NONE
    """Whether the counters decide, or who the client is does."""
    informed: bool = False
    """Whether the credentials were known when that was decided."""
    verdict: Verdict | None = None
    """What the reservation was answered; ``None`` before it was asked for, or where the store could not be."""
    clearable: tuple[Counter, ...] = ()
    """Those of ``counters`` that a success may clear: named by credentials, not by whatever a form happened to hold."""
    reserved: bool = False
    """Whether reservations are held, or may be: by this verdict, or by one before the attempt was widened."""
    settled: bool = False
    """Whether it was counted, recorded or released."""
    recorded: bool = False
    """Whether it was counted or recorded."""
    blocks: int = 0
    """Blocks of code, one within the other, that share its reservations, which are released with the outermost."""
    task: Task[Any] | None = None
    """The task that tries the password now, in async code."""

    @property
    def token(self) -> str:
        """The name of the attempt's reservations: the random end of its id."""
        return self.id[-16:]

    @property
    def denied(self) -> bool:
        """Whether the password must not be looked at."""
        return self.verdict is not Verdict.ALLOWED and not self.settled

    @property
    def open(self) -> bool:
        """Whether the password may be looked at, and has not been yet."""
        return self.verdict is Verdict.ALLOWED and not self.settled

    def is_shared_with(self, task: Task[Any] | None) -> bool:
        """Return whether ``task`` may try a password on these reservations: no other task is trying one on them."""
        return self.open and (self.task is None or self.task is task or self.task.done())


_attempt: ContextVar[Attempt | None] = ContextVar("axes_async_attempt", default=None)
"""The latest attempt of this thread or task. Tasks that try passwords side by side for one request have one each."""


@dataclass(slots=True, eq=False)
class AxesState:
    """``request.axes``: how the login attempts of this request stand."""

    client: Client | None = None
    """The client as it was seen last."""
    origin: Client | None = None
    """The client of the first attempt: others of the same request come from the same address."""
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
    detached: bool = False
    """Whether there is no request at whose end a reservation could be released."""

    @property
    def attempt(self) -> Attempt | None:
        """The latest attempt: of this thread or task, or else of the request."""
        mine = _attempt.get()
        if mine is not None and mine in self.attempts:
            return mine
        return self.attempts[-1] if self.attempts else None

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
        _attempt.set(attempt)

    def drop(self, attempt: Attempt) -> None:
        """Forget ``attempt``: it holds nothing, and nothing will settle it."""
        with suppress(ValueError):  # Another thread of the request may have been faster.
            self.attempts.remove(attempt)

    def clear(self) -> None:
        """Forget what the attempt before met."""
        self.locked_out = self.busy = self.unavailable = False
        self.locked_until, self.failure_limit, self.cooloff = 0, 0, None


def own_attempt(state: AxesState) -> Attempt | None:
    """Return the latest attempt of this thread or task alone; of the block around it, where it has made none."""
    mine = _attempt.get()
    return mine if mine is not None and mine in state.attempts else None


def open_block(attempt: Attempt | None) -> None:
    """Let a block of code share ``attempt``, with whatever task in it tries a password first."""
    if attempt is not None:
        attempt.blocks, attempt.task = attempt.blocks + 1, None


def end_block(state: AxesState, attempt: Attempt | None) -> list[Attempt]:
    """Note the end of a block that shared ``attempt``; return the attempts that no block around it shares."""
    if attempt is not None:
        attempt.blocks -= 1
    return [each for each in {attempt, own_attempt(state)} if each is not None and not each.blocks]


_current: ContextVar[AxesState | None] = ContextVar("axes_async_state", default=None)
"""The state of the request being served, for code that authenticates without passing the request on."""


def enter(request: HttpRequest) -> tuple[AxesState, Token[AxesState | None]]:
    """Give ``request`` a state of its own and make it the current one; return it, and what ``leave`` takes.

    It has one already where a middleware further out has tried a password, as for basic authentication.
    """
    state = state_of(request)
    return state, _current.set(state)


def flag(request: HttpRequest | None, *, locked_out: bool) -> None:
    """Set ``request.axes_locked_out``, where code that was written for django-axes looks."""
    if request is not None:
        request = getattr(request, "_request", request)
        request.axes_locked_out = locked_out  # type: ignore[union-attr]


def is_flagged(request: HttpRequest) -> bool:
    """Return whether ``request.axes_locked_out`` is set: a view may do that, too."""
    return bool(getattr(request, "axes_locked_out", False))


def enter_block() -> tuple[AxesState, Token[AxesState | None]]:
    """Make a state the current one for a block of code outside of any request; return it, and what ``leave`` takes."""
    state = AxesState()
    return state, _current.set(state)


def is_detached() -> bool:
    """Return whether no request is being served, nor a block that stands for one."""
    current = _current.get()
    return current is None or current.detached


def leave(token: Token[AxesState | None]) -> None:
    """Make the state that was current before ``enter`` the current one again."""
    _current.reset(token)


def state_of(request: HttpRequest | None) -> AxesState:
    """Return the state of ``request``, making one where no middleware did.

    Wrappers such as Django REST framework's share the state of the request they wrap. Without a request, the state of
    the one being served is returned, and outside of any, one that lasts as long as the surrounding context.
    """
    if request is None:
        state = _current.get()
        if state is None:
            state = AxesState(detached=True)
            _current.set(state)
        return state
    request = getattr(request, "_request", request)
    state = getattr(request, "axes", None)
    if not isinstance(state, AxesState):
        state = AxesState()
        request.axes = state  # type: ignore[union-attr]
        flag(request, locked_out=False)
    return state
