"""Which failures of django-defender a later login has cleared."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from axes_async.client.normalize import canonical_address, canonical_username
from axes_async.counters.rules import digest_of

if TYPE_CHECKING:
    from axes_async.tasks.importing.sources import Record, Source


class LastLogins:
    """The last login of each name from each address, of a source of tries.

    There may be millions. They are in a temporary file of SQLite, which keeps 2 MB of it in memory and deletes it at
    the end.

    :param after: the row behind which logins are read; ``None``: all.
    """

    def __init__(self, source: Source, after: int | None) -> None:
        self._file = sqlite3.connect("", isolation_level=None)
        self._file.execute("PRAGMA journal_mode = OFF")
        self._file.execute("CREATE TABLE login (client TEXT PRIMARY KEY, last INTEGER) WITHOUT ROWID")
        for portion in source.logins(after):
            self._file.executemany(
                "INSERT OR REPLACE INTO login VALUES (?, ?)",
                [(_client(canonical_username(name), canonical_address(at or "")), pk) for pk, name, at in portion],
            )

    def cleared(self, record: Record) -> bool:
        """Return whether a login behind ``record`` has cleared its failures."""
        client = _client(record.canonical["username"], record.canonical["ip_address"])
        found = self._file.execute("SELECT 1 FROM login WHERE client = ? AND last > ?", (client, record.pk))
        return found.fetchone() is not None

    def close(self) -> None:
        self._file.close()


def _client(username: str | None, address: str | None) -> str:
    return digest_of([(name, text) for name, text in (("name", username), ("address", address)) if text is not None])
