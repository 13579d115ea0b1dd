"""Cooled-off attempts go, and only they."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.test import override_settings

from axes_async.clock import as_ms
from axes_async.models import AccessAttempt, AccessFailureLog, AttemptCounter, DrainCursor
from axes_async.tasks.expire import expire
from axes_async.tasks.reset import reset
from tests.actions import failure, success

Drain = Callable[[], int]

pytestmark = [pytest.mark.django_db, pytest.mark.database, pytest.mark.usefixtures("_noon")]

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def clock() -> time_machine.Coordinates:
    """Return the clock, standing at noon."""
    with time_machine.travel(NOON, tick=False) as coordinates:
        yield coordinates


@pytest.fixture
def _noon(clock: time_machine.Coordinates) -> None:
    """Have every test of this file start at noon."""


@override_settings(AXES_COOLOFF_TIME=timedelta(minutes=10))
def test_an_attempt_goes_when_its_cool_off_is_over_and_not_before(
    drain: Drain, clock: time_machine.Coordinates
) -> None:
    failure()
    clock.shift(timedelta(minutes=5))
    failure("bob", "192.0.2.2")
    drain()
    clock.move_to(NOON + timedelta(minutes=10) - timedelta(seconds=1))
    assert expire() == {"attempts": 0, "counters": 0}
    clock.move_to(NOON + timedelta(minutes=10))
    assert expire() == {"attempts": 1, "counters": 1}
    assert AccessAttempt.objects.get().username == "bob"
    assert AttemptCounter.objects.count() == 1


@override_settings(AXES_COOLOFF_TIME=timedelta(minutes=10))
def test_the_record_of_failures_stays(drain: Drain, clock: time_machine.Coordinates) -> None:
    failure()
    drain()
    clock.shift(timedelta(hours=1))
    expire()
    assert AccessFailureLog.objects.count() == 1


def test_without_a_cool_off_nothing_expires(drain: Drain, clock: time_machine.Coordinates) -> None:
    for _ in range(3):
        failure()
    drain()
    clock.shift(timedelta(days=3650))
    assert expire() == {"attempts": 0, "counters": 0}
    assert not failure()


@override_settings(AXES_COOLOFF_TIME=0.25)
def test_a_number_is_hours(clock: time_machine.Coordinates) -> None:
    for _ in range(3):
        failure()
    clock.shift(timedelta(minutes=14, seconds=59))
    assert not failure()
    clock.shift(timedelta(seconds=1))
    assert failure()


@override_settings(AXES_COOLOFF_TIME=timedelta(minutes=10), AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT=True)
def test_an_attempt_during_the_lockout_can_start_its_cool_off_anew(
    drain: Drain, clock: time_machine.Coordinates
) -> None:
    for _ in range(3):
        failure()
    clock.shift(timedelta(minutes=9))
    assert not failure()
    clock.shift(timedelta(minutes=9))
    assert not success()
    drain()
    assert AttemptCounter.objects.get().expires_at == NOON + timedelta(minutes=28)
    clock.shift(timedelta(minutes=10))
    assert success()


@override_settings(AXES_COOLOFF_TIME=timedelta(minutes=10))
def test_a_lockout_that_goes_on_keeps_its_attempts(drain: Drain, settings: object) -> None:
    """What a worker wrote late has the expiry of its time, and goes with the first look."""
    with time_machine.travel(NOON - timedelta(hours=1), tick=False):
        failure()
    drain()
    assert expire() == {"attempts": 1, "counters": 1}


def test_counters_that_count_nothing_go(drain: Drain) -> None:
    failure()
    reset(ip="192.0.2.1")
    assert AttemptCounter.objects.get().failures == 0
    assert expire() == {"attempts": 0, "counters": 1}


def test_counter_that_counts_nothing_stays_until_the_store_knows(drain: Drain) -> None:
    failure()
    reset(ip="192.0.2.1")
    AttemptCounter.objects.update(dirty=True)
    assert expire()["counters"] == 0
    assert expire()["counters"] == 1, "the first one had the store told"


def test_counter_that_only_an_abandoned_store_was_to_be_told_of_goes(
    drain: Drain, clock: time_machine.Coordinates, settings: Any
) -> None:
    settings.AXES_COOLOFF_TIME = timedelta(minutes=10)
    failure()
    drain()
    AttemptCounter.objects.update(dirty=True)
    settings.AXES_STORE = "database"
    clock.shift(timedelta(minutes=10))
    assert expire()["counters"] == 1


def test_counter_with_a_reservation_stays_until_the_lease_ends(drain: Drain, clock: time_machine.Coordinates) -> None:
    failure()
    reset(ip="192.0.2.1")
    AttemptCounter.objects.update(reservations=f"token={as_ms(NOON) + 30_000}")
    assert expire()["counters"] == 0
    clock.shift(30)
    assert expire()["counters"] == 1


def test_counter_whose_events_are_void_stays_until_later_ones_are_written(drain: Drain) -> None:
    failure()
    reset(ip="192.0.2.1")
    AttemptCounter.objects.update(void_generation=1)
    assert expire()["counters"] == 0
    failure("bob", "192.0.2.2")  # In generation 2, which the reset began.
    assert expire()["counters"] == 1


@override_settings(AXES_COOLOFF_TIME=timedelta(minutes=10))
def test_events_are_written_first_that_prolong_what_has_expired_by_the_rows(
    drain: Drain, clock: time_machine.Coordinates
) -> None:
    failure()
    drain()
    clock.shift(timedelta(minutes=9))
    failure()
    clock.shift(timedelta(minutes=9))
    assert expire() == {"attempts": 0, "counters": 0}
    assert AttemptCounter.objects.get().failures == 2


def test_reset_of_everything_that_was_interrupted_is_finished(
    clock: time_machine.Coordinates, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        failure(address=f"192.0.2.{number}")
    monkeypatch.setattr("axes_async.tasks.reset.delete_void", lambda using: None)
    assert reset() == 3
    assert (AccessAttempt.objects.count(), AttemptCounter.objects.count()) == (3, 3)
    clock.shift(1)
    failure(address="192.0.2.1")
    expire()
    assert AccessAttempt.objects.get().failures_since_start == 1
    assert AttemptCounter.objects.get().failures == 1
    assert not DrainCursor.objects.exclude(name="outbox").exists()


@override_settings(AXES_COOLOFF_TIME=timedelta(minutes=10))
def test_many_are_deleted_in_portions(
    drain: Drain, clock: time_machine.Coordinates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("axes_async.tasks.expire.PORTION", 7)
    for number in range(20):
        failure(f"user{number}", f"192.0.2.{number}")
    drain()
    clock.shift(timedelta(minutes=10))
    assert expire() == {"attempts": 20, "counters": 20}
