"""A real Celery worker is killed with SIGKILL in the middle of its work; the next one goes on where it stood."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.db import connection

from axes_async.models import AccessFailureLog
from axes_async.stores.redis.store import RedisStore
from tests.faults.conftest import database_of_test, environment
from tests.faults.machines import Valkey
from tests.faults.test_worker_killed import check, send
from tests.nursery import Process
from tests.waiting import until

WORKER = ["celery", "-A", "tests.celery", "worker", "-B", "-P", "prefork", "-c", "2"]
WORKER += ["--loglevel", "ERROR", "--without-gossip", "--without-mingle"]

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def start_worker(own_valkey: Valkey, tmp_path: Path) -> Iterator[Callable[[], Process]]:
    """Return a function that starts a Celery worker in a session of its own, whose broker is the test's Valkey."""
    started: list[Process] = []
    before = sessions()

    def start() -> Process:
        known = environment(tmp_path, database_of_test(), own_valkey.url, f"{own_valkey.url}/1", {})
        started.append(Process(*WORKER, "-s", str(tmp_path / "beat"), environment=known))
        return started[-1]

    yield start
    for worker in started:
        worker.kill()
    until(lambda: sessions() <= before, what="the database has noticed that they are gone")


def sessions() -> set[int]:
    """Return the sessions of others in the test's database: a worker's own are gone when the database has noticed."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return {pid for (pid,) in cursor.fetchall()}


@pytest.mark.timeout(240)
def test_a_celery_worker_killed_in_the_middle_loses_and_doubles_nothing(
    own_store: RedisStore, start_worker: Callable[[], Process]
) -> None:
    send(own_store, 8000)
    first = start_worker()
    until(AccessFailureLog.objects.exists, what="beat or nudge has started a drain")
    first.kill()
    send(own_store, 2000, first=8000)
    second = start_worker()
    until(lambda: AccessFailureLog.objects.count() == 10_000, what="the second worker goes on")
    until(lambda: own_store.size().events == 0, what="the outbox is empty")
    second.kill()
    check(own_store, 10_000)
