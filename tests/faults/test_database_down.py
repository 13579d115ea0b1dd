"""The database is away: logins go on without it, the outbox grows, and the drain catches up when it is back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError, connection

from axes_async.models import AccessFailureLog, AttemptCounter, DrainCursor
from axes_async.stores.redis.store import RedisStore
from axes_async.tasks import drain as drain_module
from axes_async.tasks.projection import projector as fold
from tests.actions import failure
from tests.faults.conftest import Actor
from tests.faults.machines import Postgres, Valkey, until
from tests.faults.sending import address, fail_all

pytestmark = pytest.mark.django_db(transaction=True)

StartActor = Callable[..., Actor]


@pytest.fixture
def on_own_database(own_postgres: Postgres, own_valkey: Valkey, start_actor: StartActor) -> StartActor:
    """Return a function that starts a process of the site on the PostgreSQL that may be broken; tables are empty."""
    import psycopg

    name = f"faults{own_valkey.port}"
    with psycopg.connect(host=own_postgres.options["HOST"], user="postgres", dbname="postgres", autocommit=True) as one:
        one.execute(f'CREATE DATABASE "{name}"')
    options = {**own_postgres.options, "NAME": name}

    def start(**settings: Any) -> Actor:
        return start_actor(options, **settings)

    first = start()
    first.ask("migrate")
    own_valkey.client.flushall()
    return start


KINDS: dict[str, tuple[Callable[[Postgres], None], Callable[[Postgres], None]]] = {
    "stopped": (Postgres.kill, Postgres.start),
    "frozen": (Postgres.freeze, Postgres.thaw),
}


def clients(first: int, last: int) -> list[tuple[str, str]]:
    return [(f"u{number}", address(number)) for number in range(first, last)]


@pytest.mark.parametrize("kind", KINDS)
def test_logins_go_on_without_the_database_and_the_outbox_is_written_when_it_is_back(
    own_postgres: Postgres,
    own_valkey: Valkey,
    own_store: RedisStore,
    on_own_database: StartActor,
    kind: str,
) -> None:
    broken, mended = KINDS[kind]
    web, worker = on_own_database(), on_own_database()
    assert web.ask("fail", clients=clients(0, 5))["looked_at"] == 5
    assert worker.ask("drain") == 5
    until(lambda: worker.ask("drain") == 0 and not own_valkey.client.get(own_store.warmth_key).startswith("cold"))

    broken(own_postgres)
    if kind == "stopped":
        assert worker.ask("drain") == 0
    tries = web.ask("fail", clients=clients(5, 200))
    assert tries["looked_at"] == 195
    assert tries["slowest"] < 1
    locked = web.ask("fail", clients=[("alice", "203.0.113.1")] * 5)
    assert locked["looked_at"] == 3
    assert own_store.client.xlen(own_store.outbox_key) == 200
    if kind == "stopped":
        assert [worker.ask("drain") for _ in range(3)] == [0, 0, 0]

    mended(own_postgres)
    until(lambda: worker.ask("drain") == 0 and own_store.client.xlen(own_store.outbox_key) == 0, what="caught up")
    expected = [name for name, _ in clients(0, 200)] + ["alice"] * 5
    assert worker.ask("rows") == expected
    assert own_store.client.xlen(own_store.dead_letters_key) == 0


def test_a_database_that_goes_away_under_the_drain_gets_every_event_once(
    own_postgres: Postgres, own_valkey: Valkey, own_store: RedisStore, on_own_database: StartActor
) -> None:
    worker = on_own_database()
    worker.ask("drain")
    own_store.database = ""  # The rows are in another database than that of this process.
    fail_all(own_store, clients(0, 6000))
    worker.send("drain_for", seconds=4)
    until(lambda: own_store.client.xlen(own_store.outbox_key) < 6000, what="the drain is under way")
    own_postgres.kill()
    own_postgres.start()
    worker.answer()
    until(lambda: worker.ask("drain") == 0 and own_store.client.xlen(own_store.outbox_key) == 0, what="caught up")
    assert worker.ask("rows") == [name for name, _ in clients(0, 6000)]
    assert own_store.client.xlen(own_store.dead_letters_key) == 0


def test_the_drain_leaves_a_database_alone_that_did_not_answer(
    own_store: RedisStore, drain: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    def away(*args: Any, **options: Any) -> None:
        nonlocal tries
        tries += 1
        raise OperationalError("server closed the connection")

    monkeypatch.setattr(drain_module, "_database", drain_module.Breaker(rest=30.0, longest=60.0))
    failure()
    with monkeypatch.context() as broken:
        broken.setattr(drain_module, "held_cursor", away)
        assert [drain() for _ in range(5)] == [0] * 5
    assert tries == drain_module.TRIES
    assert own_store.client.xlen(own_store.outbox_key) == 1
    monkeypatch.setattr(drain_module._database, "_closed_again_at", 1.0)
    assert drain() == 1


@pytest.mark.parametrize("code", ["40P01", "40001"], ids=["deadlock", "serialization"])
def test_a_batch_that_the_database_gave_up_is_written_by_the_same_drain(
    own_store: RedisStore, drain: Callable[[], int], monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    fail_all(own_store, clients(0, 50))
    counters, times = fold.Fold._counters, 0

    def given_up(self: Any, events: Any) -> None:
        nonlocal times
        counters(self, events)
        times += 1
        if times <= 2:
            with connection.cursor() as cursor:
                cursor.execute(f"DO $$ BEGIN RAISE EXCEPTION 'given up' USING ERRCODE = '{code}'; END $$")

    monkeypatch.setattr(fold.Fold, "_counters", given_up)
    assert drain() == 50
    assert times == 3
    assert AccessFailureLog.objects.count() == AttemptCounter.objects.count() == 50
    assert own_store.client.xlen(own_store.dead_letters_key) == 0


def test_a_real_deadlock_with_the_drain_costs_no_event(own_store: RedisStore, drain: Callable[[], int]) -> None:
    """Somebody's SQL holds a row that the drain needs, and then wants the cursor that the drain holds."""
    import threading

    import psycopg

    fail_all(own_store, clients(0, 10))
    drain()
    fail_all(own_store, clients(0, 10))
    known = connection.settings_dict
    other = psycopg.connect(host=known["HOST"], user=known["USER"], dbname=known["NAME"])
    gave_up: list[str] = []
    try:
        other.execute("SET deadlock_timeout = '60s'")
        other.execute("UPDATE axes_async_attemptcounter SET failures = failures")

        def want_the_cursor() -> None:
            try:
                other.execute("UPDATE axes_async_draincursor SET position = position")
                other.rollback()
            except psycopg.errors.DeadlockDetected:
                gave_up.append("the other")
                other.rollback()

        thread = threading.Thread(target=want_the_cursor)
        writing, original = threading.Event(), fold.Fold._counters

        def slowly(self: Any, events: Any) -> None:
            if not writing.is_set():
                writing.set()
                thread.start()
            original(self, events)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fold.Fold, "_counters", slowly)
            while drain():
                pass
        thread.join(30)
        assert not thread.is_alive()
    finally:
        other.close()
    assert AccessFailureLog.objects.count() == 20
    assert set(AttemptCounter.objects.values_list("failures", flat=True)) == {2}
    assert own_store.client.xlen(own_store.outbox_key) == 0
    assert own_store.client.xlen(own_store.dead_letters_key) == 0


