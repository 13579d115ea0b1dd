"""Writes a batch of which the database may refuse some: these are found by halving, and all others are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from django.db import InterfaceError, OperationalError, transaction

Item = TypeVar("Item")

MYSQL_DATA_ERRORS = {(1264,), (1366,), (1406,)}
"""What MySQL's driver calls an operational error, and is a value that a column does not take."""


def write_halving(
    items: Sequence[Item], write: Callable[[Sequence[Item]], Counter[str]], *, using: str
) -> tuple[Counter[str], list[tuple[Item, str]]]:
    """Write ``items``; return the sum of what ``write`` returns, and the items that cannot be written, and why.

    All are written at once, in a savepoint. If one of them cannot be, the halves are, in order, down to that one.

    Raises an error for which the database or this host is at fault, and not an item.
    """
    if not items:
        return Counter(), []
    try:
        with transaction.atomic(using=using):
            return write(items), []
    except Exception as error:
        faults = OperationalError, InterfaceError, MemoryError
        if isinstance(error, faults) and error.args[:1] not in MYSQL_DATA_ERRORS:
            raise
        if len(items) == 1:
            return Counter(), [(items[0], f"{type(error).__name__}: {error}")]
    middle = len(items) // 2
    first, refused = write_halving(items[:middle], write, using=using)
    second, also = write_halving(items[middle:], write, using=using)
    return first + second, refused + also
