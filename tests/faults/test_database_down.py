"""The database is away: logins go on without it, the outbox grows, and the drain catches up when it is back."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from django.db import DatabaseError, OperationalError, connection

from axes_async.delivery.circuit_breaker import CircuitBreaker
from axes_async.models import AccessFailureLog, AttemptCounter
from axes_async.stores.redis.store import RedisStore
from axes_async.tasks import drain as drain_module
from axes_async.tasks.projection.counters import Entry
from axes_async.tasks.projection.projector import Projector
from tests.actions import failure
from tests.faults.conftest import Actor
from tests.faults.machines import Postgres, Valkey
from tests.faults.sending import address, fail_all
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.django_db(transaction=True)

StartActor = Callable[..., Actor]
Drain = Callable[[], int]


@pytest.fixture
def on_own_database(own_database: dict[str, Any], own_valkey: Valkey, start_actor: StartActor) -> Callable[[], Actor]:
    """Return a function that starts a process of the site on the PostgreSQL that may be broken."""
    first = start_actor(own_database).ready()
    until(lambda: first.ask("settled"), what="the store is complete")
    return lambda: start_actor(own_database).ready()


KINDS: dict[str, tuple[Callable[[Postgres], None], Callable[[Postgres], None]]] = {
    "stopped": (Postgres.kill, Postgres.start),
    "frozen": (Postgres.freeze, Postgres.thaw),
}


def clients(first: int, last: int) -> list[tuple[str, str]]:
    return [(f"u{number}", address(number)) for number in range(first, last)]


@pytest.mark.parametrize("kind", KINDS)
def test_logins_go_on_without_the_database_and_the_outbox_is_written_when_it_is_back(
    own_postgres: Postgres, own_valkey: Valkey, on_own_database: Callable[[], Actor], kind: str
) -> None:
    broken, mended = KINDS[kind]
    web, worker = on_own_database(), on_own_database()
    assert all(web.ask("fail", clients=clients(0, 5)))
    assert worker.ask("drain") == 5

    broken(own_postgres)
    if kind == "stopped":
        assert worker.ask("drain") == 0
    assert all(web.ask("fail", clients=clients(5, 200)))
    assert web.ask("fail", clients=[("alice", "203.0.113.1")] * 5) == [True] * 3 + [False] * 2
    (outbox,) = own_valkey.client.scan_iter("*:outbox")
    assert own_valkey.client.xlen(outbox) == 200
    if kind == "stopped":
        assert [worker.ask("drain") for _ in range(3)] == [0, 0, 0]

    mended(own_postgres)
    until(lambda: worker.ask("settled"), what="caught up")
    assert worker.ask("rows") == [name for name, _ in clients(0, 200)] + ["alice"] * 5
    assert not own_valkey.client.exists(outbox.replace(":outbox", ":dead"))


def test_database_that_goes_away_under_the_drain_gets_every_event_once(
    own_postgres: Postgres, own_valkey: Valkey, on_own_database: Callable[[], Actor]
) -> None:
    web, worker = on_own_database(), on_own_database()
    web.ask("fail", clients=clients(0, 3000))
    (outbox,) = own_valkey.client.scan_iter("*:outbox")
    worker.send("drain")
    until(lambda: own_valkey.client.xlen(outbox) < 3000, what="the drain is under way")
    own_postgres.kill()
    own_postgres.start()
    worker.answer()
    until(lambda: worker.ask("settled"), what="caught up")
    assert worker.ask("rows") == [name for name, _ in clients(0, 3000)]
    assert not own_valkey.client.exists(outbox.replace(":outbox", ":dead"))


def test_store_and_database_away_together_let_nobody_in(
    own_postgres: Postgres, own_valkey: Valkey, on_own_database: Callable[[], Actor]
) -> None:
    web = on_own_database()
    assert web.ask("fail", clients=[("alice", "192.0.2.1")]) == [True]
    own_postgres.kill()
    own_valkey.freeze()
    try:
        assert web.ask("fail", clients=[("alice", "192.0.2.1")] * 10) == [False] * 10
        assert not web.ask("succeed", username="alice", address="192.0.2.1")
    finally:
        own_valkey.thaw()
        own_postgres.start()
    until(lambda: web.ask("succeed", username="alice", address="192.0.2.1"), what="both are back")


def test_drain_leaves_a_database_alone_that_did_not_answer(
    own_store: RedisStore, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    def away(*args: Any, **options: Any) -> None:
        nonlocal tries
        tries += 1
        raise OperationalError("server closed the connection")

    monkeypatch.setattr(drain_module, "_database", CircuitBreaker(retry_interval=3600))
    failure()
    with monkeypatch.context() as broken:
        broken.setattr(drain_module, "writer_lock", away)
        assert [drain() for _ in range(5)] == [0] * 5
    assert tries == drain_module.TRIES
    assert own_store.size().events == 1
    drain_module._database._opens_until = 1.0  # The retry interval is over.
    assert drain() == 1


def test_drain_waits_while_the_database_is_read_only(
    own_store: RedisStore, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("It sets up what only PostgreSQL has.")
    monkeypatch.setattr(drain_module, "_database", CircuitBreaker(retry_interval=0))
    failure()
    with connection.cursor() as cursor:
        for value, written in (("on", 0), ("off", 1)):
            cursor.execute(f"SET default_transaction_read_only = {value}")
            assert drain() == written


@pytest.mark.parametrize("code", ["40P01", "40001"], ids=["deadlock", "serialization"])
def test_batch_that_the_database_gave_up_is_written_by_the_same_drain(
    own_store: RedisStore, drain: Drain, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    fail_all(own_store, clients(0, 50))
    write, times = Projector.write, 0

    def given_up(self: Projector, entries: Any) -> list[Entry]:
        nonlocal times
        written = write(self, entries)
        times += 1
        if times <= 2:
            with connection.cursor() as cursor:
                cursor.execute(f"DO $$ BEGIN RAISE EXCEPTION 'given up' USING ERRCODE = '{code}'; END $$")
        return written

    monkeypatch.setattr(Projector, "write", given_up)
    assert drain() == 50
    assert times == 3
    assert AccessFailureLog.objects.count() == AttemptCounter.objects.count() == 50
    assert own_store.size().dead_letters == 0


def test_real_deadlock_with_the_drain_costs_no_event(own_store: RedisStore, drain: Drain) -> None:
    """Somebody's SQL holds a row that the drain needs, and then wants the cursor that the drain holds."""
    fail_all(own_store, clients(0, 10))
    drain()
    fail_all(own_store, clients(0, 10))
    known = connection.settings_dict
    other = psycopg.connect(host=known["HOST"], user=known["USER"], dbname=known["NAME"])
    try:
        other.execute("SET deadlock_timeout = '600s'")  # So that it is the drain that is given up.
        other.execute("UPDATE axes_async_attemptcounter SET failures = failures")

        def want_the_cursor() -> None:
            with contextlib.suppress(psycopg.errors.DeadlockDetected):
                other.execute("UPDATE axes_async_draincursor SET position = position")
            other.rollback()

        thread, writing, write = threading.Thread(target=want_the_cursor), threading.Event(), Projector.write

        def write_against(self: Projector, entries: Any) -> list[Entry]:
            if not writing.is_set():
                writing.set()
                thread.start()
            return write(self, entries)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Projector, "write", write_against)
            until(lambda: drain() == 0, what="everything is written")
        thread.join(PATIENCE)
        assert not thread.is_alive()
    finally:
        other.close()
    assert AccessFailureLog.objects.count() == 20
    assert set(AttemptCounter.objects.values_list("failures", flat=True)) == {2}
    size = own_store.size()
    assert (size.events, size.dead_letters) == (0, 0)


def test_event_that_cannot_be_written_is_kept_with_its_error_and_holds_up_no_other(
    own_store: RedisStore, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Projector.write

    def refuse(self: Projector, entries: Any) -> list[Entry]:
        if any(entry.event.username == "u7" for entry in entries):
            raise DatabaseError("no room for this one")
        return write(self, entries)

    monkeypatch.setattr(Projector, "write", refuse)
    fail_all(own_store, clients(0, 20))
    drain()
    names = list(AccessFailureLog.objects.order_by("id").values_list("username", flat=True))
    assert names == [f"u{number}" for number in range(20) if number != 7]
    (letter,) = own_store.dead_letters("0-0", 10)
    assert b"u7" in letter.entry
    assert "no room" in letter.error
    assert own_store.size().events == 0
