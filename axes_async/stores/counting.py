"""The engine of every store that counts in Python: what one step does to the counters it holds.

A store locks the counters of a call, says what is kept of each, lets ``Step`` do the work, and saves what changed. The
scripts of the Redis store do the same on the server.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from axes_async.counters.events import AttemptEvent, CounterChange, worth_a_row
from axes_async.counters.rules import Counter
from axes_async.counters.state import CounterState
from axes_async.stores.contract import Store
from axes_async.stores.results import PERMANENT, StepResult, Verdict

TOLD_EVERY = 1000
"""Milliseconds between two events that tell of a prolonged lockout: a flood prolongs it with every attempt."""


@dataclass(slots=True)
class KeptCounter:
    """What a store keeps of one counter."""

    state: CounterState = field(default_factory=CounterState)
    reservations: dict[str, int] = field(default_factory=dict)
    """The end of each reservation's lease, by its token."""
    blocked: int = 0
    """How many attempts the lockout in force has turned away."""
    told_at: int = 0
    """When an event last told that the lockout was prolonged."""
    known: CounterState | None = None
    """What the caller knows of the counter, where that is more than is kept here; it decides, and is not saved."""

    @property
    def decisive(self) -> CounterState:
        """The state that a reservation is decided on."""
        return self.known or self.state

    def expire(self, counter: Counter, now: int) -> None:
        """Drop what has expired by ``now``."""
        self.state.expire(now, counter.rule)
        if not self.state.failures:
            self.blocked = self.told_at = 0
        self.reservations = {token: end for token, end in self.reservations.items() if end > now}


class Step:
    """The methods of ``Store``, on counters that nobody else can change meanwhile.

    :param kept: what is kept of each counter of the call, by digest.
    :param now: the time of the step, in epoch milliseconds.
    :param applied: the event of this step has been applied before.
    """

    def __init__(
        self, counters: Iterable[Counter], kept: dict[str, KeptCounter], now: int, *, applied: bool = False
    ) -> None:
        self.kept, self.now, self.applied = kept, now, applied
        self.touched: set[str] = set()
        """Digests of which anything has changed."""
        self.changed: dict[str, int] = {}
        """The limit in force, by digest, where the state has changed."""
        for counter in counters:
            kept[counter.digest].expire(counter, now)

    def reserve(
        self, token: str, counters: Sequence[Counter], event: AttemptEvent | None, *, lease: int, extend: bool
    ) -> StepResult:
        locked = self._locked(counters)
        if locked:
            return self._turn_away(counters, locked, event, extend=extend)
        for counter in counters:
            kept = self.kept[counter.digest]
            others = len(kept.reservations.keys() - {token})
            if 0 < kept.decisive.limit(counter.rule, self.now) <= kept.decisive.failures + others:
                return StepResult(Verdict.BUSY, failures=self._failures(counters))
        for counter in counters if lease else ():
            self.kept[counter.digest].reservations[token] = self.now + lease
            self.touched.add(counter.digest)
        return self.look(counters)

    def fail(
        self,
        token: str,
        counters: Sequence[Counter],
        release: Sequence[Counter],
        event: AttemptEvent,
        *,
        extend: bool,
        again: bool,
    ) -> StepResult:
        if self._give_back(token, [*counters, *release], again=again):
            return self.look(counters)
        newly, changes = False, []
        for counter in counters:
            kept, rule = self.kept[counter.digest], counter.rule
            counted = not kept.state.is_locked(rule, self.now)
            prolonged = not counted and extend and rule.window_ms > 0
            if counted and kept.state.count(rule, self.now):
                newly, kept.blocked, kept.told_at = True, 0, 0
            elif prolonged:
                kept.state.prolong(rule, self.now)
            changes.append(self._change(counter, counted=counted, prolonged=prolonged))
        return self.look(counters, newly=newly, event=event.applied(changes, at=self.now))

    def succeed(
        self,
        token: str,
        counters: Sequence[Counter],
        clear: Sequence[Counter],
        event: AttemptEvent,
        *,
        always: bool,
        again: bool,
    ) -> StepResult:
        if self._give_back(token, counters, again=again):
            return StepResult(failures=self._failures(counters))
        found, changes = self._failures(counters), []
        for counter in counters:
            kept = self.kept[counter.digest]
            if counter in clear and kept.state.failures and not kept.state.is_locked(counter.rule, self.now):
                kept.state.clear()
                kept.blocked = kept.told_at = 0
                changes.append(self._change(counter, cleared=True))
        told = event.applied(changes, at=self.now) if always or changes else None
        return StepResult(event=told, failures=found)

    def release(self, token: str, counters: Sequence[Counter]) -> StepResult:
        self._give_back(token, counters, again=False)
        return StepResult()

    def look(
        self, counters: Sequence[Counter], *, newly: bool = False, event: AttemptEvent | None = None
    ) -> StepResult:
        """Return how ``counters`` stand."""
        locked, failures = self._locked(counters), self._failures(counters)
        if not locked:
            return StepResult(event=event, failures=failures)
        return self._lockout(locked, failures, newly=newly, event=event)

    def _turn_away(
        self, counters: Sequence[Counter], locked: list[Counter], event: AttemptEvent | None, *, extend: bool
    ) -> StepResult:
        changes = []
        for counter in locked:
            kept = self.kept[counter.digest]
            if extend and counter.rule.window_ms and kept.known is None:
                kept.state.prolong(counter.rule, self.now)
                change = self._change(counter, prolonged=True)
                if self.now - kept.told_at >= TOLD_EVERY:
                    kept.told_at = self.now
                    changes.append(change)
        first = self.kept[locked[0].digest]
        first.blocked += 1
        self.touched.add(locked[0].digest)
        repeats = first.blocked if worth_a_row(first.blocked) else 0
        told = event.applied(changes, at=self.now, repeats=first.blocked) if event and (repeats or changes) else None
        return self._lockout(locked, self._failures(counters), event=told, repeats=repeats)

    def _lockout(
        self,
        locked: list[Counter],
        failures: Sequence[int],
        *,
        newly: bool = False,
        event: AttemptEvent | None = None,
        repeats: int = 0,
    ) -> StepResult:
        states = [(counter.rule, self.kept[counter.digest].decisive) for counter in locked]
        ends = [state.lock_ends(rule) for rule, state in states]
        until = PERMANENT if 0 in ends else max(ends)
        limit = min(state.limit(rule, self.now) for rule, state in states)
        return StepResult(Verdict.LOCKED, until, limit, newly, event=event, repeats=repeats, failures=failures)

    def _locked(self, counters: Sequence[Counter]) -> list[Counter]:
        return [c for c in counters if self.kept[c.digest].decisive.is_locked(c.rule, self.now)]

    def _failures(self, counters: Sequence[Counter]) -> tuple[int, ...]:
        return tuple(self.kept[counter.digest].decisive.failures for counter in counters)

    def _give_back(self, token: str, counters: Sequence[Counter], *, again: bool) -> bool:
        """End the reservations of ``token``; return whether the step was done before."""
        held = False
        for counter in counters:
            if self.kept[counter.digest].reservations.pop(token, None) is not None:
                held = True
                self.touched.add(counter.digest)
        return self.applied or (again and not held)

    def _change(
        self, counter: Counter, *, counted: bool = False, cleared: bool = False, prolonged: bool = False
    ) -> CounterChange:
        """Return what has just become of ``counter``, and have it saved where that is anything."""
        state, rule = self.kept[counter.digest].state, counter.rule
        limit = state.limit(rule, self.now)
        if counted or cleared or prolonged:
            self.touched.add(counter.digest)
            self.changed[counter.digest] = limit
        return CounterChange(
            digest=counter.digest,
            parameters=rule.parameters,
            limit=limit,
            counted=counted,
            cleared=cleared,
            locked=0 < limit <= state.failures,
            prolonged=prolonged,
            expires_at=state.expires_at,
            locked_until=state.locked_until,
            end=self.now + rule.window_ms if counted and rule.rolling else 0,
        )


