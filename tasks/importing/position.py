"""How far a table was imported, and which of its rows are still to come: kept in a ``DrainCursor``.

Ids are handed out before their rows are there. A row of a long transaction, or one that was left out, is behind the
position when it can be imported, so its id is looked for again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from axes_async.errors import AxesError
from axes_async.models import DrainCursor

LOOKED_BACK = 10_000
"""How many ids below the highest are looked for again, and how many rows of a table may be left out."""


@dataclass(slots=True)
class Position:
    last: int | None = None
    """The highest id that was read; ``None``: none was."""
    missing: set[int] = field(default_factory=set)
    """Ids below it that had no row."""
    left_out: set[int] = field(default_factory=set)
    """Those of rows that could not be read, or written."""

    @classmethod
    def of(cls, mark: DrainCursor | None) -> Position:
        if mark is None or not mark.position:
            return cls()
        return cls(int(mark.position), _set_of(mark.again.get("missing", ())), _set_of(mark.again.get("left_out", ())))

    def again(self) -> set[int]:
        """Return the ids to look for again."""
        return self.missing | self.left_out

    def keep(self, mark: DrainCursor) -> None:
        """Have ``mark`` hold this position."""
        mark.position = "" if self.last is None else str(self.last)
        mark.again = {"missing": _ranges(self.missing), "left_out": _ranges(self.left_out)}

    def read(self, keys: Collection[int], *, left_out: Collection[int]) -> None:
        """Note the ids of a portion, and of its rows that are left out.

        Raises ``AxesError`` if these have become too many.
        """
        self.missing.difference_update(keys)
        self.left_out.difference_update(keys)
        self.left_out.update(left_out)
        if len(self.left_out) > LOOKED_BACK:
            raise AxesError(f"More than {LOOKED_BACK} rows are left out. Repair what was named, and run this again.")
        newest, before = max(keys), min(0, min(keys) - 1) if self.last is None else self.last
        if newest > before:
            lowest = newest - LOOKED_BACK
            self.missing.update(range(max(before + 1, lowest), newest))
            self.missing = {pk for pk in self.missing.difference(keys) if pk >= lowest}
            self.last = newest


def _ranges(keys: Iterable[int]) -> list[list[int]]:
    """Return ``keys`` as the first and the last of each range."""
    ranges: list[list[int]] = []
    for pk in sorted(keys):
        if ranges and ranges[-1][1] == pk - 1:
            ranges[-1][1] = pk
        else:
            ranges.append([pk, pk])
    return ranges


def _set_of(ranges: Iterable[list[int]]) -> set[int]:
    return {pk for first, last in ranges for pk in range(first, last + 1)}
