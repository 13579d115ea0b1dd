"""What the tests of the commands do."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from typing import Any

from django.core.management import call_command

A, B, C = "203.0.113.7", "198.51.100.8", "192.0.2.9"
BOTH: list[Any] = [["ip_address", "username"]]

Fail = Callable[..., list[int]]
GetsIn = Callable[[str, str], bool]


def run(command: str, *arguments: str) -> str:
    """Run a command; return what it printed."""
    out = StringIO()
    call_command(command, *arguments, stdout=out)
    return out.getvalue()
