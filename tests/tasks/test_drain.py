"""From the outbox to the rows: in order, exactly once, with the times of the attempts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import DatabaseError
from django.test import Client, override_settings

from axes_async.clock import now_ms
from axes_async.counters.events import AttemptEvent, Kind, new_id
from axes_async.counters.rules import PARAMETERS
from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog, AttemptCounter, DrainCursor
from axes_async.stores.redis.store import RedisStore
from axes_async.stores.step import Step, StepKind
from axes_async.tasks.expire import expire
from axes_async.tasks.projection.counters import Entry
from axes_async.tasks.projection.projector import Projector
from axes_async.tasks.purge import purge
from axes_async.tasks.reset import reset
from tests.actions import failure, success
from tests.conftest import PASSWORD
from tests.tasks.agreement import in_store_and_rows

Drain = Callable[[], int]

pytestmark = [pytest.mark.django_db, pytest.mark.database]


def test_a_failure_becomes_an_attempt_and_a_failure_row(drain: Drain) -> None:
    failure("Alice", "203.0.113.7", "Mozilla/5.0")
    assert drain() == 1
    for row in (AccessAttempt.objects.get(), AccessFailureLog.objects.get()):
        assert (row.username, row.ip_address, row.user_agent) == ("Alice", "203.0.113.7", "Mozilla/5.0")
        assert (row.path_info, row.http_accept) == ("/sign-in/", "text/html")


def test_repeated_failures_are_one_attempt_with_first_and_last_time(drain: Drain) -> None:
    with time_machine.travel(datetime(2026, 5, 1, 12, tzinfo=UTC), tick=False) as clock:
        failure()
        drain()
        clock.shift(timedelta(minutes=7))
        failure()
    drain()
    attempt = AccessAttempt.objects.get()
    assert attempt.failures_since_start == 2
    assert attempt.first_attempt_time == datetime(2026, 5, 1, 12, tzinfo=UTC)
    assert attempt.attempt_time == datetime(2026, 5, 1, 12, 7, tzinfo=UTC)


def test_times_are_those_of_the_attempt_and_not_of_the_write(drain: Drain) -> None:
    with time_machine.travel(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), tick=False):
        failure()
        success()
    drain()
    for row in (AccessAttempt.objects.get(), AccessFailureLog.objects.get(), AccessLog.objects.get()):
        assert row.attempt_time == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_each_username_address_and_agent_is_an_attempt_of_its_own(drain: Drain) -> None:
    failure("alice", "192.0.2.1", "one")
    failure("alice", "192.0.2.1", "two")
    failure("alice", "192.0.2.2", "one")
    failure("bob", "192.0.2.1", "one")
    drain()
    assert sorted(AccessAttempt.objects.values_list("failures_since_start", flat=True)) == [1, 1, 1, 1]


@override_settings(AXES_COOLOFF_TIME=timedelta(minutes=10))
def test_an_attempt_expires_when_the_last_of_its_counters_does(drain: Drain) -> None:
    with time_machine.travel(datetime(2026, 5, 1, 12, tzinfo=UTC), tick=False):
        failure()
    drain()
    assert AccessAttempt.objects.get().expires_at == datetime(2026, 5, 1, 12, 10, tzinfo=UTC)


@override_settings(AXES_COOLOFF_TIME=timedelta(minutes=10))
def test_a_failure_after_the_cool_off_starts_the_attempt_over(drain: Drain) -> None:
    with time_machine.travel(datetime(2026, 5, 1, 12, tzinfo=UTC), tick=False) as clock:
        failure()
        failure()
        clock.shift(timedelta(minutes=11))
        failure()
    drain()
    attempt = AccessAttempt.objects.get()
    assert (attempt.failures_since_start, attempt.first_attempt_time.minute) == (1, 11)


def test_the_lock_shows_on_the_failure_that_set_it_and_on_those_it_turned_away(drain: Drain) -> None:
    for _ in range(5):
        failure()
    drain()
    rows = AccessFailureLog.objects.order_by("id").values_list("locked_out", "repeats")
    assert list(rows) == [(False, 0), (False, 0), (True, 0), (True, 1), (True, 2)]


@override_settings(AXES_ENABLE_ACCESS_FAILURE_LOG=False)
def test_without_the_failure_log_attempts_are_still_kept(drain: Drain) -> None:
    for _ in range(5):
        failure()
    drain()
    assert AccessFailureLog.objects.count() == 0
    assert AccessAttempt.objects.get().failures_since_start == 3


@override_settings(AXES_DISABLE_ACCESS_LOG=True)
def test_without_the_access_log_no_login_is_kept(drain: Drain) -> None:
    success()
    assert drain() == 0
    assert AccessLog.objects.count() == 0


def test_a_login_and_its_logout_are_one_row(alice: User, client: Client, drain: Drain) -> None:
    with time_machine.travel(datetime(2026, 5, 1, 12, tzinfo=UTC), tick=False) as clock:
        client.post("/login/", {"username": "alice", "password": PASSWORD})
        drain()
        assert AccessLog.objects.get().logout_time is None
        clock.shift(timedelta(minutes=5))
        client.post("/logout/")
        drain()
    log = AccessLog.objects.get()
    assert log.logout_time == datetime(2026, 5, 1, 12, 5, tzinfo=UTC)
    assert len(log.session_hash) == 64


def test_a_logout_ends_its_own_login_and_no_other(alice: User, drain: Drain) -> None:
    first, second = Client(), Client()
    for client in (first, second):
        client.post("/login/", {"username": "alice", "password": PASSWORD})
    second.post("/logout/")
    drain()
    ended = AccessLog.objects.order_by("id").values_list("logout_time", flat=True)
    assert [time is not None for time in ended] == [False, True]


def test_a_logout_finds_its_login_after_the_session_key_has_changed(alice: User, client: Client, drain: Drain) -> None:
    client.post("/login/", {"username": "alice", "password": PASSWORD})
    session = client.session
    session.cycle_key()
    client.cookies["sessionid"] = session.session_key
    client.post("/logout/")
    drain()
    assert AccessLog.objects.get().logout_time is not None


@pytest.mark.django_db(transaction=True)
def test_what_was_written_is_trimmed_and_written_once(drain: Drain, redis_store: RedisStore) -> None:
    for _ in range(3):
        failure()
    assert [drain(), drain()] == [3, 0]
    assert redis_store.size().events == 0
    assert AccessAttempt.objects.get().failures_since_start == 3


def test_a_drain_that_failed_has_written_nothing_and_the_next_one_writes_all(
    drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        failure()
    with monkeypatch.context() as broken:
        broken.setattr(DrainCursor, "save", lambda self, **kwargs: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            drain()
    assert AccessFailureLog.objects.count() == 0
    assert drain() == 3
    assert AccessFailureLog.objects.count() == 3


@pytest.mark.django_db(transaction=True)
def test_a_drain_killed_before_the_trim_repeats_nothing(
    drain: Drain, redis_store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        failure()
    with monkeypatch.context() as broken:
        broken.setattr(RedisStore, "trim", lambda self, *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            drain()
    failure("bob", "192.0.2.2")
    assert drain() == 1
    assert AccessFailureLog.objects.count() == 4


@pytest.mark.django_db(transaction=True)
def test_an_event_that_cannot_be_written_is_set_aside_and_the_rest_goes_on(
    drain: Drain, redis_store: RedisStore
) -> None:
    failure()
    redis_store.do(
        Step(
            StepKind.RECORD,
            event=AttemptEvent(kind=Kind.BLOCKED, id=new_id(now_ms()), username="x" * 300, ip_address="nonsense"),
        )
    )
    redis_store.client.xadd(redis_store.outbox_key, {"v1": "[", "c": ""}, id="1-*")
    failure()
    drain()
    assert AccessAttempt.objects.get().failures_since_start == 2
    assert len(redis_store.dead_letters("0-0", 10)) == 2
    assert redis_store.size().events == 0


def test_a_database_error_in_one_event_leaves_the_others_in_order(
    drain: Drain, redis_store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "broken", "two"):
        failure(name, "192.0.2.9")
    attempts = Projector._attempts

    def refuse(self: Any, entries: list[Entry]) -> None:
        if any(entry.event.username == "broken" for entry in entries):
            raise DatabaseError("this one cannot be written")
        attempts(self, entries)

    monkeypatch.setattr(Projector, "_attempts", refuse)
    drain()
    assert list(AccessFailureLog.objects.order_by("id").values_list("username", flat=True)) == ["one", "two"]
    (letter,) = redis_store.dead_letters("0-0", 10)
    assert b"broken" in letter.entry
    assert "cannot be written" in letter.error


@pytest.mark.parametrize("reset_on_success", [False, "account", True])
@pytest.mark.parametrize("seed", [*range(2), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 8))])
def test_counters_and_rows_agree_after_any_mix_of_attempts_resets_and_drains(
    drain: Drain, redis_store: RedisStore, settings: Any, seed: int, reset_on_success: Any
) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = ["ip_address", "username", ["username", "ip_address"]]
    settings.AXES_FAILURE_LIMIT = 4
    settings.AXES_RESET_ON_SUCCESS = reset_on_success
    random = Random(seed)

    def anybody() -> dict[str, str]:
        return {"username": random.choice(["alice", "bob", "Carol"]), "address": f"192.0.2.{random.randint(1, 3)}"}

    for _ in range(150):
        action = random.random()
        who = anybody()
        if action < 0.6:
            failure(**who)
        elif action < 0.8:
            success(**who)
        elif action < 0.9:
            drain()
        elif action < 0.93:
            reset(ip=who["address"])
        elif action < 0.96:
            reset(username=who["username"].upper())
        elif action < 0.98:
            reset(username=who["username"], ip=who["address"])
        elif keys := list(AccessAttempt.objects.values_list("key", flat=True)):
            reset(rows=[random.choice(keys)])
        else:
            reset()
    drain()
    stored, rows = in_store_and_rows(redis_store)
    assert stored == rows
    assert all(row.failures_since_start > 0 for row in AccessAttempt.objects.all())
    reset()
    assert in_store_and_rows(redis_store) == ({}, {})
    assert AccessAttempt.objects.count() == 0


def test_the_parameters_of_a_counter_row_name_what_it_counts(drain: Drain, settings: Any) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
    failure()
    drain()
    row = AttemptCounter.objects.get()
    assert row.parameters == sum(1 << PARAMETERS.index(name) for name in ("username", "ip_address"))
    assert row.username_key
    assert row.ip_address_key
    assert not row.user_agent_key


def test_a_drain_that_has_nothing_to_do_logs_nothing(drain: Drain, caplog: pytest.LogCaptureFixture) -> None:
    failure()
    drain()
    caplog.clear()
    with caplog.at_level(logging.DEBUG, "axes_async"):
        assert drain() == 0
        expire()
        purge()
    assert [record for record in caplog.records if record.name.startswith("axes_async")] == []
