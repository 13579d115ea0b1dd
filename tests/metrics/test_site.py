"""What is true of the whole site: read from store and rows, exact, bounded, and never raising."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
import time_machine
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import OperationalError, connection, connections, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext

from axes_async.clock import now_ms
from axes_async.counters.events import AttemptEvent, Kind, new_id
from axes_async.metrics import site
from axes_async.models import AttemptCounter, DrainCursor
from axes_async.stores.contract import Position
from axes_async.stores.redis.store import RedisStore
from axes_async.tasks.drain import write_next
from axes_async.tasks.projection.totals import totals_of
from axes_async.tasks.projection.writer_lock import writer_lock
from tests.conftest import PASSWORD, REFUSED
from tests.metrics.conftest import figures

Post = Callable[..., Any]
Drain = Callable[[], int]

pytestmark = pytest.mark.django_db


def counter(digest: str, **values: Any) -> AttemptCounter:
    """Return a counter of an address that is locked until somebody resets it."""
    now = datetime.now(UTC)
    options = {"parameters": 1, "failures": 3, "limit": 3, "generation": 1, "changed_at": now, **values}
    return AttemptCounter.objects.create(digest=digest, **options)


def test_attempts_are_counted_by_outcome_and_scope(alice: User, post: Post, client: Client, drain: Drain) -> None:
    for _ in range(3):
        post()
    post()
    post(password=PASSWORD, REMOTE_ADDR="203.0.113.8")
    client.post("/admin/login/", {"username": "bob", "password": "wrong"}, REMOTE_ADDR="203.0.113.9")
    drain()
    seen = figures()
    assert {key[1:]: number for key, number in seen.items() if key[0] == "axes_attempts"} == {
        ("failed", "site"): 3,
        ("failed", "admin"): 1,
        ("turned_away", "site"): 1,
        ("turned_away", "admin"): 0,
        ("logged_in", "site"): 1,
        ("logged_in", "admin"): 0,
    }
    assert (seen["axes_drained_events", "store"], seen["axes_drained_events", "table"]) == (6, 0)


def test_a_flood_that_is_turned_away_counts_as_far_as_it_is_recorded(post: Post, drain: Drain) -> None:
    for _ in range(3 + 45):
        post()
    drain()
    assert figures()["axes_attempts", "turned_away", "site"] == 40


def test_attempts_that_only_prolong_a_lockout_count_with_the_next_row(post: Post, drain: Drain, settings: Any) -> None:
    settings.AXES_COOLOFF_TIME, settings.AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = timedelta(hours=1), True
    started = datetime.now(UTC)
    for seconds in range(3 + 25):
        with time_machine.travel(started + timedelta(seconds=2 * seconds)):
            post()
    drain()
    assert figures()["axes_attempts", "turned_away", "site"] == 20


def test_no_event_makes_a_label_of_its_own() -> None:
    event = AttemptEvent(kind=Kind.FAILED, id=new_id(1), username="alice", extra={"scope": "203.0.113.7"})
    assert totals_of([event]) == {"attempts failed site": 1}


def test_lockouts_and_what_is_locked_are_told_by_rule(post: Post, drain: Drain, settings: Any) -> None:
    settings.AXES_COOLOFF_TIME = timedelta(minutes=5)
    settings.AXES_LOCKOUT_PARAMETERS = ["ip_address", ["username", "ip_address"]]
    for number in range(2):
        for _ in range(4):
            post(REMOTE_ADDR=f"203.0.113.{number}")
    drain()
    seen = figures()
    for rule in ("ip_address", "ip_address+username"):
        assert (seen["axes_lockouts", rule], seen["axes_locked", rule]) == (2, 2)
    assert (seen["axes_lockouts", "username"], seen["axes_locked", "username"]) == (0, 0)
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=6)):
        seen = figures()
    assert (seen["axes_lockouts", "ip_address"], seen["axes_locked", "ip_address"]) == (2, 0)


def test_an_event_that_comes_twice_counts_once(post: Post, drain: Drain, redis_store: RedisStore) -> None:
    post()
    ((_, event),) = redis_store.read(Position(), 10)
    assert isinstance(event, AttemptEvent)
    drain()
    redis_store.set_aside(event.wire().encode(), "for the test")
    call_command("axes_dead_letters", "--retry", stdout=io.StringIO())
    drain()
    assert figures()["axes_attempts", "failed", "site"] == 1


def test_a_batch_that_is_rolled_back_counts_nothing(post: Post, drain: Drain, redis_store: RedisStore) -> None:
    post()
    with transaction.atomic(), writer_lock() as cursor:
        write_next(cursor, redis_store)
        transaction.set_rollback(True)
    assert figures()["axes_attempts", "failed", "site"] == 0
    drain()
    assert figures()["axes_attempts", "failed", "site"] == 1


def test_of_a_batch_with_an_event_that_cannot_be_written_the_others_count(
    post: Post, drain: Drain, redis_store: RedisStore, valkey: redis.Redis
) -> None:
    post()
    event = AttemptEvent(kind=Kind.FAILED, id=new_id(now_ms()), ip_address="nowhere", at=now_ms())
    valkey.xadd(redis_store.outbox_key, {"e": event.wire()}, id="1-99")
    drain()
    seen = figures()
    assert (seen["axes_attempts", "failed", "site"], seen["axes_dead_letters",]) == (1, 1)


def test_a_store_without_an_outbox_counts_too(post: Post, settings: Any) -> None:
    from celery import current_app

    settings.AXES_CACHE, current_app.conf.task_always_eager = "memory", True
    try:
        for _ in range(2):
            post()
    finally:
        current_app.conf.task_always_eager = False
    seen = figures()
    assert seen["axes_attempts", "failed", "site"] == 2
    assert ("axes_outbox_events", "store") not in seen


@pytest.mark.django_db(transaction=True)
def test_what_waits_is_told_with_its_age(post: Post, drain: Drain) -> None:
    assert (figures()["axes_outbox_events", "store"], figures()["axes_outbox_oldest_seconds",]) == (0, 0)
    post()
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=2)):
        seen = figures()
    assert seen["axes_outbox_events", "store"] == 1
    assert 119 <= seen["axes_outbox_oldest_seconds",] < 200
    assert seen["axes_problems",] == 1
    drain()
    seen = figures()
    assert (seen["axes_outbox_oldest_seconds",], seen["axes_problems",]) == (0, 0)
    assert seen["axes_last_drain_timestamp_seconds",] == DrainCursor.objects.get().drained_at.timestamp()  # type: ignore[union-attr]


def test_what_found_no_room_is_told(post: Post, settings: Any) -> None:
    settings.AXES_OUTBOX_MAX = 1
    for _ in range(3):
        post()
    assert figures()["axes_outbox_overflow",] == 2


def test_syncs_are_told_by_kind(post: Post, drain: Drain, valkey: redis.Redis) -> None:
    post()
    drain()
    assert (figures()["axes_syncs", "full"], figures()["axes_store_decides",]) == (0, 1)
    valkey.flushall()
    assert figures()["axes_store_decides",] == 0
    call_command("axes_sync", stdout=io.StringIO())
    assert (figures()["axes_syncs", "full"], figures()["axes_store_decides",]) == (1, 1)
    AttemptCounter.objects.update(dirty=True)
    assert figures()["axes_dirty_counters",] == 1
    call_command("axes_sync", stdout=io.StringIO())
    seen = figures()
    assert (seen["axes_syncs", "full"], seen["axes_syncs", "push"], seen["axes_dirty_counters",]) == (1, 1, 0)


def test_what_the_database_decided_is_told(post: Post, drain: Drain, settings: Any) -> None:
    settings.CACHES = {**settings.CACHES, "default": {**settings.CACHES["default"], "LOCATION": REFUSED}}
    for _ in range(2):
        post()
    seen = figures()
    assert (seen["axes_up", "store"], seen["axes_up", "database"]) == (0, 1)
    assert seen["axes_outbox_events", "table"] == 2
    assert ("axes_outbox_oldest_seconds",) not in seen, "the store's may be older"
    drain()
    assert figures()["axes_drained_events", "table"] == 2


def test_a_database_that_is_away_is_told_and_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(**options: Any) -> Any:
        raise OperationalError

    monkeypatch.setattr(site, "status", away)
    assert figures() == {("axes_up", "database"): 0}


def test_no_row_of_a_log_is_counted_and_others_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    with CaptureQueriesContext(connection) as few:
        figures()
    for number in range(5):
        counter(str(number), dirty=True)
    with CaptureQueriesContext(connection) as many:
        assert figures()["axes_locked", "ip_address"] == 5
    assert len(many) == len(few)
    for query in many:
        assert "COUNT" not in query["sql"] or f"LIMIT {site.MOST}" in query["sql"]
        assert "log" not in query["sql"].lower()
    monkeypatch.setattr(site, "MOST", 3)
    assert (figures()["axes_locked", "ip_address"], figures()["axes_dirty_counters",]) == (3, 3)


@pytest.mark.database
@pytest.mark.django_db(transaction=True)
def test_a_thread_that_had_no_connection_has_none_afterwards(post: Post, drain: Drain) -> None:
    post()
    drain()
    seen: list[Any] = []

    def look() -> None:
        seen.extend([figures(), connections["default"].connection])

    if connection.vendor == "sqlite":
        look()
        assert seen[0]["axes_attempts", "failed", "site"] == 1
        return  # A database in memory ends with its connection.
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert (seen[0]["axes_attempts", "failed", "site"], seen[1]) == (1, None)


def test_every_figure_that_is_read_is_described_with_its_labels() -> None:
    described = {figure.name: len(figure.labels) for figure in site.FIGURES}
    assert {sample.name: len(sample.values) for sample in site.read()}.items() <= described.items()
