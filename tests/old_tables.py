"""The tables of django-axes 8.3 and django-defender 0.9, as their migrations make them, filled by the tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from django.db import connection

IN_COMMON = """
    id {serial}, user_agent varchar(255) NOT NULL, ip_address {inet} NULL, username varchar({name}) NULL,
    http_accept varchar(1025) NOT NULL, path_info varchar(255) NOT NULL, attempt_time {time} NOT NULL
"""
TABLES = {
    "axes_accessattempt": "get_data text NOT NULL, post_data text NOT NULL, failures_since_start integer NOT NULL",
    "axes_accesslog": "logout_time {time} NULL, session_hash varchar(64) NOT NULL",
    "axes_accessfailurelog": "locked_out {bool} NOT NULL",
    "defender_accessattempt": "login_valid {bool} NOT NULL",
}
EXPIRATIONS = (
    "CREATE TABLE axes_accessattemptexpiration (access_attempt_id bigint PRIMARY KEY, expires_at {time} NOT NULL)"
)
TYPES = {
    "postgresql": {"serial": "serial PRIMARY KEY", "inet": "inet", "time": "timestamptz", "bool": "boolean"},
    "sqlite": {
        "serial": "integer PRIMARY KEY AUTOINCREMENT", "inet": "char(39)", "time": "datetime", "bool": "bool",
    },
    "mysql": {
        "serial": "integer AUTO_INCREMENT PRIMARY KEY", "inet": "char(39)", "time": "datetime(6)", "bool": "bool",
    },
}  # fmt: skip
DEFAULTS: dict[str, Any] = {
    "user_agent": "tests",
    "ip_address": "192.0.2.1",
    "username": "alice",
    "http_accept": "text/html",
    "path_info": "/sign-in/",
}
OWN: dict[str, dict[str, Any]] = {
    "axes_accessattempt": {"get_data": "", "post_data": "", "failures_since_start": 1},
    "axes_accesslog": {"logout_time": None, "session_hash": ""},
    "axes_accessfailurelog": {"locked_out": False},
    "defender_accessattempt": {"login_valid": False},
}


def create(*tables: str, without: Iterable[str] = ()) -> None:
    """Make the tables, as far as the database goes along with the names; leave out columns that older versions lack."""
    types = {**TYPES[connection.vendor], "name": 255}
    with connection.cursor() as cursor:
        for table in tables:
            if table == "axes_accessattemptexpiration":
                cursor.execute(EXPIRATIONS.format(**types))
                continue
            columns = f"{IN_COMMON}, {TABLES[table]}".format(**types).split(",")
            kept = [column for column in columns if not set(column.split()[:1]) & set(without)]
            cursor.execute(f"CREATE TABLE {table} ({','.join(kept)})")


def drop() -> None:
    """Remove those of the tables that are there."""
    with connection.cursor() as cursor:
        for table in (*TABLES, "axes_accessattemptexpiration"):
            cursor.execute(f"DROP TABLE IF EXISTS {table}")


def insert(table: str, *rows: Mapping[str, Any], at: datetime) -> None:
    """Write rows, each with the defaults for what it does not name; ``attempt_time`` is ``at``."""
    with connection.cursor() as cursor:
        for row in rows:
            values = {**DEFAULTS, "attempt_time": at, **OWN[table], **row}
            for name in [name for name, value in values.items() if value is ...]:
                del values[name]
            places = ", ".join(["%s"] * len(values))
            cursor.execute(
                f"INSERT INTO {table} ({', '.join(values)}) VALUES ({places})",  # noqa: S608
                [_adapted(value) for value in values.values()],
            )


def expire(attempt: int, end: datetime) -> None:
    """Have django-axes 8 say when an attempt expires."""
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO axes_accessattemptexpiration VALUES (%s, %s)", [attempt, _adapted(end)])


def _adapted(value: Any) -> Any:
    return connection.ops.adapt_datetimefield_value(value) if isinstance(value, datetime) else value
