"""Writes a batch of which the database may refuse some: these are found by halving, and all others are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from django.db import InterfaceError, OperationalError, ProgrammingError, transaction

Item = TypeVar("Item")

MYSQL_DATA_ERRORS = {(1264,), (1366,), (1406,)}
"""What MySQL's driver calls an operational error, and is a value that a column does not take."""

SCHEMA_ERRORS = {("42P01",), ("42703",), ("42501",), (1146,)}
"""A table or a column that is missing, or a right to them: PostgreSQL's codes, and MySQL's.

A worker may run code whose migrations are yet to come. Other errors of statements come from values that are no text.
"""


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
        if _is_no_fault_of_an_item(error):
            raise
        if len(items) == 1:
            return Counter(), [(items[0], f"{type(error).__name__}: {error}")]
    middle = len(items) // 2
    first, refused = write_halving(items[:middle], write, using=using)
    second, also = write_halving(items[middle:], write, using=using)
    return first + second, refused + also


def _is_no_fault_of_an_item(error: Exception) -> bool:
    if isinstance(error, ProgrammingError):
        return bool({(getattr(error.__cause__, "sqlstate", None),), error.args[:1]} & SCHEMA_ERRORS)
    faults = OperationalError, InterfaceError, MemoryError
    return isinstance(error, faults) and error.args[:1] not in MYSQL_DATA_ERRORS
