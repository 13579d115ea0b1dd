"""No login waits without a bound: whoever holds a lock of ours, and whatever was frozen with one, it is answered."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from celery import current_app
from django.contrib.auth.models import User
from django.db import OperationalError, connection, connections

from axes_async import guard
from axes_async.delivery import publisher
from axes_async.errors import StoreUnavailable
from axes_async.login import reservation, settlement
from axes_async.models import AttemptCounter, OutboxEvent, StoreState
from axes_async.stores.database.store import DatabaseStore
from axes_async.stores.redis.store import RedisStore
from axes_async.stores.step import Step, StepKind
from axes_async.tasks.projection.writer_lock import QUEUE
from axes_async.utils import reset
from tests.actions import request_from
from tests.attacks.sites import Site
from tests.faults.conftest import database_of_test
from tests.faults.machines import Valkey
from tests.faults.sending import LEASE, counters
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.django_db(transaction=True)

WRONG, UNAVAILABLE = 401, 503
ALICE, BOB = ("alice", "192.0.2.1"), ("bob", "192.0.2.2")

WRITER_LOCK = (
    f"SELECT pg_advisory_xact_lock({QUEUE})",
    (
        "INSERT INTO axes_async_draincursor (name, position, totals, again) VALUES ('outbox', '0-0', '{}', '{}')"
        " ON CONFLICT DO NOTHING"
    ),
    "UPDATE axes_async_draincursor SET position = position WHERE name = 'outbox'",
)
STORE_STATE = ("SELECT * FROM axes_async_storestate FOR UPDATE",)
WHOLE_STORE_STATE = ("LOCK TABLE axes_async_storestate IN ACCESS EXCLUSIVE MODE",)
"""As a migration holds it: nobody may read it either."""
ROW_OF_ALICE = ("SELECT * FROM axes_async_attemptcounter WHERE ip_address = '192.0.2.1' FOR UPDATE",)

OUTAGES: dict[str, Callable[[Valkey], Any]] = {
    "cold": lambda valkey: valkey.client.flushall(),
    "dead": Valkey.kill,
}

every_outage = pytest.mark.parametrize("outage", OUTAGES)


class LockWaits:
    """How long the statements of this session that were refused a lock had waited for it, as they were told to."""

    def __init__(self) -> None:
        self.ms: list[int] = []
        self._bound = 0

    def __call__(self, execute: Callable[..., Any], sql: str, *args: Any) -> Any:
        if told := re.search(r"lock_timeout = (\d+)", sql):
            self._bound = int(told[1])
        try:
            return execute(sql, *args)
        except OperationalError as error:
            if getattr(error.__cause__, "sqlstate", "") == "55P03":
                self.ms.append(self._bound)
            raise


@pytest.mark.parametrize("mode", [StoreState.STORE, StoreState.DATABASE])
def test_step_waits_a_quarter_of_a_second_in_all_for_the_state_of_the_store(own_store: RedisStore, mode: str) -> None:
    StoreState.objects.update(mode=mode)
    fallback, waits = DatabaseStore(replaces=own_store), LockWaits()
    of_it = counters("192.0.2.1", "alice")
    with held(STORE_STATE), connection.execute_wrapper(waits), pytest.raises(StoreUnavailable):
        fallback.do(Step(StepKind.RESERVE, "token", of_it, lease=LEASE))
    assert waits.ms
    assert sum(waits.ms) <= 250


@pytest.mark.parametrize("ask", [publisher.nudge, lambda: guard.look(request_from("192.0.2.1")).unavailable])
def test_nobody_waits_for_a_table_that_may_not_be_read(
    ask: Callable[[], object], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.AXES_STORE = "database"
    monkeypatch.setattr(current_app.conf, "broker_url", None)

    def ask_on_an_idle_connection() -> object:
        try:
            User.objects.exists()
            return ask()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool, held(WHOLE_STORE_STATE):
        assert pool.submit(ask_on_an_idle_connection).result(timeout=PATIENCE) in {None, True}


@contextmanager
def held(statements: tuple[str, ...]) -> Iterator[None]:
    """Hold what ``statements`` lock from a session of its own."""
    known = connection.settings_dict
    with psycopg.connect(dbname=known["NAME"], user=known["USER"], host=known["HOST"]) as other:
        for statement in statements:
            other.execute(statement)  # type: ignore[call-overload]
        yield
        other.rollback()


def wait_for_waiter(what: str) -> None:
    """Wait until a session waits for a lock."""
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    known = connection.settings_dict
    with psycopg.connect(dbname=known["NAME"], user=known["USER"], host=known["HOST"], autocommit=True) as one:
        until(lambda: one.execute(waits).fetchone() != (0,), what=what)


def statuses(site: Site, *clients: tuple[str, str]) -> list[int]:
    """Return how logins that are sent all at once are answered; they come to nothing unless all of them are."""
    answers = site.guess(clients)
    assert all(b"retry-after: " in text.lower() for status, text in answers if status == UNAVAILABLE)
    return [status for status, _ in answers]


@every_outage
@pytest.mark.parametrize("site_of", ["a broker", "no broker", "no broker, atomic requests"])
def test_writer_lock_that_is_held_keeps_no_login_waiting(
    start_site: Callable[..., Site], own_valkey: Valkey, outage: str, site_of: str
) -> None:
    settings: dict[str, Any] = {} if site_of == "a broker" else {"CELERY_BROKER_URL": None}
    if "atomic" in site_of:
        settings["DATABASES"] = {"default": {**database_of_test(), "ATOMIC_REQUESTS": True}}
    site = start_site("threads", **settings)
    assert statuses(site, ALICE) == [WRONG]
    OUTAGES[outage](own_valkey)
    with held(WRITER_LOCK):
        assert statuses(site, ALICE, BOB, ALICE, BOB) == [WRONG] * 4


@every_outage
def test_row_of_a_counter_that_is_held_keeps_others_out_of_it(
    start_site: Callable[..., Site], own_valkey: Valkey, outage: str
) -> None:
    site = start_site("threads")
    OUTAGES[outage](own_valkey)
    assert statuses(site, ALICE, BOB) == [WRONG, WRONG]
    with held(ROW_OF_ALICE):
        assert statuses(site, ALICE, BOB, ALICE, BOB) == [UNAVAILABLE, WRONG] * 2
    assert statuses(site, ALICE) == [WRONG]


@every_outage
def test_state_of_the_store_that_is_held_is_answered_as_deny(
    start_site: Callable[..., Site], own_valkey: Valkey, outage: str
) -> None:
    site = start_site("threads")
    assert statuses(site, ALICE) == [WRONG]
    OUTAGES[outage](own_valkey)
    with held(STORE_STATE):
        assert statuses(site, ALICE, BOB) == [UNAVAILABLE] * 2
    assert statuses(site, ALICE, BOB) == [WRONG] * 2


@every_outage
def test_failure_that_no_store_could_take_counts_as_soon_as_one_can(
    own_store: RedisStore, own_valkey: Valkey, outage: str
) -> None:
    request = request_from("192.0.2.1")
    reservation.reserve(request, {"username": "alice"})
    OUTAGES[outage](own_valkey)
    with held(STORE_STATE):
        settlement.fail(request, {"username": "alice"})
        assert not OutboxEvent.objects.exists()
    until(OutboxEvent.objects.exists, what="the event is there")
    assert [row.failures for row in AttemptCounter.objects.all()] == [1]


@pytest.mark.long
def test_process_that_is_frozen_in_the_middle_of_a_step_keeps_no_login_waiting(
    start_site: Callable[..., Site], own_valkey: Valkey
) -> None:
    """It holds the row of a counter and a share of the state, until the database ends its session."""
    frozen, site = (start_site("threads", AXES_FAILURE_LIMIT=100) for _ in range(2))  # None of these locks.
    own_valkey.kill()
    assert statuses(frozen, ALICE, BOB) == [WRONG] * 2
    assert statuses(site, ALICE, BOB) == [WRONG] * 2
    with ThreadPoolExecutor(1) as pool:
        with held(ROW_OF_ALICE):
            stuck = pool.submit(frozen.guess, [ALICE])
            wait_for_waiter("the step waits for the row")
            os.killpg(frozen.process.pid, signal.SIGSTOP)
        try:
            assert set(statuses(site, ALICE, BOB, BOB)) <= {WRONG, UNAVAILABLE}
            until(lambda: statuses(site, ALICE) == [WRONG], what="the frozen one has lost its locks")
        finally:
            os.killpg(frozen.process.pid, signal.SIGCONT)
        ((status, _),) = stuck.result(PATIENCE)
    assert status in {WRONG, UNAVAILABLE}


def test_reset_that_is_under_way_keeps_no_login_waiting_when_the_store_is_lost(
    start_site: Callable[..., Site], own_store: RedisStore, own_valkey: Valkey
) -> None:
    site = start_site("threads")
    own_valkey.client.flushall()
    clients = [(f"user{number}", f"198.51.100.{number}") for number in range(10)]
    until(lambda: statuses(site, ALICE) == [WRONG], what="her failure is counted in a row")
    statuses(site, *clients)

    def reset_alice() -> int:
        try:
            return reset(username="alice")
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        with held(ROW_OF_ALICE):
            done = pool.submit(reset_alice)
            wait_for_waiter("the reset waits for the row")
            own_valkey.replace()
            assert set(statuses(site, ALICE, BOB, *clients)) <= {WRONG, UNAVAILABLE}
        assert done.result(PATIENCE) == 1
    assert AttemptCounter.objects.get(ip_address=ALICE[1]).failures == 0
