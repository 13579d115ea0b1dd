"""What ``manage.py check`` says of the database: with real servers."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.checks import run_checks
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import ConnectionHandler

from axes_async.checks import database, project
from axes_async.checks.database import merged
from axes_async.client.normalize import fold_username
from tests import system

ALICE, KANA, FINAL = ("alice", "alic\u00e9"), ("\u30a2", "\u3042"), ("\u05e0", "\u05df")

FOREVER = "axes_async.W008"

pytestmark = pytest.mark.django_db


def found(**options: Any) -> set[str | None]:
    return {message.id for message in run_checks(**options) if (message.id or "").startswith("axes_async.")}


def without_accents(username: str) -> str:
    parts = unicodedata.normalize("NFKD", fold_username(username))
    return "".join(part for part in parts if not unicodedata.combining(part))


@pytest.fixture
def mariadb() -> Iterator[BaseDatabaseWrapper]:
    """Return a connection to a database of its own."""
    entry = system.mariadb()
    if entry is None:
        pytest.skip(system.NO_MARIADB)
    one = ConnectionHandler({"default": {**entry, "NAME": None}})["default"]
    with one.cursor() as cursor:
        cursor.execute("CREATE DATABASE names CHARACTER SET utf8mb4")
        cursor.execute("USE names")
        yield one
        cursor.execute("DROP DATABASE names")
    one.close()


@pytest.mark.parametrize(
    ("collation", "pairs"),
    [
        ("utf8mb4_general_ci", {ALICE}),
        ("utf8mb4_unicode_ci", {ALICE, KANA, FINAL}),
        ("utf8mb4_uca1400_as_ci", {KANA, FINAL}),
        ("utf8mb4_uca1400_as_cs", set()),
        ("utf8mb4_bin", set()),
    ],
)
def test_a_column_that_takes_two_names_for_one_is_found(
    mariadb: BaseDatabaseWrapper, settings: Any, collation: str, pairs: set[tuple[str, str]]
) -> None:
    with mariadb.cursor() as cursor:
        cursor.execute(f"CREATE TABLE users (username varchar(150) COLLATE {collation})")
    assert set(merged(mariadb, "users", "username")) == pairs
    settings.AXES_USERNAME_CANONICALIZER = without_accents
    assert set(merged(mariadb, "users", "username")) == pairs - {ALICE}
    assert merged(mariadb, "no table yet", "username") == {}


def test_only_a_column_whose_names_are_counted_is_asked_for(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "merged", lambda connection, table, column: {ALICE: f"as in {table}.{column}"})
    assert found(databases=["default"]) == set()
    settings.AXES_LOCKOUT_RULES = [{"parameters": ["username", "ip_address"]}]
    assert found(databases=["default"]) == {"axes_async.W019"}
    assert found() == set()
    (message,) = [each for each in run_checks(databases=["default"]) if each.id == "axes_async.W019"]
    assert "auth_user.username" in message.msg


@pytest.mark.parametrize(
    ("options", "ids"),
    [({}, {"axes_async.W020"}), ({"transaction_mode": "DEFERRED"}, {"axes_async.W020"}),
     ({"transaction_mode": "IMMEDIATE"}, set()), ({"transaction_mode": "exclusive"}, set())],
)  # fmt: skip
def test_an_sqlite_that_would_refuse_to_write_is_reported(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, str], ids: set[str]
) -> None:
    entry = {"ENGINE": "django.db.backends.sqlite3", "NAME": "file.sqlite3", "OPTIONS": options}
    monkeypatch.setattr(project, "connections", ConnectionHandler({"default": entry}))
    assert found() == ids


def test_what_lasts_for_ever_is_said_with_what_it_costs(settings: Any) -> None:
    (message,) = [
        each for each in run_checks(tags=["axes_async"], include_deployment_checks=True) if each.id == FOREVER
    ]
    assert "1.6 GB" in message.msg
    assert "AXES_COOLOFF_TIME" in str(message.hint)
    settings.AXES_COOLOFF_TIME = 1
    assert FOREVER not in found(include_deployment_checks=True)
