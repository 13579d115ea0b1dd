"""A host's clock steps: nobody is freed early by more than the step, and nobody is locked for ever."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine

from axes_async.models import AccessAttempt, AccessFailureLog
from axes_async.stores.redis.store import RedisStore
from axes_async.tasks.expire import expire
from axes_async.tasks.sync import sync_store
from tests.actions import failure
from tests.faults.machines import Valkey
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)

Drain = Callable[[], int]
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
COOLOFF, STEP = timedelta(minutes=30), timedelta(minutes=10)
WHO = ("alice", "192.0.2.1")


@pytest.fixture(autouse=True)
def _cool_off(settings: Any) -> None:
    settings.AXES_COOLOFF_TIME = COOLOFF


@pytest.fixture(params=["store", "rows"])
def decided_in(request: pytest.FixtureRequest, own_valkey: Valkey, own_store: RedisStore) -> str:
    """Have lockouts decided in the store, or without it, in the rows."""
    if request.param == "rows":
        own_valkey.kill()
    return str(request.param)


def lock() -> None:
    assert [failure(*WHO) for _ in range(4)] == [True, True, True, False]


def at(clock: Any, minutes: float) -> bool:
    """Return whether a guess is looked at when the clock says so many minutes after noon."""
    clock.move_to(NOON + timedelta(minutes=minutes))
    return failure(*WHO)


def test_clock_that_stepped_forward_frees_early_by_no_more_than_the_step(decided_in: str) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        lock()
        ahead = STEP.total_seconds() / 60
        assert not at(clock, ahead + 0.1)
        assert not at(clock, 29.9), "that is 19.9 minutes of real time after the lock"
        assert at(clock, 30.1)


def test_clock_that_stepped_back_locks_longer_by_no_more_than_the_step(decided_in: str) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        lock()
        assert not at(clock, -10)
        assert not at(clock, 29.9)
        assert at(clock, 30.1), "40 minutes of real time after the lock: the cool-off and the step"


def test_failures_counted_across_a_step_back_are_all_counted(decided_in: str) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        assert failure(*WHO)
        assert at(clock, -10)
        assert at(clock, -9)
        assert not at(clock, -8)
        assert at(clock, 31)


def test_reservation_taken_before_a_step_back_ends(own_valkey: Valkey, own_store: RedisStore, settings: Any) -> None:
    from axes_async import guard
    from tests.actions import request_from

    settings.AXES_FAILURE_LIMIT, settings.AXES_RESERVE_WAIT = 1, 0
    with time_machine.travel(NOON, tick=False) as clock:
        guard.reserve(request_from(WHO[1]), {"username": WHO[0]})
        assert not at(clock, -10)
        (key,) = own_valkey.client.scan_iter(f"{own_store.counter_prefix}*")
        assert 0 < own_valkey.client.pttl(key) <= 30_000, "the server ends it by its own clock, whatever ours says"


def test_key_of_a_locked_client_lives_as_long_as_its_lockout(own_valkey: Valkey, own_store: RedisStore) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        lock()
        clock.move_to(NOON - STEP)
        assert failure("bob", "192.0.2.1") is False
    (key,) = own_valkey.client.scan_iter(f"{own_store.counter_prefix}*")
    assert 0 < own_valkey.client.pttl(key) <= (COOLOFF + STEP) / timedelta(milliseconds=1)


def test_rows_written_across_a_step_back_are_in_order_and_expire(
    own_valkey: Valkey, own_store: RedisStore, drain: Drain
) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        for minutes, name in ((0, "one"), (-10, "two"), (5, "three"), (-20, "four")):
            clock.move_to(NOON + timedelta(minutes=minutes))
            assert failure(name, f"198.51.100.{minutes + 30}")
        assert drain() == 4
        assert list(AccessFailureLog.objects.order_by("id").values_list("username", flat=True)) == [
            "one",
            "two",
            "three",
            "four",
        ]
        clock.move_to(NOON + timedelta(minutes=36))
        expire()
        assert AccessAttempt.objects.count() == 0


def test_attempt_goes_on_after_a_step_back(own_valkey: Valkey, own_store: RedisStore, drain: Drain) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        assert failure(*WHO)
        assert drain() == 1
        clock.move_to(NOON - STEP)
        assert failure(*WHO)
        assert drain() == 1
    attempt = AccessAttempt.objects.get()
    assert attempt.failures_since_start == 2
    assert attempt.expires_at == NOON - STEP + COOLOFF


def test_sync_after_a_step_brings_back_what_still_counts(
    own_valkey: Valkey, own_store: RedisStore, drain: Drain
) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        lock()
        drain()
        clock.move_to(NOON - STEP)
        own_valkey.client.flushall()
        assert not failure(*WHO)
        until(lambda: sync_store(own_store), what="the store is complete again")
        assert not at(clock, 29.9)
        assert at(clock, 30.1)
