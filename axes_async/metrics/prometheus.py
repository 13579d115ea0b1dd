"""Prometheus: what this process tells, and a collector of what is true of the site, in the default registry.

Under several processes, the figures of processes need ``PROMETHEUS_MULTIPROC_DIR``, as all of ``prometheus_client``'s.
Those of the site never do.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector

from axes_async import telemetry
from axes_async.metrics import BUCKETS, site


class SiteCollector:
    """Asks store and rows at each scrape."""

    def describe(self) -> Iterator[Metric]:
        """Return what there is to collect, without asking anybody: the registry wants to know when the site starts."""
        return iter(_families({}))

    def collect(self) -> Iterable[Metric]:
        samples: dict[str, list[site.Sample]] = {}
        for sample in site.read():
            samples.setdefault(sample.name, []).append(sample)
        return [family for family in _families(samples) if family.samples]


class _ProcessFigures(telemetry.Listener):
    def __init__(self) -> None:
        self.seconds = Histogram(
            "axes_step_seconds", "How long a step of the store takes.", ("step", "store"), buckets=BUCKETS
        )
        self.steps = Counter("axes_steps", "Steps of the store, by how they ended.", ("step", "store", "outcome"))
        self.counts = {
            "busy_waits": Counter("axes_busy_waits", "Attempts that waited for a reservation.", ("outcome",)),
            "fallbacks": Counter("axes_fallbacks", "Steps that the database did in the store's place.", ("step",)),
            "nudges": Counter("axes_nudges", "Messages that ask a worker to drain.", ("outcome",)),
        }
        self.breakers = Gauge(
            "axes_breaker_open", "Processes that leave it alone.", ("part",), multiprocess_mode="livesum"
        )
        for name in ("store", "broker", "database"):
            self.breakers.labels(name).set(0)

    def end(self, begun: Any, step: str, place: telemetry.Place, outcome: str, seconds: float) -> None:
        self.seconds.labels(step, place).observe(seconds)
        self.steps.labels(step, place, outcome).inc()

    def count(self, what: telemetry.Count, label: str) -> None:
        self.counts[what].labels(label).inc()

    def breaker(self, name: str, *, is_open: bool) -> None:
        self.breakers.labels(name).set(is_open)


def start() -> None:
    """Keep figures from now on, and have the default registry collect those of the site."""
    telemetry.listen(_process_figures())


@cache
def _process_figures() -> _ProcessFigures:
    REGISTRY.register(SiteCollector())
    return _ProcessFigures()


def exposed(accept: str, names: Iterable[str] = ()) -> tuple[bytes, str]:
    """Return all figures as a scraper that sends ``Accept`` wants them, and their content type.

    :param names: those of the only series that are wanted, if any are named.
    """
    registry: Any = REGISTRY
    names = [*names]
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        # The collector of files does not describe itself. To find names, the registry has to read them once more.
        registry = CollectorRegistry(auto_describe=bool(names))
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call, unused-ignore]
        registry.register(SiteCollector())
    if names:
        registry = registry.restricted_registry(names)
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # What the library makes of a version that is none.
        encode, content_type = choose_encoder("")
    return encode(registry), content_type


def _families(samples: dict[str, list[site.Sample]]) -> Iterator[Metric]:
    for name, kind, text, labels in site.FIGURES:
        make = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
        family = make(name, text, labels=labels)
        for sample in samples.get(name, ()):
            family.add_metric(sample.values, sample.number)
        yield family
