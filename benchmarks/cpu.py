"""How long a site's process works at a failed login, and how much of that is the package's part.

By the process's own clock (``time.process_time``, all threads, user and system): waiting for a server is not counted.
What else runs on the machine only adds to it (cold caches, switches), so the least of all rounds is shown first. The
figure bounds the logins a second of a web process.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
from statistics import median

from benchmarks import servers
from benchmarks.figures import heading, row, spread, verdict
from benchmarks.peers import PEERS, described, installed, own_database
from benchmarks.sites import SQLITE, STATUS, UNGUARDED, Site, running

TARGET = 600.0
"""Microseconds that axes_async may add to a failed login."""

KINDS = ("failed", "successful", "denied")
WIDTHS = (37, 9, 9, 14, 34, 24)


def main() -> None:
    """Print a line for each site and each kind of login."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="how often each site is measured (default 10)")
    parser.add_argument("--number", type=int, default=200, help="requests in a row (default 200)")
    parser.add_argument("--kind", choices=KINDS, action="append", help="one of the kinds of login (default all)")
    parser.add_argument("--profile", action="store_true", help="show the functions of axes_async that take longest")
    options = parser.parse_args()
    if options.profile:
        profile(options.number)
        return
    heading("benchmarks.cpu", "What a site's process works at a login, in microseconds")
    servers.on_cores(apart=True)
    names = ["bare", "two_gets", *(name for name, distribution in PEERS.items() if installed(distribution))]
    sites = [Site(name, own_database(f"bench_{name}"), BENCH_LIMIT="5") for name in names]
    with running(*sites):
        for kind in options.kind or KINDS:
            measured(sites, kind, 2, options.number)
            print_kind(kind, measured(sites, kind, options.rounds, options.number))
    print(f"means of {options.number} logins, medians of {options.rounds} rounds [quartiles]")


def measured(sites: list[Site], kind: str, rounds: int, number: int) -> dict[str, list[float]]:
    """Return the microseconds of work of a login on each site, round by round; sites take turns."""
    worked: dict[str, list[float]] = {site.name: [] for site in sites}
    for turn in range(rounds):
        start = turn % len(sites)
        for site in sites[start:] + sites[:start]:
            answer = site.ask("requests", kind=kind, number=number)
            wanted = STATUS["failed" if site.name in UNGUARDED and kind == "denied" else kind]
            wanted += ("200",) if site.name == "defender" and kind == "denied" else ()  # It renders a page.
            if not all(status[:3] in wanted for status in answer["statuses"]):
                raise RuntimeError(f"{site.name} answered {kind} requests with {answer['statuses']}.")
            worked[site.name].append(sum(answer["cpu"]) / number / 1000)
        sites[0].ask("empty")
        for site in sites:
            site.ask("complete")
    return worked


def print_kind(kind: str, worked: dict[str, list[float]]) -> None:
    """Print a line for each site."""
    bare, ours = worked["bare"], differences(worked["axes_async"], worked["bare"])
    row(f"{kind} login", "least", "median", "added, least", "added, median", "÷ axes_async's part", widths=WIDTHS)
    row("bare", f"{min(bare):,.0f}", f"{median(bare):,.0f}", widths=WIDTHS)
    for name, values in worked.items():
        if name == "bare":
            continue
        added = differences(values, bare)
        ratios = [theirs / mine for theirs, mine in zip(added, ours, strict=True)]
        least = min(values) - min(bare)
        met = verdict(least, at_most=TARGET) if name == "axes_async" and kind == "failed" else ""
        title = "two GET through redis-py" if name == "two_gets" else described(name)
        cells = (f"{min(values):,.0f}", f"{median(values):,.0f}", f"{least:,.0f}", spread(added), spread(ratios))
        row(title, *cells, met, widths=WIDTHS)
    print()


def differences(values: list[float], others: list[float]) -> list[float]:
    """Return how much more each of ``values`` is than that of the same round."""
    return [value - other for value, other in zip(values, others, strict=True)]


def profile(number: int) -> None:
    """Run failed logins of axes_async in this process, under Python's profiler."""
    import json
    import os

    os.environ.update({**servers.handed_down(SQLITE), "BENCH_SITE": "axes_async"})
    assert json.loads(os.environ[servers.DATABASE]) == SQLITE
    from benchmarks import worker

    worker.prepare()
    worker.requests("failed", number)
    profiler = cProfile.Profile()
    profiler.enable()
    worker.requests("failed", number)
    profiler.disable()
    stats = pstats.Stats(profiler)
    print(f"{number} failed logins; the profiler itself makes each call dearer: read the shares, not the seconds")
    stats.sort_stats("tottime").print_stats(35)
    stats.sort_stats("cumulative").print_stats("axes_async|tasks/", 40)


if __name__ == "__main__":
    main()
