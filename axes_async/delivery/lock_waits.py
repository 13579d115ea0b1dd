"""How a task that a web process runs itself gives up soon where somebody else holds a lock: a login waits for it.

On PostgreSQL, nothing outlasts a transaction: a pooler such as pgbouncer gives the session to others at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.db import DatabaseError, InterfaceError, transaction

SHORT = "SET LOCAL lock_timeout = 100"
"""In milliseconds."""

MYSQL_SHORT = "SET @axes_usual = @@SESSION.innodb_lock_wait_timeout, SESSION innodb_lock_wait_timeout = 1"
MYSQL_USUAL = "SET SESSION innodb_lock_wait_timeout = COALESCE(@axes_usual, 50)"
"""MySQL counts in seconds, and by sessions."""


@contextmanager
def short_lock_waits(connection: Any) -> Iterator[None]:
    """Have the statements of the block wait for a lock for 100 ms; on MySQL for a second, on SQLite as ever."""
    if connection.vendor == "postgresql" and connection.get_autocommit():
        with connection.execute_wrapper(_Bounds(connection)):
            yield
    elif connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('lock_timeout')")
            usual = cursor.fetchone()[0]
        with _told(connection, SHORT, f"SET LOCAL lock_timeout = '{usual}'"):
            yield
    elif connection.vendor == "mysql":
        with _told(connection, MYSQL_SHORT, MYSQL_USUAL):
            yield
    else:
        yield


@contextmanager
def _told(connection: Any, first: str, last: str) -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute(first)
    try:
        yield
    finally:
        if connection.connection is not None:
            with suppress(DatabaseError, InterfaceError), connection.cursor() as cursor:
                cursor.execute(last)


class _Bounds:
    """Begins each transaction with ``SHORT``. A statement outside of any gets one of its own: a query may wait, too."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.bounded: object = None

    def __call__(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        if not self.connection.in_atomic_block:
            with transaction.atomic(using=self.connection.alias):
                return self(execute, sql, params, many, context)
        outermost = self.connection.atomic_blocks[0]
        if self.bounded is not outermost:
            self.bounded = outermost
            with self.connection.cursor() as cursor:
                cursor.execute(SHORT)
        return execute(sql, params, many, context)
