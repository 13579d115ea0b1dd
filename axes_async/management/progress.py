"""A progress bar for commands that take a while: one line of a terminal, drawn again and again."""

from __future__ import annotations

import time

from django.core.management.base import OutputWrapper

WIDTH = 30
"""Characters of the bar."""

PAUSE = 0.1
"""Seconds between two drawings."""


class Progress:
    """One bar. It draws nothing where ``out`` is no terminal.

    :param out: a command's ``stderr``; the bar has its usual colour, not that of errors.
    :param label: what is going on.
    :param total: how many steps it takes; more steps are no error.
    """

    def __init__(self, out: OutputWrapper, label: str, total: int) -> None:
        self.out, self.label, self.total = out, label, total
        self.done = 0
        self._shown = bool(out.isatty())
        self._drawn_at = 0.0

    def advance(self, steps: int) -> None:
        """Add ``steps`` to those that are done."""
        self.done += steps
        if self._shown and time.monotonic() - self._drawn_at >= PAUSE:
            self._draw()

    def finish(self) -> None:
        """Draw the bar a last time and end its line."""
        if self._shown:
            self._draw()
            self.out.write("\n", style_func=str)

    def _draw(self) -> None:
        self._drawn_at = time.monotonic()
        share = min(1.0, self.done / self.total) if self.total else 1.0
        bar = "#" * round(share * WIDTH)
        steps = f"{self.done:,} of {max(self.done, self.total):,}"
        self.out.write(f"\r{self.label:26}[{bar:-<{WIDTH}}] {share:4.0%}  {steps}", style_func=str, ending="")
        self.out.flush()
