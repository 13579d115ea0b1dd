"""Every fault on a site under load: what was sent, what was written, and how long a login took.

Processes with threads guess passwords and log in, at the same few clients, while a server or a worker is broken and
mended again. Each attempt has a name of its own, so that every row can be traced to the attempt that it tells of.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections import Counter as Tally
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.broken import FAULTS, LIMIT, Site, running_site
from benchmarks.figures import heading, row, verdict

if TYPE_CHECKING:
    from tests.faults.machines import Postgres

PROCESSES, THREADS = 2, 6
LOAD, BREAK_AT, MEND_AT = 7.0, 2.0, 4.0
"""Seconds that the load lasts, and after which the fault begins and ends."""

SETTLED = 60.0
"""Seconds in which everything must have been written after the load."""

PAUSE = 0.004
WIDTHS = (34, 8, 8, 6, 9, 12, 13)
WIDTHS_ALONE = (44, 9, 12, 11, 18)

AWAY = ("store: frozen", "store: killed, restarted (AOF)", "store: full", "store: a read-only replica")
"""Faults in which the store is away until they end; with "deny", all that a login takes is what the store costs it."""

LOGINS = 20
"""Logins one after the other that meet a fault, of which the first has to find it out."""

HELD_FIRST = 250.0
"""Milliseconds that a login may be held by a fault, the first time."""


def started(site: Site, *arguments: str) -> subprocess.Popen[str]:
    """Return a process of this module on the ``site``, once it says that it is ready."""
    command = [sys.executable, "-m", "benchmarks.faults", *arguments]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, env=site.environment, stdin=pipe, stdout=pipe, text=True)  # noqa: S603
    told(process)
    return process


def tell(process: subprocess.Popen[str], line: str) -> None:
    """Send it a line."""
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def told(process: subprocess.Popen[str]) -> str:
    """Return its next line."""
    assert process.stdout is not None
    return process.stdout.readline()


def measure(postgres: Postgres, name: str) -> bool:
    """Run one fault and print its line; return whether nothing was lost, doubled or let through."""
    broken, mended = FAULTS[name]
    with running_site(postgres) as site:
        guessers = [started(site, "--guess", str(number)) for number in range(PROCESSES)]
        for guesser in guessers:
            tell(guesser, "go")
        time.sleep(BREAK_AT)
        broken(site)
        time.sleep(MEND_AT - BREAK_AT)
        mended(site)
        parts = [json.loads(guesser.communicate(timeout=LOAD + 60)[0]) for guesser in guessers]
        site.supervise()
        sent = [tuple(one) for part in parts for one in part["sent"]]
        return report(name, site, sent, max(part["slowest"] for part in parts))


def report(name: str, site: Site, sent: list[tuple[Any, ...]], slowest: float) -> bool:
    """Wait until everything is written, and print what became of what was ``sent``."""
    names = Tally(username for username, _, _ in sent)
    give_up = time.monotonic() + SETTLED
    while True:
        written = Tally(username for (username,) in site.sql(ROWS))
        if (
            set(names) - set(written) <= set(site.flushed) and not site.valkey.client.xlen("{axes}:outbox")
        ) or time.monotonic() > give_up:
            break
        time.sleep(0.2)
    gone = set(site.flushed) - set(written)
    guesses = Tally(address for username, address, kind in sent if kind == "failed" and username not in gone)
    over = sum(max(0, count - LIMIT) for count in guesses.values())
    lost = len(set(names) - set(written) - gone)
    doubled = sum(count - 1 for count in written.values() if count > 1) + site.valkey.client.xlen("{axes}:dead")
    note = f"{len(gone)} went with the flush" if gone else ""
    figures = (f"{sum(names.values()):,}", f"{sum(written.values()):,}", f"{lost}", f"{doubled}", f"{over}")
    row(name, *figures, f"{slowest * 1000:,.0f} ms", note, widths=WIDTHS)
    return not (lost or doubled or over)


ROWS = """
    SELECT username FROM axes_async_accessfailurelog WHERE repeats = 0
    UNION ALL SELECT username FROM axes_async_accesslog
