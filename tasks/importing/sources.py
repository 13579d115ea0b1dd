"""Reads the tables of django-axes and django-defender as they are in the database; neither has to be installed.

Which columns there are depends on the version (5 to 8 of django-axes); missing ones have a default. What the rows
become is decided in ``importer``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal
from uuid import UUID, uuid5

from django.apps.registry import Apps
from django.db import connections, models
from django.db.models import Max, QuerySet

from axes_async.client.normalize import canonical_address, canonical_username, row_text
from axes_async.clock import LATEST, as_ms
from axes_async.conf.networks import parse_address
from axes_async.counters.events import AttemptEvent, Kind
from axes_async.counters.rules import Parameter, digest_of
from axes_async.errors import AxesError

Content = Literal["attempts", "logins", "failures", "tries"]

NAMESPACE = UUID("5f0a3c52-6d0e-5b39-9c7b-1d6f3a0c9e84")
"""For the event ids of rows of other packages: a row gets the same id whenever it is read."""

MOST_FAILURES = 2**30
"""Failures that one row stands for at most: half of what a column holds, so that others can be added."""

EXPIRATIONS = "axes_accessattemptexpiration"
"""Where django-axes 8 keeps when an attempt expires, with ``AXES_USE_ATTEMPT_EXPIRATION``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One row of another package, in our terms."""

    pk: int
    event: AttemptEvent
    """A login or a failure; its id is the same whenever the row is read."""
    canonical: Mapping[Parameter, str | None]
    """What its counters are made of."""
    failures: int = 0
    """Failures that count, unless they have expired."""
    expires_at: int = 0
    """When they expire according to the other package, in epoch milliseconds; 0: it does not note that."""
    logged: dict[str, Any] | None = None
    """What the log of its kind keeps beside the client; ``None``: it is not to be logged."""


@dataclass(frozen=True)
class Source:
    """One table.

    :param kind: what its rows are: attempts that count, logins, failures, or, all in one, tries of passwords.
    :param using: alias of the database that it is in.
    :param columns: those of ``FIELDS`` that it has.
    """

    table: str
    kind: Content
    using: str
    columns: frozenset[str]

    @property
    def mark(self) -> str:
        """The name of the cursor that says up to where the table was imported."""
        return f"import:{digest_of([('database', self.using), ('table', self.table)])}"

    def count(self, after: int) -> int:
        """Return how many rows are behind the row ``after``."""
        return self._rows.filter(pk__gt=after).count()

    def read(self, after: int, count: int) -> list[Record]:
        """Return up to ``count`` rows behind the row ``after``, in the order of their keys."""
        rows = list(self._rows.filter(pk__gt=after).order_by("pk").values(*self.columns)[:count])
        ends = self._expirations([row["id"] for row in rows]) if self.kind == "attempts" else {}
        cleared = self._last_logins(rows) if self.kind == "tries" else {}
        return [self._record(row, ends.get(row["id"], 0), cleared) for row in rows]

    def _record(self, row: dict[str, Any], end: int, cleared: dict[tuple[Any, Any], int]) -> Record:
        username, address = row["username"], str(row["ip_address"] or "")
        # Both packages write "<unknown>" for a header that was not sent; our rows have "" then.
        headers = [row.get(name) or "" for name in ("user_agent", "http_accept", "path_info")]
        agent, accept, path = ("" if header == "<unknown>" else header for header in headers)
        parsed = parse_address(address)
        canonical: dict[Parameter, str | None] = {
            "username": canonical_username(username),
            "ip_address": canonical_address(address),
            "user_agent": agent,
        }
        kind, failures, logged = Kind.FAILED, 0, None
        if self.kind == "attempts":
            failures = min(MOST_FAILURES, max(0, row["failures_since_start"]))
        elif self.kind == "logins" or row.get("login_valid"):
            session = row_text(row.get("session_hash") or "")[:64]
            kind, logged = Kind.LOGGED_IN, {"session_hash": session, "logout_time": row.get("logout_time")}
        else:
            logged = {"locked_out": bool(row.get("locked_out"))}
            who = canonical["username"], canonical["ip_address"]
            failures = int(self.kind == "tries" and row["id"] > cleared.get(who, 0))
        event = AttemptEvent(
            kind=kind,
            id=uuid5(NAMESPACE, f"{self.using}/{self.table}/{row['id']}").hex,
            username=None if username is None else row_text(username, tell_apart=True),
            ip_address=None if parsed is None else str(parsed),
            user_agent=row_text(agent, tell_apart=True),
            http_accept=row_text(accept),
            path_info=row_text(path),
            extra={"address": row_text(address.strip())} if parsed is None else {},
            at=min(as_ms(row["attempt_time"]), LATEST) or 1,  # 0 would stand for "not known".
        )
        return Record(pk=row["id"], event=event, canonical=canonical, failures=failures, expires_at=end, logged=logged)

    def _expirations(self, keys: Sequence[int]) -> dict[int, int]:
        columns = _columns(self.using, EXPIRATIONS)
        if not columns:
            return {}
        rows = _rows_of(EXPIRATIONS, columns, self.using).filter(pk__in=keys)
        return {key: min(as_ms(end), LATEST) for key, end in rows.values_list("pk", "expires_at")}

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
    def _rows(self) -> QuerySet[Any]:
        return _rows_of(self.table, self.columns, self.using)


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
    "access_attempt_id": models.BigIntegerField(primary_key=True),
    "expires_at": models.DateTimeField(),
}
"""The columns that are read."""

EVERY = ("id", "username", "ip_address", "attempt_time")
TABLES: dict[str, tuple[Content, tuple[str, ...]]] = {
    "axes_accessattempt": ("attempts", (*EVERY, "failures_since_start")),
    "axes_accesslog": ("logins", EVERY),
    "axes_accessfailurelog": ("failures", EVERY),
    "defender_accessattempt": ("tries", (*EVERY, "login_valid")),
}
"""What the rows of each table are, and the columns that it cannot be understood without."""


def find_sources(using: str, package: str | None = None) -> list[Source]:
    """Return the tables that the database ``using`` has of ``package`` (axes or defender), or of both.

    Raises ``AxesError`` if there is none, or one lacks a column that it cannot be understood without.
    """
    tables = [table for table in TABLES if package in {None, table.partition("_")[0]}]
    found = []
    for table in tables:
        if columns := _columns(using, table):
            kind, needed = TABLES[table]
            if lacking := set(needed) - columns:
                raise AxesError(f"The table {table} has no column {', '.join(sorted(lacking))}.")
            found.append(Source(table, kind, using, columns))
    if not found:
        raise AxesError(f"The database {using!r} has none of the tables {', '.join(tables)}.")
    return found


def _columns(using: str, table: str) -> frozenset[str]:
    """Return those of ``FIELDS`` that a table has; none if there is no such table."""
    connection = connections[using]
    with connection.cursor() as cursor:
        if table not in connection.introspection.table_names(cursor):
            return frozenset()
        found = connection.introspection.get_table_description(cursor, table)
    return frozenset(FIELDS.keys() & {column.name for column in found})


def _rows_of(table: str, columns: Iterable[str], using: str) -> QuerySet[Any]:
    """Return the rows of a table whose model no app has, and nothing migrates."""
    fields = {name: FIELDS[name].clone() for name in columns}
    meta = type("Meta", (), {"app_label": "axes_async", "apps": Apps(), "managed": False, "db_table": table})
    model: type[models.Model] = type("Row", (models.Model,), {"__module__": __name__, "Meta": meta, **fields})
    return model._default_manager.using(using)
