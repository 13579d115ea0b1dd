"""A row that our database refuses is left out and named, the rest goes on, and the next run looks for it again."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from django.core.management import CommandError
from django.db import connection

from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog, AttemptCounter, DrainCursor
from tests import old_tables
from tests.settings import DATABASE
from tests.tasks.importing.old_site import COMMITS, NOON, TABLES, attempts, move, move_some

pytestmark = [
    pytest.mark.django_db(transaction=COMMITS),
    pytest.mark.database,
    pytest.mark.usefixtures("_tables_go", "_noon", "_axes"),
]

MODELS = dict(zip(TABLES, (AccessAttempt, AccessLog, AccessFailureLog), strict=True))
EMOJI = "mallory \U0001f600"


def run(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def refuse(table: str) -> None:
    """Have our table for the rows of ``table`` take no mallory."""
    own = MODELS[table]._meta.db_table
    if connection.vendor == "sqlite":  # It adds no constraint to a table that is there.
        run(
            f"CREATE TRIGGER no_mallory BEFORE INSERT ON {own} WHEN NEW.username = 'mallory' "
            "BEGIN SELECT RAISE(ABORT, 'CHECK constraint failed: no_mallory'); END"
        )
    else:
        run(f"ALTER TABLE {own} ADD CONSTRAINT no_mallory CHECK (username <> 'mallory')")


def accept(table: str) -> None:
    own = MODELS[table]._meta.db_table
    sqlite = connection.vendor == "sqlite"
    run("DROP TRIGGER IF EXISTS no_mallory" if sqlite else f"ALTER TABLE {own} DROP CONSTRAINT IF EXISTS no_mallory")


def names(table: str) -> list[str]:
    return list(MODELS[table]._default_manager.order_by("pk").values_list("username", flat=True))


@pytest.fixture(params=TABLES)
def table(request: pytest.FixtureRequest) -> Iterator[str]:
    """Return a table; ours for its rows takes everybody afterwards."""
    table: str = request.param
    yield table
    if COMMITS:
        accept(table)
        run(f"ALTER TABLE {MODELS[table]._meta.db_table} MODIFY username varchar(255) CHARACTER SET utf8mb4 NULL")


def test_a_row_that_our_database_refuses_is_left_out_and_named_until_it_is_taken(table: str) -> None:
    refuse(table)
    people = ["one", "two", "three", "mallory", "four"]
    old_tables.insert(table, *({"username": name} for name in people), at=NOON)
    named, told = move_some()
    assert len(named) == 1
    assert named[0].startswith(f"{table}: row 4 cannot be written: IntegrityError: ")
    assert "no_mallory" in named[0]
    assert told.startswith("1 rows were left out.")
    assert names(table) == ["one", "two", "three", "four"]
    ((again,), _) = move_some()
    assert again.startswith(f"{table}: row 4 cannot be written: "), "it is looked for again"
    accept(table)
    assert f"{table}: 1 rows read: 1 " in move()
    assert names(table) == ["one", "two", "three", "four", "mallory"]
    assert "1 rows read" not in move()


def test_a_dry_run_names_the_rows_that_would_be_refused(table: str) -> None:
    refuse(table)
    old_tables.insert(table, {"username": "mallory"}, {}, {"username": "mallory"}, at=NOON)
    assert len(move_some("--dry-run")[0]) == 2
    assert names(table) == []


def test_the_failures_of_a_refused_attempt_count_once_when_it_is_taken() -> None:
    refuse("axes_accessattempt")
    try:
        attempts({"failures_since_start": 1}, {"failures_since_start": 2, "username": "mallory"})
        move_some()
        move_some()
        assert AttemptCounter.objects.get().failures == 1
    finally:
        accept("axes_accessattempt")
    move()
    assert AttemptCounter.objects.get().failures == 3


@pytest.mark.skipif(DATABASE != "mysql", reason="other databases have one character set for all tables")
@pytest.mark.parametrize("character_set", ["latin1", "utf8mb3"])
def test_an_emoji_that_our_character_set_lacks_stops_no_import(table: str, character_set: str) -> None:
    run(f"ALTER TABLE {MODELS[table]._meta.db_table} MODIFY username varchar(255) CHARACTER SET {character_set} NULL")
    old_tables.insert(table, {"username": "before"}, {"username": EMOJI}, {"username": "after"}, at=NOON)
    named, _ = move_some()
    assert len(named) == 1
    assert named[0].startswith(f"{table}: row 2 cannot be written: ")
    assert "username" in named[0]
    assert names(table) == ["before", "after"]
    run(f"ALTER TABLE {MODELS[table]._meta.db_table} MODIFY username varchar(255) CHARACTER SET utf8mb4 NULL")
    move()
    assert names(table) == ["before", "after", EMOJI]


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(DATABASE != "postgres", reason="locks of PostgreSQL")
def test_a_lock_that_is_not_had_in_time_stops_the_import_and_loses_nothing() -> None:
    known = connection.settings_dict
    other = psycopg.connect(host=known["HOST"], user=known["USER"], dbname=known["NAME"])
    try:
        old_tables.insert("axes_accessfailurelog", {}, {}, at=NOON)
        run("SET lock_timeout = '10ms'")
        other.execute("LOCK TABLE axes_async_accessfailurelog IN EXCLUSIVE MODE")
        with pytest.raises(CommandError, match="lock timeout"):
            move()
        assert not AccessFailureLog.objects.exists()
        assert not DrainCursor.objects.filter(name__startswith="import:").exclude(position="").exists()
        other.rollback()
        assert "axes_accessfailurelog: 2 rows read: 2 failures." in move()
    finally:
        other.close()
        connection.close()
        old_tables.drop()
