"""The contract, continued: when a counter locks, for how long, and what is said of attempts that are turned away."""

from __future__ import annotations

from datetime import timedelta

import pytest

from axes_async.counters.events import Kind
from axes_async.counters.rules import Counter, LockoutTier, Rule
from axes_async.stores.contract import Store
from axes_async.stores.results import Verdict
from axes_async.stores.step import Step, StepKind
from tests.stores.steps import LEASE, Steps, Time


def test_a_cool_off_runs_from_the_last_failure(minute: Steps) -> None:
    minute.fail("a")
    minute.pass_(50_000)
    minute.fail("b")
    minute.pass_(59_999)
    assert minute.failures() == [2]
    minute.pass_(1)
    assert minute.failures() == [0]


def test_a_lockout_ends_to_the_millisecond_and_counting_starts_over(minute: Steps) -> None:
    for token in "abc":
        result = minute.fail(token)
    assert result.locked_until == minute.time.now + 60_000
    minute.pass_(59_999)
    assert minute.reserve("d").verdict is Verdict.LOCKED
    minute.pass_(1)
    assert minute.reserve("d").verdict is Verdict.ALLOWED
    minute.fail("d")
    assert minute.failures() == [1]


def test_a_denied_attempt_extends_the_cool_off_only_if_told_to(minute: Steps) -> None:
    start = minute.time.now
    for token in "abc":
        minute.fail(token)
    minute.pass_(30_000)
    assert minute.reserve("d").locked_until == start + 60_000
    assert minute.reserve("d", extend=True).locked_until == start + 90_000
    minute.pass_(59_999)
    assert minute.reserve("d").verdict is Verdict.LOCKED
    (change,) = minute.events()[-2].changes
    assert (change.prolonged, change.counted, change.expires_at) == (True, False, start + 90_000)


def test_a_failure_on_a_locked_counter_extends_the_cool_off_only_if_told_to(minute: Steps) -> None:
    start = minute.time.now
    for token in "abc":
        minute.fail(token)
    minute.pass_(30_000)
    assert minute.fail("d").locked_until == start + 60_000
    result = minute.fail("e", extend=True)
    assert (result.locked_until, result.newly_locked) == (start + 90_000, False)
    (change,) = minute.events()[-1].changes
    assert (change.prolonged, change.locked, change.expires_at) == (True, True, start + 90_000)


def test_a_limit_of_zero_counts_and_never_locks(contract_store: Store, time: Time) -> None:
    steps = Steps(contract_store, time, limit=0)
    for token in "abcdefgh":
        assert steps.reserve(token).verdict is Verdict.ALLOWED
        assert steps.fail(token).locked_until == 0
    assert steps.failures() == [8]


def test_the_longest_lockout_and_the_lowest_limit_are_told(contract_store: Store, time: Time) -> None:
    short, long = Steps(contract_store, time, cooloff=60), Steps(contract_store, time, limit=4, cooloff=600)
    one, two = short.counter("192.0.2.1"), long.counter("192.0.2.2")
    for token in "abcd":
        short.fail(token, one)
        long.fail(token, two)
    result = short.reserve("e", one, two)
    assert (result.locked_until, result.limit) == (time.now + 600_000, 3)
    assert short.reserve("e", short.counter("192.0.2.3"), one).locked_until == time.now + 60_000


def test_tiers_lock_longer_each_time(contract_store: Store, time: Time) -> None:
    steps = Steps(contract_store, time)
    tiers = (LockoutTier(2, timedelta(seconds=10)), LockoutTier(3, timedelta(seconds=60)))
    counter = Counter(Rule(parameters=("ip_address",), limit=2, cooloff=60, tiers=tiers), steps.counter().digest)
    start = time.now
    assert [steps.fail(token, counter).locked_until for token in "ab"] == [0, start + 10_000]
    assert steps.reserve("c", counter).limit == 2
    steps.pass_(10_000)
    assert steps.reserve("c", counter).verdict is Verdict.ALLOWED
    result = steps.fail("c", counter)
    assert (result.locked_until, result.limit, result.newly_locked) == (start + 70_000, 3, True)
    (change,) = steps.events()[-1].changes
    assert (change.locked_until, change.expires_at) == (start + 70_000, start + 130_000)
    steps.pass_(60_000 + 59_999)
    assert steps.failures(counter) == [3]
    steps.pass_(1)
    assert steps.failures(counter) == [0]


@pytest.mark.parametrize("cooloff", [60, None])
def test_a_limit_that_becomes_tiers_locks_as_if_it_had_had_them(
    contract_store: Store, time: Time, cooloff: float | None
) -> None:
    steps = Steps(contract_store, time)
    plain = Counter(Rule(parameters=("ip_address",), limit=3, cooloff=cooloff), steps.counter().digest)
    tiers = (LockoutTier(2, timedelta(seconds=10)), LockoutTier(5, timedelta(seconds=60)))
    tiered = Counter(Rule(parameters=("ip_address",), limit=2, cooloff=60, tiers=tiers), plain.digest)
    for token in "abc":
        steps.fail(token, plain)
    ends = time.now + 10_000
    assert [(r.verdict, r.locked_until, r.limit) for r in (steps.reserve("d", tiered),)] == [(Verdict.LOCKED, ends, 2)]
    steps.pass_(10_000)
    for token, locked_until in [("d", 0), ("e", time.now + 60_000)]:
        assert steps.reserve(token, tiered).verdict is Verdict.ALLOWED
        assert steps.fail(token, tiered).locked_until == locked_until
    assert steps.reserve("f", tiered).verdict is Verdict.LOCKED


def test_in_a_rolling_window_each_failure_expires_alone(contract_store: Store, time: Time) -> None:
    steps = Steps(contract_store, time)
    counter = Counter(Rule(parameters=("ip_address",), limit=3, cooloff=60, rolling=True), steps.counter().digest)
    start = time.now
    for token in "abc":
        result = steps.fail(token, counter)
        steps.pass_(10_000)
    assert result.locked_until == start + 60_000
    assert [change.end for change in steps.events()[-1].changes] == [start + 80_000]
    steps.pass_(30_000)
    assert steps.failures(counter) == [2]
    assert steps.reserve("d", counter).verdict is Verdict.ALLOWED
    assert steps.fail("d", counter).locked_until == start + 70_000


def test_blocked_attempts_are_recorded_one_to_ten_and_then_at_each_doubling(steps: Steps) -> None:
    for token in "abc":
        steps.fail(token)
    told = [steps.reserve("x").repeats for _ in range(41)]
    recorded = [event.repeats for event in steps.events() if event.kind is Kind.BLOCKED]
    assert recorded == [*range(1, 11), 20, 40]
    assert [repeats for repeats in told if repeats] == recorded


def test_attempts_that_are_turned_away_unrecorded_are_counted(steps: Steps) -> None:
    for token in "abc":
        steps.fail(token)
    results = [steps.store.do(Step(StepKind.RESERVE, "late", [steps.counter()], lease=LEASE)) for _ in range(2)]
    assert [(result.repeats, result.event) for result in results] == [(1, None), (2, None)]
    assert len(steps.events()) == 3


def test_the_next_lockout_counts_its_blocked_attempts_from_one(minute: Steps) -> None:
    for _ in range(2):
        for token in "abc":
            minute.fail(token)
        assert [minute.reserve("d").repeats for _ in range(2)] == [1, 2]
        minute.pass_(60_000)
