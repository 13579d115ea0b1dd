"""How an event's values stand in rows: keys that canonical values share, and writing and deleting many rows at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import TypeVar

from django.db import connections
from django.db.models import Model, QuerySet

from axes_async.client.normalize import canonical_address, canonical_username
from axes_async.counters.events import AttemptEvent, CounterState, parameter_bits
from axes_async.counters.rules import Counter, Parameter, digest_of
from axes_async.cursor import held_cursor
from axes_async.models import AttemptCounter

Row = TypeVar("Row", bound=Model)

PORTION = 500
"""Rows per statement: SQLite allows 32,766 parameters in one, and a row has up to 15."""


def username_key(username: str | None) -> str:
    """Return the key under which variants of one name are found; '' without a name."""
    canonical = canonical_username(username)
    return _key("username", canonical) if canonical else ""


def ip_address_key(ip_address: str) -> str:
    """Return the key under which the addresses of one client are found; '' without an address."""
    canonical = canonical_address(ip_address)
    return _key("ip_address", canonical) if canonical else ""


def user_agent_key(user_agent: str) -> str:
    """Return the key of an agent; that of no agent is one like any other."""
    return _key("user_agent", user_agent)


@lru_cache(maxsize=16384)
def _key(name: str, canonical: str) -> str:
    return digest_of([(name, canonical)])


def keys_of(event: AttemptEvent) -> dict[Parameter, str]:
    """Return the key of each value that can be counted."""
    return {
        "username": username_key(event.username),
        "ip_address": ip_address_key(address_of(event)),
        "user_agent": user_agent_key(event.user_agent),
    }


def address_of(event: AttemptEvent) -> str:
    """Return the address, or what the server gave in its place."""
    return event.ip_address or event.extra.get("address", "")


def attempt_key(event: AttemptEvent) -> str:
    """Return what names the ``AccessAttempt`` of an event: its username, address and agent as the row shows them."""
    return digest_of(
        [("username", event.username or ""), ("ip_address", address_of(event)), ("user_agent", event.user_agent)]
    )


def new_counter(counter: Counter | CounterState, event: AttemptEvent | None) -> AttemptCounter:
    """Return the row of a counter that the store has not seen, with the values of ``event`` that it is made of."""
    rule = counter.rule if isinstance(counter, Counter) else counter
    row = AttemptCounter(digest=counter.digest, epoch=0, failures=0, lifted=0, limit=rule.limit)
    row.parameters = parameter_bits(rule.parameters)
    if event is not None:
        keys = keys_of(event)
        for name in rule.parameters:
            setattr(row, f"{name}_key", keys[name])
        row.username = event.username if "username" in rule.parameters else None
        row.ip_address = event.ip_address if "ip_address" in rule.parameters else None
    return row


def insert(model: type[Row], rows: Sequence[Row], *, using: str) -> None:
    """Insert ``rows``, none of which has a primary key yet.

    PostgreSQL takes them by COPY where the driver has it (psycopg 3): an INSERT of the same rows costs several times as
    much, most of it in writing the statement.
    """
    connection = connections[using]
    fields = [field for field in model._meta.concrete_fields if not field.primary_key]
    names = ", ".join(connection.ops.quote_name(str(field.column)) for field in fields)
    table = connection.ops.quote_name(model._meta.db_table)
    values = attrgetter(*(field.attname for field in fields))
    with connection.cursor() as cursor:
        if not rows or connection.vendor != "postgresql" or not hasattr(cursor, "copy"):
            model._default_manager.using(using).bulk_create(rows, batch_size=PORTION)
            return
        with connection.wrap_database_errors, cursor.copy(f"COPY {table} ({names}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(values(row))


def upsert(model: type[Row], rows: Sequence[Row], *, key: str, fields: Iterable[str], using: str) -> None:
    """Insert ``rows``, or where one with the same ``key`` is there, set its ``fields`` to the new ones."""
    named = connections[using].features.supports_update_conflicts_with_target
    model._default_manager.using(using).bulk_create(
        rows,
        batch_size=PORTION,
        update_conflicts=True,
        unique_fields=[key] if named else None,
        update_fields=list(fields),
    )


def delete_portions(rows: QuerySet[Row], field: str, size: int) -> int:
    """Delete ``rows`` in portions of ``size``, in the order of ``field``; return how many there were.

    Each portion goes on where the last one ended: looking from the beginning again would have the database step over
    everything that it has just deleted. A portion holds the cursor, as all writers do, so that no drain writes its rows
    again, and gives it back before the next one.
    """
    gone, last = 0, None
    while True:
        behind = rows if last is None else rows.filter(**{f"{field}__gte": last})
        with held_cursor():
            found = list(behind.order_by(field, "pk").values_list("pk", field)[:size])
            if found:
                gone += rows.filter(pk__in=[pk for pk, _ in found]).order_by().delete()[0]
                last = found[-1][1]
        if len(found) < size:
            return gone
