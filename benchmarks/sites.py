"""Sites to measure, each in a process of its own (``worker.py``), asked in turns: a slow moment meets them all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import mean, median, quantiles
from typing import Any

from benchmarks import servers

GET = "get"
"""Name under which the bare round trips stand among the timings of sites."""

STATUS = {"failed": ("401",), "successful": ("204",), "denied": ("403", "429")}
"""What a site must answer, so that it is really that kind of request which is measured."""

UNGUARDED = ("bare", "two_gets")
"""Sites that deny nobody: what a package denies, fails there."""

SQLITE: dict[str, Any] = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}


class Site:
    """One running worker."""

    def __init__(self, name: str, database: dict[str, Any], **environment: str) -> None:
        """Start the site ``name`` (see ``settings.py``) and make its tables in ``database``."""
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **servers.handed_down(database), "BENCH_SITE": name, **environment},
        )
        self.ask("prepare")

    def ask(self, command: str, **arguments: Any) -> Any:
        """Have the worker run ``command`` and return what it answers."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([command, arguments]) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"The site {self.name} ended with {self.process.wait()}.")
        return json.loads(answer)

    def stop(self) -> None:
        """End the worker."""
        self.process.stdin.close()  # type: ignore[union-attr]
        self.process.wait(timeout=10)


@contextmanager
def running(*sites: Site) -> Iterator[None]:
    """Stop ``sites`` at the end of the block."""
    try:
        yield
    finally:
        for site in sites:
            site.stop()


@dataclass
class Overhead:
    """What one site costs more than the bare one, round by round."""

    microseconds: list[float] = field(default_factory=list)
    """Differences of medians."""
    means: list[float] = field(default_factory=list)
    """Differences of means: with the pauses of garbage collection and all else that is rare, and with the noise."""
    cpu: list[float] = field(default_factory=list)
    """Differences of the means of what the process has worked, in microseconds."""
    undisturbed: float = 0.0
    """Difference of the quickest blocks' lowest tenths: what else runs on the machine only adds to a request."""
    ratios: list[float] = field(default_factory=list)
    """Differences of medians, over two bare round trips in a loop."""

    def over(self, other: Overhead) -> list[float]:
        """Return the ratio to another site's overhead, round by round."""
        return [ours / theirs for ours, theirs in zip(self.microseconds, other.microseconds, strict=True)]


def overheads(
    bare: Site, others: list[Site], kind: str, *, rounds: int, number: int, quiet: bool = False
) -> tuple[dict[str, Overhead], list[float]]:
    """Send ``kind`` requests to each site in turns; return what each costs, and the microseconds of a round trip.

    Within a round each site and the bare round trips get one block of ``number``, in an order that rotates. Garbage
    is collected before a block, and the collector runs during it as it does in production.
    """
    found = {site.name: Overhead() for site in others}
    trips = []
    lowest: dict[str, float] = {}
    for turn in range(rounds):
        names = [GET, bare.name, *found]
        start = turn % len(names)
        sites = {site.name: site for site in (bare, *others)}
        middle, average, worked = {}, {}, {}
        for name in names[start:] + names[:start]:
            answer = (
                bare.ask("round_trips", number=number * 2)
                if name == GET
                else sites[name].ask("requests", kind=kind, number=number, quiet=quiet)
            )
            middle[name], average[name] = median(answer["times"]) / 1000, mean(answer["times"]) / 1000
            tenth = quantiles(answer["times"], n=10)[0] / 1000
            lowest[name] = min(tenth, lowest.get(name, tenth))
            worked[name] = mean(answer.get("cpu", [0])) / 1000
            wanted = STATUS["failed" if name in UNGUARDED and kind == "denied" else kind]
            if name != GET and not all(status[:3] in wanted for status in answer["statuses"]):
                raise RuntimeError(f"{name} answered {kind} requests with {answer['statuses']}.")
        bare.ask("empty")
        for site in others:
            site.ask("complete")
        trips.append(middle[GET])
        for name, overhead in found.items():
            overhead.microseconds.append(middle[name] - middle[bare.name])
            overhead.means.append(average[name] - average[bare.name])
            overhead.cpu.append(worked[name] - worked[bare.name])
            overhead.ratios.append((middle[name] - middle[bare.name]) / (2 * middle[GET]))
    for name, overhead in found.items():
        overhead.undisturbed = lowest[name] - lowest[bare.name]
    return found, trips
