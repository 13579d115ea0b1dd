"""How many events a second one worker's drain writes to PostgreSQL, and whether the rows are exactly right.

The outbox is filled through the store first, then the task ``axes_async.drain`` is timed as a worker process runs it.
PostgreSQL syncs each commit to the disk, and what a drain writes is what a site has: logs, attempts and counters.
"""

from __future__ import annotations

import argparse
import gc
import os
import time
from collections import Counter as Tally
from datetime import datetime
from statistics import median

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402

from axes_async.clock import as_datetime, now_ms  # noqa: E402
from axes_async.models import (  # noqa: E402
    AccessAttempt,
    AccessFailureLog,
    AccessLog,
    AttemptCounter,
    DrainCursor,
    OutboxEvent,
    StoreState,
)
from axes_async.stores.factory import get_store  # noqa: E402
from axes_async.stores.redis.store import RedisStore  # noqa: E402
from axes_async.tasks.drain import drain  # noqa: E402
from axes_async.tasks.sync import sync_store  # noqa: E402
from benchmarks.figures import heading, row, spread, verdict  # noqa: E402
from benchmarks.scenario import LOADS, Expected, Play  # noqa: E402

TARGETS = {0: 10_000, 1: 8_000}
"""Events per second of the load ``distinct``: into empty tables, and into those that hold millions of rows."""

TABLES = (AccessAttempt, AccessFailureLog, AccessLog, AttemptCounter, DrainCursor, OutboxEvent, StoreState)
WIDTHS = (10, 9, 40, 9)
CLIENTS = 1_000_000
"""Numbers of clients that one run may use."""

FILL = """
INSERT INTO axes_async_accessfailurelog (username, ip_address, user_agent, http_accept, path_info, attempt_time,
    event_id, locked_out, repeats)
SELECT 'old.' || i, '10.0.0.0'::inet + i, {agent}, {accept}, '/login/', {at}, {event_id}, FALSE, 0
FROM generate_series({first}, {last}) i;

INSERT INTO axes_async_accessattempt (username, ip_address, user_agent, http_accept, path_info, attempt_time, key,
    username_key, ip_address_key, user_agent_key, first_attempt_time, failures_since_start, expires_at)
SELECT 'old.' || i, '10.0.0.0'::inet + i, {agent}, {accept}, '/login/', {at}, {a}, {b}, {c}, {d}, {at}, 1, {end}
FROM generate_series({first}, {last}) i;

INSERT INTO axes_async_attemptcounter (digest, parameters, username_key, ip_address_key, user_agent_key, ip_address,
    failures, since, "limit", expires_at, ends, blocked, changed_at, reservations, generation, void_generation, dirty)
SELECT {c}, 1, '', {c}, '', '10.0.0.0'::inet + i, 1, {at}, 3, {end}, '', 0, {at}, '', 1, -1, FALSE
FROM generate_series({first}, {last}) i;
"""


def digest(name: str) -> str:
    """Return SQL for a digest of row ``i``."""
    return f"translate(rtrim(encode(decode(md5('{name}' || i), 'hex'), 'base64'), '='), '+/', '-_')"


def fill(rows: int) -> None:
    """Write so many rows to each of the three large tables: an old attack, whose cool-off is yet to end."""
    values = {
        "agent": "repeat('Mozilla/5.0 ', 9)",
        "accept": "repeat('text/html,', 8)",
        "at": f"now() - interval '1 hour' + ({rows} - i) * interval '-1 ms'",
        "end": f"now() + interval '10 hours' + i * interval '1 ms' - {rows} * interval '1 ms'",
        "event_id": "(lpad(to_hex(1600000000000 + i), 12, '0') || substr(md5('event' || i), 1, 20))::uuid",
        **{name: digest(name) for name in "abcd"},
    }
    portion = 100_000
    for first in range(1, rows + 1, portion):
        with connection.cursor() as cursor:
            cursor.execute(FILL.format(first=first, last=min(rows, first + portion - 1), **values))
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
        cursor.execute("CHECKPOINT")


