"""What no store could take is done later, and once: no try of a password is free, and no event is lost."""

from __future__ import annotations

import time
from dataclasses import fields
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import HttpRequest

from axes_async.login import reservation, settlement, state, unsettled
from axes_async.signals import user_locked_out
from axes_async.stores.contract import Position
from axes_async.stores.factory import get_failover
from axes_async.stores.redis.store import RedisStore
from axes_async.tasks.sync import sync_store
from tests.actions import counter_keys, failure, failures_stored, request_from, reservations_held
from tests.attacks.test_held_locks import STORE_STATE, held
from tests.faults.machines import Valkey
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.django_db(transaction=True)

ALICE = {"username": "alice"}


@pytest.fixture(autouse=True)
def _deny(settings: Any) -> None:
    """Let nothing decide instead of the store."""
    settings.AXES_ON_STORE_FAILURE = "deny"


@pytest.fixture
def reserved(own_store: RedisStore) -> HttpRequest:
    """Return a request that holds a reservation for alice."""
    request = request_from("192.0.2.1")
    attempt = reservation.reserve(request, ALICE)
    assert attempt is not None
    assert attempt.reserved
    return request


def kinds(store: RedisStore) -> list[str]:
    """Return the kinds of the events in the outbox, in order."""
    return [str(getattr(event, "kind", event)) for _, event in store.read(Position(), 100)]


def wait_for_thread() -> None:
    """Wait until nothing is left to settle."""
    until(lambda: unsettled._backlog._thread is None, what="all is settled, or given up")


def test_failure_that_a_full_store_refused_counts_when_there_is_room(
    reserved: HttpRequest, own_store: RedisStore, own_valkey: Valkey
) -> None:
    own_valkey.fill()
    settlement.fail(reserved, ALICE)
    assert kinds(own_store) == []
    own_valkey.make_room()
    wait_for_thread()
    assert kinds(own_store) == ["failed"]
    assert (failures_stored(own_valkey.client), reservations_held(own_valkey.client)) == ([1], 0)


def test_failure_that_a_frozen_store_did_late_counts_once(
    reserved: HttpRequest, own_store: RedisStore, own_valkey: Valkey
) -> None:
    own_valkey.freeze()
    settlement.fail(reserved, ALICE)
    own_valkey.thaw()
    wait_for_thread()
    assert kinds(own_store) == ["failed"]
    assert failures_stored(own_valkey.client) == [1]


@pytest.mark.parametrize("on_failure", ["deny", "database"])
def test_failure_counts_also_when_its_reservation_was_lost_with_the_store(
    reserved: HttpRequest,
    own_store: RedisStore,
    own_valkey: Valkey,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    on_failure: str,
) -> None:
    """Before it is tried again, a sync has begun a new generation, which this process has heard of by then."""
    settings.AXES_ON_STORE_FAILURE = on_failure
    waits, go_on = Event(), Event()

    def wait(seconds: float) -> None:
        waits.set()
        go_on.wait(PATIENCE)

    monkeypatch.setattr(unsettled, "time", SimpleNamespace(monotonic=time.monotonic, sleep=wait))
    own_valkey.client.flushall()
    with held(STORE_STATE):
        settlement.fail(reserved, ALICE)
        assert waits.wait(PATIENCE)
    until(lambda: sync_store(own_store), what="the store is complete again")
    assert failure("bob", "192.0.2.2")
    go_on.set()
    wait_for_thread()
    assert kinds(own_store) == ["failed", "failed"]
    assert failures_stored(own_valkey.client) == [1, 1]


def test_failure_counts_also_when_its_reservation_has_ended(
    reserved: HttpRequest, own_store: RedisStore, own_valkey: Valkey
) -> None:
    state.state_of(reserved).attempts[0].reserved_at = float("-inf")
    own_valkey.fill()
    settlement.fail(reserved, ALICE)
    own_valkey.client.delete(*counter_keys(own_valkey.client))
    own_valkey.make_room()
    wait_for_thread()
    assert (kinds(own_store), failures_stored(own_valkey.client)) == (["failed"], [1])


def test_lockout_that_is_set_later_is_told_later(settings: Any, reserved: HttpRequest, own_valkey: Valkey) -> None:
    settings.AXES_FAILURE_LIMIT = 1
    told: list[Any] = []
    user_locked_out.connect(lambda **named: told.append(named["username"]), weak=False, dispatch_uid="test")
    try:
        request = request_from("192.0.2.2")
        reservation.reserve(request, ALICE)
        own_valkey.fill()
        settlement.fail(request, ALICE)
        assert told == []
        own_valkey.make_room()
        wait_for_thread()
    finally:
        user_locked_out.disconnect(dispatch_uid="test")
    assert told == ["alice"]


def test_logins_and_logouts_are_recorded_later(alice: User, own_store: RedisStore, own_valkey: Valkey) -> None:
    own_valkey.fill()
    settlement.succeed(request_from("192.0.2.1"), "alice")
    settlement.log_out(request_from("192.0.2.1"), "alice")
    own_valkey.make_room()
    wait_for_thread()
    assert sorted(kinds(own_store)) == ["logged_in", "logged_out"]


def test_what_no_store_takes_in_time_is_given_up_with_a_line_in_the_log(
    reserved: HttpRequest, own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(unsettled, "SECONDS", 0)
    own_valkey.fill()
    settlement.fail(reserved, ALICE)
    wait_for_thread()
    assert [text for text in caplog.messages if text.startswith("Given up") and '["failed"' in text]


def test_what_is_too_much_to_wait_is_told_in_the_log(
    reserved: HttpRequest, own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(unsettled._backlog, "most", 0)
    own_valkey.fill()
    settlement.fail(reserved, ALICE)
    assert [text for text in caplog.messages if 'lost but for this line: ["failed"' in text]


def test_process_that_may_start_no_thread_loses_no_later_failure(
    reserved: HttpRequest, own_store: RedisStore, own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: Thread) -> None:
        raise RuntimeError("can't start new thread")

    later = request_from("192.0.2.2")
    reservation.reserve(later, ALICE)
    own_valkey.fill()
    with monkeypatch.context() as patch:
        patch.setattr(Thread, "start", refuse)
        settlement.fail(reserved, ALICE)
    settlement.fail(later, ALICE)
    own_valkey.make_room()
    wait_for_thread()
    assert kinds(own_store) == ["failed"]
    until(lambda: not get_failover().is_away, what="the store is asked again")


def test_what_waits_keeps_no_request_and_so_no_body(
    own_store: RedisStore, own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Any] = []
    monkeypatch.setattr("axes_async.login.steps.try_later", lambda *args: kept.extend(args) or True)
    request = request_from("192.0.2.1")
    own_valkey.fill()
    settlement.fail(request, ALICE)
    step, _, tell = kept
    assert '"alice"' in step.line
    assert all(each is not request for each in (*(getattr(step, field.name) for field in fields(step)), *tell.args))
