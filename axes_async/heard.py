"""What a process has heard of counters from the store, for the moment in which the store goes away.

The rows are behind the store by what no worker has written yet. Whoever decides on rows then adds what was heard here;
each process knows what it was answered itself, so together they know nearly all of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

from axes_async.events import AttemptEvent, CounterState
from axes_async.policy import Counter

SIZE = 4096
"""Counters that are remembered, about a kilobyte each: those that were asked for last."""

FRESH = 60_000
"""Milliseconds for which what was heard is of use: workers have written it since, and resets may have undone it."""

RECENT = 1_000
"""Milliseconds before the loss: other processes may know more of counters that were asked for in them."""

GRACE = 300
"""Milliseconds after the loss in which each process notices it, and tells the rows what it has heard."""

TOLD_AT_ONCE = 200
"""Counters that a process tells the rows in one go; the others it adds when they are asked for."""

LOOKED_AT = 2_000
"""Milliseconds for which the attempts of others that were open then are taken to be still looked at."""


NOTHING: tuple[bytes, int, None] = b"", 0, None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the store said of one counter."""

    state: CounterState
    open: int
    """Reservations, as far as they may still be open."""
    time: int
    """When it was said, in epoch milliseconds."""
    event: AttemptEvent | None
    """An event of the client that the counter is of."""


class Heard:
    """The latest answer on each counter, and when the answers ended; safe to use from many threads."""

    def __init__(self, size: int = SIZE) -> None:
        """Remember nothing yet, and ``size`` counters at most."""
        self.lost_at = 0
        """When the store went away, in epoch milliseconds; 0 while it is there."""
        self.returns: int | None = None
        """``DrainCursor.returns`` as it was then; ``None`` before the rows were asked."""
        self._size = size
        self._told: dict[str, tuple[bytes, int, AttemptEvent | None]] = {}

    def note(
        self, counters: Iterable[Counter], texts: Iterable[bytes], event: AttemptEvent | None, *, now: int
    ) -> None:
        """Remember what ``common.lua`` told of each of ``counters`` in the step of ``event``, at ``now`` (epoch ms)."""
        for counter, text in zip(counters, texts, strict=False):
            self._told.pop(counter.digest, None)  # So that the oldest answers stay in front.
            self._told[counter.digest] = text, now, event
            if len(self._told) > self._size:
                with suppress(StopIteration, KeyError, RuntimeError):  # Another thread was there first.
                    del self._told[next(iter(self._told))]

    def settle(self, digests: Iterable[str]) -> None:
        """Have one attempt that was open on each of ``digests`` be open no longer."""
        for digest in digests:
            text, time, event = self._told.get(digest, NOTHING)
            state, _, still_open = text.rpartition(b":")
            if text and int(still_open):
                self._told[digest] = b"%b:%d" % (state, int(still_open) - 1), time, event

    def clear(self, digests: Iterable[str], *, now: int) -> None:
        """Forget the failures that a login has cleared at ``now`` (epoch milliseconds); those of a lockout stand."""
        for digest in digests:
            answer = self.of(digest, now=now)
            if answer is not None and not answer.state.locked:
                self._told[digest] = b"", now, None

    def lose(self, *, now: int) -> None:
        """Note that the store is away from ``now`` on (epoch milliseconds)."""
        self.lost_at, self.returns = now, None

    def recent(self) -> list[str]:
        """Return the counters that were asked for just before the store was lost, the latest first."""
        last = [digest for digest, (_, time, _) in list(self._told.items()) if time > self.lost_at - RECENT]
        return last[: -TOLD_AT_ONCE - 1 : -1]

    def unsure(self, digest: str, *, now: int) -> bool:
        """Return whether other processes may be about to tell more of a counter."""
        _, time, _ = self._told.get(digest, NOTHING)
        return self.lost_at - RECENT < time <= self.lost_at and now < self.lost_at + GRACE

    def of(self, digest: str, *, now: int) -> Answer | None:
        """Return what was heard of a counter that still counts at ``now``, not too long ago; ``None`` for nothing."""
        text, time, event = self._told.get(digest, NOTHING)
        if not text or now - time > FRESH:
            return None
        state, _, still_open = text.decode().rpartition(":")
        counter = CounterState.parse(state)
        if counter.expires_at and counter.expires_at <= now:
            counter = replace(counter, epoch=0, failures=0, lifted=0, expires_at=0, locked_until=0, ends=())
        return Answer(counter, int(still_open) if now - time <= LOOKED_AT else 0, time, event)
