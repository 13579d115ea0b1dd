"""The counting engine against a model written in another way, and the replay of what it emits."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from django.core.cache.backends.locmem import LocMemCache
from hypothesis import given, settings
from hypothesis import strategies as st

from axes_async import clock
from axes_async.counters.events import AttemptEvent, Kind, new_id
from axes_async.counters.rules import Counter, LockoutTier, Rule
from axes_async.counters.state import CounterState
from axes_async.stores.cache import CacheStore
from axes_async.stores.contract import SavedCounter
from axes_async.stores.counting import Engine, KeptCounter
from axes_async.stores.results import PERMANENT, StepResult, Verdict
from axes_async.stores.step import Step, StepKind

NOW = 1_800_000_000_000
LEASE = 5_000
TIERS = (LockoutTier(2, timedelta(seconds=4)), LockoutTier(4, timedelta(seconds=20)))
RULES = {
    "until a reset": Rule(parameters=("ip_address",), limit=3, cooloff=None),
    "cool-off": Rule(parameters=("ip_address",), limit=3, cooloff=10),
    "rolling": Rule(parameters=("ip_address",), limit=3, cooloff=10, rolling=True),
    "tiers": Rule(parameters=("username",), limit=2, cooloff=10, tiers=TIERS),
    "no limit": Rule(parameters=("ip_address",), limit=0, cooloff=10),
}
TOKENS = st.sampled_from("abcde")
NAMES = [*["fail"] * 6, "reserve", "reserve", "extended reserve", "extended fail", "succeed", "release"]
STEPS = st.tuples(st.sampled_from(NAMES), TOKENS)
ACTIONS = STEPS | st.tuples(st.just("pass"), st.sampled_from([1, 1000, 2000, 4000, 5000, 9999, 10_000, 30_000]))


@dataclass
class Model:
    """One counter, by the definitions: every failure is an entry with an end, and a lock is a time."""

    rule: Rule
    now: int = NOW
    ends: list[float] = field(default_factory=list)
    lock_end: float = 0
    reservations: dict[str, int] = field(default_factory=dict)

    FOREVER = float("inf")

    @property
    def window(self) -> float:
        return self.FOREVER if self.rule.cooloff is None else self.rule.cooloff * 1000

    def failures(self) -> int:
        return sum(end > self.now for end in self.ends)

    def open(self, token: str = "") -> int:
        return sum(end > self.now and name != token for name, end in self.reservations.items())

    def next_limit(self) -> float:
        """How many failures lock, given those there are."""
        if not self.rule.tiers:
            return self.rule.limit or self.FOREVER
        above = [tier.failures for tier in self.rule.tiers if tier.failures > self.failures()]
        return above[0] if above else self.failures() + 1

    def locked(self) -> bool:
        if self.rule.tiers:
            return self.failures() > 0 and self.now < self.lock_end
        return self.failures() >= self.next_limit()

    def locked_until(self) -> float:
        if self.rule.tiers:
            return self.lock_end
        return sorted(end for end in self.ends if end > self.now)[-self.rule.limit]

    def lock(self) -> None:
        """Start the cool-off of a lockout."""
        if self.rule.tiers:
            reached = [tier for tier in self.rule.tiers if tier.failures <= self.failures()]
            self.lock_end = self.now + reached[-1].cooloff.total_seconds() * 1000
            base = self.lock_end
        else:
            base = self.now
        self.ends = [base + self.window if end > self.now else end for end in self.ends]

    def fail(self, token: str, *, extend: bool) -> None:
        self.reservations.pop(token, None)
        if self.locked():
            if extend and self.rule.cooloff is not None:
                self.lock()
            return
        alive = [end for end in self.ends if end > self.now]
        if not alive:
            self.lock_end = 0
        self.ends = [*(alive if self.rule.rolling else [self.now + self.window] * len(alive)), self.now + self.window]
        limit = next((t.failures for t in self.rule.tiers if t.failures > len(alive)), len(alive) + 1)
        if self.rule.tiers and self.failures() >= limit:
            self.lock()

    def reserve(self, token: str, *, extend: bool) -> Verdict:
        if self.locked():
            if extend and self.rule.cooloff is not None:
                self.lock()
            return Verdict.LOCKED
        if self.failures() + self.open(token) >= self.next_limit():
            return Verdict.BUSY
        self.reservations[token] = self.now + LEASE
        return Verdict.ALLOWED

    def succeed(self, token: str) -> None:
        self.reservations.pop(token, None)
        if not self.locked():
            self.ends, self.lock_end = [], 0


class Runner:
    """The engine on one counter, with the events that it emits."""

    def __init__(self, rule: Rule) -> None:
        self.counter = Counter(rule, "d" * 22)
        self.kept = KeptCounter()
        self.now = NOW
        self.events: list[AttemptEvent] = []

    def engine(self, *, applied: bool = False) -> Engine:
        return Engine([self.counter], {self.counter.digest: self.kept}, self.now, applied=applied)

    def step(self, kind: StepKind, token: str, **more: Any) -> Step:
        event = AttemptEvent(kind=Kind.FAILED, id=new_id(self.now))
        return Step(kind, token, [self.counter], event=event, **more)

    def do(self, action: str, token: str) -> StepResult:
        more: dict[str, Any] = {"reserve": {"lease": LEASE}, "succeed": {"clear": [self.counter], "always": False}}
        *extended, name = action.split()
        step = self.step(StepKind(name), token, extend=bool(extended), **more.get(name, {}))
        result = self.engine().do(step)
        if result.event is not None:
            self.events.append(result.event)
        return result


@pytest.mark.parametrize("name", RULES)
@given(actions=st.lists(ACTIONS, min_size=10, max_size=40))
@settings(deadline=None, max_examples=80)
def test_engine_agrees_with_the_model(name: str, actions: list[tuple[str, Any]]) -> None:
    rule = RULES[name]
    model, runner = Model(rule), Runner(rule)
    for action, detail in actions:
        if action == "pass":
            model.now += detail
            runner.now += detail
            continue
        extend = action.startswith("extended")
        result = runner.do(action, detail)
        if action.endswith("reserve"):
            assert result.verdict == model.reserve(detail, extend=extend)
        elif action.endswith("fail"):
            was_locked = model.locked()
            model.fail(detail, extend=extend)
            assert result.newly_locked == (model.locked() and not was_locked)
        elif action == "succeed":
            assert result.failures == (model.failures(),)
            model.succeed(detail)
        else:
            model.reservations.pop(detail, None)
        seen = runner.do("peek", "")
        assert seen.failures == (model.failures(),)
        assert (seen.verdict is Verdict.LOCKED) == model.locked()
        if model.locked():
            until = model.locked_until()
            assert seen.locked_until == (PERMANENT if until == Model.FOREVER else until)
        assert len(runner.kept.reservations) == model.open()


WHOLE_SECONDS = st.tuples(st.just("pass"), st.sampled_from([1000, 2000, 5000, 9000, 10_000, 30_000]))


@pytest.mark.parametrize("name", RULES)
@given(actions=st.lists(STEPS | WHOLE_SECONDS, min_size=10, max_size=40))
@settings(deadline=None, max_examples=80)
def test_replay_of_the_changes_gives_the_state(name: str, actions: list[tuple[str, Any]]) -> None:
    runner, row = Runner(RULES[name]), CounterState()
    for action, detail in actions:
        if action == "pass":
            runner.now += detail
            continue
        runner.do(action, detail)
        for event in runner.events:
            for change in event.changes:
                row.replay(change, event.at)
        runner.events.clear()
        assert current(row, runner) == current(runner.kept.state, runner)


def current(state: CounterState, runner: Runner) -> CounterState:
    """Return a copy without what has expired."""
    copy = replace(state, ends=list(state.ends))
    copy.expire(runner.now, runner.counter.rule)
    return copy


def failed(runner: Runner, times: int) -> Runner:
    for number in range(times):
        runner.do("fail", f"{number}")
    runner.events.clear()
    return runner


def test_prolonged_lockout_told_once_a_second() -> None:
    runner = failed(Runner(RULES["cool-off"]), 3)
    for _ in range(30):
        runner.now += 100
        runner.do("extended reserve", "x")
    told = [event for event in runner.events if event.changes]
    assert [event.at - NOW for event in told] == [100, 1100, 2100]
    assert all(change.prolonged and change.locked for event in told for change in event.changes)
    assert runner.kept.state.expires_at == NOW + 13_000


def test_blocked_attempts_told_one_to_ten_then_doublings() -> None:
    runner = failed(Runner(RULES["cool-off"]), 3)
    for _ in range(85):
        runner.do("reserve", "x")
    assert [event.repeats for event in runner.events] == [*range(1, 11), 20, 40, 80]


def test_blocked_attempts_start_over_with_the_next_lockout() -> None:
    runner = failed(Runner(RULES["cool-off"]), 3)
    runner.do("reserve", "x")
    runner.now += 10_000
    failed(runner, 3)
    assert runner.do("reserve", "x").repeats == 1


def test_again_counts_nothing_where_no_reservation_is_left() -> None:
    runner = Runner(RULES["cool-off"])
    runner.do("reserve", "a")
    results = [runner.engine().do(runner.step(StepKind.FAIL, "a", again=True)) for _ in range(2)]
    assert [result.failures for result in results] == [(1,), (1,)]
    assert [result.event is None for result in results] == [False, True]


def test_event_that_is_applied_only_ends_the_reservation() -> None:
    runner = Runner(RULES["cool-off"])
    runner.do("reserve", "a")
    assert runner.engine(applied=True).do(runner.step(StepKind.FAIL, "a")) == StepResult(failures=(0,))
    assert runner.kept.reservations == {}


def test_login_never_clears_a_locked_counter() -> None:
    runner = failed(Runner(RULES["cool-off"]), 3)
    assert runner.do("succeed", "x").event is None
    assert runner.do("reserve", "x").verdict is Verdict.LOCKED


def test_step_that_changes_nothing_saves_nothing() -> None:
    runner = failed(Runner(RULES["cool-off"]), 1)
    engine = runner.engine()
    for kind in (StepKind.RELEASE, StepKind.SUCCEED):
        engine.do(runner.step(kind, "nobody's"))
    assert not engine.touched


@pytest.fixture
def cache_store(monkeypatch: pytest.MonkeyPatch) -> CacheStore:
    monkeypatch.setattr(clock, "fixed_ms", lambda: NOW)
    cache = LocMemCache("counting", {})
    cache.clear()
    return CacheStore(lambda: cache, shared=False)


def test_rows_written_over_a_caches_copies(cache_store: CacheStore) -> None:
    counter = Counter(RULES["cool-off"], "d" * 22)
    event = AttemptEvent(kind=Kind.FAILED, id=new_id(NOW))
    cache_store.do(Step(StepKind.RESERVE, "in the cache", [counter], lease=LEASE))
    cache_store.do(Step(StepKind.FAIL, "x", [counter], event=event))
    state = CounterState(failures=1, since=NOW, expires_at=NOW + 10_000)
    cache_store.load([SavedCounter(digest=counter.digest, state=state, reservations={"in the row": NOW + LEASE})])
    assert cache_store.states([counter]) == [state]
    assert cache_store.do(Step(StepKind.RESERVE, "another", [counter], lease=LEASE)).verdict is Verdict.BUSY
    cache_store.load([SavedCounter(digest=counter.digest, state=CounterState())])
    assert cache_store.states([counter]) == [CounterState()]
    assert cache_store.do(Step(StepKind.RESERVE, "another", [counter], lease=LEASE)).verdict is Verdict.ALLOWED


def test_entry_of_another_version_counts_nothing(cache_store: CacheStore) -> None:
    counter = Counter(RULES["cool-off"], "d" * 22)
    cache_store.cache().set(f"axes:c:{counter.digest}", ("of", "another", "version"))
    assert cache_store.states([counter]) == [CounterState()]
