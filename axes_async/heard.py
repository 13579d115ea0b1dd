"""What a process has heard of counters from the store, for the moment in which the store goes away.

The rows are behind the store by what no worker has written yet. Whoever decides on rows then adds what was heard here;
each process knows what it was answered itself, so together they know nearly all of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

from axes_async.events import CounterState

SIZE = 4096
"""Counters that are remembered, about 200 bytes each: those that were asked for last."""

FRESH = 60_000
"""Milliseconds for which what was heard is of use: workers have written it since, and resets may have undone it."""

LOOKED_AT = 2_000
"""Milliseconds for which the attempts of others that were open then are taken to be still looked at."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the store said of one counter."""

    state: CounterState
    open: int
    """Reservations, as far as they may still be open."""
    time: int
    """When it was said, in epoch milliseconds."""


class Heard:
    """The latest answer on each counter; safe to use from many threads."""

    def __init__(self, size: int = SIZE) -> None:
        """Remember nothing yet, and ``size`` counters at most."""
        self._size = size
        self._texts: dict[bytes, tuple[bytes, int]] = {}

    def note(self, texts: Iterable[bytes], *, now: int) -> None:
        """Remember the ``told`` of ``common.lua``; ``now`` is in epoch milliseconds."""
        for text in texts:
            digest = text[:22]
            self._texts.pop(digest, None)  # So that the oldest answers stay in front.
            self._texts[digest] = text, now
            if len(self._texts) > self._size:
                with suppress(StopIteration, KeyError, RuntimeError):  # Another thread was there first.
                    del self._texts[next(iter(self._texts))]

    def settle(self, digests: Iterable[str]) -> None:
        """Have one attempt that was open on each of ``digests`` be open no longer."""
        for digest in digests:
            text, time = self._texts.get(digest.encode(), (b"", 0))
            state, _, still_open = text.rpartition(b":")
            if text and int(still_open):
                self._texts[digest.encode()] = b"%b:%d" % (state, int(still_open) - 1), time

    def of(self, digest: str, *, now: int) -> Answer | None:
        """Return what was heard of a counter that still counts at ``now``, not too long ago; ``None`` for nothing."""
        text, time = self._texts.get(digest.encode(), (b"", 0))
        if not text or now - time > FRESH:
            return None
        state, _, still_open = text.decode().rpartition(":")
        counter = CounterState.parse(state)
        if counter.expires_at and counter.expires_at <= now:
            counter = replace(counter, epoch=0, failures=0, lifted=0, expires_at=0)
        return Answer(counter, int(still_open) if now - time <= LOOKED_AT else 0, time)
