"""A row that cannot be read is left out and named, the rest goes on, and the next run looks for it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.management import CommandError
from django.db import OperationalError, connection, transaction
from django.db.models.expressions import RawSQL

from axes_async.clock import EARLIEST, LATEST, as_datetime
from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog
from axes_async.tasks.importing import position
from axes_async.tasks.importing.columns import fetch, rows_of
from tests import old_tables
from tests.labels import label
from tests.settings import DATABASE
from tests.tasks.importing.old_site import COMMITS, NOON, TABLES, move, move_some

pytestmark = [
    pytest.mark.django_db(transaction=COMMITS),
    pytest.mark.database,
    pytest.mark.usefixtures("_tables_go", "_noon", "_axes", "_lax"),
]

LEFT_OUT: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "mysql": [
        ("axes_accessattempt", {"attempt_time": "0000-00-00 00:00:00"}),
        ("axes_accessattempt", {"attempt_time": "2026-00-00 00:00:00"}),
        ("axes_accessfailurelog", {"attempt_time": "0000-00-00 00:00:00"}),
        ("axes_accesslog", {"logout_time": "0000-00-00 00:00:00"}),
    ],
    "sqlite": [
        ("axes_accessattempt", {"failures_since_start": "abc"}),
        ("axes_accessattempt", {"failures_since_start": 1.5}),
        ("axes_accessattempt", {"username": b"\xff\xfe"}),
        ("axes_accessattempt", {"ip_address": b"\xff\xfe"}),
        ("axes_accessattempt", {"user_agent": b"agent"}),
        ("axes_accessattempt", {"attempt_time": "yesterday"}),
        ("axes_accessattempt", {"attempt_time": ""}),
        ("axes_accessattempt", {"attempt_time": 1_700_000_000}),
        ("axes_accessattempt", {"attempt_time": b"\xff"}),
        ("axes_accessattempt", {"attempt_time": "2026-13-45 00:00:00"}),
        ("axes_accessfailurelog", {"attempt_time": "20000-01-01 00:00:00"}),
        ("axes_accesslog", {"logout_time": "yesterday"}),
        ("axes_accesslog", {"session_hash": b"\xff"}),
    ],
}
ROWS = LEFT_OUT.get(DATABASE, [])
MODELS = dict(zip(TABLES, (AccessAttempt, AccessLog, AccessFailureLog), strict=True))


@pytest.fixture
def _lax() -> Iterator[None]:
    """Have MariaDB take zero dates, as old ones do."""
    if connection.vendor == "mysql":
        with connection.cursor() as cursor:
            cursor.execute("SET sql_mode = ''")
    yield
    if connection.vendor == "mysql":
        connection.close()


def run(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def names(table: str) -> set[str]:
    return set(MODELS[table]._default_manager.values_list("username", flat=True))


@pytest.mark.skipif(not ROWS, reason="a database with types: see the rows that it does take")
@pytest.mark.parametrize(("table", "odd"), ROWS, ids=label)
def test_an_odd_row_is_left_out_and_named_until_it_is_repaired(table: str, odd: dict[str, Any]) -> None:
    (column,) = odd
    old_tables.insert(table, {"username": "before"}, {"username": "odd", **odd}, {"username": "after"}, at=NOON)
    named, told = move_some()
    assert len(named) == 1
    assert named[0].startswith(f"{table}: row 2 cannot be read: ")
    assert column in named[0]
    assert told.startswith("1 rows were left out.")
    assert names(table) == {"before", "after"}
    assert move_some()[0] == named, "it is looked for again"
    repaired = "NULL" if column == "logout_time" else "1" if column == "failures_since_start" else "'2026-05-01 11:00'"
    run(f"UPDATE {table} SET {column} = {repaired} WHERE id = 2")  # noqa: S608
    assert "1 rows read: 1 " in move()
    assert names(table) > {"before", "after"}
    assert "1 rows read" not in move()


@pytest.mark.skipif(DATABASE != "mysql", reason="other databases have no zero dates")
@pytest.mark.parametrize("end", ["0000-00-00 00:00:00"])
def test_an_attempt_whose_end_is_odd_is_left_out(end: str) -> None:
    old_tables.insert("axes_accessattempt", {"username": "odd"}, {"username": "after"}, at=NOON)
    run(f"INSERT INTO axes_accessattemptexpiration VALUES (1, '{end}')")  # noqa: S608
    assert "expires_at is '0000-00-00" in move_some()[0][0]
    assert names("axes_accessattempt") == {"after"}


@pytest.mark.skipif(DATABASE != "postgres", reason="times of PostgreSQL")
@pytest.mark.parametrize(
    ("at", "becomes"),
    [
        ("infinity", LATEST),
        ("-infinity", EARLIEST),
        ("20000-01-01 00:00:00+00", LATEST),
        ("0044-03-15 00:00:00+00 BC", EARLIEST),
    ],
)
def test_times_that_no_datetime_holds_are_the_first_or_the_last(at: str, becomes: int) -> None:
    for table in TABLES:
        old_tables.insert(table, {}, at=at)
    old_tables.insert("axes_accesslog", {"logout_time": at}, at=NOON)
    run(f"INSERT INTO axes_accessattemptexpiration VALUES (1, '{at}')")  # noqa: S608
    move()
    times = [model._default_manager.order_by("pk")[0].attempt_time for model in MODELS.values()]
    assert [*times, AccessLog.objects.order_by("pk")[1].logout_time] == [as_datetime(becomes)] * 4


@pytest.mark.skipif(DATABASE != "postgres", reason="elsewhere a statement that fails breaks no transaction")
def test_a_statement_that_fails_breaks_nothing_around_it(gets_in: Callable[..., bool]) -> None:
    run("ALTER TABLE axes_accesslog ALTER COLUMN attempt_time TYPE text")
    for table in TABLES:
        old_tables.insert(table, {"failures_since_start": 3} if table == TABLES[0] else {}, {}, at=NOON)
    named, told = move_some()
    assert [line.partition(" cannot")[0] for line in named] == ["axes_accesslog: row 1", "axes_accesslog: row 2"]
    assert told.startswith("2 rows were left out.")
    assert AccessFailureLog.objects.count() == 2
    assert not gets_in("192.0.2.1")
    run("ALTER TABLE axes_accesslog ALTER COLUMN attempt_time TYPE timestamptz USING attempt_time::timestamptz")
    assert "axes_accesslog: 2 rows read: 2 logins.\n" in move()


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(DATABASE != "postgres", reason="a statement of PostgreSQL")
def test_a_lost_connection_is_no_odd_row() -> None:
    try:
        old_tables.insert("axes_accesslog", {}, at=NOON)
        rows = rows_of("axes_accesslog", ["id"], "default").order_by("pk")
        gone = rows.annotate(gone=RawSQL("pg_terminate_backend(pg_backend_pid())", [])).values("id", "gone")
        with pytest.raises(OperationalError), transaction.atomic():
            fetch(gone, 10)
    finally:
        connection.close()
        old_tables.drop()


def break_rows(count: int) -> None:
    """Have the table of failures hold only rows that cannot be read."""
    odd: dict[str, Any] = {"attempt_time": "0000-00-00 00:00:00" if DATABASE == "mysql" else "yesterday"}
    if DATABASE == "postgres":
        run("ALTER TABLE axes_accessfailurelog ALTER COLUMN attempt_time TYPE text")
    old_tables.insert("axes_accessfailurelog", *[odd] * count, at=NOON)


def test_rows_that_cannot_be_read_are_not_left_out_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(position, "LOOKED_BACK", 3)
    break_rows(4)
    with pytest.raises(CommandError, match="More than 3 rows are left out"):
        move()


def test_a_dry_run_names_what_would_be_left_out() -> None:
    break_rows(2)
    assert len(move_some("--dry-run")[0]) == 2
    assert len(move_some("--dry-run")[0]) == 2


@pytest.mark.skipif(DATABASE != "sqlite", reason="other databases want text in a column of text")
def test_what_is_named_moves_no_terminal() -> None:
    old_tables.insert("axes_accessattempt", {"attempt_time": "\x1b[2J\u202e"}, at=NOON)
    assert move_some()[0][0].isprintable()


@pytest.mark.skipif(DATABASE != "sqlite", reason="other databases want text in a column of text")
def test_logins_of_defender_that_cannot_be_read_clear_nothing() -> None:
    old_tables.create("defender_accessattempt")
    login = {"login_valid": True}
    old_tables.insert("defender_accessattempt", {}, {**login, "username": b"alice"}, at=NOON)
    assert len(move_some()[0]) == 1
    assert AccessAttempt.objects.get().username == "alice"
