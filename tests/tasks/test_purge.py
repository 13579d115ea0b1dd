"""Old rows of the logs go, in portions; what still counts stays."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import time_machine
from django.core.management import call_command
from django.db import connection
from django.db.models import Count
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog, AttemptCounter
from axes_async.tasks import purge as purge_module
from axes_async.tasks.expire import expire
from axes_async.tasks.purge import delete_older, purge
from axes_async.tasks.reset import reset
from tests.actions import failure, success

Drain = Callable[[], int]

pytestmark = [pytest.mark.django_db, pytest.mark.database, pytest.mark.usefixtures("_noon")]

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
NOTHING = {"access_logs": 0, "failure_logs": 0, "resets": 0, "failure_logs_over_limit": 0}


@pytest.fixture
def clock() -> Iterator[time_machine.Coordinates]:
    """Return the clock, standing at noon."""
    with time_machine.travel(NOON, tick=False) as coordinates:
        yield coordinates


@pytest.fixture
def _noon(clock: time_machine.Coordinates) -> None:
    """Have every test of this file start at noon."""


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


def failures(number: int, username: str | None = "alice", *, every: timedelta = timedelta(minutes=1)) -> None:
    """Write rows of failures, the last of them now."""
    AccessFailureLog.objects.bulk_create(
        AccessFailureLog(username=username, event_id=uuid4(), attempt_time=NOON - every * back)
        for back in range(number)
    )


def test_with_the_defaults_nothing_goes_and_no_log_is_looked_at(drain: Drain, clock: time_machine.Coordinates) -> None:
    failure()
    success("bob", "192.0.2.2")
    drain()
    clock.shift(timedelta(days=36_500))
    with CaptureQueriesContext(connection) as queries:
        assert purge() == NOTHING
    assert len(queries) == 0
    assert (AccessFailureLog.objects.count(), AccessLog.objects.count()) == (1, 1)


@override_settings(AXES_ACCESS_LOG_AGE=90, AXES_ACCESS_FAILURE_LOG_AGE=timedelta(days=30), AXES_ACCESS_RESET_AGE=1)
def test_each_log_goes_at_its_own_age_and_not_before(drain: Drain, clock: time_machine.Coordinates) -> None:
    failure()
    success("bob", "192.0.2.2")
    reset(username="nobody")
    clock.shift(timedelta(days=1) - timedelta(seconds=1))
    assert purge() == NOTHING
    clock.shift(1)
    assert purge() == {**NOTHING, "resets": 1}
    clock.move_to(NOON + timedelta(days=30))
    assert purge() == {**NOTHING, "failure_logs": 1}
    clock.move_to(NOON + timedelta(days=90))
    assert purge() == {**NOTHING, "access_logs": 1}
    assert purge() == NOTHING


@override_settings(AXES_ACCESS_LOG_AGE=1, AXES_ACCESS_FAILURE_LOG_AGE=1, AXES_ACCESS_RESET_AGE=1)
def test_what_still_counts_is_never_purged(drain: Drain, clock: time_machine.Coordinates) -> None:
    for _ in range(3):
        failure()
    drain()
    clock.shift(timedelta(days=3650))
    assert purge()["failure_logs"] == 3
    expire()
    assert (AccessAttempt.objects.count(), AttemptCounter.objects.count()) == (1, 1)
    assert not failure()


@pytest.mark.parametrize("spread", [timedelta(seconds=1), timedelta(0)], ids=["one a second", "all at once"])
def test_many_rows_go_in_portions(monkeypatch: pytest.MonkeyPatch, spread: timedelta) -> None:
    monkeypatch.setattr(purge_module, "PORTION", 7)
    failures(50, every=spread)
    with CaptureQueriesContext(connection) as queries:
        assert delete_older(AccessFailureLog, timedelta(0)) == 50
    deleted = [query["sql"] for query in queries if query["sql"].startswith("DELETE")]
    assert len(deleted) == 8
    assert not AccessFailureLog.objects.exists()


def test_a_portion_goes_on_where_the_last_one_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purge_module, "PORTION", 2)
    failures(5)
    with CaptureQueriesContext(connection) as queries:
        delete_older(AccessFailureLog, timedelta(0))
    looked = [query["sql"] for query in queries if "ORDER BY" in query["sql"]]
    unquoted = [sql.replace('"', "").replace("`", "") for sql in looked]
    assert ["attempt_time >=" in sql for sql in unquoted] == [False, True, True]


@pytest.mark.parametrize("names", [2, 1000], ids=["more names than are told", "few names"])
@override_settings(AXES_ACCESS_FAILURE_LOG_PER_USER_LIMIT=3)
def test_of_each_name_the_latest_failures_are_kept(monkeypatch: pytest.MonkeyPatch, names: int) -> None:
    monkeypatch.setattr(purge_module, "NAMES", names)
    monkeypatch.setattr(purge_module, "PORTION", 2)
    monkeypatch.setattr(purge_module, "FOUND", 5)
    for name, number in {"alice": 10, "bob": 3, "carol": 4, "dave": 9, "": 5, "erin": 1}.items():
        failures(number, name)
    failures(6, None)
    assert purge() == {**NOTHING, "failure_logs_over_limit": 7 + 1 + 6 + 2}
    kept = {name: AccessFailureLog.objects.filter(username=name).count() for name in ("alice", "bob", "erin", "")}
    assert kept == {"alice": 3, "bob": 3, "erin": 1, "": 3}
    assert AccessFailureLog.objects.filter(username=None).count() == 6
    oldest = AccessFailureLog.objects.filter(username="alice").order_by("attempt_time").first()
    assert oldest is not None
    assert oldest.attempt_time == NOON - timedelta(minutes=2)
    assert purge() == NOTHING


@override_settings(AXES_ACCESS_FAILURE_LOG_PER_USER_LIMIT=1)
def test_names_are_not_looked_at_one_by_one() -> None:
    for number in range(40):
        failures(3, f"user{number}")
    with CaptureQueriesContext(connection) as queries:
        assert purge()["failure_logs_over_limit"] == 80
    statements = [query["sql"] for query in queries]
    assert len([sql for sql in statements if "ROW_NUMBER()" in sql]) == 1
    assert len([sql for sql in statements if sql.startswith("DELETE")]) == 1, "portions go across names"


@override_settings(AXES_ACCESS_FAILURE_LOG_PER_USER_LIMIT=2)
def test_failures_of_one_moment_are_told_apart() -> None:
    failures(5, every=timedelta(0))
    assert purge()["failure_logs_over_limit"] == 3
    assert AccessFailureLog.objects.count() == 2


@pytest.mark.parametrize("command", ["axes_reset_logs", "axes_reset_failure_logs"])
def test_a_command_deletes_what_is_older_than_a_number_of_days(
    drain: Drain, clock: time_machine.Coordinates, command: str
) -> None:
    for days in (31, 29, 0):
        clock.move_to(NOON - timedelta(days=days))
        failure("alice", f"192.0.2.{days}")
        success("bob", f"198.51.100.{days}")
    drain()
    theirs: Any = AccessLog if command == "axes_reset_logs" else AccessFailureLog
    others: Any = AccessFailureLog if theirs is AccessLog else AccessLog
    assert run(command) == "1 logs removed.\n", "30 days is the default"
    assert run(command, "--age", "30") == "No logs found.\n"
    assert run(command, "--age", "29") == "1 logs removed.\n"
    assert run(command, "--age", "0") == "1 logs removed.\n"
    assert (theirs.objects.count(), others.objects.count()) == (0, 3)


@pytest.mark.django_db(transaction=True)
def test_beside_a_drain_the_old_rows_go_and_the_new_ones_come(monkeypatch: pytest.MonkeyPatch, drain: Drain) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("a database in memory has one connection")
    monkeypatch.setattr(purge_module, "PORTION", 20)
    AccessFailureLog.objects.bulk_create(
        AccessFailureLog(username="old", event_id=uuid4(), attempt_time=NOON - timedelta(days=2)) for _ in range(1000)
    )

    def fail_and_drain() -> None:
        for number in range(60):
            failure("new", f"192.0.2.{number}")
            drain()
        connection.close()

    with override_settings(AXES_ACCESS_FAILURE_LOG_AGE=1), ThreadPoolExecutor(2) as pool:
        drained = pool.submit(fail_and_drain)
        assert purge()["failure_logs"] == 1000
        drained.result()
    assert list(AccessFailureLog.objects.values_list("username").annotate(Count("pk")).order_by()) == [("new", 60)]
