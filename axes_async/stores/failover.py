"""A store that may go away, and what decides instead.

The primary store is asked first. What it cannot do, the database store does. While the primary is away, no login waits
for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, TypeVar

from axes_async import telemetry
from axes_async.counters.rules import Counter
from axes_async.errors import StoreBusy, StoreDisconnected, StoreIncomplete, StoreReturned, StoreUnavailable
from axes_async.stores.contract import OutboxStore, Store
from axes_async.stores.outage import Watch
from axes_async.stores.recent import RecentAnswers
from axes_async.stores.results import SeenCounter, StepResult
from axes_async.stores.step import Step, StepKind

if TYPE_CHECKING:
    from axes_async.stores.database.store import DatabaseStore

log = logging.getLogger(__name__)

T = TypeVar("T")

SENDS = 6
"""How often a step is sent whose connection breaks each time. A store that is silent is sent it twice."""

ROUNDS = 2
"""How often the database may say that the store decides again, before a step is given up."""

OnFailure = Literal["database", "deny", "allow"]


class FailoverStore(Store):
    """The steps of a login on ``primary``, or else on ``fallback``.

    Each raises ``StoreUnavailable`` if neither could do it, or if ``on_failure`` is ``"deny"``.

    :param fallback: what decides under ``on_failure="database"``; None if the primary is the database itself.
    :param retry_interval: seconds between two probes of a primary that is away.
    :param probes: whether the primary is probed after a fault, and left alone while it is away.
    """

    def __init__(
        self,
        primary: Store,
        fallback: DatabaseStore | None = None,
        *,
        on_failure: OnFailure = "database",
        retry_interval: float = 1.0,
        probes: bool = True,
    ) -> None:
        self.primary, self.fallback, self.on_failure = primary, fallback, on_failure
        self.probes = probes
        self.recent = RecentAnswers()
        self.watch = Watch(primary, retry_interval=retry_interval, on_return=self._note_return)
        self._outbox = primary if isinstance(primary, OutboxStore) else None
        self._is_behind = False

    @property
    def is_away(self) -> bool:
        """Whether the primary did not answer, and is not asked for now."""
        return self.watch.is_away

    @property
    def generation(self) -> int:
        """The latest generation of the primary that this process has sent a step in; 0 if it has none."""
        return 0 if self._outbox is None else max(self._outbox.generation, self._outbox.sent_in)

    @property
    def asks_primary(self) -> bool:
        """Whether the primary is asked first: it is not away, and not behind the database since its return."""
        return not self.is_away and not self._is_behind

    def do(self, step: Step) -> StepResult:
        return self._ask(step, self._do_one, StepResult())

    def look(self, counters: Sequence[Counter]) -> list[SeenCounter]:
        step = Step(StepKind.PEEK, counters=counters)
        return self._ask(step, lambda store, step: store.look(step.counters), [SeenCounter() for _ in counters])

    def close(self) -> None:
        self.watch.close()
        self.primary.close()

    def _do_one(self, store: Store, step: Step) -> StepResult:
        """Do ``step`` on one of the two stores, and remember what the primary tells of the counters."""
        is_primary = store is self.primary
        if step.kind is StepKind.RESERVE and not is_primary:
            step = replace(step, known=self.recent.known(step.counters))
        result = store.do(step)
        if step.kind is StepKind.SUCCEED:
            self.recent.forget(step.clear)
        elif is_primary and step.kind in {StepKind.RESERVE, StepKind.FAIL}:
            self.recent.note(step.counters, result.failures)
        elif step.kind is StepKind.FAIL:
            self.recent.count_up(step.counters)
        return result

    def _watched(self, ask: Callable[[Store, Step], T], store: Store, step: Step) -> T:
        """Ask ``store``, and tell whoever listens how that went."""
        if not telemetry.listeners:
            return ask(store, step)
        with telemetry.step(step.kind, "primary" if store is self.primary else "fallback") as ending:
            answer = ask(store, step)
            if isinstance(answer, StepResult) and step.decides:
                ending.outcome = answer.verdict.name.lower()
            return answer

    def _ask(self, step: Step, ask: Callable[[Store, Step], T], allowed: T, *, rounds: int = ROUNDS) -> T:
        """Ask the store that decides; return ``allowed`` where none does, under ``on_failure="allow"``."""
        reason, unanswered = StoreUnavailable("The store is away."), False
        sends, is_silent = SENDS, False
        while self.asks_primary:
            try:
                return self._watched(ask, self.primary, step)
            except (StoreBusy, StoreIncomplete) as error:
                if isinstance(error, StoreBusy) and step.decides:
                    raise  # The store decides, and may know more than the database.
                reason = error
                break
            except StoreUnavailable as error:
                reason, unanswered, sends = error, True, sends - 1
                if not isinstance(error, StoreDisconnected) or not sends:
                    if is_silent or not self.probes or not self.watch.answers(error):
                        break
                    is_silent = True
                # Slow, or a broken connection. Without a reservation, the step may be done twice: one failure too many.
                step = replace(step, again=step.held_in == self.generation)
                log.warning("The store did not answer a step (%s), and may be well. It is asked again.", error)
        if self.on_failure == "allow":
            log.error("Let through without a store (%s): %s", reason, step.line)
            return allowed
        if self.fallback is None or self.on_failure == "deny":
            raise reason
        if rounds == ROUNDS:
            telemetry.count("fallbacks", step.kind)
        try:
            return self._watched(ask, self.fallback, replace(step, again=unanswered or step.again))
        except StoreReturned as returned:
            if not rounds:
                raise StoreUnavailable("The store and the database name each other as the one that decides.") from None
            self._adopt(returned.generation)
        return self._ask(replace(step, again=False), ask, allowed, rounds=rounds - 1)

    def _note_return(self) -> None:
        """Ask the database first from now on: it says when the store has been told what was counted meanwhile."""
        if self._outbox is not None and self.fallback is not None:
            self._is_behind = True
            self._outbox.generation = 0  # So that whatever generation decides by then is news.

    def _adopt(self, generation: int) -> None:
        self._is_behind = False
        if self._outbox is not None:
            self._outbox.generation = max(self._outbox.generation, generation)
