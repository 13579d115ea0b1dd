"""Stacked bars, laid out for a template to draw as SVG: no script, and nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 960, 220
LEFT, RIGHT, TOP, BOTTOM = 48, 8, 12, 24
"""The margins of the plot, which have the axes' labels."""

TICKS = 6
"""Labels of the time axis, about."""


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A part of a bar."""

    place: int
    """Which of the series it belongs to, from 0."""
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar, and what is said of it."""

    title: str
    x: float
    width: float
    parts: Sequence[Rectangle]


@dataclass(frozen=True, slots=True)
class Chart:
    """Everything that is drawn. Lengths are units of the picture's own."""

    bars: Sequence[Bar]
    lines: Sequence[tuple[float, str]]
    """The lines across, by their height, and the value that each stands for."""
    ticks: Sequence[tuple[float, str]]
    """The labels of the time axis, by their place."""
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def stacked(values: Sequence[Sequence[int]], titles: Sequence[str], labels: Sequence[str]) -> Chart:
    """Return a chart with a bar for each of ``values``, one part on the other.

    :param titles: what is said of each bar.
    :param labels: what stands under each bar, as far as there is room.
    """
    highest = _rounded_up(max((sum(parts) for parts in values), default=0))
    across, up = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    slot = across / max(len(values), 1)
    bars = []
    for number, parts in enumerate(values):
        x, bottom, found = LEFT + number * slot, float(HEIGHT - BOTTOM), []
        for place, value in enumerate(parts):
            height = up * value / highest
            bottom -= height
            if value:
                found.append(Rectangle(place, _r(x + slot * 0.1), _r(bottom), _r(slot * 0.8), _r(height)))
        bars.append(Bar(titles[number], _r(x), _r(slot), found))
    lines = [(_r(HEIGHT - BOTTOM - up * share), _short(highest * share)) for share in (0, 0.5, 1)]
    every = max(len(labels) // TICKS, 1)
    ticks = [(_r(LEFT + (n + 0.5) * slot), label) for n, label in enumerate(labels) if n % every == every // 2]
    return Chart(bars, lines, ticks)


def _rounded_up(value: int) -> int:
    """Return a round number for the top of the axis: 2, 4, 10, 20, 40, 100 and so on."""
    top = 2
    while top < value:
        top = top * 5 // 2 if str(top)[0] == "4" else top * 2
    return top


def _short(number: float) -> str:
    """Return a number of the axis with four characters or so."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:g}{letter}"
    return f"{number:g}"


def _r(number: float) -> float:
    return round(number, 1)
