"""Reads the tables of django-axes and django-defender as they are in the database; neither has to be installed.

Which columns there are depends on the version (5 to 8 of django-axes); missing ones have a default. What the rows
become is decided in ``importer``, what a value stands for in ``columns``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal
from uuid import UUID, uuid5

from django.db.models import OuterRef, QuerySet, Subquery

from axes_async.client.normalize import canonical_address, canonical_username, row_text
from axes_async.clock import as_datetime
from axes_async.conf.networks import parse_address
from axes_async.counters.events import AttemptEvent, Kind
from axes_async.counters.rules import Parameter, digest_of
from axes_async.errors import AxesError
from axes_async.tasks.importing.columns import LeftOut, columns_of, fetch, rows_of
from axes_async.tasks.projection.bulk import portions

Content = Literal["attempts", "logins", "failures", "tries"]

NAMESPACE = UUID("5f0a3c52-6d0e-5b39-9c7b-1d6f3a0c9e84")
"""For the event ids of rows of other packages: a row gets the same id whenever it is read."""

MOST_FAILURES = 2**30
"""Failures that one row stands for at most: half of what a column holds, so that others can be added."""

LOGINS = 5000
"""Logins that are read at once; nobody waits for that."""

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
    """Failures that count, unless they have expired or were cleared by a login."""
    expires_at: int = 0
    """When they expire according to the other package, in epoch milliseconds; 0: it does not note that."""
    logged: dict[str, Any] | None = None
    """What the log of its kind keeps beside the client; ``None``: it is not to be logged."""


@dataclass(frozen=True)
class Source:
    """One table.

    :param kind: what its rows are: attempts that count, logins, failures, or, all in one, tries of passwords.
    :param using: alias of the database that it is in.
    :param columns: those of ``columns.FIELDS`` that it has.
    """

    table: str
    kind: Content
    using: str
    columns: frozenset[str]

    @property
    def mark(self) -> str:
        """The name of the cursor that says up to where the table was imported."""
        return f"import:{digest_of([('database', self.using), ('table', self.table)])}"

    def count(self, after: int | None) -> int:
        """Return how many rows are behind the row ``after``; ``None``: all."""
        return self._behind(after).count()

    def present(self, keys: Sequence[int]) -> list[int]:
        """Return those of ``keys`` that have a row."""
        return [
            pk
            for some in portions(keys)
            for pk in self._rows.filter(pk__in=some).order_by("pk").values_list("pk", flat=True)
        ]

    def read(self, after: int | None, count: int) -> list[Record | LeftOut]:
        """Return up to ``count`` rows behind the row ``after``, in the order of their keys."""
        return self._records(self._behind(after), count)

    def read_again(self, keys: Sequence[int]) -> list[Record | LeftOut]:
        """Return the rows with these keys, in their order."""
        return self._records(self._rows.filter(pk__in=keys), len(keys))

    def logins(self, after: int | None) -> Iterator[list[tuple[int, str | None, str | None]]]:
        """Yield key, name and address of the logins behind the row ``after``, in portions, in the order of their keys.

        Those that cannot be read are left out.
        """
        while True:
            rows = self._behind(after).filter(login_valid=True).order_by("pk").values("id", "username", "ip_address")
            found = fetch(rows, LOGINS)
            if not found:
                return
            yield [(row["id"], row["username"], row["ip_address"]) for row in found if isinstance(row, dict)]
            after = found[-1]["id"] if isinstance(found[-1], dict) else found[-1].pk

    def _records(self, rows: QuerySet[Any], count: int) -> list[Record | LeftOut]:
        also = {}
        if self.kind == "attempts" and (columns := columns_of(EXPIRATIONS, self.using)):
            ends = rows_of(EXPIRATIONS, columns, self.using).filter(pk=OuterRef("pk"))
            also["expires_at"] = Subquery(ends.values("expires_at"))
        found = fetch(rows.order_by("pk").values(*self.columns, **also), count)
        return [row if isinstance(row, LeftOut) else self._record(row) for row in found]

    def _record(self, row: dict[str, Any]) -> Record:
        username, address = row["username"], row["ip_address"] or ""
        # Both packages write "<unknown>" for a header that was not sent; our rows have "" then.
        headers = [row.get(name) or "" for name in ("user_agent", "http_accept", "path_info")]
        agent, accept, path = ("" if header == "<unknown>" else header for header in headers)
        parsed = parse_address(address)
        canonical: dict[Parameter, str | None] = {
            "username": canonical_username(username),
            "ip_address": canonical_address(address),
            "user_agent": agent,
        }
        kind, failures = Kind.FAILED, 0
        logged: dict[str, Any] | None = None
        if self.kind == "attempts":
            failures = min(MOST_FAILURES, max(0, row["failures_since_start"]))
        elif self.kind == "logins" or row.get("login_valid"):
            session, out = row_text(row.get("session_hash") or "")[:64], row.get("logout_time")
            logout_time = None if out is None else as_datetime(out)
            kind, logged = Kind.LOGGED_IN, {"session_hash": session, "logout_time": logout_time}
        else:
            logged = {"locked_out": bool(row.get("locked_out"))}
            failures = int(self.kind == "tries")
        event = AttemptEvent(
            kind=kind,
            id=uuid5(NAMESPACE, f"{self.using}/{self.table}/{row['id']}").hex,
            username=None if username is None else row_text(username, tell_apart=True),
            ip_address=None if parsed is None else str(parsed),
            user_agent=row_text(agent, tell_apart=True),
            http_accept=row_text(accept),
            path_info=row_text(path),
            extra={"address": row_text(address.strip())} if parsed is None else {},
            at=row["attempt_time"],
        )
        return Record(
            pk=row["id"],
            event=event,
            canonical=canonical,
            failures=failures,
            expires_at=row.get("expires_at") or 0,
            logged=logged,
        )

    def _behind(self, after: int | None) -> QuerySet[Any]:
        return self._rows if after is None else self._rows.filter(pk__gt=after)

    @cached_property
    def _rows(self) -> QuerySet[Any]:
        return rows_of(self.table, self.columns, self.using)


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
        if columns := columns_of(table, using):
            kind, needed = TABLES[table]
            if lacking := set(needed) - columns:
                raise AxesError(f"The table {table} has no column {', '.join(sorted(lacking))}.")
            found.append(Source(table, kind, using, columns))
    if not found:
        raise AxesError(f"The database {using!r} has none of the tables {', '.join(tables)}.")
    return found
