"""What protection adds to a login, request to response, over the same site without it, in round trips to the store.

The unit is two bare ``GET`` through redis-py's default client: what any package must pay that asks the store before a
password check and tells it after. It is measured in two ways: in the same places of a login request (a backend and a
signal receiver that do nothing else), and back to back in a loop, where all caches are warm and nothing else runs.
Sites and loop take turns, so a busy machine slows them alike. All of it is done twice: with a core for the site and one
for Valkey, as where the store is a machine of its own, and with both on one core, where a round trip costs least.
"""

from __future__ import annotations

import argparse
from statistics import median

from benchmarks import servers
from benchmarks.figures import heading, row, spread, verdict
from benchmarks.sites import SQLITE, Site, overheads, running

TARGET = 1.3
"""Of two ``GET`` in place, with a core each."""

CASES = (
    ("failed", "failed", False),
    ("successful", "successful", False),
    ("denied", "denied", False),
    ("failed, outbox quiet", "failed", True),
)
WIDTHS = (22, 38, 14, 11, 24, 24)


def main() -> None:
    """Print the overhead of a failed, a successful and a denied login."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="how often each case is measured (default 20)")
    parser.add_argument("--number", type=int, default=100, help="requests in a row (default 100)")
    options = parser.parse_args()
    heading("benchmarks.overhead", "Overhead of a login, over two bare GET through redis-py")
    for apart in (True, False):
        where = servers.on_cores(apart=apart)
        print(f"Site and Valkey {where}")
        measure(options.rounds, options.number, apart=apart)


def measure(rounds: int, number: int, *, apart: bool) -> None:
    """Print the table of one placement."""
    bare, two_gets, guarded = (Site(name, SQLITE) for name in ("bare", "two_gets", "axes_async"))
    with running(bare, two_gets, guarded):
        overheads(bare, [two_gets, guarded], "failed", rounds=3, number=number)
        row("login", "µs", "lowest tenth", "÷ two GET", "÷ two GET in place", "÷ two GET in a loop", widths=WIDTHS)
        trips, in_place = [], []
        for name, kind, quiet in CASES:
            found, loop = overheads(bare, [two_gets, guarded], kind, rounds=rounds, number=number, quiet=quiet)
            ours, theirs = found["axes_async"], found["two_gets"]
            trips += loop
            in_place += theirs.microseconds if name == "failed" else []
            ways = {"in place": ours.over(theirs), "in a loop": ours.ratios}
            least = ours.undisturbed / theirs.undisturbed
            met = verdict(median(ways["in place"]), at_most=TARGET) if name == "failed" and apart else ""
            row(
                name,
                spread(ours.microseconds),
                f"{ours.undisturbed:,.0f}",
                f"{least:,.2f}",
                *map(spread, ways.values()),
                met,
                widths=WIDTHS,
            )
        in_loop = f"{2 * median(trips):,.2f} µs in a loop"
        print(f"two bare GET: {spread(in_place)} µs in place of a failed login, {in_loop}")
        print(f"medians of {rounds} rounds [quartiles]\n")


if __name__ == "__main__":
    main()
