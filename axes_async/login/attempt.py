"""One attempt of a request: what it holds, and how its check goes on."""

from __future__ import annotations

from asyncio import Task
from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import Lock
from types import FrameType
from typing import Any

from axes_async.client.exemptions import Exemption
from axes_async.client.identity import Client
from axes_async.counters.rules import Counter
from axes_async.login.frames import ViewTask, has_returned, is_running, tells_of_stop, was_ended_by
from axes_async.stores.results import Verdict


@dataclass(slots=True, kw_only=True, eq=False, weakref_slot=True)
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
    """Whether the credentials were known when that was decided; else the form was read."""
    verdict: Verdict | None = None
    """What the reservation was answered; ``None`` before it was asked for, or where the store could not be."""
    held_in: int | None = None
    """The generation of the store that its reservations were made in last; ``None`` while it holds none, nor may."""
    reserved_at: float = 0.0
    """When they were asked for last, in seconds of ``time.monotonic``: they end with their lease."""
    settled: bool = False
    """Whether it was counted, recorded or released."""
    recorded: bool = False
    """Whether it was counted or recorded."""
    given_up: bool = False
    """Whether its task was told to stop, maybe in the middle of the check."""
    blocks: int = 0
    """Blocks of code, one within the other, that share its reservations, which are released with the outermost."""
    task: Task[Any] | None = None
    """The task that tries the password now, in async code."""
    caller: FrameType | None = None
    """The code that has the password looked at; ``None`` in a block, where that is any code."""
    lock: Lock = field(default_factory=Lock)
    """Held for a moment: an answer of the store comes in a thread, while a task may end the attempt."""

    @property
    def reserved(self) -> bool:
        """Whether reservations are held, or may be: by this verdict, or by one before the attempt was widened."""
        return self.held_in is not None

    @property
    def is_checked(self) -> bool:
        """Whether the check is known to have ended, and not by an exception."""
        caller = self.caller  # Another thread may settle the attempt.
        return caller is not None and has_returned(caller)

    def is_at_work(self, but: Task[Any] | None) -> bool:
        """Return whether a block, a thread or a task is not done with it; of a task, ``but`` is."""
        if self.blocks:
            return True
        if self.task is not None:
            return not self.task.done() and self.task is not but
        caller = self.caller
        return caller is not None and not has_returned(caller) and is_running(caller)

    @property
    def is_cut_off(self) -> bool:
        """Whether the check was given up before it had ended: a thread may go on with it, and nobody hears of it."""
        task, caller = self.task, self.caller
        if self.is_checked:
            return False
        if self.given_up or task is None:
            return self.given_up
        if task.cancelled() or task.cancelling() > 0:
            return True
        if caller is None or type(task) is ViewTask:  # Which would have told.
            return False
        return not (task.done() and was_ended_by(caller, task.exception()))

    def share(self) -> None:
        """Let a block of code share the reservations, with whatever task in it tries a password first."""
        self.blocks, self.task, self.caller = self.blocks + 1, None, None
        latest.set((self, self.blocks))

    def decide(self, verdict: Verdict) -> Verdict:
        """Note what the reservation was answered, and return it; *busy* if nobody waits for that any more."""
        with self.lock:
            self.verdict = decided = Verdict.BUSY if self.settled and verdict is Verdict.ALLOWED else verdict
        if decided is not Verdict.ALLOWED:
            self.caller = None  # It has no password looked at.
        return decided

    def abandon(self) -> None:
        """Let nobody wait for the answer any more, if it has not come yet."""
        with self.lock:
            self.settled = self.settled or self.verdict is None

    def settle(self, *, recorded: bool) -> None:
        """Note that nothing is open any more; the code of the caller, and what it knows, may go."""
        with self.lock:
            self.settled, self.recorded, self.caller = True, recorded, None

    def see_error(self, error: BaseException | None) -> None:
        """Note what ``error``, which leaves the code around the check, tells of it: it was given up, or has ended."""
        if self.caller is None:
            self.given_up = self.given_up or (self.informed and tells_of_stop(error))
        elif was_ended_by(self.caller, error):
            self.task = self.caller = None

    def __deepcopy__(self, memo: object) -> Attempt:
        """Stay one attempt, also for a copy of the request."""
        return self

    def is_shared_with(self, task: Task[Any] | None) -> bool:
        """Return whether ``task`` may try a password on the reservations.

        No other task is trying one on them, nor has another task of the block around it a block of its own. What a
        check that was given up has reserved is its own.
        """
        is_idle = self.task is None or self.task is task or self.task.done()
        is_free = self.caller is None or not self.is_cut_off
        return self.open and is_idle and is_free and latest.get() == (self, self.blocks)

    @property
    def token(self) -> str:
        """The name of the attempt's reservations: the random end of its id."""
        return self.id[-16:]

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody waits for the answer of the store any more."""
        return self.verdict is None and self.settled

    @property
    def denied(self) -> bool:
        """Whether the password must not be looked at."""
        return self.verdict is not Verdict.ALLOWED and not self.recorded

    @property
    def open(self) -> bool:
        """Whether the password may be looked at, and has not been yet."""
        return self.verdict is Verdict.ALLOWED and not self.settled


latest: ContextVar[tuple[Attempt, int] | None] = ContextVar("axes_async_attempt", default=None)
"""The latest attempt of this thread or task, and how many blocks that shared it were around.

Tasks that try passwords side by side for one request have one each.
"""
