"""How figures are made and shown: medians, and ratios beside a target. Nothing is measured here."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from statistics import median, quantiles


def heading(module: str, what: str) -> None:
    """Print what is measured, and the command that does it."""
    print(f"{what}\n$ python -m {module} {' '.join(sys.argv[1:])}".rstrip())
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n", flush=True)


def spread(values: Sequence[float]) -> str:
    """Return the median of ``values`` and, in brackets, the quartiles around it."""
    if len(values) < 4:
        return f"{median(values):,.2f} [{min(values):,.2f} to {max(values):,.2f}]"
    low, middle, high = quantiles(values, n=4)
    return f"{middle:,.2f} [{low:,.2f} to {high:,.2f}]"


def verdict(
    value: float, *, below: float | None = None, at_least: float | None = None, at_most: float | None = None
) -> str:
    """Return the target that ``value`` has, and whether it is met; '' without one."""
    if below is not None:
        return f"target < {below:g}: {'met' if value < below else 'MISSED'}"
    if at_least is not None:
        return f"target >= {at_least:,g}: {'met' if value >= at_least else 'MISSED'}"
    if at_most is not None:
        return f"target <= {at_most:,g}: {'met' if value <= at_most else 'MISSED'}"
    return ""


def row(*cells: str, widths: Sequence[int]) -> None:
    """Print one line of a table: the first cell to the left, the others to the right, a last one without a width."""
    first, *others = cells
    line = first.ljust(widths[0])
    for cell, width in zip(others, widths[1:], strict=False):
        line += cell.rjust(width)
    print("   ".join([line, *others[len(widths) - 1 :]]).rstrip(), flush=True)
