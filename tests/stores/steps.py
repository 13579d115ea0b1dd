"""The steps of a store, with the arguments that a test does not care about filled in."""

from __future__ import annotations

from collections.abc import Sequence

from axes_async import clock
from axes_async.counters.events import AttemptEvent, Kind, new_id
from axes_async.counters.rules import Counter, Parameter, Rule, counters_for
from axes_async.stores.contract import OutboxStore, Position, Store
from axes_async.stores.failover import FailoverStore
from axes_async.stores.results import StepResult
from axes_async.stores.step import Step, StepKind

LEASE = 30_000


class Time:
    """The time of every store, in epoch milliseconds."""

    def __init__(self) -> None:
        self.now = clock.now_ms()

    def __call__(self) -> int:
        return self.now


class Steps:
    """A store with one rule, and the events that it made.

    :param time: the time of the store; it moves by ``pass_``.
    :param limit: of the rule on the address.
    :param cooloff: in seconds.
    """

    def __init__(self, store: Store, time: Time, *, limit: int = 3, cooloff: float | None = None) -> None:
        self.store, self.time, self.limit, self.cooloff = store, time, limit, cooloff
        self.delivered: list[AttemptEvent] = []

    def pass_(self, ms: int) -> None:
        """Let so many milliseconds pass."""
        self.time.now += ms

    def counter(self, address: str = "192.0.2.1", username: str | None = None) -> Counter:
        values: dict[Parameter, str | None] = {"ip_address": address, "username": username}
        parameters: tuple[Parameter, ...] = ("ip_address", "username") if username else ("ip_address",)
        (counter,) = counters_for([Rule(parameters=parameters, limit=self.limit, cooloff=self.cooloff)], values)
        return counter

    def event(self, kind: Kind) -> AttemptEvent:
        return AttemptEvent(kind=kind, id=new_id(self.time.now), username="alice", ip_address="192.0.2.1")

    def reserve(self, token: str, *counters: Counter, extend: bool = False, lease: int = LEASE) -> StepResult:
        event = self.event(Kind.BLOCKED)
        return self._noted(
            self.store.do(
                Step(StepKind.RESERVE, token, counters or [self.counter()], event=event, lease=lease, extend=extend)
            )
        )

    def fail(self, token: str, *counters: Counter, release: Sequence[Counter] = (), extend: bool = False) -> StepResult:
        event = self.event(Kind.FAILED)
        counting = counters or [self.counter()]
        return self._noted(
            self.store.do(Step(StepKind.FAIL, token, counting, release=release, event=event, extend=extend))
        )

    def succeed(self, token: str, *counters: Counter, clear: Sequence[Counter] = (), always: bool = True) -> StepResult:
        event = self.event(Kind.LOGGED_IN)
        every = counters or [self.counter()]
        return self._noted(self.store.do(Step(StepKind.SUCCEED, token, every, event=event, clear=clear, always=always)))

    def failures(self, *counters: Counter) -> list[int]:
        return [state.failures for state in self.store.states(counters or [self.counter()])]

    def events(self) -> list[AttemptEvent]:
        """Return what was recorded, wherever the store records it."""
        stores = [self.store]
        if isinstance(self.store, FailoverStore):
            stores = [self.store.primary, *([self.store.fallback] if self.store.fallback else [])]
        return [event for store in stores for event in self._events_of(store)]

    def _events_of(self, store: Store) -> list[AttemptEvent]:
        from axes_async.stores.database.store import DatabaseStore

        if isinstance(store, DatabaseStore):
            from axes_async.models import OutboxEvent

            return [AttemptEvent.parse(row.wire) for row in OutboxEvent.objects.order_by("pk")]
        if not isinstance(store, OutboxStore):
            return self.delivered
        try:
            entries = store.read(Position(), 1000)
        except Exception:
            if isinstance(self.store, FailoverStore):
                return []  # It is away.
            raise
        return [event for _, event in entries if isinstance(event, AttemptEvent)]

    def _noted(self, result: StepResult) -> StepResult:
        if result.event is not None:
            self.delivered.append(result.event)
        return result
