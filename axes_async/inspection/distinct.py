"""Few of many values of an indexed column, on PostgreSQL by statements that can only go along the index.

Its planner would rather read a table from the beginning, where it takes what is looked for to be everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db import connections
from django.db.models import Q, QuerySet
from django.db.models.expressions import RawSQL

DISTINCT = """
WITH RECURSIVE found (value, place) AS (
    (SELECT {column}, 1 FROM {table} WHERE {column} {at_least} %(first)s AND {until} ORDER BY {column} {order} LIMIT 1)
    UNION ALL
    SELECT (SELECT {column} FROM {table} WHERE {column} {above} value AND {until} ORDER BY {column} {order} LIMIT 1),
        place + 1
    FROM found WHERE value IS NOT NULL AND place < %(most)s
)
SELECT {shown} FROM found WHERE value IS NOT NULL
"""

CUTOFF = """
SELECT max(latest.moment) FROM unnest(%s::{kind}[]) AS given (value), LATERAL (
    SELECT attempt_time AS moment FROM ({rows}) AS these WHERE {column} = given.value
    ORDER BY attempt_time DESC LIMIT 1 OFFSET %s
) AS latest
"""

LATEST = """
SELECT latest.id FROM unnest(%s::{kind}[]) AS given (value), LATERAL (
    SELECT id FROM ({rows}) AS these WHERE {column} {at_least} given.value AND {column} {at_most} given.value
    ORDER BY {column} {descending}, attempt_time DESC LIMIT %s
) AS latest
"""
"""Written as a range and sorted by its column: else the planner may take the value for one that is everywhere."""


def distinct_between(rows: QuerySet[Any], column: str, first: str, last: str, most: int) -> list[str]:
    """Return the values of ``column`` from ``first`` on, at most so many; only for PostgreSQL.

    An index of texts is to be one for LIKE, whose order is that of code points.

    :param last: an address: the last one. A text: the first that is none any more; '': there is none such.
    """
    connection, is_text = connections[rows.db], column == "username"
    name = connection.ops.quote_name(column)
    until = "TRUE" if is_text and not last else f"{name} {'~<~' if is_text else '<='} %(last)s"
    statement = DISTINCT.format(
        table=connection.ops.quote_name(rows.model._meta.db_table),
        column=name,
        until=until if is_text else until + "::inet",
        at_least="~>=~" if is_text else ">=",
        above="~>~" if is_text else ">",
        order="USING ~<~" if is_text else "",
        shown="value" if is_text else "host(value)",
    )
    with connection.cursor() as cursor:
        cursor.execute(statement, {"first": first, "last": last, "most": most})
        return [value for (value,) in cursor.fetchall()]


def cutoff_of_each(rows: QuerySet[Any], column: str, values: Sequence[str], each: int) -> datetime | None:
    """Return the latest of the times since when there are ``each`` of ``rows`` with one of ``values``.

    ``None`` if there are no more of any. Only for PostgreSQL.
    """
    connection = connections[rows.db]
    these, parameters = rows.order_by().values_list(column, "attempt_time").query.get_compiler(rows.db).as_sql()
    kind = "text" if column == "username" else "inet"
    statement = CUTOFF.format(kind=kind, column=connection.ops.quote_name(column), rows=these)
    with connection.cursor() as cursor:
        cursor.execute(statement, [list(values), *parameters, each])
        ((since,),) = cursor.fetchall()
    return since  # type: ignore[no-any-return]


def latest_of_each(rows: QuerySet[Any], column: str, values: Sequence[str], most: int) -> Q:
    """Return the condition of the latest ``rows`` of each value of ``column``, at most so many. Only for PostgreSQL."""
    connection, is_text = connections[rows.db], column == "username"
    these, parameters = rows.order_by().values_list("id", column, "attempt_time").query.get_compiler(rows.db).as_sql()
    statement = LATEST.format(
        kind="text" if is_text else "inet",
        column=connection.ops.quote_name(column),
        rows=these,
        at_least="~>=~" if is_text else ">=",
        at_most="~<=~" if is_text else "<=",
        descending="USING ~>~" if is_text else "DESC",
    )
    return Q(pk__in=RawSQL(statement, [list(values), *parameters, most]))  # noqa: S611  (all of it is ours)
