"""The engine of every store that counts in Python: what one step does to the counters it holds.

A store locks the counters of a step, reads what is kept of each, lets ``Engine`` do the work, and saves what changed.
The scripts of the Redis store do the same on the server.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from axes_async.counters.events import AttemptEvent, CounterChange, worth_a_row
from axes_async.counters.rules import Counter
from axes_async.counters.state import CounterState
from axes_async.stores.contract import Store
from axes_async.stores.results import PERMANENT, SeenCounter, StepResult, Verdict
from axes_async.stores.step import Step, StepKind

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


class Engine:
    """Does steps on counters that nobody else can change meanwhile.

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

    def do(self, step: Step) -> StepResult:
        """Do ``step``, on the counters that this was made for."""
        match step.kind:
            case StepKind.RESERVE:
                return self._reserve(step)
            case StepKind.FAIL:
                return self._fail(step)
            case StepKind.SUCCEED:
                return self._succeed(step)
            case StepKind.RELEASE:
                self._give_back(step)
                return StepResult()
            case StepKind.RECORD if step.event is not None:
                return StepResult(event=step.event.applied((), at=self.now, repeats=step.event.repeats))
        return self._look(step.counters)

    def _reserve(self, step: Step) -> StepResult:
        counters = step.counters
        locked = self._locked(counters)
        if locked:
            return self._turn_away(step, locked)
        for counter in counters:
            kept = self.kept[counter.digest]
            others = len(kept.reservations.keys() - {step.token})
            if 0 < kept.decisive.limit(counter.rule, self.now) <= kept.decisive.failures + others:
                return StepResult(Verdict.BUSY, failures=self._failures(counters))
        for counter in counters if step.lease else ():
            self.kept[counter.digest].reservations[step.token] = self.now + step.lease
            self.touched.add(counter.digest)
        return self._look(counters)

    def _fail(self, step: Step) -> StepResult:
        if self._give_back(step) or step.event is None:
            return self._look(step.counters)
        newly, changes = False, []
        for counter in step.counters:
            kept, rule = self.kept[counter.digest], counter.rule
            counted = not kept.state.is_locked(rule, self.now)
            prolonged = not counted and step.extend and rule.window_ms > 0
            if counted and kept.state.count(rule, self.now):
                newly, kept.blocked, kept.told_at = True, 0, 0
            elif prolonged:
                kept.state.prolong(rule, self.now)
            changes.append(self._change(counter, counted=counted, prolonged=prolonged))
        return self._look(step.counters, newly=newly, event=step.event.applied(changes, at=self.now))

    def _succeed(self, step: Step) -> StepResult:
        done, found, changes = self._give_back(step), self._failures(step.counters), []
        if done or step.event is None:
            return StepResult(failures=found)
        for counter in step.counters:
            kept = self.kept[counter.digest]
            if counter in step.clear and kept.state.failures and not kept.state.is_locked(counter.rule, self.now):
                kept.state.clear()
                kept.blocked = kept.told_at = 0
                changes.append(self._change(counter, cleared=True))
        told = step.event.applied(changes, at=self.now) if step.always or changes else None
        return StepResult(event=told, failures=found)

    def _look(
        self,
        counters: Sequence[Counter],
        *,
        newly: bool = False,
        event: AttemptEvent | None = None,
        repeats: int = 0,
    ) -> StepResult:
        locked, failures = self._locked(counters), self._failures(counters)
        if not locked:
            return StepResult(event=event, failures=failures)
        states = [(counter.rule, self.kept[counter.digest].decisive) for counter in locked]
        ends = [state.lock_ends(rule) for rule, state in states]
        until = PERMANENT if 0 in ends else max(ends)
        limit = min(state.limit(rule, self.now) for rule, state in states)
        return StepResult(Verdict.LOCKED, until, limit, newly, event=event, repeats=repeats, failures=failures)

    def _turn_away(self, step: Step, locked: list[Counter]) -> StepResult:
        event, changes = step.event, []
        for counter in locked:
            kept = self.kept[counter.digest]
            if step.extend and counter.rule.window_ms and kept.known is None:
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
        return self._look(step.counters, event=told, repeats=repeats)

    def _locked(self, counters: Sequence[Counter]) -> list[Counter]:
        return [c for c in counters if self.kept[c.digest].decisive.is_locked(c.rule, self.now)]

    def _failures(self, counters: Sequence[Counter]) -> tuple[int, ...]:
        return tuple(self.kept[counter.digest].decisive.failures for counter in counters)

    def _give_back(self, step: Step) -> bool:
        """End the reservations of the attempt; return whether the step was done before."""
        held = False
        for counter in step.all_counters:
            if self.kept[counter.digest].reservations.pop(step.token, None) is not None:
                held = True
                self.touched.add(counter.digest)
        return self.applied or (step.again and not held)

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

    @abstractmethod
    def read(self, counters: Sequence[Counter]) -> Engine:
        """Return what is kept of ``counters`` now, of which nothing is going to be saved."""

    def look(self, counters: Sequence[Counter]) -> list[SeenCounter]:
        kept = self.read(counters).kept
        seen = [kept[counter.digest] for counter in counters]
        return [SeenCounter(one.state, one.blocked, len(one.reservations)) for one in seen]
