"""What the rooms of a login tell of their work, and who listens: nobody, unless ``AXES_METRICS`` says so.

Nothing here knows how figures are kept. What a listener raises is logged, and no login fails by it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Literal

from axes_async.errors import StoreBusy, StoreDisconnected, StoreIncomplete, StoreReturned, StoreUnavailable

log = logging.getLogger(__name__)

Place = Literal["primary", "fallback"]
"""Which of the two stores does a step: the one that the settings name, or the database in its place."""

Count = Literal["busy_waits", "fallbacks", "nudges"]

OUTCOMES = {
    StoreBusy: "no_connection",
    StoreIncomplete: "incomplete",
    StoreReturned: "returned",
    StoreDisconnected: "disconnected",
    StoreUnavailable: "unavailable",
}
"""How a step ends that raises, the narrow before the wide; any other error is ``error``."""


class Listener:
    """Is told what happens, in the thread in which it does."""

    def begin(self, step: str, place: Place) -> Any:
        """Be told that a step is about to be done; what is returned comes back with its end."""

    def end(self, begun: Any, step: str, place: Place, outcome: str, seconds: float) -> None:
        """Be told that a step has been done, or has failed."""

    def count(self, what: Count, label: str) -> None:
        """Be told that something has happened once more."""

    def breaker(self, name: str, *, is_open: bool) -> None:
        """Be told that a circuit breaker has opened or closed."""


listeners: tuple[Listener, ...] = ()


class Ending:
    """How a step ends."""

    outcome = "done"


def listen(listener: Listener) -> None:
    """Have ``listener`` be told from now on."""
    global listeners  # noqa: PLW0603  (one tuple, so that whoever tells reads it once)
    listeners = (*[other for other in listeners if other is not listener], listener)


@contextmanager
def step(name: str, place: Place) -> Iterator[Ending]:
    """Tell of a step that is done in the block, which sets the outcome."""
    begun = [(listener, _told(listener.begin, name, place)) for listener in listeners]
    ending, started = Ending(), perf_counter()
    try:
        yield ending
    except BaseException as error:
        ending.outcome = next((name for kind, name in OUTCOMES.items() if isinstance(error, kind)), "error")
        raise
    finally:
        seconds = perf_counter() - started
        for listener, token in reversed(begun):
            _told(listener.end, token, name, place, ending.outcome, seconds)


def count(what: Count, label: str) -> None:
    for listener in listeners:
        _told(listener.count, what, label)


def breaker(name: str, *, is_open: bool) -> None:
    for listener in listeners:
        _told(listener.breaker, name, is_open=is_open)


def _told(tell: Callable[..., Any], *args: Any, **options: Any) -> Any:
    try:
        return tell(*args, **options)
    except Exception:
        log.exception("A listener of AXES_METRICS has failed.")
        return None
