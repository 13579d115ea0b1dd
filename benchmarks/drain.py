"""How many events a second one worker's drain writes to PostgreSQL, and whether the rows are exactly right.

The outbox is filled through the store first, then the task ``axes_async.drain`` is timed as a worker process runs it.
"""

from __future__ import annotations

import argparse
import gc
import os
import time
from collections import Counter as Tally
from statistics import median

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402
from django.db.models import F  # noqa: E402

from axes_async.models import (  # noqa: E402
    AccessAttempt,
    AccessFailureLog,
    AccessLog,
    AccessReset,
    AttemptCounter,
    DrainCursor,
)
from axes_async.stores.factory import get_store  # noqa: E402
from axes_async.stores.redis.store import RedisStore  # noqa: E402
from axes_async.tasks.drain import drain  # noqa: E402
from benchmarks.figures import heading, row, spread, verdict  # noqa: E402
from benchmarks.scenario import LOADS, Expected, Play  # noqa: E402

TARGET = 5000
TABLES = (AccessAttempt, AccessFailureLog, AccessLog, AccessReset, AttemptCounter, DrainCursor)
WIDTHS = (10, 9, 40, 9)


def run(store: RedisStore, name: str, events: int) -> float:
    """Fill the outbox with the load ``name`` and drain it; return events per second."""
    empty(store)
    play = Play(store)
    LOADS[name](play, events)
    held = store.client.xlen(store.outbox_key)
    same("events in the outbox", held, play.expected.events)
    gc.collect()
    started = time.perf_counter()
    written = drain()
    seconds = time.perf_counter() - started
    same("events written", written, play.expected.events)
    same("events left", store.client.xlen(store.outbox_key), 0)
    check(play.expected)
    return float(written / seconds)


def empty(store: RedisStore) -> None:
    """Empty the store and the tables."""
    store.client.flushall(asynchronous=False)
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE " + ", ".join(model._meta.db_table for model in TABLES))


def check(expected: Expected) -> None:
    """Raise ``AssertionError`` unless the rows are those that are ``expected``."""
    attempts = dict(AccessAttempt.objects.values_list("ip_address", "failures_since_start"))
    counters = AttemptCounter.objects.filter(lifted__lt=F("failures")).values_list(
        "ip_address", F("failures") - F("lifted")
    )
    logs = AccessFailureLog.objects
    same("attempts", Tally(attempts), expected.failures)
    same("counters", Tally(dict(counters)), expected.failures)
    same("failure rows", logs.count(), expected.failed + expected.blocked)
    same("failure rows of lockouts", logs.filter(locked_out=True).count(), expected.locked)
    same("events in failure rows", logs.values("event_id").distinct().count(), expected.failed + expected.blocked)
    same("logins", AccessLog.objects.count(), expected.logins)
    same("logouts", AccessLog.objects.exclude(logout_time=None).count(), expected.logouts)
    same("resets", list(AccessReset.objects.order_by("id").values_list("attempts", flat=True)), expected.resets)


def same(what: str, found: object, expected: object) -> None:
    """Raise ``AssertionError``, naming what differs, unless the two are equal."""
    if found != expected:
        raise AssertionError(f"{what}: {str(found)[:200]} in place of {str(expected)[:200]}")


def main() -> None:
    """Print events per second for each load."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000, help="events in a run (default 10,000)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each load (default 5)")
    options = parser.parse_args()
    heading("benchmarks.drain", "Events per second that one drain writes to PostgreSQL")
    call_command("migrate", verbosity=0)
    store = get_store()
    if not isinstance(store, RedisStore):
        raise SystemExit("The drain needs a Redis store.")
    run(store, "mixed", 1000)
    row("load", "events", "events/s, median", "best", widths=WIDTHS)
    for name in LOADS:
        rates = [run(store, name, options.events) for _ in range(options.runs)]
        target = verdict(median(rates), at_least=TARGET)
        row(name, f"{options.events:,}", spread(rates), f"{max(rates):,.0f}", target, widths=WIDTHS)
    print("\nAfter each run the rows were compared with what was sent: all as they must be.")


if __name__ == "__main__":
    main()