"""


def guess(number: int) -> None:
    """Guess and log in until the time is over; print what was looked at, and the slowest of all."""
    import django

    django.setup()
    from django.db import close_old_connections

    from tests.actions import failure, success

    def attack(thread: int) -> tuple[list[tuple[str, str, str]], float]:
        chance = random.Random(f"{number} {thread}")
        looked_at, slowest, tries = [], 0.0, 0
        while (elapsed := time.monotonic() - began) < LOAD:
            close_old_connections()
            tries += 1
            username = f"p{number}t{thread}n{tries}"
            newest = int(elapsed * 8)
            victim = chance.choice((newest, newest, newest, chance.randint(0, newest)))
            wrong = chance.random() < 0.8
            address = f"192.0.{victim // 200}.{victim % 200}" if wrong else f"198.51.{thread}.{tries % 250}"
            started = time.perf_counter()
            through = (failure if wrong else success)(username, address)
            slowest = max(slowest, time.perf_counter() - started)
            if through:
                looked_at.append((username, address, "failed" if wrong else "logged_in"))
            time.sleep(PAUSE)
        return looked_at, slowest

    with ThreadPoolExecutor(THREADS) as pool:
        failure(f"p{number}warm", f"203.0.113.{number}")
        print("ready", flush=True)
        sys.stdin.readline()
        began = time.monotonic()
        done = list(pool.map(attack, range(THREADS)))
    sent = [(f"p{number}warm", f"203.0.113.{number}", "failed"), *(one for part, _ in done for one in part)]
    print(json.dumps({"sent": sent, "slowest": max(slowest for _, slowest in done)}))


def measure_alone(postgres: Postgres, name: str, on_failure: str) -> None:
    """Print how long failed logins take that meet a fault one after the other, in milliseconds."""
    broken, mended = FAULTS[name]
    with running_site(postgres, AXES_ON_STORE_FAILURE=on_failure) as site:
        guesser = started(site, "--alone")

        def log_in() -> float:
            tell(guesser, "go")
            return float(told(guesser))

        before = [log_in() for _ in range(LOGINS)]
        broken(site)
        first, *later = [log_in() for _ in range(LOGINS)]
        mended(site)
        guesser.communicate(timeout=60)
    figures = (f"{median(before):,.1f}", f"{first:,.1f}", f"{median(later):,.1f}", f"{max(later):,.1f}")
    row(f"{name}, {on_failure}", *figures, verdict(first, at_most=HELD_FIRST), widths=WIDTHS_ALONE)


def log_in_alone() -> None:
    """Fail to log in once a line that comes in, and print how many milliseconds that took."""
    import django

    django.setup()
    from django.db import connection

    from tests.actions import failure

    connection.ensure_connection()  # A login has one: it looks up a user.
    print("ready", flush=True)
    for number, _ in enumerate(sys.stdin):
        started = time.perf_counter()
        failure(f"alone{number}", f"192.0.2.{number}")
        print((time.perf_counter() - started) * 1000, flush=True)


def main() -> int:
    """Print a line for each fault; return 1 if anything was lost, doubled, or let through."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--guess", type=int, metavar="NUMBER", help=argparse.SUPPRESS)
    parser.add_argument("--only", default="", help="faults whose name contains this")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.guess is not None:
        guess(options.guess)
        return 0
    if options.alone:
        log_in_alone()
        return 0
    from tests.faults.machines import Postgres

    heading("benchmarks.faults", f"Faults under load: {PROCESSES} processes of {THREADS} threads, limit {LIMIT}")
    row("fault", "events", "rows", "lost", "doubled", "over limit", "slowest", widths=WIDTHS)
    postgres = Postgres()
    try:
        names = [name for name in FAULTS if options.only in name]
        fine = list(map(partial(measure, postgres), names))
        print(f"\nA failed login alone, and the {LOGINS - 1} after it, in ms")
        row("fault, AXES_ON_STORE_FAILURE", "before", "the first", "the next", "slowest of them", widths=WIDTHS_ALONE)
        for name in names:
            for on_failure in ("database", "deny") if name in AWAY else ():
                measure_alone(postgres, name, on_failure)
    finally:
        postgres.stop()
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
