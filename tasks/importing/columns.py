"""How columns of other packages are read: each value is what the column stands for, or it is named as odd.

Databases let in what Python, their driver or Django cannot read: zero dates, the year 20000, text that is none. A
portion with such a row is read row by row, so that only that row is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.apps.registry import Apps
from django.conf import settings
from django.db import Error, connections, models, transaction
from django.db.models import QuerySet
from django.utils.dateparse import parse_datetime
from django.utils.timezone import is_naive, make_aware

from axes_async.clock import EARLIEST, LATEST, as_bounded_ms
from axes_async.text import printable

if TYPE_CHECKING:
    Field = models.Field[Any, Any]
else:
    Field = models.Field  # Generic only in its type stubs.

SHOWN = 200
"""Characters of an odd value, or of an error, that are shown."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A row that is left out, and why."""

    pk: int
    why: str

    @classmethod
    def of(cls, pk: int, what: str, error: str) -> LeftOut:
        """Return the row for which ``what`` (read or written) failed with ``error``."""
        return cls(pk, f"cannot be {what}: {printable(' '.join(error.split())[:SHOWN])}")


class Text(Field):
    def from_db_value(self, value: Any, *_: Any) -> str | None:
        if value is not None and not isinstance(value, str):
            raise _odd(self, value)
        return value


class Number(Field):
    def from_db_value(self, value: Any, *_: Any) -> int:
        if not isinstance(value, int):
            raise _odd(self, value)
        return value


class Time(Field):
    """Read as epoch milliseconds, from ``EARLIEST`` to ``LATEST``.

    No driver makes a ``datetime`` of it, since that fails at infinity, before the year 1 and after the year 9999.
    """

    def select_format(self, compiler: Any, sql: str, params: Any) -> tuple[str, Any]:
        if compiler.query.subquery:  # The query around it does this.
            return sql, params
        if compiler.connection.vendor == "postgresql":
            return f"CAST(EXTRACT(EPOCH FROM {sql}) AS double precision)", params
        return f"CAST({sql} AS char)", params

    def from_db_value(self, value: Any, _: Any, connection: Any) -> int | None:
        if isinstance(value, float):
            return round(min(max(value * 1000, EARLIEST), LATEST))
        if value is None and self.null:
            return None
        try:
            moment = parse_datetime(value)
        except (TypeError, ValueError):
            moment = None
        if moment is None:
            raise _odd(self, value)
        if settings.USE_TZ and is_naive(moment):
            moment = make_aware(moment, connection.timezone)
        return as_bounded_ms(moment)


FIELDS: dict[str, Field] = {
    "id": models.BigAutoField(primary_key=True),
    "username": Text(null=True),
    "ip_address": Text(null=True),
    "user_agent": Text(),
    "http_accept": Text(),
    "path_info": Text(),
    "attempt_time": Time(),
    "failures_since_start": Number(),
    "locked_out": models.BooleanField(),
    "logout_time": Time(null=True),
    "session_hash": Text(),
    "login_valid": models.BooleanField(),
    "access_attempt_id": models.BigIntegerField(primary_key=True),
    "expires_at": Time(null=True),
}
"""The columns that are read."""


def columns_of(table: str, using: str) -> frozenset[str]:
    """Return those of ``FIELDS`` that a table has; none if there is no such table."""
    connection = connections[using]
    with connection.cursor() as cursor:
        if table not in connection.introspection.table_names(cursor):
            return frozenset()
        found = connection.introspection.get_table_description(cursor, table)
    return frozenset(FIELDS.keys() & {column.name for column in found})


def rows_of(table: str, columns: Iterable[str], using: str) -> QuerySet[Any]:
    """Return the rows of a table whose model no app has, and nothing migrates."""
    fields = {name: FIELDS[name].clone() for name in columns}
    meta = type("Meta", (), {"app_label": "axes_async", "apps": Apps(), "managed": False, "db_table": table})
    model: type[models.Model] = type("Row", (models.Model,), {"__module__": __name__, "Meta": meta, **fields})
    return model._default_manager.using(using)


def fetch(rows: QuerySet[Any], count: int) -> list[dict[str, Any] | LeftOut]:
    """Return the first ``count`` of ``rows``, which have their values and an order.

    Raises ``django.db.Error`` if the connection is lost.
    """
    first = rows[:count]
    try:
        # Each look has a savepoint: a failed one must not break the transaction around.
        with transaction.atomic(using=rows.db):
            return list(first)
    except (Error, ValueError):
        if _lost(rows.db):
            raise
    return list(_one_by_one(rows, list(first.values_list("pk", flat=True))))


def _one_by_one(rows: QuerySet[Any], keys: Iterable[int]) -> Iterator[dict[str, Any] | LeftOut]:
    for pk in keys:
        try:
            with transaction.atomic(using=rows.db):
                yield from list(rows.filter(pk=pk))
        except (Error, ValueError) as error:
            if _lost(rows.db):
                raise
            yield LeftOut.of(pk, "read", str(error))


def _lost(using: str) -> bool:
    """Return whether an error tells of the connection, not of a row. Outside a transaction, Django makes a new one."""
    return connections[using].connection is None or not connections[using].is_usable()


def _odd(field: Field, value: Any) -> ValueError:
    return ValueError(f"{field.name} is {repr(value)[:SHOWN]}")
