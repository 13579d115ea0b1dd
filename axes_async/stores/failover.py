"""A store that may go away, and what decides instead.

The primary store is asked first. What it cannot do, the database store does. While the primary is away, no login waits
for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from axes_async.counters.events import AttemptEvent
from axes_async.counters.rules import Counter
from axes_async.counters.state import CounterState
from axes_async.errors import StoreBusy, StoreIncomplete, StoreReturned, StoreUnavailable
from axes_async.stores.contract import OutboxStore, Store
from axes_async.stores.recent import RecentAnswers
from axes_async.stores.results import StepResult
from axes_async.stores.watch import Watch

if TYPE_CHECKING:
    from axes_async.stores.database.store import DatabaseStore

log = logging.getLogger(__name__)

T = TypeVar("T")

SENDS = 3
"""How often a step is sent to a store that answers probes, and asked of the database before that is given up."""

OnFailure = Literal["database", "deny", "allow"]


@dataclass(slots=True)
class Step(Generic[T]):
    """One step of a login."""

    on_primary: Callable[[bool], T]
    """Does it there; the argument says that it may have been done already."""
    on_fallback: Callable[[DatabaseStore, bool], T]
    """Does it in the database; the argument says that the primary may have done it."""
    allowed: T
    """What it comes to where nobody decides, under ``on_failure="allow"``."""
    decides: bool = False
    """Whether a password is looked at or not by its result."""
    held: bool = False
    """Whether the attempt holds reservations: they show whether the step was done."""
    event: AttemptEvent | None = None
    unanswered: bool = False
    """Whether the primary was sent it and did not answer."""


class FailoverStore:
    """The steps of a login on ``primary``, or else on ``fallback``; see ``Store``.

    Each raises ``StoreUnavailable`` if neither could do it, or if ``on_failure`` is ``"deny"``.

    :param fallback: what decides under ``on_failure="database"``; None if the primary is the database itself.
    :param retry_interval: seconds between two probes of a primary that is away.
    :param timeout: seconds that the primary may take for one answer; a step may take twice as long there.
    :param probes: whether the primary is probed after a fault, and left alone while it is away.
    """

    def __init__(
        self,
        primary: Store,
        fallback: DatabaseStore | None = None,
        *,
        on_failure: OnFailure = "database",
        retry_interval: float = 1.0,
        timeout: float = 0.07,
        probes: bool = True,
    ) -> None:
        self.primary, self.fallback, self.on_failure = primary, fallback, on_failure
        self.timeout, self.probes = timeout, probes
        self.recent = RecentAnswers()
        self.watch = Watch(primary, retry_interval=retry_interval, on_return=self._note_return)
        self._outbox = primary if isinstance(primary, OutboxStore) else None
        self._is_behind = False

    @property
    def is_away(self) -> bool:
        """Whether the primary did not answer, and is not asked for now."""
        return self.watch.is_away

    def reserve(
        self, token: str, counters: Sequence[Counter], event: AttemptEvent | None, *, lease: int, extend: bool
    ) -> StepResult:
        def on_primary(again: bool) -> StepResult:
            result = self.primary.reserve(token, counters, event, lease=lease, extend=extend)
            self.recent.note(counters, result.failures)
            return result

        def on_fallback(store: DatabaseStore, again: bool) -> StepResult:
            known = self.recent.known(counters)
            return store.reserve(token, counters, event, lease=lease, extend=extend, known=known)

        return self._do(Step(on_primary, on_fallback, StepResult(), decides=True))

    def fail(
        self,
        token: str,
        counters: Sequence[Counter],
        release: Sequence[Counter],
        event: AttemptEvent,
        *,
        lease: int,
        extend: bool,
        held: bool = False,
    ) -> StepResult:
        def on_primary(again: bool) -> StepResult:
            result = self.primary.fail(token, counters, release, event, lease=lease, extend=extend, again=again)
            self.recent.note(counters, result.failures)
            return result

        def on_fallback(store: DatabaseStore, again: bool) -> StepResult:
            result = store.fail(token, counters, release, event, lease=lease, extend=extend, again=again)
            self.recent.count_up(counters)
            return result

        return self._do(Step(on_primary, on_fallback, StepResult(), held=held, event=event))

    def succeed(
        self,
        token: str,
        counters: Sequence[Counter],
        clear: Sequence[Counter],
        event: AttemptEvent,
        *,
        lease: int,
        always: bool,
        held: bool = False,
    ) -> StepResult:
        def on_primary(again: bool) -> StepResult:
            return self.primary.succeed(token, counters, clear, event, lease=lease, always=always, again=again)

        def on_fallback(store: DatabaseStore, again: bool) -> StepResult:
            return store.succeed(token, counters, clear, event, lease=lease, always=always, again=again)

        result = self._do(Step(on_primary, on_fallback, StepResult(), held=held, event=event))
        self.recent.forget(clear)
        return result

    def release(self, token: str, counters: Sequence[Counter]) -> None:
        def on_primary(again: bool) -> None:
            self.primary.release(token, counters)

        self._do(Step(on_primary, lambda store, again: store.release(token, counters), None))

    def peek(self, counters: Sequence[Counter]) -> StepResult:
        def on_primary(again: bool) -> StepResult:
            return self.primary.peek(counters)

        return self._do(Step(on_primary, lambda store, again: store.peek(counters), StepResult(), decides=True))

    def record(self, event: AttemptEvent) -> StepResult:
        def on_primary(again: bool) -> StepResult:
            return self.primary.record(event)

        return self._do(Step(on_primary, lambda store, again: store.record(event), StepResult(), event=event))

    def states(self, counters: Sequence[Counter]) -> list[CounterState]:
        def on_primary(again: bool) -> list[CounterState]:
            return self.primary.states(counters)

        nothing = [CounterState() for _ in counters]
        return self._do(Step(on_primary, lambda store, again: store.states(counters), nothing, decides=True))

    def close(self) -> None:
        """Stop looking after the primary, and close what is open and not in use there."""
        self.watch.close()
        self.primary.close()

    def _do(self, step: Step[T]) -> T:
        reason = StoreUnavailable("The store is away.")
        if not self.is_away and not self._is_behind:
            try:
                return self._ask_primary(step)
            except StoreBusy as error:
                if step.decides:
                    raise  # The store decides, and may know more than the database.
                reason = error
            except StoreUnavailable as error:
                reason = error
        if self.on_failure == "allow":
            log.error("Let through without a store (%s): %s", reason, step.event.line() if step.event else "no event")
            return step.allowed
        if self.fallback is None or self.on_failure == "deny":
            raise reason
        return self._ask_fallback(step, self.fallback)

    def _ask_primary(self, step: Step[T]) -> T:
        give_up, again = monotonic() + 2 * self.timeout, False
        for left in reversed(range(SENDS)):
            try:
                return step.on_primary(again)
            except (StoreBusy, StoreIncomplete):
                raise
            except StoreUnavailable as error:
                step.unanswered = True
                if not self.probes or not self.watch.answers(error) or not left or monotonic() > give_up:
                    raise
                # Slow, or a broken connection. Without a reservation, the step may be done twice: one failure too many.
                again = step.held
                log.warning("The store answers a probe, but not a step (%s). It is asked again.", error)
        raise AssertionError

    def _ask_fallback(self, step: Step[T], fallback: DatabaseStore) -> T:
        for _ in range(SENDS):
            try:
                return step.on_fallback(fallback, step.unanswered)
            except StoreReturned as returned:
                self._adopt(returned.generation)
            try:
                return step.on_primary(False)
            except StoreUnavailable as error:
                if step.decides and isinstance(error, StoreBusy):
                    raise
                log.warning("The store decides again, and could not be asked (%s).", error)
        raise StoreUnavailable("The store and the database name each other as the one that decides.")

    def _note_return(self) -> None:
        """Ask the database first from now on: it says when the store has been told what was counted meanwhile."""
        if self._outbox is not None and self.fallback is not None:
            self._is_behind = True
            self._outbox.generation = 0  # So that whatever generation decides by then is news.

    def _adopt(self, generation: int) -> None:
        self._is_behind = False
        if self._outbox is not None:
            self._outbox.generation = max(self._outbox.generation, generation)
