"""How long a sync and resets of very many counters take, with their rows, and what logins meet meanwhile.

The rows are copied into PostgreSQL, and Valkey is empty, as after a flush. Then the sync and each reset run as a worker
process runs them, while a site in a process of its own is logged in to, wrongly and rightly, all the time.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402

from axes_async.client.keys import attempt_key, keys_of  # noqa: E402
from axes_async.clock import as_datetime, now_ms  # noqa: E402
from axes_async.counters.events import Kind  # noqa: E402
from axes_async.models import AccessAttempt, AttemptCounter  # noqa: E402
from axes_async.stores.factory import get_store  # noqa: E402
from axes_async.stores.redis.store import RedisStore  # noqa: E402
from axes_async.tasks.expire import expire  # noqa: E402
from axes_async.tasks.reset import reset  # noqa: E402
from axes_async.tasks.sync import sync_store  # noqa: E402
from benchmarks import load  # noqa: E402
from benchmarks.drain import empty  # noqa: E402
from benchmarks.figures import heading, row, verdict  # noqa: E402
from benchmarks.sites import Site, running  # noqa: E402

SECONDS, HELD_UP, LOGIN = 60.0, 10.0, 100.0
"""Targets: seconds of a reset, milliseconds of a command of the store, and of a login: what it waits for the store."""

SLOW = 1000
"""Microseconds from which on the store keeps a command in its SLOWLOG."""

BLOCK, PAUSE = 5, 0.01
"""Logins in a row, and the seconds between two rows."""

WIDTHS = (20, 10, 21, 18, 20, 10)


def fill(store: RedisStore, number: int) -> None:
    """Have ``number`` clients that are locked, each with an attempt and a counter, in the rows."""
    empty(store)
    now = now_ms()
    copy(AccessAttempt, (attempt(client, now) for client in range(number)))
    copy(AttemptCounter, (counter(client, now) for client in range(number)))
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")


def sync(store: RedisStore) -> int:
    """Write all counters into the empty store."""
    while not sync_store(store):
        time.sleep(0.5)
    return 0


def attempt(client: int, now: int) -> dict[str, Any]:
    """Return the columns of the attempt of client number ``client``."""
    event = load.event(Kind.FAILED, load.address(client), load.username(client))
    return {
        "username": event.username,
        "ip_address": event.ip_address,
        "user_agent": event.user_agent,
        "http_accept": event.http_accept,
        "path_info": event.path_info,
        "attempt_time": as_datetime(now),
        "first_attempt_time": as_datetime(now),
        "key": attempt_key(event),
        **{f"{name}_key": key for name, key in keys_of(event).items()},
        "failures_since_start": 3,
        "expires_at": as_datetime(now + client + round(load.HOUR * 1000)),
    }


def counter(client: int, now: int) -> dict[str, Any]:
    """Return the columns of its counter."""
    event = load.event(Kind.FAILED, load.address(client), load.username(client))
    (of_it,) = load.counters(load.address(client), load.username(client), limit=3)
    return {
        "digest": of_it.digest,
        "parameters": 1,
        "username_key": "",
        "ip_address_key": keys_of(event)["ip_address"],
        "user_agent_key": "",
        "ip_address": event.ip_address,
        "failures": 3,
        "since": as_datetime(now),
        "limit": 3,
        "expires_at": as_datetime(now + client + round(load.HOUR * 1000)),
        "ends": "",
        "blocked": 0,
        "changed_at": as_datetime(now),
        "reservations": "",
        "generation": 1,
        "void_generation": -1,
        "dirty": False,
    }


def copy(model: Any, rows: Iterator[dict[str, Any]]) -> None:
    """Copy rows, given by their columns, into the table of ``model``."""
    first = next(rows)
    names = ", ".join(map(connection.ops.quote_name, first))
    with connection.cursor() as cursor, cursor.copy(f"COPY {model._meta.db_table} ({names}) FROM STDIN") as into:
        into.write_row(tuple(first.values()))
        for columns in rows:
            into.write_row(tuple(columns.values()))


@contextmanager
def logins(site: Site) -> Iterator[list[float]]:
    """Log in until the end of the block; the milliseconds of each login are in the list afterwards."""
    times: list[float] = []
    done = threading.Event()

    def log_in() -> None:
        while not done.is_set():
            for kind in ("failed", "successful"):
                answer = site.ask("requests", kind=kind, number=BLOCK)
                times.extend(nanoseconds / 1e6 for nanoseconds in answer["times"])
                time.sleep(PAUSE)

    thread = threading.Thread(target=log_in)
    thread.start()
    try:
        yield times
    finally:
        done.set()
        thread.join()


def commands(store: RedisStore) -> list[float]:
    """Return the milliseconds of each slow command since the last call."""
    entries = store.client.slowlog_get(100_000)
    store.client.slowlog_reset()
    return [entry["duration"] / 1000 for entry in entries if not entry["command"].startswith(b"SLOWLOG")]


def measure(store: RedisStore, site: Site, name: str, task: Callable[[], int], attempts: int) -> bool:
    """Run ``task`` under load and print its line; return whether all targets are met."""
    commands(store)
    with logins(site) as times:
        time.sleep(0.5)
        started = time.perf_counter()
        gone = task()
        seconds = time.perf_counter() - started
        time.sleep(0.5)
    if gone < attempts:
        raise AssertionError(f"{name} removed {gone:,} attempts in place of {attempts:,}.")
    held_up, slowest = max(commands(store), default=SLOW / 1000), max(times)
    targets = [verdict(seconds, at_most=SECONDS), verdict(held_up, at_most=HELD_UP), verdict(slowest, at_most=LOGIN)]
    figures = (f"{seconds:,.2f}", f"{held_up:,.1f}", f"{median(times):,.2f}", f"{slowest:,.1f}", f"{len(times):,}")
    row(name, *figures, "; ".join(targets), widths=WIDTHS)
    return not any("MISSED" in target for target in targets)


def rest() -> int:
    """Reset nothing, for five seconds: what logins cost by themselves."""
    time.sleep(5)
    return 0


def main() -> int:
    """Print a line for each task; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=1_000_000, help="locked clients (default 1,000,000)")
    number = parser.parse_args().number
    heading("benchmarks.reset", f"Resets among {number:,} counters with their rows, and logins meanwhile")
    call_command("migrate", verbosity=0)
    store = get_store()
    if not isinstance(store, RedisStore):
        raise SystemExit("A reset at scale needs a Redis store.")
    store.client.config_set("slowlog-log-slower-than", SLOW)
    store.client.config_set("slowlog-max-len", 100_000)
    site = Site("axes_async", connection.settings_dict)
    with running(site):
        fill(store, number)
        row("task", "seconds", "longest command, ms", "median login, ms", "slowest login, ms", "logins", widths=WIDTHS)
        fine = [
            measure(store, site, "sync()", partial(sync, store), 0),
            measure(store, site, "none", rest, 0),
            measure(store, site, "reset(username=…)", partial(reset, username=load.username(7)), 1),
            measure(store, site, "reset(ip=…)", partial(reset, ip=load.address(8)), 1),
            measure(store, site, "reset()", reset, number - 2),
            measure(store, site, "expire()", lambda: sum(expire().values()), 0),
        ]
    return 0 if all(fine) else 1


if __name__ == "__main__":
    raise SystemExit(main())
