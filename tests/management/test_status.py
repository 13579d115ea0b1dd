"""What an operator asks: how things stand, what could not be written, and a sync without a worker."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import redis
import time_machine
from django.core.management import CommandError, call_command
from django.test import override_settings

from axes_async.clock import now_ms
from axes_async.counters.events import AttemptEvent, Kind, new_id
from axes_async.models import AccessAttempt, AttemptCounter, OutboxEvent, StoreState
from axes_async.stores.redis.store import RedisStore
from axes_async.tasks.expire import expire
from tests.actions import failure
from tests.celery import app

Drain = Callable[[], int]

pytestmark = pytest.mark.django_db

CLOSED_PORT = {
    "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1:1/0"}
}
IN_MEMORY = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}


def run(*arguments: str) -> str:
    """Run a command; return what it printed."""
    out = io.StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


def told(*arguments: str) -> tuple[dict[str, Any], int]:
    """Return what ``axes_status --json`` tells, and its exit status."""
    out, code = io.StringIO(), 0
    try:
        call_command("axes_status", "--json", *arguments, stdout=out, stderr=io.StringIO())
    except SystemExit as end:
        code = int(end.code or 0)
    return json.loads(out.getvalue()), code


def waiting_event(at: int) -> OutboxEvent:
    """Return an event that the database decided at ``at``, and that no drain has written."""
    event = AttemptEvent(kind=Kind.FAILED, id=new_id(at), username="alice", at=at)
    return OutboxEvent.objects.create(event_id=UUID(event.id), wire=event.wire())


@pytest.mark.django_db(transaction=True)
def test_all_is_well_after_a_drain(drain: Drain) -> None:
    failure()
    drain()
    expire()
    status, code = told()
    assert (status["problems"], code) == ([], 0)
    assert (status["store"], status["mode"], status["complete"]) == ("redis", "store", True)
    assert (status["backlog"], status["table_backlog"], status["oldest"]) == (0, 0, None)
    assert (status["dirty_counters"], status["dead_letters"], status["overflow"]) == (0, 0, 0)
    assert status["last_drain"]
    assert status["last_expiry"] == status["beat_seen"]
    assert status["breakers"] == {"store": "closed", "broker": "closed", "database": "closed"}


def test_backlog_is_told_and_a_problem_when_it_is_old() -> None:
    failure()
    status, code = told()
    assert (status["backlog"], code) == (1, 0)
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=2)):
        status, code = told()
    assert code == 1
    assert "Events wait since" in status["problems"][0]


def test_events_of_the_table_are_told_and_a_problem_when_they_are_old() -> None:
    waiting_event(now_ms())
    status, code = told()
    assert (status["table_backlog"], code) == (1, 0)
    OutboxEvent.objects.all().delete()
    waiting_event(now_ms() - 120_000)
    status, code = told()
    assert (status["table_backlog"], code) == (1, 1)
    assert "Events wait since" in status["problems"][0]


def test_dirty_counters_are_counted() -> None:
    now = datetime.now(UTC)
    AttemptCounter.objects.create(digest="d", parameters=1, failures=1, limit=3, changed_at=now, dirty=True)
    AttemptCounter.objects.create(digest="e", parameters=1, failures=1, limit=3, changed_at=now)
    assert told()[0]["dirty_counters"] == 1


@override_settings(AXES_OUTBOX_MAX=2)
def test_events_that_found_no_room_are_told_until_acknowledged(drain: Drain) -> None:
    for _ in range(3):
        failure()
    assert not failure(), "what found no room was counted all the same"
    drain()
    status, code = told()
    assert (status["overflow"], code) == (2, 1)
    status, code = told("--acknowledge")
    assert (status["overflow"], code) == (0, 0)


def test_beat_is_missed_when_it_is_silent_for_much_longer_than_scheduled(drain: Drain) -> None:
    drain()
    expire()
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=9)):
        assert told()[1] == 0
    with time_machine.travel(datetime.now(UTC) + timedelta(days=3)):
        status, code = told()
    assert code == 1
    assert "Beat has been silent since" in status["problems"][0]


def test_flushed_store_is_a_problem_until_a_sync(drain: Drain, valkey: redis.Redis) -> None:
    failure()
    drain()
    valkey.flushall()
    status, code = told()
    assert (status["complete"], code) == (False, 1)
    assert "The store is not complete" in status["problems"][0]
    assert run("axes_sync") == "The store has every counter of the database.\n"
    assert (told()[0]["complete"], told()[1]) == (True, 0)


def test_database_that_decides_is_a_problem_until_a_sync(drain: Drain) -> None:
    failure()
    drain()
    StoreState.objects.update_or_create(pk=1, defaults={"mode": StoreState.DATABASE})
    status, code = told()
    assert (status["mode"], status["complete"], code) == ("database", False, 1)
    run("axes_sync")
    assert (told()[0]["mode"], told()[1]) == ("store", 0)


@override_settings(CACHES=CLOSED_PORT)
def test_store_that_is_away_is_a_problem_and_no_error() -> None:
    status, code = told()
    assert code == 1
    assert [problem[:30] for problem in status["problems"]] == ["The store cannot be reached: C"]
    assert status["breakers"]["store"] == "open"
    with pytest.raises(CommandError, match="The store cannot be used: ConnectionError"):
        run("axes_sync")


def test_broker_that_is_away_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.conf, "broker_url", "redis://127.0.0.1:1/0")
    status, code = told()
    assert (status["broker_error"] is not None, code) == (True, 1)


@override_settings(AXES_COOLOFF_TIME=timedelta(minutes=1))
def test_attempts_that_beat_does_not_remove_are_a_problem(drain: Drain) -> None:
    failure()
    drain()
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=20)):
        assert any("Expired attempts" in problem for problem in told()[0]["problems"])
        expire()
        assert not any("Expired attempts" in problem for problem in told()[0]["problems"])


@override_settings(CACHES=IN_MEMORY)
def test_store_without_an_outbox_has_less_to_tell() -> None:
    status, code = told()
    assert (status["store"], status["backlog"], status["complete"], code) == ("cache", None, None, 0)
    with pytest.raises(CommandError, match="no outbox"):
        run("axes_dead_letters")


@override_settings(AXES_STORE="database")
def test_site_without_a_store_of_its_own_is_told_as_such() -> None:
    status, code = told()
    assert (status["store"], status["mode"], status["complete"], code) == ("database", "database", None, 0)


@pytest.mark.django_db(transaction=True)
def test_facts_are_readable(drain: Drain) -> None:
    failure()
    drain()
    lines = run("axes_status").splitlines()
    assert any(line.split() == ["backlog", "0"] for line in lines)
    assert any(line.split() == ["complete", "yes"] for line in lines)
    assert any(line.startswith("last drain") and line.endswith("UTC") for line in lines)


def test_dead_letters_are_shown_and_put_back(drain: Drain, redis_store: RedisStore) -> None:
    event = AttemptEvent(kind=Kind.FAILED, id=new_id(now_ms()), username="mallory", ip_address="192.0.2.1", at=now_ms())
    redis_store.set_aside(event.wire().encode(), "DataError: no such column")
    assert (told()[0]["dead_letters"], told()[1]) == (1, 1)
    shown = run("axes_dead_letters")
    assert "no such column" in shown
    assert "mallory" in shown
    assert "1 put back, 0 kept." in run("axes_dead_letters", "--retry")
    drain()
    assert AccessAttempt.objects.get(username="mallory").failures_since_start == 1
    assert run("axes_dead_letters") == "No dead letters.\n"


def test_dead_letter_is_one_line_that_cannot_command_the_terminal(redis_store: RedisStore) -> None:
    event = AttemptEvent(kind=Kind.FAILED, id=new_id(now_ms()), username="\x9b2J\u202emallory")
    redis_store.set_aside(event.wire().encode(), "DataError: no such column\nLINE 1: \x1b[2J")
    shown = run("axes_dead_letters")
    assert shown.count("\n") == 1
    assert shown.replace("\n", "").replace("\t", "").isprintable()
    assert r"\x9b2J\u202emallory" in shown


def test_what_is_no_event_stays_among_the_dead_letters(redis_store: RedisStore) -> None:
    redis_store.set_aside(b"\xff[", "not an event")
    assert "0 put back, 1 kept." in run("axes_dead_letters", "--retry")
    assert redis_store.size().dead_letters == 1
