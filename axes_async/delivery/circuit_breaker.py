"""A circuit breaker: after a fault, the faulty thing is left alone for a while."""

from __future__ import annotations

import time


class Breaker:
    """Open for ``rest`` seconds after a fault; then one caller may probe while the others still stay away.

    Each further fault doubles the rest, up to ``longest`` seconds. No lock: a race costs at worst one probe more.
    """

    def __init__(self, rest: float, *, longest: float | None = None) -> None:
        """Start closed."""
        self.rest, self.longest = rest, longest or rest
        self._resting = rest
        self._closed_again_at = 0.0

    def allows(self) -> bool:
        """Return whether to try now; a caller that is told so when the rest is over is the one that probes."""
        if not self._closed_again_at:
            return True
        now = time.monotonic()
        if now < self._closed_again_at:
            return False
        self._closed_again_at = now + self._resting
        return True

    def succeeded(self) -> None:
        """Close it."""
        self._closed_again_at, self._resting = 0.0, self.rest

    def failed(self) -> None:
        """Open it from now on."""
        self._closed_again_at = time.monotonic() + self._resting
        self._resting = min(2 * self._resting, self.longest)

    @property
    def is_open(self) -> bool:
        """Whether it is left alone now."""
        return time.monotonic() < self._closed_again_at
