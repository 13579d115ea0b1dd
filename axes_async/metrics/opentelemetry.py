"""OpenTelemetry: a span around each step of the store, what this process tells, and what is true of the site.

Only the API is used: the site's SDK says where all of it goes, and without one nothing is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, partial
from threading import Lock
from time import monotonic
from typing import Any

from opentelemetry import context, metrics, trace
from opentelemetry.metrics import CallbackOptions, Observation

from axes_async import __version__, telemetry
from axes_async.metrics import BUCKETS, site

NAME = "axes_async"

FRESH = 1.0
"""Seconds for which what was read of the site will do: an export asks for one figure after the other."""

FAILED = {"unavailable", "disconnected", "error"}
"""How a step ends that did not work; each other ending is one that happens."""


class _Spans(telemetry.Listener):
    def __init__(self) -> None:
        self.tracer, meter = trace.get_tracer(NAME, __version__), metrics.get_meter(NAME, __version__)
        self.seconds = meter.create_histogram(
            "axes.step.duration",
            "s",
            "How long a step of the store takes.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        self.counts = {
            "busy_waits": ("outcome", meter.create_counter("axes.busy_waits", "1", "Attempts that waited.")),
            "fallbacks": ("step", meter.create_counter("axes.fallbacks", "1", "Steps that the database did instead.")),
            "nudges": ("outcome", meter.create_counter("axes.nudges", "1", "Messages that ask a worker to drain.")),
        }
        self.breakers = meter.create_up_down_counter("axes.breaker.open", "1", "Processes that leave it alone.")

    def begin(self, step: str, place: telemetry.Place) -> Any:
        span = self.tracer.start_span(f"axes {step}", attributes={"axes.step": step, "axes.store": place})
        return span, context.attach(trace.set_span_in_context(span))

    def end(self, begun: Any, step: str, place: telemetry.Place, outcome: str, seconds: float) -> None:
        self.seconds.record(seconds, {"axes.step": step, "axes.store": place, "axes.outcome": outcome})
        if begun is not None:
            span, token = begun
            context.detach(token)
            span.set_attribute("axes.outcome", outcome)
            if outcome in FAILED:
                span.set_status(trace.StatusCode.ERROR, outcome)
            span.end()

    def count(self, what: telemetry.Count, label: str) -> None:
        name, counter = self.counts[what]
        counter.add(1, {f"axes.{name}": label})

    def breaker(self, name: str, *, is_open: bool) -> None:
        self.breakers.add(1 if is_open else -1, {"axes.part": name})


class _Site:
    def __init__(self) -> None:
        self._lock, self._samples, self._read = Lock(), list[site.Sample](), float("-inf")

    def observe(self, figure: site.Figure, options: CallbackOptions) -> Iterable[Observation]:
        with self._lock:
            if monotonic() - self._read > FRESH:
                self._samples, self._read = site.read(), monotonic()
            samples = self._samples
        names = [f"axes.{label}" for label in figure.labels]
        return [
            Observation(sample.number, dict(zip(names, sample.values, strict=True)))
            for sample in samples
            if sample.name == figure.name
        ]


def start() -> None:
    """Keep figures and spans from now on."""
    telemetry.listen(_spans())


@cache
def _spans() -> _Spans:
    meter, seen = metrics.get_meter(NAME, __version__), _Site()
    for figure in site.FIGURES:
        make: Callable[..., Any] = meter.create_observable_gauge
        if figure.kind == "counter":
            make = meter.create_observable_counter
        unit = "s" if "seconds" in figure.name else "1"
        make(figure.name.replace("_", ".", 1), [partial(seen.observe, figure)], unit, figure.text)
    return _Spans()
