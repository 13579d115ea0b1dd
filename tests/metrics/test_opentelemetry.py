"""What OpenTelemetry's SDK gets: spans around steps, figures of the process, figures of the site."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from django.contrib.auth.models import User
from opentelemetry import metrics as api
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from axes_async import telemetry
from axes_async.metrics import opentelemetry, site
from tests.conftest import PASSWORD, REFUSED

Post = Callable[..., Any]

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("_telemetry")]


@cache
def sdk() -> tuple[InMemorySpanExporter, InMemoryMetricReader]:
    """Return what keeps spans and figures; a process has one SDK."""
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracing = TracerProvider(shutdown_on_exit=False)
    tracing.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(tracing)
    api.set_meter_provider(MeterProvider([reader], shutdown_on_exit=False))
    return spans, reader


@pytest.fixture
def _telemetry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(opentelemetry, "FRESH", 0)
    before = telemetry.listeners
    sdk()[0].clear()
    opentelemetry.start()
    yield
    telemetry.listeners = before


def spans() -> list[tuple[str, dict[str, Any]]]:
    return [(span.name, dict(span.attributes or {})) for span in sdk()[0].get_finished_spans()]


def figures() -> dict[tuple[Any, ...], Any]:
    """Return each point, by name and attributes: its number, or of a histogram how often something was recorded."""
    read = sdk()[1].get_metrics_data()
    points = [
        (metric.name, point)
        for resource in (read.resource_metrics if read else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    ]
    return {
        (name, *sorted(map(str, (point.attributes or {}).values()))): getattr(point, "value", None)
        if hasattr(point, "value")
        else point.count
        for name, point in points
    }


def test_each_step_has_a_span_that_says_how_it_ended(alice: User, post: Post) -> None:
    post()
    post(password=PASSWORD)
    told = {"axes.store": "primary"}
    assert spans() == [
        ("axes reserve", {**told, "axes.step": "reserve", "axes.outcome": "allowed"}),
        ("axes fail", {**told, "axes.step": "fail", "axes.outcome": "done"}),
        ("axes reserve", {**told, "axes.step": "reserve", "axes.outcome": "allowed"}),
        ("axes succeed", {**told, "axes.step": "succeed", "axes.outcome": "done"}),
    ]


def test_a_span_stands_in_that_of_the_request_and_leaves_it_as_it_was(post: Post) -> None:
    with trace.get_tracer("site").start_as_current_span("POST /sign-in/") as request:
        post()
        assert trace.get_current_span() is request
    finished: tuple[ReadableSpan, ...] = sdk()[0].get_finished_spans()
    *steps, _ = finished
    assert {step.parent.span_id for step in steps if step.parent} == {request.get_span_context().span_id}
    assert len(steps) == 2


def test_a_step_that_failed_is_an_error_and_its_fallback_another_span(post: Post, settings: Any) -> None:
    settings.CACHES = {**settings.CACHES, "default": {**settings.CACHES["default"], "LOCATION": REFUSED}}
    post()
    ended = [
        (*attributes.values(), span.status.is_ok)
        for span in sdk()[0].get_finished_spans()
        if (attributes := dict(span.attributes or {}))["axes.outcome"] != "returned"
    ]
    assert ended[0] == ("reserve", "primary", "unavailable", False)
    assert ended[-2:] == [("reserve", "fallback", "allowed", True), ("fail", "fallback", "done", True)]


def test_figures_of_process_and_site_are_exported(post: Post, drain: Callable[[], int]) -> None:
    before = figures()
    for _ in range(3):
        post()
    drain()
    seen = figures()
    key = ("axes.step.duration", "done", "fail", "primary")
    assert seen[key] - before.get(key, 0) == 3
    assert seen["axes.attempts", "failed", "site"] == 3
    assert seen["axes.locked", "ip_address"] == 1
    assert seen["axes.up", "store"] == 1
    assert {figure.name.replace("_", ".", 1) for figure in site.FIGURES} >= {name for name, *_ in before} - {
        "axes.step.duration",
        "axes.busy_waits",
        "axes.fallbacks",
        "axes.nudges",
        "axes.breaker.open",
    }


def test_an_export_reads_the_site_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    monkeypatch.setattr(opentelemetry, "FRESH", 1000)
    monkeypatch.setattr(site, "read", lambda: reads.append(1) or [])
    seen = opentelemetry._Site()
    for figure in site.FIGURES:
        assert [*seen.observe(figure, None)] == []  # type: ignore[arg-type]
    assert reads == [1]


def test_no_name_and_no_address_is_in_a_span_or_a_figure(post: Post, drain: Callable[[], int]) -> None:
    for _ in range(4):
        post("alice", REMOTE_ADDR="203.0.113.7", HTTP_USER_AGENT="agent-of-alice")
    drain()
    told = f"{spans()} {figures()}"
    assert "reserve" in told
    assert not [secret for secret in ("alice", "203.0.113.7", "agent-of", "sign-in") if secret in told]
