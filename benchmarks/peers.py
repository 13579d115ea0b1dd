"""Side by side with django-axes and django-defender: what a failed login costs, and which guesses get through.

Each package protects the same site, with one Valkey, a PostgreSQL database of its own, and its default settings but for
the limit and the cool-off. One that is not installed is left out.
"""

from __future__ import annotations

import argparse
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import Any

from benchmarks import servers
from benchmarks.figures import heading, row, spread
from benchmarks.sites import Site, overheads, running

LIMIT = 5
THREADS = 50
CHECK = 0.05
"""Seconds that one password check takes in the race."""

PEERS = {
    "axes_async": "axes_async",
    "axes_database": "django-axes",
    "axes_cache": "django-axes",
    "defender": "django-defender",
}
"""Sites, and the distribution that each needs."""

WIDTHS = (37, 34, 28, 8, 13, 12)


def described(site: str) -> str:
    """Return package, version and what it keeps its counts in."""
    kept = {"axes_database": ", database handler", "axes_cache": ", cache handler"}.get(site, "")
    return f"{PEERS[site]} {version(PEERS[site])}{kept}"


def installed(distribution: str) -> bool:
    """Return whether ``distribution`` is there."""
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def own_database(name: str) -> dict[str, Any]:
    """Create the PostgreSQL database ``name`` and return its ``DATABASES`` entry."""
    import psycopg

    entry = servers.database()
    with psycopg.connect(host=entry["HOST"], user=entry["USER"], dbname=entry["NAME"], autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}"')
        connection.execute(f'CREATE DATABASE "{name}"')
    return {**entry, "NAME": name}


def main() -> None:
    """Print a line for each package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="how often each site is measured (default 20)")
    parser.add_argument("--number", type=int, default=50, help="requests in a row (default 50)")
    parser.add_argument("--races", type=int, default=5, help="races of parallel guesses (default 5)")
    options = parser.parse_args()
    heading("benchmarks.peers", "A failed login, and parallel guesses, side by side")
    servers.on_cores()
    names = [name for name, distribution in PEERS.items() if installed(distribution)]
    bare, *sites = [Site(name, own_database(f"bench_{name}"), BENCH_LIMIT=str(LIMIT)) for name in ("bare", *names)]
    with running(bare, *sites):
        overheads(bare, sites, "failed", rounds=2, number=options.number)
        found, trips = overheads(bare, sites, "failed", rounds=options.rounds, number=options.number)
        ours = median(found["axes_async"].microseconds)
        row("", "overhead, µs", "over two GET", "× ours", "in sequence", "at once", widths=WIDTHS)
        for site in sites:
            overhead = found[site.name]
            alone = site.ask("sequence", guesses=THREADS)
            through = sorted(site.ask("race", threads=THREADS, seconds=CHECK) for _ in range(options.races))
            row(
                described(site.name),
                spread(overhead.microseconds),
                spread(overhead.ratios),
                f"{median(overhead.microseconds) / ours:,.1f}",
                str(alone),
                f"{through[0]} to {through[-1]}",
                widths=WIDTHS,
            )
    for distribution in sorted({PEERS[name] for name in PEERS} - {PEERS[name] for name in names}):
        print(f"{distribution} is not installed: pip install --group benchmarks")
    print(f"\nguesses checked, of {THREADS} by one client, limit {LIMIT}; at once: {options.races} races")
    print(f"one bare GET: {spread(trips)} µs; medians of {options.rounds} rounds [quartiles]")


if __name__ == "__main__":
    main()
