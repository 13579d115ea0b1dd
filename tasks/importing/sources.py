"""Reads the tables of django-axes and django-defender as they are in the database; neither has to be installed.

Which columns there are depends on the version (5 to 8 of django-axes); missing ones have a default. What the rows
become is decided in ``importer``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Literal
from uuid import UUID, uuid5

from django.apps.registry import Apps
from django.db import connections, models
from django.db.models import Max, QuerySet
from django.utils import timezone

from axes_async.client.identity import Client
from axes_async.client.normalize import canonical_address, canonical_username, row_text
from axes_async.conf.networks import parse_address
from axes_async.counters.rules import digest_of
from axes_async.errors import AxesError

Package = Literal["axes", "defender"]
Kind = Literal["attempts", "logins", "failures", "tries"]

NAMESPACE = UUID("5f0a3c52-6d0e-5b39-9c7b-1d6f3a0c9e84")
"""For the event ids of rows of other packages: a row gets the same id whenever it is read."""

MOST_FAILURES = 2**30
"""Failures that one row stands for at most: half of what a column holds, so that others can be added."""

MARK = "import:"
"""How the names of cursors begin that say up to where a table was imported."""

UNKNOWN = "<unknown>"
"""What both packages write for a header that was not sent; our rows have "" then."""

EXPIRATIONS = "axes_accessattemptexpiration"
"""Where django-axes 8 keeps when an attempt expires, with ``AXES_USE_ATTEMPT_EXPIRATION``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One row of another package, in our terms."""

    pk: int
    client: Client
    time: int
    """Epoch milliseconds, as every time here."""
    failures: int = 0
    """Failures that count, unless they have expired."""
    expires_at: int | None = None
    """When they expire according to the other package, if it notes that."""
    login: bool = False
    """Whether the row is of a login."""
    failure: bool = False
    """Whether the row is of one failure."""
    logout_time: int | None = None
    session_hash: str = ""
    locked_out: bool = False


@dataclass(frozen=True)
class Source:
    """One table.

    :param kind: what its rows are: attempts that count, logins, failures, or, all in one, tries of passwords.
    :param using: alias of the database that it is in.
    """

    package: Package
    table: str
    kind: Kind
    needed: tuple[str, ...]
    using: str

    @property
    def mark(self) -> str:
        """The name of the cursor that says up to where the table was imported."""
        return MARK + digest_of([("database", self.using), ("table", self.table)])

    def event_id(self, pk: int) -> UUID:
        """Return the event id of the row ``pk``."""
        return uuid5(NAMESPACE, f"{self.using}/{self.table}/{pk}")

    def count(self, after: int) -> int:
        """Return how many rows are behind the row ``after``."""
        return self._rows.filter(pk__gt=after).count()

    def read(self, after: int, count: int) -> list[Record]:
        """Return up to ``count`` rows behind the row ``after``, in the order of their keys."""
        rows = list(self._rows.filter(pk__gt=after).order_by("pk").values(*self._columns)[:count])
        ends = self._expirations([row["id"] for row in rows]) if self.kind == "attempts" else {}
        cleared = self._last_logins(rows) if self.kind == "tries" else {}
        return [self._record(row, ends.get(row["id"]), cleared) for row in rows]

    def _record(self, row: dict[str, Any], end: int | None, cleared: dict[tuple[Any, Any], int]) -> Record:
        client = _client(row)
        failed = self.kind == "failures" or (self.kind == "tries" and not row["login_valid"])
        failures = min(MOST_FAILURES, max(0, row["failures_since_start"])) if self.kind == "attempts" else 0
        if self.kind == "tries" and failed and row["id"] > cleared.get(_who(client), 0):
            failures = 1
        return Record(
            pk=row["id"],
            client=client,
            time=_ms(row["attempt_time"]),
            failures=failures,
            expires_at=end,
            login=self.kind == "logins" or (self.kind == "tries" and not failed),
            failure=failed,
            logout_time=_ms(row["logout_time"]) if row.get("logout_time") else None,
            session_hash=row_text(row.get("session_hash") or "")[:64],
            locked_out=bool(row.get("locked_out")),
        )

    def _expirations(self, keys: Sequence[int]) -> dict[int, int]:
        if not _columns(self.using, EXPIRATIONS):
            return {}
        fields: dict[str, models.Field[Any, Any]] = {
            "access_attempt_id": models.BigIntegerField(primary_key=True),
            "expires_at": models.DateTimeField(),
        }
        rows = _model(EXPIRATIONS, fields)._default_manager.using(self.using).filter(pk__in=keys)
        return {key: _ms(end) for key, end in rows.values_list("pk", "expires_at")}

    def _last_logins(self, rows: Iterable[dict[str, Any]]) -> dict[tuple[Any, Any], int]:
        """Return the last login of each name from each address: it cleared the failures before it."""
        names = {row["username"] for row in rows if not row["login_valid"]}
        logins = self._rows.filter(login_valid=True, username__in=names).order_by()
        found: dict[tuple[Any, Any], int] = {}
        for username, address, pk in logins.values_list("username", "ip_address").annotate(last=Max("pk")):
            who = canonical_username(username), canonical_address(address or "")
            found[who] = max(pk, found.get(who, 0))
        return found

    @cached_property
    def _columns(self) -> list[str]:
        return sorted(_columns(self.using, self.table) & FIELDS.keys())

    @cached_property
    def _rows(self) -> QuerySet[Any]:
        model = _model(self.table, {name: FIELDS[name].clone() for name in self._columns})
        return model._default_manager.using(self.using)


FIELDS: dict[str, models.Field[Any, Any]] = {
    "id": models.BigAutoField(primary_key=True),
    "username": models.TextField(null=True),
    "ip_address": models.GenericIPAddressField(null=True),
    "user_agent": models.TextField(),
    "http_accept": models.TextField(),
    "path_info": models.TextField(),
    "attempt_time": models.DateTimeField(),
    "failures_since_start": models.BigIntegerField(),
    "locked_out": models.BooleanField(),
    "logout_time": models.DateTimeField(null=True),
    "session_hash": models.TextField(),
    "login_valid": models.BooleanField(),
}
"""The columns that are read."""

EVERY = ("id", "username", "ip_address", "attempt_time")
TABLES: tuple[tuple[Package, str, Kind, tuple[str, ...]], ...] = (
    ("axes", "axes_accessattempt", "attempts", (*EVERY, "failures_since_start")),
    ("axes", "axes_accesslog", "logins", EVERY),
    ("axes", "axes_accessfailurelog", "failures", EVERY),
    ("defender", "defender_accessattempt", "tries", (*EVERY, "login_valid")),
)


def find_sources(using: str, package: Package | None = None) -> list[Source]:
    """Return the tables that the database ``using`` has of ``package``, or of both.

    Raises ``AxesError`` if there is none, or one lacks a column that it cannot be understood without.
    """
    found = [Source(*table, using) for table in TABLES if package in {None, table[0]} and _columns(using, table[1])]
    if not found:
        names = ", ".join(table for owner, table, *_ in TABLES if package in {None, owner})
        raise AxesError(f"The database {using!r} has none of the tables {names}.")
    for source in found:
        lacking = set(source.needed) - _columns(using, source.table)
        if lacking:
            raise AxesError(f"The table {source.table} has no column {', '.join(sorted(lacking))}.")
    return found


def _columns(using: str, table: str) -> set[str]:
    """Return the names of a table's columns; none if there is no such table."""
    connection = connections[using]
    with connection.cursor() as cursor:
        if table not in connection.introspection.table_names(cursor):
            return set()
        return {column.name for column in connection.introspection.get_table_description(cursor, table)}


