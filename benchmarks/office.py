"""An office at nine: everybody logs in at once, from one address, with right passwords that take 200 ms to check.

Open checks and failures together never exceed the limit of the address, so the last of 100 people waits for 100 / limit
checks. What comes of that is measured for limits and for times to wait (``AXES_RESERVE_WAIT``), with gunicorn processes
of many threads. Afterwards as many wrong passwords arrive at once, of which exactly the limit may be looked at.
"""

from __future__ import annotations

import argparse
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from benchmarks.broken import Site, running_site
from benchmarks.figures import heading, row, spread

PEOPLE, SECONDS = 100, 0.2
WIDTHS = (10, 10, 14, 10, 10, 24, 16, 20)


def at_once(site: Site, password: str) -> list[tuple[int, float]]:
    """Have everybody try ``password``; return status and seconds of each."""
    with ThreadPoolExecutor(PEOPLE) as pool:
        return list(pool.map(lambda n: site.log_in(f"person{n}", "198.51.100.7", password), range(PEOPLE)))


def looked_at(site: Site) -> int:
    """Return how many wrong passwords were looked at."""
    lines = [line for file in site.folder.glob("checked-*") for line in file.read_text().splitlines()]
    return sum(line.startswith("guess ") for line in lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limits", type=int, nargs="+", default=[5, 30])
    parser.add_argument("--waits", type=float, nargs="+", default=[1.0, 10.0])
    parser.add_argument("--threads", type=int, nargs="+", default=[8, 25], help="of each of four processes")
    options = parser.parse_args()
    heading("benchmarks.office", f"{PEOPLE} people log in at once from one address; a check takes {SECONDS} s.")
    heads = ("limit", "wait, s", "4 x threads", "let in", "429", "seconds", "the last, s", "guesses looked at")
    row(*heads, widths=WIDTHS)
    from tests.faults.machines import Postgres

    postgres = Postgres()
    for limit in options.limits:
        for wait in options.waits:
            for threads in options.threads:
                settings = {
                    "AXES_FAILURE_LIMIT": limit,
                    "AXES_RESERVE_WAIT": wait,
                    "AXES_STORE_TIMEOUT": 2.0,  # A machine that is busy is not a store that is away.
                    "BENCH_SECONDS": SECONDS,
                    "AUTHENTICATION_BACKENDS": [
                        "axes_async.backends.AxesStandaloneBackend",
                        "benchmarks.site.SlowPassword",
                    ],
                }
                with running_site(postgres, webs=4, threads=threads, settings=settings) as site:
                    at_once(site, "right")  # Connections are open and users are there, as on any other morning.
                    answers = at_once(site, "right")
                    at_once(site, "guess")
                    guesses = looked_at(site)
                statuses = Counter(status for status, _ in answers)
                times = [seconds for status, seconds in answers if status == 204]
                row(
                    str(limit),
                    f"{wait:g}",
                    f"{threads}",
                    str(statuses[204]),
                    str(statuses[429]),
                    spread(times),
                    f"{max(times):.2f}",
                    str(guesses),
                    widths=WIDTHS,
                )
    postgres.stop()


if __name__ == "__main__":
    main()
