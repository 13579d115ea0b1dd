"""What databases differ in: letters that are equal to some, characters that take four bytes, times, and isolation."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
import time_machine
from django.contrib.auth.models import User
from django.core.checks import run_checks
from django.db import connection, connections
from django.test import Client

from axes_async.client.normalize import fold_username
from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog, AttemptCounter, DrainCursor
from axes_async.stores.redis.store import RedisStore
from axes_async.tasks.projection.writer_lock import writer_lock
from axes_async.tasks.sync import sync
from axes_async.utils import reset
from tests.actions import failure, success
from tests.stores.test_concurrency import at_once
from tests.tasks.agreement import in_store_and_rows
from tests.waiting import until

Drain = Callable[[], int]

pytestmark = [pytest.mark.database]

NAMES = [
    "alice",
    "álice",
    "alicé",
    "a lice",
    "\N{GRINNING FACE}",
    "\N{PILE OF POO}",
    "ss",
    "ß",
    "i",
    "ı",
    "l",
    "ł",
    "æ",
    "ae",
]
"""Equal in twos to one collation or another; we tell them apart, but for those that are equal in upper case."""


def counter(digest: str, failures: int) -> AttemptCounter:
    now = datetime.now(UTC)
    return AttemptCounter(digest=digest, parameters=1, failures=failures, since=now, limit=9, changed_at=now)


@pytest.mark.django_db
def test_digests_that_differ_in_case_are_two_counters() -> None:
    """Base64 has both cases, and most collations of MySQL tell none."""
    upper, lower = "ABCDEFGHIJKLMNOPQRSTUV", "abcdefghijklmnopqrstuv"
    AttemptCounter.objects.bulk_create([counter(upper, 1), counter(lower, 2)])
    assert AttemptCounter.objects.get(digest=lower).failures == 2
    assert [row.digest for row in AttemptCounter.objects.order_by("digest")] == [upper, lower]
    AttemptCounter.objects.filter(digest__in=[upper]).delete()
    assert AttemptCounter.objects.get().digest == lower


@pytest.mark.django_db
def test_portions_of_a_sync_leave_no_digest_out(redis_store: RedisStore, valkey: redis.Redis) -> None:
    """They follow the primary key, in an order and by a comparison that have to be one and the same."""
    digests = {f"{letter}{number:021}" for letter in "aAbBzZ_-09" for number in range(30)}
    AttemptCounter.objects.bulk_create([counter(digest, 3) for digest in digests])
    valkey.flushdb()
    assert sync()
    stored, rows = in_store_and_rows(redis_store)
    assert stored == rows
    assert set(stored) == digests


@pytest.mark.django_db
def test_names_that_a_collation_takes_for_equal_are_not(drain: Drain, settings: Any) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = ["username"]
    for name in NAMES:
        for _ in range(3):
            failure(name)
    drain()
    apart = {name.upper().casefold() for name in NAMES}
    assert set(AccessAttempt.objects.values_list("username", flat=True)) <= set(NAMES)
    assert AttemptCounter.objects.count() == len(apart)
    for name in sorted(apart):
        assert not success(name)
        assert reset(username=name) >= 1
        assert success(name)
        apart.remove(name)
        assert AccessAttempt.objects.values("username_key").distinct().count() == len(apart)


@pytest.mark.django_db
def test_characters_of_four_bytes_are_kept(drain: Drain) -> None:
    failure("\N{GRINNING FACE} \N{CJK UNIFIED IDEOGRAPH-20000}", agent="\N{PILE OF POO}")
    drain()
    for row in (AccessAttempt.objects.get(), AccessFailureLog.objects.get()):
        assert row.username == "\N{GRINNING FACE} \N{CJK UNIFIED IDEOGRAPH-20000}"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_writer_lock_is_given_in_the_order_in_which_it_was_asked_for_at_every_isolation(
    monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    """Nobody who has waited for it may fail for what was written meanwhile."""
    if connection.vendor != "postgresql":
        pytest.skip("Other databases have an order of their own, or none.")
    monkeypatch.setitem(
        connections["default"].settings_dict,
        "OPTIONS",
        {**connection.settings_dict["OPTIONS"], "isolation_level": POSTGRES[level]},
    )
    entered: list[int] = []

    def enter(number: int) -> None:
        try:
            with writer_lock() as cursor:
                entered.append(number)
                cursor.position = f"0-{int(cursor.position[2:]) + 1}"
                cursor.save()
        finally:
            connection.close()

    def waiting() -> int:
        with connection.cursor() as query:
            query.execute("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()")
            return int(query.fetchone()[0])

    entering: list[Future[None]] = []
    with ThreadPoolExecutor(8) as pool, writer_lock():
        for number in range(8):
            entering.append(pool.submit(enter, number))
            until(lambda: waiting() == number + 1)  # noqa: B023
    assert [one.exception() for one in entering] == [None] * 8
    assert entered == list(range(8))
    assert DrainCursor.objects.get().position == "0-8"


@pytest.mark.django_db(transaction=True)
def test_writer_lock_is_held_also_where_transactions_are_left_to_the_caller() -> None:
    """As in a script that has called ``set_autocommit(False)``: a query of its own may have begun the transaction."""
    DrainCursor.objects.get_or_create(name="outbox")
    if connection.vendor == "postgresql":
        with connection.cursor() as statement:
            statement.execute("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    connection.set_autocommit(False)
    try:
        DrainCursor.objects.count()
        with writer_lock() as cursor:
            cursor.position = "0-7"
            cursor.save()
        connection.commit()
    finally:
        connection.rollback()
        connection.set_autocommit(True)
        if connection.vendor == "postgresql":
            connection.close()
    assert DrainCursor.objects.get().position == "0-7"


def character_sets() -> list[tuple[str, str | None]]:
    """Return what ``check --database default`` says of character sets, and the hint."""
    messages = run_checks(databases=["default"])
    return [(message.msg, message.hint) for message in messages if message.id == "axes_async.W018"]


@pytest.mark.django_db
def test_a_database_that_takes_all_characters_is_not_reported() -> None:
    assert character_sets() == []


@pytest.mark.django_db(transaction=True)
def test_a_table_of_another_character_set_is_reported_with_what_mends_it() -> None:
    if connection.vendor != "mysql":
        pytest.skip("Others have one character set for a database, or one alone.")
    table = "axes_async_accessattempt"
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} MODIFY path_info varchar(255) CHARACTER SET latin1 NOT NULL")
        cursor.execute(f"ALTER TABLE {table} MODIFY username varchar(255) CHARACTER SET latin1 NULL")
        ((message, hint),) = character_sets()
        assert message.startswith(f"The character set of the table {table} is latin1")
        assert run_checks(tags=["axes_async"]) == [], "asked for alone, as all checks of a database are"
        cursor.execute(hint)
        assert character_sets() == []
        cursor.execute(f"SHOW COLUMNS FROM {table} WHERE `Null` = 'YES'")
        assert {"username", "ip_address", "expires_at"} == {row[0] for row in cursor.fetchall()}


@pytest.mark.django_db(transaction=True)
def test_a_connection_and_an_empty_database_of_another_character_set_are_reported() -> None:
    if connection.vendor != "mysql":
        pytest.skip("Others have one character set for a database, or one alone.")
    with connection.cursor() as cursor:
        try:
            cursor.execute("SET NAMES latin1")
            ((message, hint),) = character_sets()
            assert message.startswith("The character set of the connection 'default' is latin1")
            assert '"charset": "utf8mb4"' in str(hint)
            cursor.execute("SET NAMES utf8mb4")
            cursor.execute("CREATE DATABASE of_latin1 CHARACTER SET latin1")
            cursor.execute("USE of_latin1")
            ((message, hint),) = character_sets()
            assert message.startswith("The character set of the database 'default' is latin1")
            assert "ALTER DATABASE" in str(hint)
        finally:
            cursor.execute("DROP DATABASE IF EXISTS of_latin1")
            connection.close()
    assert character_sets() == []


@pytest.mark.django_db
def test_where_accents_tell_no_accounts_apart_a_canonicalizer_counts_them_as_one(settings: Any, client: Client) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = ["username"]
    settings.AXES_USERNAME_CANONICALIZER = without_accents
    User.objects.create_user("alice", password="right")
    if connection.vendor == "mysql":
        assert User.objects.get(username="alicé").username == "alice", "the account that both spellings log in to"
    tries = [("alice", "wrong"), ("alicé", "wrong"), ("ÀLICE", "wrong"), ("alice", "right"), ("alicé", "right")]
    answers = [client.post("/sign-in/", {"username": name, "password": password}) for name, password in tries]
    assert [answer.status_code for answer in answers] == [401, 401, 429, 429, 429]


def without_accents(username: str) -> str:
    """As docs/settings.md has it."""
    parts = unicodedata.normalize("NFKD", fold_username(username))
    return "".join(part for part in parts if not unicodedata.combining(part))


@pytest.mark.django_db
def test_milliseconds_are_kept(drain: Drain) -> None:
    with time_machine.travel(datetime(2026, 5, 1, 12, 0, 0, 987_000, tzinfo=UTC), tick=False):
        failure()
    drain()
    assert AccessFailureLog.objects.get().attempt_time.microsecond == 987_000


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_four_drains_at_once_write_each_event_once_at_every_isolation(
    drain: Drain, redis_store: RedisStore, level: str
) -> None:
    """A drain may begin while another is at work, and must not go by what it saw then."""
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has one level of isolation.")
    for number in range(1200):
        failure(f"user{number % 7}", f"192.0.2.{number % 200}")
    events = redis_store.size().events
    options = connections["default"].settings_dict.setdefault("OPTIONS", {})
    options["isolation_level"] = level if connection.vendor == "mysql" else POSTGRES[level]
    try:
        at_once(4, lambda number: drain())
        assert drain() == 0
    finally:
        del options["isolation_level"]
    assert AccessFailureLog.objects.count() == events
    stored, rows = in_store_and_rows(redis_store)
    assert stored == rows


POSTGRES = {"read committed": 2, "repeatable read": 3, "serializable": 4}
"""``psycopg.IsolationLevel``, which is there only where PostgreSQL is."""


@pytest.fixture(params=["a column", "a table"])
def missing(request: pytest.FixtureRequest) -> Iterator[Callable[[], None]]:
    """Take something of the access log away, as it is before a migration; return what brings it back."""
    table = AccessLog._meta.db_table
    there, back = {
        "a column": (
            f"ALTER TABLE {table} RENAME COLUMN path_info TO gone",
            f"ALTER TABLE {table} RENAME COLUMN gone TO path_info",
        ),
        "a table": (f"ALTER TABLE {table} RENAME TO axes_gone", f"ALTER TABLE axes_gone RENAME TO {table}"),
    }[request.param]
    statements = [back]

    def run(statement: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(statement)

    def migrate() -> None:
        while statements:
            run(statements.pop())

    run(there)
    yield migrate
    migrate()


@pytest.mark.django_db(transaction=True)
def test_a_worker_whose_migrations_are_yet_to_come_takes_no_event_for_a_dead_letter(
    alice: User, redis_store: RedisStore, drain: Drain, missing: Callable[[], None]
) -> None:
    success("alice", "192.0.2.1")
    failure("bob", "192.0.2.2")
    assert drain() == 0
    assert redis_store.dead_letters("0-0", 10) == []
    missing()
    until(drain, what="the events are written")
    assert AccessLog.objects.count() == AccessFailureLog.objects.count() == 1
