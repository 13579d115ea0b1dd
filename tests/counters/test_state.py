"""The state of a counter: when it locks and for how long, what expires, what is forgiven, and how it is replayed."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axes_async.counters.events import CounterChange
from axes_async.counters.rules import LockoutTier, Rule
from axes_async.counters.state import CounterState, ends_of, ends_text

NOW = 1_800_000_000_000
MINUTE, HOUR = 60_000, 3_600_000
TIERS = (LockoutTier(3, timedelta(minutes=5)), LockoutTier(6, timedelta(hours=1)), LockoutTier(8, timedelta(hours=24)))
MEMORY = 24 * HOUR
PLAIN = Rule(parameters=("username",), limit=3, cooloff=600)
PERMANENT = Rule(parameters=("username",), limit=3, cooloff=None)
TIERED = Rule(parameters=("username",), limit=3, cooloff=MEMORY / 1000, tiers=TIERS)
ROLLING = Rule(parameters=("username",), limit=3, cooloff=600, rolling=True)


class Counted:
    """One counter under one rule, at a time that is set."""

    def __init__(self, rule: Rule, state: CounterState | None = None) -> None:
        self.rule, self.now, self.state = rule, NOW, state or CounterState()

    def look(self) -> CounterState:
        self.state.expire(self.now, self.rule)
        return self.state

    def guess(self, times: int) -> list[bool]:
        """Try so many wrong passwords; return which were looked at."""
        looked_at = []
        for _ in range(times):
            looked_at.append(not self.look().is_locked(self.rule, self.now))
            if looked_at[-1]:
                self.state.count(self.rule, self.now)
        return looked_at

    def until(self) -> int:
        """Return when the lockout in force ends; 0 without one."""
        return self.state.lock_ends(self.rule) if self.look().is_locked(self.rule, self.now) else 0

    def failures(self) -> int:
        return self.look().failures


@pytest.mark.parametrize("rule", [PLAIN, PERMANENT, TIERED, ROLLING])
def test_the_failure_that_reaches_the_limit_locks_and_later_ones_do_not_count(rule: Rule) -> None:
    state = CounterState()
    assert [state.count(rule, NOW) for _ in range(5)] == [False, False, True, False, False]
    assert (state.failures, state.is_locked(rule, NOW), state.since) == (3, True, NOW)


def test_a_limit_of_zero_counts_and_never_locks() -> None:
    rule = Rule(parameters=("username",), limit=0, cooloff=None)
    state = CounterState()
    assert not any(state.count(rule, NOW) for _ in range(50))
    assert (state.failures, state.is_locked(rule, NOW)) == (50, False)


def test_without_a_cool_off_only_a_reset_ends_a_lockout() -> None:
    counted = Counted(PERMANENT)
    counted.guess(3)
    counted.now += 10**12
    assert counted.guess(1) == [False]
    assert counted.state.lock_ends(PERMANENT) == 0


def test_the_cool_off_runs_from_the_last_failure() -> None:
    counted = Counted(PLAIN)
    counted.guess(1)
    counted.now += 9 * MINUTE
    counted.guess(1)
    counted.now += 10 * MINUTE - 1
    assert counted.failures() == 2
    counted.now += 1
    assert (counted.failures(), counted.state) == (0, CounterState())


class TestTiers:
    """Each tier locks for longer, and the count outlives the lockouts."""

    @pytest.fixture
    def counted(self) -> Counted:
        return Counted(TIERED)

    def test_each_tier_locks_for_its_own_time_and_counting_goes_on_behind_it(self, counted: Counted) -> None:
        for allowed, lasts in [(3, 5 * MINUTE), (3, HOUR), (2, 24 * HOUR)]:
            assert counted.guess(5) == [True] * allowed + [False] * (5 - allowed)
            assert counted.until() == counted.now + lasts
            counted.now += lasts - 1
            assert counted.guess(1) == [False]
            counted.now += 1
        assert counted.failures() == 8

    def test_beyond_the_last_tier_each_failure_locks_for_as_long_as_that(self, counted: Counted) -> None:
        for _ in range(3):
            counted.guess(5)
            counted.now = counted.until()
        for count in range(9, 13):
            assert counted.guess(2) == [True, False]
            assert (counted.failures(), counted.until()) == (count, counted.now + 24 * HOUR)
            counted.now = counted.until()

    def test_the_level_is_forgotten_the_longest_cool_off_after_the_last_lockout(self, counted: Counted) -> None:
        counted.guess(3)
        ended = counted.until()
        counted.now = ended + MEMORY - 1
        assert counted.failures() == 3
        counted.now = ended + MEMORY
        assert counted.failures() == 0
        assert counted.guess(4) == [True, True, True, False]
        assert counted.until() == counted.now + 5 * MINUTE

    def test_an_attempt_during_a_lockout_can_start_it_anew(self, counted: Counted) -> None:
        counted.guess(3)
        counted.now += MINUTE
        counted.state.prolong(TIERED, counted.now)
        assert counted.until() == counted.now + 5 * MINUTE
        counted.now = counted.until() + MEMORY - 1
        assert counted.failures() == 3


class TestWindows:
    """Each failure expires alone."""

    @pytest.fixture
    def counted(self) -> Counted:
        return Counted(ROLLING)

    def test_each_failure_expires_a_cool_off_after_it_was_made(self, counted: Counted) -> None:
        for _ in range(2):
            counted.guess(1)
            counted.now += 4 * MINUTE
        for now, left in [(10 * MINUTE - 1, 2), (10 * MINUTE, 1), (14 * MINUTE, 0)]:
            counted.now = NOW + now
            assert counted.failures() == left

    def test_a_lockout_ends_when_the_first_failure_does_and_one_guess_is_free(self, counted: Counted) -> None:
        for _ in range(3):
            counted.guess(1)
            counted.now += 2 * MINUTE
        assert counted.until() == NOW + 10 * MINUTE
        counted.now = NOW + 10 * MINUTE
        assert counted.guess(2) == [True, False]
        assert counted.until() == NOW + 12 * MINUTE

    def test_failures_further_apart_than_the_window_never_lock(self, counted: Counted) -> None:
        for _ in range(12):
            assert counted.guess(1) == [True]
            counted.now += 5 * MINUTE

    def test_an_attempt_during_a_lockout_can_start_the_cool_off_anew(self, counted: Counted) -> None:
        for _ in range(3):
            counted.guess(1)
            counted.now += MINUTE
        counted.state.prolong(ROLLING, counted.now)
        assert counted.until() == counted.now + 10 * MINUTE

    def test_what_was_counted_before_failures_expired_alone_expires_as_it_would_have(self) -> None:
        before = Counted(PLAIN)
        before.guess(2)
        counted = Counted(ROLLING, before.state)
        counted.now = NOW + MINUTE
        assert counted.guess(2) == [True, False]
        assert counted.until() == NOW + 10 * MINUTE
        back = Counted(Rule(parameters=("username",), limit=4, cooloff=600), counted.state)
        back.now = NOW + 2 * MINUTE
        assert back.guess(1) == [True]
        assert back.until() == back.now + 10 * MINUTE


class TestForgiving:
    """A reset takes the oldest failures back."""

    def test_the_oldest_go_first_and_no_more_than_there_are(self) -> None:
        counted = Counted(ROLLING)
        for _ in range(2):
            counted.guess(1)
            counted.now += MINUTE
        assert counted.state.forgive(1, 3, counted.now) == 1
        assert counted.state.ends == [NOW + 11 * MINUTE]
        assert counted.state.forgive(9, 3, counted.now) == 1
        assert counted.state == CounterState()

    def test_the_lockout_of_a_tier_ends_with_fewer_failures_than_set_it(self) -> None:
        counted = Counted(TIERED)
        counted.guess(3)
        counted.state.forgive(1, 3, counted.now)
        assert (counted.until(), counted.failures()) == (0, 2)
        assert counted.guess(2) == [True, False]


class TestReplay:
    """What a store did to its counter is done to the row."""

    def change(self, **parts: int | bool) -> CounterChange:
        return CounterChange(digest="d" * 22, parameters=("username",), limit=3, **parts)  # type: ignore[arg-type]

    def test_a_counted_failure_is_added_and_a_login_clears(self) -> None:
        state = CounterState()
        for number in range(2):
            state.replay(self.change(counted=True, expires_at=NOW + HOUR), NOW + number)
        assert (state.failures, state.since, state.expires_at) == (2, NOW, NOW + HOUR)
        state.replay(self.change(cleared=True), NOW + 2)
        assert state == CounterState()

    def test_a_row_that_had_expired_by_the_time_of_the_event_starts_anew(self) -> None:
        state = CounterState(failures=2, since=NOW, expires_at=NOW + 5)
        state.replay(self.change(counted=True, expires_at=NOW + HOUR), NOW + 5)
        assert (state.failures, state.since) == (1, NOW + 5)

    def test_a_late_change_only_prolongs(self) -> None:
        state = CounterState(failures=1, since=NOW, expires_at=NOW + HOUR, locked_until=NOW + 9)
        state.replay(self.change(counted=True, expires_at=NOW + MINUTE, locked_until=NOW + 7), NOW, late=True)
        assert (state.failures, state.expires_at, state.locked_until) == (2, NOW + HOUR, NOW + 9)

    def test_a_late_change_keeps_a_counter_that_only_a_reset_ends(self) -> None:
        state = CounterState(failures=1, since=NOW)
        state.replay(self.change(counted=True, expires_at=NOW + MINUTE), NOW, late=True)
        assert state.expires_at == 0

    def test_a_lockout_that_was_prolonged_moves_the_end_of_each_failure(self) -> None:
        state = CounterState(failures=2, since=NOW, expires_at=NOW + 2, ends=[NOW + 1, NOW + 2])
        state.replay(self.change(locked=True, prolonged=True, expires_at=NOW + HOUR), NOW)
        assert state.ends == [NOW + HOUR] * 2


@given(st.lists(st.integers(0, 2**53)))
def test_the_ends_of_failures_arrive_as_they_left(ends: list[int]) -> None:
    assert ends_of(ends_text(ends)) == ends
