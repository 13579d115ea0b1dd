"""What another package knows of failures, and the import of it."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from tests import old_tables
from tests.settings import DATABASE

COMMITS = DATABASE == "mysql"
"""Whether making a table ends the transaction that it is made in."""

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
TABLES = ("axes_accessattempt", "axes_accesslog", "axes_accessfailurelog")


def attempts(*rows: dict[str, Any], at: Any = NOON - timedelta(minutes=1)) -> None:
    """Have django-axes know of failures."""
    old_tables.insert("axes_accessattempt", *rows, at=at)


def tries(*rows: dict[str, Any], ago: timedelta = timedelta(minutes=1)) -> None:
    """Have defender know of tries of passwords."""
    old_tables.insert("defender_accessattempt", *rows, at=NOON - ago)


def move(*arguments: str) -> str:
    """Run the import; return what it printed."""
    out = io.StringIO()
    call_command("axes_import", *arguments, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def move_some(*arguments: str) -> tuple[list[str], str]:
    """Run an import that leaves rows out; return the lines that name them, and its last words."""
    err = io.StringIO()
    with pytest.raises(CommandError) as raised:
        call_command("axes_import", *arguments, stdout=io.StringIO(), stderr=err)
    assert raised.value.returncode == 1
    return [line for line in err.getvalue().splitlines() if "cannot be" in line], str(raised.value)
