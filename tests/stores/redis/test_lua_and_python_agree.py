"""The counter on the server and ``CounterState`` do the same, and the events of the server replay to the same state."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from axes_async.counters.events import AttemptEvent, Kind, new_id
from axes_async.counters.rules import Counter, LockoutTier, Rule
from axes_async.counters.state import CounterState
from axes_async.stores.contract import Position, SavedCounter
from axes_async.stores.redis.store import RedisStore
from axes_async.stores.results import PERMANENT, Verdict
from axes_async.stores.step import Step as StoreStep
from axes_async.stores.step import StepKind
from tests.stores.steps import Time

RULES = {
    "plain": Rule(parameters=("ip_address",), limit=3, cooloff=20),
    "until a reset": Rule(parameters=("ip_address",), limit=3, cooloff=None),
    "never locks": Rule(parameters=("username",), limit=0, cooloff=20),
    "rolling": Rule(parameters=("ip_address", "username"), limit=3, cooloff=20, rolling=True),
    "tiers": Rule(
        parameters=("username",),
        limit=2,
        cooloff=30,
        tiers=(LockoutTier(2, timedelta(seconds=10)), LockoutTier(5, timedelta(seconds=30))),
    ),
}

numbers = itertools.count()


@dataclass(frozen=True)
class Step:
    """What is done, and how many seconds after the step before."""

    name: str
    after: int


steps = st.builds(
    Step,
    st.sampled_from(["fail"] * 5 + ["fail and extend", "reserve", "reserve and extend", "succeed", "clear", "push"]),
    st.sampled_from([0, 0, 1, 1, 2, 5, 9, 10, 11, 19, 20, 21, 31]),
)
profile = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


class Twins:
    """A counter on the server, and its state in Python."""

    def __init__(self, store: RedisStore, time: Time) -> None:
        self.store, self.time = store, time
        self.digest = f"{next(numbers):022}"
        self.state = CounterState()
        self.read = store.key().last

    def do(self, step: Step, rule: Rule) -> CounterState:
        """Do the step to both, compare what they say of it, and return the state under this rule."""
        self.time.now += step.after * 1000
        now, counters = self.time.now, [Counter(rule, self.digest)]
        state = deepcopy(self.state)
        state.expire(now, rule)
        before, locked, extend = state.failures, state.is_locked(rule, now), step.name.endswith("extend")
        writes = not locked  # A look under another rule writes nothing.
        if locked and extend:
            state.prolong(rule, now)
            writes = bool(rule.tiers or rule.window_ms)
        if step.name.startswith("fail"):
            locks = state.count(rule, now)
            event = AttemptEvent(kind=Kind.FAILED, id=new_id(now))
            result = self.store.do(StoreStep(StepKind.FAIL, "token", counters, event=event, extend=extend))
            assert result.newly_locked is locks
        elif step.name.startswith("reserve"):
            writes = writes and locked
            event = AttemptEvent(kind=Kind.BLOCKED, id=new_id(now))
            result = self.store.do(
                StoreStep(StepKind.RESERVE, "token", counters, event=event, lease=9000, extend=extend)
            )
        elif step.name == "push":
            key = self.store.key()
            assert self.store.push(key.generation, key.last, [SavedCounter(digest=self.digest, state=state)]) == "ok"
            writes, result = True, self.store.peek(counters)
        else:
            clear = counters if step.name == "clear" else []
            writes = bool(clear and before and not locked)
            if writes:
                state.clear()
            event = AttemptEvent(kind=Kind.LOGGED_IN, id=new_id(now))
            result = self.store.do(StoreStep(StepKind.SUCCEED, "token", counters, event=event, clear=clear))
            assert result.failures == (before,)
            result = self.store.peek(counters)
        if writes:
            self.state = state
        assert result.failures == (state.failures,)
        assert self.store.states(counters) == [state]
        self.compare_lockout(state, rule)
        return state

    def compare_lockout(self, state: CounterState, rule: Rule) -> None:
        looked = self.store.peek([Counter(rule, self.digest)])
        if state.is_locked(rule, self.time.now):
            ends, limit = state.lock_ends(rule) or PERMANENT, state.limit(rule, self.time.now)
            assert (looked.verdict, looked.locked_until, looked.limit) == (Verdict.LOCKED, ends, limit)
        else:
            assert (looked.verdict, looked.locked_until, looked.limit) == (Verdict.ALLOWED, 0, 0)

    def replayed(self, rule: Rule) -> CounterState:
        """Return what the events of the store make of an empty counter."""
        state = CounterState()
        for _, event in self.events():
            for change in event.changes:
                assert change.digest == self.digest
                assert change.parameters == rule.parameters
                state.replay(change, event.at)
        state.expire(self.time.now, rule)
        return state

    def events(self) -> Iterable[tuple[Position, AttemptEvent]]:
        for position, event in self.store.read(self.read, 1000):
            assert isinstance(event, AttemptEvent)
            yield position, event


@profile
@given(name=st.sampled_from(sorted(RULES)), done=st.lists(steps, min_size=1, max_size=25))
def test_the_server_counts_as_python_does_and_its_events_replay_to_the_same(
    lone: RedisStore, time: Time, name: str, done: list[Step]
) -> None:
    twins, rule = Twins(lone, time), RULES[name]
    for step in done:
        assert twins.do(step, rule) == twins.replayed(rule)


@profile
@given(done=st.lists(st.tuples(steps, st.sampled_from(sorted(RULES))), min_size=1, max_size=25))
def test_the_server_counts_as_python_does_when_the_rule_changes_meanwhile(
    lone: RedisStore, time: Time, done: list[tuple[Step, str]]
) -> None:
    twins = Twins(lone, time)
    for step, name in done:
        twins.do(step, RULES[name])
