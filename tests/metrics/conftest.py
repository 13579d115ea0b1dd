"""What the tests of metrics share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from axes_async import telemetry
from axes_async.metrics import prometheus, site

Figures = dict[tuple[str, ...], float]


def figures() -> Figures:
    """Return what is true of the site, by name and labels."""
    return {(sample.name, *sample.values): sample.number for sample in site.read()}


@pytest.fixture
def prometheus_on(settings: Any) -> Iterator[None]:
    """Have figures kept for Prometheus."""
    before, settings.AXES_METRICS = telemetry.listeners, ["prometheus"]
    prometheus.start()
    yield
    telemetry.listeners = before
