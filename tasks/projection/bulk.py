"""Many rows at once: inserted, updated and deleted as fast as each database can."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import reduce
from itertools import islice
from operator import attrgetter, or_
from typing import Any, TypeVar
from zlib import crc32

from django.db import connections
from django.db.models import Field, Model, Q, QuerySet

from axes_async.clock import as_datetime
from axes_async.counters.events import AttemptEvent
from axes_async.models import AccessAttempt
from axes_async.tasks.projection.writer_lock import writer_lock

Row = TypeVar("Row", bound=Model)
Item = TypeVar("Item")

PORTION = 500
"""Rows of a statement: SQLite allows 32,766 parameters in one, and a row has up to 20."""

FEW = 20
"""Rows for which an INSERT costs less than the statements around a COPY: most drains write one or two."""

WHO = ("username", "ip_address", "user_agent", "http_accept", "path_info", "attempt_time")
"""The columns that ``who`` returns."""

ATTEMPT_KEY = ("ip_address_key", "key")
"""What names an attempt; one index serves this and the look for the attempts of an address."""


class Moments(dict[int, Any]):
    """Times of one batch as rows take them, by epoch milliseconds: the same time is in many rows. 0 is no time.

    COPY takes text; that of a time is worked out once here, where psycopg would do it for each column.
    """

    def __init__(self, using: str) -> None:
        super().__init__({0: None})
        self.as_text = takes_copies(using)

    def __missing__(self, ms: int) -> Any:
        moment = as_datetime(ms)
        self[ms] = found = str(moment) if self.as_text else moment
        return found


def who(event: AttemptEvent, at: Any) -> tuple[Any, ...]:
    return event.username, event.ip_address, event.user_agent, event.http_accept, event.path_info, at


class Columns:
    """Some columns of a table, and rows of them as tuples: instances of the model would cost more than all else.

    PostgreSQL takes the rows by COPY where its driver is psycopg 3. An INSERT of the same rows costs twice as much,
    most of it in writing and reading the statement. Other databases take them by ``bulk_create``.
    """

    def __init__(self, model: type[Model], names: Iterable[str], using: str) -> None:
        self.model, self.names, self.manager = model, tuple(names), model._default_manager.using(using)
        self.connection, self.takes_copies = connections[using], takes_copies(using)
        fields: dict[str, Field[Any, Any]] = {field.name: field for field in model._meta.concrete_fields}
        quote = self.connection.ops.quote_name
        self.columns = {name: quote(str(fields[name].column)) for name in self.names}
        self.table = quote(model._meta.db_table)
        self.listed = ", ".join(self.columns.values())
        self.copy_table = quote(f"axes_async_copy_{crc32(self.table.encode() + self.listed.encode()):08x}")

    def find(self, names: tuple[str, ...], keys: Collection[tuple[str, ...]]) -> Iterator[tuple[Any, ...]]:
        """Return the columns of the rows whose columns ``names`` equal one of ``keys``, digests or hexadecimal ids."""
        if self.connection.vendor != "postgresql":
            for some in portions(keys):
                wanted = [Q(**dict(zip(names, key, strict=True))) for key in some]
                yield from self.manager.filter(reduce(or_, wanted)).order_by().values_list(*self.names)
        elif keys:
            # One list for each column: a parameter for each value costs more than all that is done with them. A join:
            # with two lists, PostgreSQL before 17 looks for each of one with each of the other.
            lists = ", ".join("%s::uuid[]" if name == "event_id" else "%s::text[]" for name in names)
            given = ", ".join(f"key{place}" for place in range(len(names)))
            equal = " AND ".join(f"{self.columns[name]} = key{place}" for place, name in enumerate(names))
            with self.connection.cursor() as cursor:
                cursor.execute(
                    f"SELECT {self.listed} FROM unnest({lists}) AS given ({given}) JOIN {self.table} ON {equal}",  # noqa: S608
                    [list(values) for values in zip(*keys, strict=True)],
                )
                yield from cursor.fetchall()

    def insert(self, rows: Sequence[tuple[Any, ...]]) -> None:
        if not self.takes_copies:
            self.manager.bulk_create(self._instances(rows), batch_size=PORTION)
        elif rows:
            with self.connection.cursor() as cursor:
                self._copy(cursor, self.table, rows)

    def upsert(self, rows: Sequence[tuple[Any, ...]], *, key: Sequence[str], fields: Iterable[str]) -> None:
        """Insert ``rows``; where one with the same ``key`` is there, set its ``fields`` to the new ones."""
        if not self.takes_copies:
            self.manager.bulk_create(
                self._instances(rows),
                batch_size=PORTION,
                update_conflicts=True,
                unique_fields=key if self.connection.features.supports_update_conflicts_with_target else None,
                update_fields=list(fields),
            )
        elif rows:
            conflict = ", ".join(self.columns[name] for name in key)
            sets = ", ".join(f"{self.columns[name]} = EXCLUDED.{self.columns[name]}" for name in fields)
            self._copy_over(rows, f"ON CONFLICT ({conflict}) DO UPDATE SET {sets}")

    def insert_or_lock(self, rows: Sequence[tuple[Any, ...]], key: str) -> set[str]:
        """Insert the rows that are missing and lock the others, in the order given; return the keys of the inserted.

        Only for a table that takes copies.
        """
        name = self.columns[key]
        # A condition that is never true: the row is locked, and not written.
        lock = f"ON CONFLICT ({name}) DO UPDATE SET {name} = EXCLUDED.{name} WHERE FALSE RETURNING {name}"
        return {found for (found,) in self._copy_over(rows, lock)}

    def _copy_over(self, rows: Sequence[tuple[Any, ...]], on_conflict: str) -> list[tuple[Any, ...]]:
        """Insert ``rows``; many by way of a temporary table, as COPY itself cannot update. Return what is returned."""
        if not rows:
            return []
        into = f"INSERT INTO {self.table} ({self.listed})"
        with self.connection.cursor() as cursor:
            if len(rows) <= FEW:
                places = ", ".join([f"({', '.join(['%s'] * len(self.names))})"] * len(rows))
                cursor.execute(f"{into} VALUES {places} {on_conflict}", [value for row in rows for value in row])
                return cursor.fetchall() if "RETURNING" in on_conflict else []
            same = f"SELECT {self.listed} FROM {self.table} WITH NO DATA"  # noqa: S608  (all of it is ours)
            cursor.execute(f"CREATE TEMPORARY TABLE IF NOT EXISTS {self.copy_table} ON COMMIT DELETE ROWS AS {same}")
            cursor.execute(f"DELETE FROM {self.copy_table}")  # noqa: S608
            self._copy(cursor, self.copy_table, rows)
            copied = f"SELECT {self.listed} FROM {self.copy_table}"  # noqa: S608  (all of it is ours)
            cursor.execute(f"{into} {copied} {on_conflict}")
            return cursor.fetchall() if "RETURNING" in on_conflict else []

    def _copy(self, cursor: Any, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        with (
            self.connection.wrap_database_errors,
            cursor.copy(f"COPY {table} ({self.listed}) FROM STDIN") as copy,
        ):
            for row in rows:
                copy.write_row(row)

    def _instances(self, rows: Sequence[tuple[Any, ...]]) -> list[Model]:
        return [self.model(**dict(zip(self.names, row, strict=True))) for row in rows]


def takes_copies(using: str) -> bool:
    connection = connections[using]
    if connection.vendor != "postgresql":
        return False
    with connection.cursor() as cursor:
        return hasattr(cursor.cursor, "copy")


def insert(model: type[Row], rows: Sequence[Row], *, using: str) -> None:
    """Insert ``rows``, which have no primary key yet."""
    names = [field.name for field in model._meta.concrete_fields if not field.primary_key]
    Columns(model, names, using).insert(list(map(attrgetter(*names), rows)))


def upsert(model: type[Row], rows: Sequence[Row], *, key: Sequence[str], fields: Iterable[str], using: str) -> None:
    """Insert ``rows``; where one with the same ``key`` is there, set its ``fields`` to the new ones."""
    automatic = model._meta.auto_field
    names = [field.name for field in model._meta.concrete_fields if field is not automatic and not field.generated]
    Columns(model, names, using).upsert(list(map(attrgetter(*names), rows)), key=key, fields=fields)


def known_attempts(rows: Iterable[AccessAttempt], using: str) -> QuerySet[AccessAttempt]:
    """Return the rows in the database that stand for the same clients as ``rows``."""
    keys = [(row.ip_address_key, row.key) for row in rows]
    found = Columns(AccessAttempt, ("id", *ATTEMPT_KEY), using).find(ATTEMPT_KEY, keys)
    return AccessAttempt.objects.using(using).filter(pk__in=[pk for pk, *_ in found])


def portions(items: Iterable[Item], size: int = PORTION) -> Iterator[list[Item]]:
    rest = iter(items)
    while portion := list(islice(rest, size)):
        yield portion


def delete_portions(
    rows: QuerySet[Row], field: str, size: int, *, choose: Callable[[list[Row]], list[Row]] | None = None
) -> int:
    """Delete ``rows`` in portions of ``size``, in the order of ``field``; return how many there were.

    Each portion goes on where the last one ended: looking from the beginning again would have the database step over
    everything that it has just deleted. The writer lock is held for one portion at a time.

    :param choose: returns the rows of a portion that are to go. They are locked, as the database's steps change them.
    """
    ordered = (rows.only(field) if choose is None else rows.select_for_update()).order_by(field, "pk")
    gone, behind = 0, ordered
    while True:
        with writer_lock():
            found = list(behind[:size])
            going = choose(found) if choose is not None else found
            if going:
                gone += rows.filter(pk__in=[row.pk for row in going]).order_by().delete()[0]
        if len(found) < size:
            return gone
        last = getattr(found[-1], field)
        # The first condition is one that an index takes.
        behind = ordered.filter(Q(**{f"{field}__gte": last}), Q(**{f"{field}__gt": last}) | Q(pk__gt=found[-1].pk))