class CountingStore(Store):
    """A store that counts in Python."""

    has_all_reservations = True
    """Whether no reservation is kept elsewhere, so that a step ``again`` was done if none is left here."""

    @abstractmethod
    def _step(
        self,
        counters: Sequence[Counter],
        action: Callable[[Step], StepResult],
        *,
        create: Sequence[Counter] = (),
        event: AttemptEvent | None = None,
        settles: bool = False,
        unsure: bool = False,
    ) -> StepResult:
        """Lock ``counters``, let ``action`` do its work, save what it touched, and deliver its event.

        :param create: those that may be kept afterwards also if nothing is kept of them yet.
        :param event: the event that the step may record; tells whose counters they are.
        :param settles: the step settles an attempt by ``event``, and may have been done already.
        :param unsure: it was sent to another store, which has not answered.
        """

    @abstractmethod
    def _read(self, counters: Sequence[Counter]) -> Step:
        """Return a step over what is kept of ``counters`` now, of which nothing is going to be saved."""

    def reserve(
        self,
        token: str,
        counters: Sequence[Counter],
        event: AttemptEvent | None,
        *,
        lease: int,
        extend: bool,
    ) -> StepResult:
        def action(step: Step) -> StepResult:
            return step.reserve(token, counters, event, lease=lease, extend=extend)

        return self._step(counters, action, create=counters if lease else (), event=event)

    def fail(
        self,
        token: str,
        counters: Sequence[Counter],
        release: Sequence[Counter],
        event: AttemptEvent,
        *,
        lease: int,
        extend: bool,
        again: bool = False,
    ) -> StepResult:
        done_if_gone = again and self.has_all_reservations

        def action(step: Step) -> StepResult:
            return step.fail(token, counters, release, event, extend=extend, again=done_if_gone)

        every = [*counters, *release]
        return self._step(every, action, create=counters, event=event, settles=True, unsure=again)

    def succeed(
        self,
        token: str,
        counters: Sequence[Counter],
        clear: Sequence[Counter],
        event: AttemptEvent,
        *,
        lease: int,
        always: bool,
        again: bool = False,
    ) -> StepResult:
        done_if_gone = again and self.has_all_reservations

        def action(step: Step) -> StepResult:
            return step.succeed(token, counters, clear, event, always=always, again=done_if_gone)

        return self._step(counters, action, event=event, settles=True, unsure=again)

    def release(self, token: str, counters: Sequence[Counter]) -> None:
        self._step(counters, lambda step: step.release(token, counters))

    def peek(self, counters: Sequence[Counter]) -> StepResult:
        return self._read(counters).look(counters)

    def states(self, counters: Sequence[Counter]) -> list[CounterState]:
        step = self._read(counters)
        return [step.kept[counter.digest].state for counter in counters]
