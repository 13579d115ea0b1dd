"""A circuit breaker: what fails is not tried for a while."""

from __future__ import annotations

from time import monotonic

from axes_async import telemetry


class CircuitBreaker:
    """Opens at a failure, for ``retry_interval`` seconds; then one caller tries, and the others still stay away.

    Each further failure doubles the interval, up to ``longest`` seconds. One with a ``name`` tells ``telemetry`` of its
    state. No lock: a race costs at worst one try more.
    """

    def __init__(self, retry_interval: float, *, longest: float | None = None, name: str = "") -> None:
        self.retry_interval, self.longest = retry_interval, longest or retry_interval
        self._interval, self.name = retry_interval, name
        self._opens_until = 0.0

    def allows(self) -> bool:
        """Return whether to try now; of the callers after an interval, one is told so."""
        if self.is_open:
            return False
        if self._opens_until:
            self._opens_until = monotonic() + self._interval
        return True

    def succeeded(self) -> None:
        """Close it."""
        if self._opens_until and self.name:
            telemetry.breaker(self.name, is_open=False)
        self._opens_until, self._interval = 0.0, self.retry_interval

    def failed(self) -> None:
        """Open it from now on."""
        if not self._opens_until and self.name:
            telemetry.breaker(self.name, is_open=True)
        self._opens_until = monotonic() + self._interval
        self._interval = min(2 * self._interval, self.longest)

    @property
    def is_open(self) -> bool:
        """Whether nobody is to try now."""
        return monotonic() < self._opens_until
