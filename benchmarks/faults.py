"""Every fault on a site under load: what was guessed, what was written, and how long a login took.

Threads post wrong passwords to gunicorn, for the same few clients, while a server or a worker is broken and mended
again. The site notes every password that reaches its check, whatever becomes of the event. Each try has a username of
its own, so that every row can be traced to the try that it tells of.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter as Tally
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.broken import FAULTS, LIMIT, PATIENCE, Fault, Site, flush, running_site, written
from benchmarks.figures import heading, row, verdict

if TYPE_CHECKING:
    from tests.faults.machines import Postgres

THREADS = 5
PAUSE = 0.004
"""Seconds between two tries of a thread."""

VICTIMS = 20
"""New clients a second; most guesses go to the newest."""

BEFORE, DURING, AFTER = 2.0, 3.0, 2.0
"""Seconds of load before a fault, while it lasts (at least), and after the site is whole again (at least)."""

WIDTHS = (32, 8, 9, 8, 10, 6, 9, 14, 10, 15, 13, 10)
WIDTHS_ALONE = (44, 9, 12, 11, 18)

LOGINS = 20
"""Logins one after the other that meet a fault, of which the first has to find it out."""

HELD_FIRST = 250.0
"""Milliseconds that a login may be held by a fault, the first time."""


@dataclass
class Attack:
    """Guesses until it is told to stop."""

    site: Site
    began: float = field(default_factory=time.monotonic)
    stopped: bool = False
    times: list[tuple[float, float, int]] = field(default_factory=list)
    """When each try began, how many seconds it took, and the status of the answer."""

    def run(self, thread: int) -> None:
        """Guess, as one of several threads."""
        chance, tries = random.Random(thread), 0
        while not self.stopped:
            tries += 1
            newest = int((time.monotonic() - self.began) * VICTIMS)
            victim = max(0, newest - chance.choice((0, 0, 0, chance.randint(0, 40))))
            started = time.monotonic()
            status, seconds = self.site.log_in(f"t{thread}n{tries}", f"192.0.{victim // 200}.{victim % 200}")
            self.times.append((started, seconds, status))
            time.sleep(PAUSE)


def measure(postgres: Postgres, name: str) -> bool:
    """Run one fault and print its line; return whether nothing was lost, doubled or let through."""
    fault = FAULTS[name]
    with running_site(postgres) as site, ThreadPoolExecutor(THREADS) as pool:
        attack = Attack(site)
        threads = [pool.submit(attack.run, thread) for thread in range(THREADS)]
        try:
            time.sleep(BEFORE)
            broken = time.monotonic()
            fault.begin(site)
            time.sleep(0 if fault.begin is flush else DURING)
            fault.end(site)
            mended = time.monotonic()
            site.supervise()
            complete = wait_until_complete(site)
            time.sleep(AFTER)
        finally:
            attack.stopped = True
        for thread in threads:
            thread.result()
        return report(name, fault, site, attack, broken, mended, complete)


def wait_until_complete(site: Site) -> float:
    """Return when the store had all counters and decided again; infinity if that does not come."""
    give_up = time.monotonic() + PATIENCE
    while not site.is_complete():
        if time.monotonic() > give_up:
            return float("inf")
        time.sleep(0.02)
    return time.monotonic()


def report(name: str, fault: Fault, site: Site, attack: Attack, broken: float, mended: float, complete: float) -> bool:
    """Wait until everything is written, and print what became of what was guessed."""
    checked = site.checked()
    tried = {username for _, username in checked}
    give_up = time.monotonic() + PATIENCE
    rows = written(site)
    while not tried - site.held <= set(rows) and time.monotonic() < give_up:
        time.sleep(0.2)
        rows = written(site)
    guesses, bound = Tally(address for address, _ in checked), LIMIT * (1 + fault.losses)
    over = sum(count > bound for count in guesses.values())
    lost = len(tried - set(rows) - site.held)
    doubled = sum(count - 1 for count in rows.values())
    meanwhile = [seconds for begun, seconds, _ in attack.times if broken <= begun < max(complete, mended)]
    slowest = max(seconds for _, seconds, _ in attack.times)
    errors = sum(status >= 500 for _, _, status in attack.times)
    row(
        name,
        f"{len(attack.times):,}",
        f"{len(checked):,}",
        f"{len(tried & set(rows)):,}",
        f"{len((tried & site.held) - set(rows))}",
        f"{lost}",
        f"{doubled}",
        f"{max(guesses.values())} ({bound})",
        f"{slowest * 1000:,.0f} ms",
        f"{median(meanwhile) * 1000:,.1f} ms" if meanwhile else "-",
        f"{median(seconds for _, seconds, _ in attack.times) * 1000:,.1f} ms",
        f"{complete - mended:,.2f} s",
        "; ".join([f"{over} clients over"] * (over > 0) + [f"{errors} answers >= 500"] * (errors > 0)),
        widths=WIDTHS,
    )
    return not (lost or doubled or over or errors)


def measure_alone(postgres: Postgres, name: str, on_failure: str) -> bool:
    """Print how long failed logins take that meet a fault one after the other, in milliseconds."""
    fault = FAULTS[name]
    with running_site(postgres, webs=1, settings={"AXES_ON_STORE_FAILURE": on_failure}) as site:

        def log_in(number: int) -> float:
            return site.log_in(f"alone{number}", f"192.0.2.{number}")[1] * 1000

        before = [log_in(number) for number in range(LOGINS)]
        fault.begin(site)
        first, *later = [log_in(LOGINS + number) for number in range(LOGINS)]
        fault.end(site)
    figures = (f"{median(before):,.1f}", f"{first:,.1f}", f"{median(later):,.1f}", f"{max(later):,.1f}")
    row(f"{name}, {on_failure}", *figures, verdict(first, at_most=HELD_FIRST), widths=WIDTHS_ALONE)
    return first <= HELD_FIRST


def main() -> int:
    """Print a line for each fault; return 1 if anything was lost, doubled, or let through."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="faults whose name contains this")
    parser.add_argument("--table", choices=("load", "alone"), help="one of the two tables (default both)")
    options = parser.parse_args()
    from tests.faults.machines import Postgres

    postgres, fine = Postgres(), [True]
    names = [name for name in FAULTS if options.only in name]
    try:
        heading("benchmarks.faults", f"Faults under load: three gunicorn processes, {THREADS} at once, limit {LIMIT}")
        if options.table != "alone":
            headings = ("tries", "checked", "rows", "in store", "lost", "doubled", "most guesses")
            row("fault", *headings, "slowest", "median, fault", "median, all", "complete", widths=WIDTHS)
            fine += map(partial(measure, postgres), names)
        if options.table != "load":
            print(f"\nA failed login alone, and the {LOGINS - 1} after it, in ms; a request to gunicorn and back")
            alone = ("before", "the first", "the next", "slowest of them")
            row("fault, AXES_ON_STORE_FAILURE", *alone, widths=WIDTHS_ALONE)
            for name in names:
                for on_failure in ("database", "deny") if FAULTS[name].is_away else ():
                    fine.append(measure_alone(postgres, name, on_failure))
    finally:
        postgres.stop()
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
