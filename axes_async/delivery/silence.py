"""Servers that mails and webhooks go to. One that has kept a worker waiting is left alone for a while.

Drains wait for the same workers: a thousand mails to a server that is silent would hold them for hours.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from time import monotonic

from axes_async.delivery.circuit_breaker import CircuitBreaker

SLOW = 5.0
"""Seconds that a failure may take: a server that refuses at once holds up nobody."""

ALONE, ALONE_LONGEST = 60.0, 240.0
"""Seconds for which a process leaves a silent server alone: at first, and at most."""


breakers = defaultdict[str, CircuitBreaker](partial(CircuitBreaker, ALONE, longest=ALONE_LONGEST))
"""One for each server: "mail" and "webhook"."""


class LeftAlone(ConnectionError):
    """The server was silent a moment ago; the task comes back later, without having waited."""


@contextmanager
def unless_silent(server: str) -> Iterator[None]:
    """Talk to ``server``, "mail" or "webhook", in the block. Raises ``LeftAlone`` where that was in vain just now."""
    breaker, began = breakers[server], monotonic()
    if not breaker.allows():
        raise LeftAlone(f"the {server} server was silent a moment ago")
    try:
        yield
    except Exception:
        if monotonic() - began > SLOW:
            breaker.failed()
        else:
            breaker.succeeded()
        raise
    breaker.succeeded()
