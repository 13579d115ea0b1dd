"""How long a store needs to be complete again after a flush, and what logins and the drain meet meanwhile.

A whole site runs: gunicorn, a Celery worker, and a database with counters of locked clients. The store is flushed, and
nobody calls the sync: a login finds the store empty and nudges the worker, as on any site. With few counters the store
is complete so soon that few logins come meanwhile: the median to look at is that of the last line, of all flushes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import count
from statistics import median

from benchmarks import load
from benchmarks.broken import LIMIT, PATIENCE, Site, flush, running_site
from benchmarks.figures import heading, row, verdict

SECONDS = ((1_000, 2.0), (1_000_000, 60.0))
"""Up to so many counters: the seconds after which the store is to be complete."""

LOGIN = 20.0
"""Milliseconds that the median login may take meanwhile."""

THREADS, PAUSE = 2, 0.02
"""Logins at once, and the seconds between two of a thread."""

NUMBERS = count()
"""Of the guessers of all flushes."""

WIDTHS = (12, 14, 18, 18, 18, 16, 18, 20)


def fill(number: int) -> None:
    """Copy counters of so many locked clients into the site's database."""
    from benchmarks.reset import copy, counter  # isort: skip  (sets Django up)

    from django.db import connection

    from axes_async.clock import now_ms
    from axes_async.models import AttemptCounter

    now = now_ms()
    locked = {"failures": LIMIT, "limit": LIMIT}
    copy(AttemptCounter, ({**counter(client, now), **locked} for client in range(number)))
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")


def fill_database(site: Site, number: int) -> None:
    """Have a process of the site do it."""
    command = [sys.executable, "-m", "benchmarks.sync", "--fill", str(number)]
    subprocess.run(command, env=site.environment, check=True)  # noqa: S603


@contextmanager
def logins(site: Site) -> Iterator[list[tuple[float, float]]]:
    """Guess wrong, each time from another address; yields when each login began and how many seconds it took."""
    times: list[tuple[float, float]] = []
    stopped = False

    def log_in() -> None:
        while not stopped:
            number = next(NUMBERS)
            started = time.monotonic()
            address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
            status, seconds = site.log_in(f"name{number}", address)
            assert status == 401, status
            times.append((started, seconds))
            time.sleep(PAUSE)

    with ThreadPoolExecutor(THREADS) as pool:
        threads = [pool.submit(log_in) for _ in range(THREADS)]
        try:
            yield times
        finally:
            stopped = True
        for thread in threads:
            thread.result()


def watched(site: Site, done: Callable[[], bool]) -> float:
    """Wait until ``done``; return the longest time in which no row was written, in seconds."""
    newest, moved, longest, give_up = None, time.monotonic(), 0.0, time.monotonic() + 3 * PATIENCE
    while True:
        finished = done()
        ((found,),) = site.sql("SELECT max(id) FROM axes_async_accessfailurelog")
        now = time.monotonic()
        longest = max(longest, now - moved)
        if found != newest:
            newest, moved = found, now
        if finished or now > give_up:
            return longest
        time.sleep(0.05)


def measure(site: Site, number: int, meanwhile: list[float]) -> bool:
    """Flush the store, and print what came of it; return whether it was complete again in time.

    :param meanwhile: is given how long each login took until then, in milliseconds.
    """
    locked = load.address(number // 2)
    assert site.log_in("locked", locked)[0] in {403, 429}
    with logins(site) as times:
        start = time.monotonic()
        usual = watched(site, lambda: time.monotonic() > start + 5)
        flushed = time.monotonic()
        flush(site)
        while_empty = site.log_in("locked", locked)[0]
        idle = watched(site, site.is_complete)
        complete = time.monotonic()
        time.sleep(1)
    assert {while_empty, site.log_in("locked", locked)[0]} <= {403, 429}, "a lockout was forgotten"
    before = [seconds * 1000 for begun, seconds in times if begun < flushed]
    here = [seconds * 1000 for begun, seconds in times if flushed <= begun < complete]
    meanwhile += here
    target = next((seconds for counters, seconds in SECONDS if number <= counters), SECONDS[-1][1])
    row(
        f"{number:,}",
        f"{complete - flushed:,.2f}",
        f"{median(before):,.1f}",
        *told(here),
        f"{usual:,.2f}",
        f"{idle:,.2f}",
        verdict(complete - flushed, at_most=target),
        widths=WIDTHS,
    )
    return complete - flushed <= target


def told(times: list[float]) -> tuple[str, str, str]:
    """Return the median, the most and the number of ``times``."""
    if not times:
        return "", "", "0"
    return f"{median(times):,.1f}", f"{max(times):,.0f}", f"{len(times):,}"


def main() -> int:
    """Print a line for each flush; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counters", type=int, default=1_000, help="locked clients in the database (default 1,000)")
    parser.add_argument("--flushes", type=int, default=3, help="how often the store is flushed (default 3)")
    parser.add_argument("--fill", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fill is not None:
        fill(options.fill)
        return 0
    from tests.faults.machines import Postgres

    heading("benchmarks.sync", "Until the store is complete again after a flush, and logins meanwhile, in ms")
    postgres = Postgres()
    try:
        with running_site(postgres, prepare=partial(fill_database, number=options.counters), tasks=2) as site:
            headings = ("seconds", "median, before", "median, during", "slowest, during", "logins, during")
            row("counters", *headings, "s without rows", "the same, during", widths=WIDTHS)
            meanwhile: list[float] = []
            fine = [measure(site, options.counters, meanwhile) for _ in range(options.flushes)]
            met = verdict(median(meanwhile), at_most=LOGIN)
            row("all flushes", "", "", *told(meanwhile), "", "", met, widths=WIDTHS)
    finally:
        postgres.stop()
    return 0 if all(fine) and median(meanwhile) <= LOGIN else 1


if __name__ == "__main__":
    raise SystemExit(main())
