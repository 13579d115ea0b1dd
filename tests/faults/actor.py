"""A process of the site: ``python -m tests.faults.actor`` reads one JSON command a line, and answers with one line.

A command is the name of a function below and its arguments. ``die_at`` has the process kill itself with SIGKILL when
its drain comes to a step; nothing of it can then be tidied up.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.faults.settings")
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import close_old_connections, connections  # noqa: E402

from axes_async.models import AccessFailureLog, DrainCursor  # noqa: E402
from axes_async.stores.redis.store import RedisStore  # noqa: E402
from axes_async.tasks.drain import drain as drain_task  # noqa: E402
from axes_async.tasks.projection.projector import Fold  # noqa: E402
from tests import celery as _celery  # noqa: E402, F401
from tests.actions import failure, success  # noqa: E402

STEPS: dict[str, tuple[type, str, bool]] = {
    "before the read": (RedisStore, "read", True),
    "after the read": (RedisStore, "read", False),
    "in the middle of the writes": (Fold, "_failure_logs", False),
    "after the writes": (Fold, "apply", False),
    "between writes and commit": (DrainCursor, "save", False),
    "between commit and trim": (RedisStore, "trim", True),
    "after the trim": (RedisStore, "trim", False),
}
"""Each step by the method it is at, and whether it comes before or after it."""


def die_at(step: str, nth: int) -> None:
    """Have this process end, the ``nth`` time that it comes to ``step``."""
    owner, name, before = STEPS[step]
    original, calls = getattr(owner, name), 0

    def dying(*args: Any, **options: Any) -> Any:
        nonlocal calls
        if owner is DrainCursor and not options.get("update_fields"):
            return original(*args, **options)  # The cursor is made, and not moved.
        calls += 1
        if before and calls == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **options)
        if calls == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, dying)


def migrate() -> None:
    """Make the tables."""
    call_command("migrate", verbosity=0)


def drain() -> int:
    """Run the drain as a worker does: with connections that are looked at between tasks."""
    close_old_connections()
    written: int = drain_task()
    return written


def drain_for(seconds: float) -> int:
    """Run one drain after another; return how many events they wrote."""
    written, stop = 0, time.monotonic() + seconds
    while time.monotonic() < stop:
        written += drain()
    return written


def fail(clients: list[tuple[str, str]], threads: int = 1) -> dict[str, Any]:
    """Try a wrong password for each username and address; return how many were looked at, and the slowest's seconds."""

    def one(client: tuple[str, str]) -> tuple[bool, float]:
        close_old_connections()
        started = time.perf_counter()
        looked_at = failure(*client)
        return looked_at, time.perf_counter() - started

    with ThreadPoolExecutor(threads) as pool:
        done = list(pool.map(one, clients))
        if threads > 1:
            pool.map(lambda _: connections.close_all(), range(threads))
    return {"looked_at": sum(looked for looked, _ in done), "slowest": max(seconds for _, seconds in done)}


def succeed(username: str, address: str) -> bool:
    """Try the right password; return whether it was let in."""
    close_old_connections()
    return success(username, address)


def rows() -> list[str | None]:
    """Return the usernames of the failure log in the order of its rows."""
    close_old_connections()
    return list(AccessFailureLog.objects.order_by("id").values_list("username", flat=True))


COMMANDS: dict[str, Callable[..., Any]] = {
    function.__name__: function for function in (die_at, migrate, drain, drain_for, fail, succeed, rows)
}


def main() -> None:
    """Answer commands until there are no more."""
    answers, sys.stdout = sys.stdout, sys.stderr
    print('"ready"', file=answers, flush=True)
    for line in sys.stdin:
        name, arguments = json.loads(line)
        print(json.dumps(COMMANDS[name](**arguments)), file=answers, flush=True)


if __name__ == "__main__":
    main()
