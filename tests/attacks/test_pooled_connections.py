"""Sites whose connections to the database come from a pool: logins hold all of it, and still wait for no other."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from django.db import connection, transaction

from axes_async.stores.factory import get_failover
from axes_async.stores.results import Verdict
from axes_async.stores.step import Step, StepKind
from tests.faults.sending import LEASE, address, counters
from tests.waiting import PATIENCE

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="Only PostgreSQL has such a pool."),
]

SIZE = 2


@pytest.fixture(autouse=True)
def _pooled(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    settings.AXES_STORE = "database"
    connection.close()
    with monkeypatch.context() as patch:
        pool = {"min_size": 1, "max_size": SIZE, "timeout": PATIENCE}
        patch.setitem(connection.settings_dict, "OPTIONS", {**connection.settings_dict["OPTIONS"], "pool": pool})
        yield
        connection.close()
        connection.close_pool()  # type: ignore[attr-defined]


def reserve(number: int) -> Verdict:
    return (
        get_failover().do(Step(StepKind.RESERVE, f"{number}", counters(address(number), "alice"), lease=LEASE)).verdict
    )


def test_logins_whose_transactions_hold_all_of_the_pool_are_decided() -> None:
    barrier = Barrier(SIZE)

    def login(number: int) -> Verdict:
        try:
            with transaction.atomic():
                barrier.wait(PATIENCE)
                return reserve(number)
        finally:
            connection.close()

    with ThreadPoolExecutor(SIZE) as threads:
        assert {*threads.map(login, range(SIZE))} == {Verdict.ALLOWED}


def test_logins_need_nothing_of_a_pool_that_others_hold() -> None:
    pool = connection.pool  # type: ignore[attr-defined]
    pool.open()
    held = [pool.getconn() for _ in range(SIZE)]
    with ThreadPoolExecutor(20) as threads:
        assert {*threads.map(reserve, range(20))} == {Verdict.ALLOWED}
    for one in held:
        pool.putconn(one)
