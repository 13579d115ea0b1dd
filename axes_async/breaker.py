"""A circuit breaker: after a fault, the faulty thing is left alone for a while."""

from __future__ import annotations

import time


class Breaker:
    """Open for ``rest`` seconds after each fault; then one caller may probe while the others still stay away.

    No lock: a race costs at worst one probe more.
    """

    def __init__(self, rest: float) -> None:
        """Start closed."""
        self.rest = rest
        self._closed_again_at = 0.0

    def allows(self) -> bool:
        """Return whether to try now; a caller that is told so when the rest is over is the one that probes."""
        if not self._closed_again_at:
            return True
        now = time.monotonic()
        if now < self._closed_again_at:
            return False
        self._closed_again_at = now + self.rest
        return True

    def succeeded(self) -> None:
        """Close it."""
        self._closed_again_at = 0.0

    def failed(self) -> None:
        """Open it for ``rest`` seconds from now."""
        self._closed_again_at = time.monotonic() + self.rest
