"""Rows whose ids were handed out long before they were there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from axes_async.models import AccessAttempt, AccessFailureLog, AttemptCounter, DrainCursor
from axes_async.tasks.importing import importer
from axes_async.tasks.importing.position import LOOKED_BACK, Position
from tests import old_tables
from tests.tasks.importing.old_site import COMMITS, NOON, attempts, move, tries

pytestmark = [
    pytest.mark.django_db(transaction=COMMITS),
    pytest.mark.database,
    pytest.mark.usefixtures("_tables_go", "_noon"),
]

A = "203.0.113.7"


@pytest.mark.usefixtures("_axes")
def test_a_row_that_commits_late_is_imported_by_the_next_run(gets_in: Callable[..., bool]) -> None:
    attempts({"id": 2, "ip_address": A}, {"id": 5, "ip_address": A, "username": "bob"})
    move()
    assert gets_in(A)
    attempts({"id": 1, "ip_address": A, "username": "carol"}, {"id": 4, "ip_address": A, "username": "dave"})
    assert "2 rows would be read: 2 attempts." in move("--dry-run")
    assert "2 rows read: 2 attempts." in move()
    assert "nothing new." in move()
    assert AttemptCounter.objects.get().failures == 4
    assert not gets_in(A)


@pytest.mark.usefixtures("_axes")
def test_late_rows_come_in_portions_and_before_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "PORTION", 2)
    rows: list[dict[str, Any]] = [{"id": pk, "username": f"user{pk}"} for pk in range(1, 20)]
    old_tables.insert("axes_accessfailurelog", *rows[9:15:2], at=NOON)
    assert "axes_accessfailurelog: 3 rows read: 3 failures." in move()
    late = [row for row in rows if row not in rows[9:15:2]]
    old_tables.insert("axes_accessfailurelog", *late, at=NOON)
    assert "axes_accessfailurelog: 16 rows read: 16 failures." in move()
    assert AccessFailureLog.objects.count() == 19
    assert "axes_accessfailurelog: nothing new." in move()


@pytest.mark.usefixtures("_axes")
def test_rows_whose_ids_are_not_above_zero_are_imported() -> None:
    old_tables.insert("axes_accesslog", {"id": -3}, {"id": 5}, at=NOON)
    attempts({"id": -7})
    told = move()
    assert "axes_accesslog: 2 rows read: 2 logins." in told
    assert "axes_accessattempt: 1 rows read: 1 attempts." in told
    assert "nothing new" not in told.replace("axes_accessfailurelog: nothing new", "")
    assert move().count("nothing new") == 3


def test_only_ids_near_the_highest_are_looked_for_again() -> None:
    position = Position()
    position.read([7, 50_000], left_out=[7])
    assert position.left_out == {7}
    assert position.missing == set(range(50_000 - LOOKED_BACK, 50_000))
    position.read([50_000 + LOOKED_BACK - 1], left_out=[])
    assert 49_999 in position.missing
    assert 49_998 not in position.missing
    assert position.left_out == {7}
    position.read([7, 49_999], left_out=[])
    assert position.left_out == set()
    assert 49_999 not in position.missing
    assert position.last == 50_000 + LOOKED_BACK - 1


def test_a_position_is_kept_as_ranges() -> None:
    position, mark = Position(), DrainCursor()
    position.read([-2, 0, 10, 12], left_out=[0])
    position.keep(mark)
    assert mark.position == "12"
    assert mark.again == {"missing": [[-1, -1], [1, 9], [11, 11]], "left_out": [[0, 0]]}
    assert Position.of(mark) == position


def test_the_logins_of_defender_are_read_once_for_all_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "PORTION", 5)
    old_tables.create("defender_accessattempt")
    looks = []
    for rows in (10, 100):
        tries(*[{"username": f"user{n}", "login_valid": n % 3 == 2} for n in range(rows)])
        with CaptureQueriesContext(
            connection,
        ) as queries:
            move()
        looks.append(sum("defender_accessattempt" in query["sql"] for query in queries))
    assert looks[1] - looks[0] == (100 - 10) / 5, "one for each portion"


@pytest.mark.parametrize("late", [False, True])
def test_a_login_of_defender_clears_the_failures_before_it_in_every_run(late: bool) -> None:
    old_tables.create("defender_accessattempt")
    rows: list[dict[str, Any]] = [{"id": 1}, {"id": 2, "login_valid": True}, {"id": 3}]
    tries(*(rows[1:] if late else rows))
    move()
    if late:
        tries(rows[0])
        move()
    assert AccessFailureLog.objects.count() == 2
    assert AccessAttempt.objects.get().failures_since_start == 1