def _model(table: str, fields: dict[str, models.Field[Any, Any]]) -> type[models.Model]:
    """Return a model of the table; no app has it, and nothing migrates it."""
    meta = type("Meta", (), {"app_label": "axes_async", "apps": Apps(), "managed": False, "db_table": table})
    return type("Row", (models.Model,), {"__module__": __name__, "Meta": meta, **fields})


def _client(row: dict[str, Any]) -> Client:
    """Return the client of a row, as one of its requests would be counted here."""
    username, address = row["username"], str(row["ip_address"] or "")
    agent, accept, path = (_header(row.get(name)) for name in ("user_agent", "http_accept", "path_info"))
    parsed = parse_address(address)
    return Client(
        username=None if username is None else row_text(username, tell_apart=True),
        ip_address=None if parsed is None else str(parsed),
        user_agent=row_text(agent, tell_apart=True),
        http_accept=row_text(accept),
        path_info=row_text(path),
        not_an_address=row_text(address.strip()) if parsed is None else "",
        canonical={
            "username": canonical_username(username),
            "ip_address": canonical_address(address),
            "user_agent": agent,
        },
        given=username,
    )


def _who(client: Client) -> tuple[str | None, str | None]:
    return client.canonical["username"], client.canonical["ip_address"]


def _header(value: str | None) -> str:
    return "" if value is None or value == UNKNOWN else value


def _ms(time: datetime) -> int:
    return round((time if timezone.is_aware(time) else timezone.make_aware(time)).timestamp() * 1000)
