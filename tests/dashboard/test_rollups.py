"""The rollups: what the drain adds up beside the rows, in the same transaction."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from axes_async.counters.events import AttemptEvent, Kind, new_id, worth_a_row
from axes_async.models import AccessAttempt, AccessFailureLog
from axes_async.models.rollups import AttemptRollup, TopValues
from axes_async.tasks.drain import write
from axes_async.tasks.expire import expire
from axes_async.tasks.projection.counters import Entry
from axes_async.tasks.projection.rollups import KEPT_FOR, network_of, turned_away
from axes_async.tasks.projection.sketches import distinct
from tests.actions import failure, success

Drain = Callable[[], int]
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)

pytestmark = [pytest.mark.django_db, pytest.mark.database]


@pytest.fixture(autouse=True)
def _noon() -> Iterator[None]:
    """Let no minute and no hour end in the middle of a test."""
    with time_machine.travel(NOON, tick=False):
        yield


def top(kind: str) -> dict[str, int]:
    found: dict[str, int] = json.loads(TopValues.objects.get(kind=kind).counts)
    return found


def test_each_outcome_is_counted_in_its_minute(alice: User, drain: Drain) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        for _ in range(4):
            failure("bob", "203.0.113.7")
        clock.shift(timedelta(minutes=1))
        success("alice", "192.0.2.9")
        drain()
    first, second = AttemptRollup.objects.order_by("minute")
    assert (first.minute, first.failed, first.turned_away, first.logged_in) == (NOON, 3, 1, 0)
    assert (second.minute, second.failed, second.logged_in) == (NOON + timedelta(minutes=1), 0, 1)
    assert json.loads(first.lockouts) == {"ip_address": 1}
    assert [distinct(bytes(sketch)) for sketch in (first.names, first.addresses)] == [1, 1]


def test_batches_add_up(drain: Drain) -> None:
    with time_machine.travel(NOON, tick=False):
        for number in range(5):
            failure(f"name {number % 2}", f"203.0.113.{number}", "agent")
            drain()
    row = AttemptRollup.objects.get()
    assert row.failed == 5
    assert distinct(bytes(row.names)) == 2
    assert distinct(bytes(row.addresses)) == 5
    assert top("name") == {"name 0": 3, "name 1": 2}
    assert top("network") == {"203.0.113.0/24": 5}
    assert top("agent") == {"agent": 5}


def test_every_attempt_that_is_turned_away_is_counted_though_few_have_a_row(drain: Drain) -> None:
    for _ in range(3 + 40):
        failure()
    drain()
    assert AttemptRollup.objects.get().turned_away == 40
    assert AccessFailureLog.objects.filter(locked_out=True).count() < 20
    rows = [AttemptEvent(kind=Kind.BLOCKED, id=new_id(1), repeats=n) for n in range(1, 641) if worth_a_row(n)]
    assert sum(map(turned_away, rows)) == 640


def test_an_event_that_comes_twice_is_counted_once() -> None:
    entry = Entry(AttemptEvent(kind=Kind.FAILED, id=new_id(1_800_000_000_000), username="bob"), 1)
    for _ in range(2):
        write([entry], None, "default")
    assert AttemptRollup.objects.get().failed == 1


@pytest.mark.parametrize("in_one_batch", [False, True])
def test_a_login_after_failures_is_told_from_others(
    alice: User, drain: Drain, settings: Any, in_one_batch: bool
) -> None:
    settings.AXES_RESET_ON_SUCCESS = True
    failure("alice")
    if not in_one_batch:
        drain()
    success("alice")
    success("bob", "192.0.2.8")
    drain()
    assert AttemptRollup.objects.get().after_failures == 1
    assert AttemptRollup.objects.get().logged_in == 2


def test_a_login_reads_one_row_of_a_name_that_was_tried_from_everywhere(alice: User, drain: Drain) -> None:
    for number in range(5):
        failure("alice", f"203.0.113.{number}")
    drain()
    success("alice", "192.0.2.9")
    with CaptureQueriesContext(connection) as queries:
        drain()
    column = f"SELECT DISTINCT {connection.ops.quote_name(AccessAttempt._meta.db_table)}"
    (asked,) = [query["sql"] for query in queries if query["sql"].startswith(column)]
    with connection.cursor() as cursor:
        cursor.execute(asked)
        assert len(cursor.fetchall()) == 1


def test_hostile_names_are_kept_as_they_are(drain: Drain) -> None:
    names = ["\x00\ud800", "'; DROP TABLE x", "<script>", "a" * 10_000]
    for number, name in enumerate(names):
        failure(name, f"203.0.113.{number}")
    drain()
    assert len(top("name")) == len(names)


@pytest.mark.parametrize(
    ("address", "network"),
    [("203.0.113.7", "203.0.113.0/24"), ("2001:db8:1:2::3", "2001:db8:1::/48"), ("::ffff:192.0.2.1", "::/48")],
)
def test_addresses_of_one_network_are_one(address: str, network: str) -> None:
    assert network_of(address) == network


def test_old_rollups_go_with_the_expiry() -> None:
    with time_machine.travel(NOON, tick=False):
        for age in (timedelta(0), KEPT_FOR + timedelta(hours=1)):
            AttemptRollup.objects.create(minute=NOON - age)
            TopValues.objects.create(hour=NOON - age, kind="name")
        expire()
    assert AttemptRollup.objects.get().minute == NOON
    assert TopValues.objects.get().hour == NOON