def run(store: RedisStore, name: str, events: int, number: int) -> float:
    """Fill the outbox with the load ``name`` and drain it; return events per second."""
    began = as_datetime(now_ms())
    play = Play(store, first=number * CLIENTS)
    LOADS[name](play, events)
    same("events in the outbox", store.size().events, play.expected.events)
    gc.collect()
    started = time.perf_counter()
    written = drain()
    seconds = time.perf_counter() - started
    same("events written", written, play.expected.events)
    same("events left", store.size().events, 0)
    check(play.expected, began)
    return float(written / seconds)


def check(expected: Expected, began: datetime) -> None:
    """Raise ``AssertionError`` unless the rows since ``began`` are those that are ``expected``."""
    attempts = AccessAttempt.objects.filter(attempt_time__gte=began).values_list("ip_address", "failures_since_start")
    counters = AttemptCounter.objects.filter(changed_at__gte=began).values_list("ip_address", "failures")
    logs, logins = (model.objects.filter(attempt_time__gte=began) for model in (AccessFailureLog, AccessLog))
    same("attempts", Tally(dict(attempts)), expected.failures)
    same("counters", Tally(dict(counters)), expected.failures)
    same("failure rows", logs.count(), expected.failed + expected.blocked)
    same("failure rows of lockouts", logs.filter(locked_out=True).count(), expected.locked)
    same("events in failure rows", logs.values("event_id").distinct().count(), expected.failed + expected.blocked)
    same("logins", logins.count(), expected.logins)
    same("logouts", logins.exclude(logout_time=None).count(), expected.logouts)


def same(what: str, found: object, expected: object) -> None:
    """Raise ``AssertionError``, naming what differs, unless the two are equal."""
    if found != expected:
        raise AssertionError(f"{what}: {str(found)[:200]} in place of {str(expected)[:200]}")


def empty(store: RedisStore) -> None:
    """Empty store and tables."""
    store.client.flushall(asynchronous=False)
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE " + ", ".join(model._meta.db_table for model in TABLES))


def begin(store: RedisStore, rows: int) -> None:
    """Empty store and tables, write so many rows, and have PostgreSQL sync its commits to the disk."""
    empty(store)
    with connection.cursor() as cursor:
        for setting in ("fsync", "synchronous_commit"):
            cursor.execute(f"ALTER SYSTEM SET {setting} = on")
        cursor.execute("SELECT pg_reload_conf()")
    connection.close()
    sync_store(store)  # Of no rows: it is complete at once, and what is measured is the drain alone.
    fill(rows)
    with connection.cursor() as cursor:
        cursor.execute("SHOW fsync")
        same("fsync", cursor.fetchone(), ("on",))


def main() -> None:
    """Print events per second for each load."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000, help="events in a run (default 10,000)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each load (default 5)")
    parser.add_argument("--rows", type=int, default=0, help="rows that each table holds before (default none)")
    parser.add_argument("--load", choices=LOADS, action="append", help="one of the loads (default all)")
    options = parser.parse_args()
    heading("benchmarks.drain", "Events per second that one drain writes to PostgreSQL, which syncs each commit")
    call_command("migrate", verbosity=0)
    store = get_store()
    if not isinstance(store, RedisStore):
        raise SystemExit("The drain needs a Redis store.")
    begin(store, options.rows)
    run(store, "mixed", 1000, 0)
    row("load", "events", "events/s, median", "best", widths=WIDTHS)
    number = 0
    for name in options.load or LOADS:
        rates = []
        for _ in range(options.runs):
            number += 1
            rates.append(run(store, name, options.events, number))
        target = verdict(median(rates), at_least=TARGETS[options.rows > 0]) if name == "distinct" else ""
        row(name, f"{options.events:,}", spread(rates), f"{max(rates):,.0f}", target, widths=WIDTHS)
    print("\nAfter each run the rows were compared with what was sent: all as they must be.")


if __name__ == "__main__":
    main()