def test_an_event_that_cannot_be_written_is_kept_with_its_error_and_holds_up_no_other(
    own_store: RedisStore, drain: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = fold.Fold._attempts

    def refuse(self: Any, events: Any) -> None:
        if any(event.username == "u7" for event in events):
            raise DatabaseError("no room for this one")
        attempts(self, events)

    monkeypatch.setattr(fold.Fold, "_attempts", refuse)
    fail_all(own_store, clients(0, 20))
    drain()
    names = list(AccessFailureLog.objects.order_by("id").values_list("username", flat=True))
    assert names == [f"u{number}" for number in range(20) if number != 7]
    ((_, letter),) = own_store.client.xrange(own_store.dead_letters_key)
    assert b"u7" in letter[b"entry"]
    assert b"no room" in letter[b"error"]
    assert DrainCursor.objects.get().position != "0-0"
    assert own_store.client.xlen(own_store.outbox_key) == 0


def test_store_and_database_away_together_let_nobody_in_and_hold_nobody_up(
    own_postgres: Postgres, own_valkey: Valkey, on_own_database: StartActor
) -> None:
    web = on_own_database(AXES_STORE_REST=0.2)
    assert web.ask("fail", clients=[("alice", "192.0.2.1")])["looked_at"] == 1
    own_postgres.kill()
    own_valkey.freeze()
    try:
        tries = web.ask("fail", clients=[("alice", "192.0.2.1")] * 10)
        assert tries["looked_at"] == 0
        assert tries["slowest"] < 1
        assert not web.ask("succeed", username="alice", address="192.0.2.1")
    finally:
        own_valkey.thaw()
        own_postgres.start()
    until(lambda: web.ask("succeed", username="alice", address="192.0.2.1"), what="both are back")
