"""What a process has heard of counters from the store, for the moment in which the store goes away.

The rows are behind the store by what no worker has written yet. Whoever decides on rows then adds what was heard here;
each process knows what it was answered itself, so together they know nearly all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import ceil, inf
from threading import Lock
from time import monotonic

from axes_async.counters.events import AttemptEvent, CounterState
from axes_async.counters.rules import Counter
from axes_async.stores.contract import Place

SIZE = 4096
"""Counters that are remembered, about a kilobyte each: those that were asked for last."""

FRESH = 60_000
"""Milliseconds for which what was heard is of use: workers have written it since, and resets may have undone it."""

RECENT = 1_000
"""Milliseconds before the loss: what was heard in them is told to the others, who may know less."""

GRACE = 120
"""Milliseconds from the beginning of the step that found the store lost, and at least half of that from when it did, in
which no place is given: each process that has logins notices the loss meanwhile, and tells what it has heard.
``common.lua`` has the same for a store that was flushed."""

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
        """When the store was last seen to be lost, in epoch milliseconds, or was suspected to be; 0 for never."""
        self._lost = self._met = -inf
        """The same by a clock that nobody sets, in seconds, and when the step began that met it."""
        self.returns: int | None = None
        """``DrainCursor.returns`` as it was then; ``None`` before the rows were asked."""
        self.telling: object = None
        """The cursor of the transaction in which the rows are being told."""
        self._size, self._lock = size, Lock()
        self._told: dict[str, tuple[bytes, int, AttemptEvent | None]] = {}
        self._held: dict[str, tuple[Sequence[Counter], int]] = {}

    def __bool__(self) -> bool:
        """Return whether there is anything to tell."""
        return bool(self._told)

    def note(
        self, counters: Iterable[Counter], texts: Iterable[bytes], event: AttemptEvent | None, *, now: int
    ) -> None:
        """Remember what ``common.lua`` told of each of ``counters`` in the step of ``event``, at ``now`` (epoch ms).

        Threads may read answers in another order than the store gave them. Of answers of one moment, the one with more
        failures stands.
        """
        with self._lock:
            for counter, text in zip(counters, texts, strict=False):
                known = self._told.pop(counter.digest, None)  # So that the oldest answers stay in front.
                if known is None or abs(now - known[1]) > RECENT or _order(text) >= _order(known[0]):
                    known = text, now, event
                self._told[counter.digest] = known
                if len(self._told) > self._size:
                    del self._told[next(iter(self._told))]

    def hold(self, token: str, counters: Sequence[Counter], *, end: int) -> None:
        """Remember that an attempt of this process holds places in the store, until ``end`` (epoch milliseconds)."""
        self._held[token] = counters, end
        if len(self._held) > self._size:
            with suppress(StopIteration, KeyError, RuntimeError):
                del self._held[next(iter(self._held))]

    def let_go(self, token: str) -> None:
        """Forget an attempt that the store has been told the end of."""
        self._held.pop(token, None)

    def settle(self, token: str) -> None:
        """Have an attempt that held places in the store be open there no longer."""
        counters, _ = self._held.pop(token, ((), 0))
        for counter in counters:
            with self._lock:
                text, time, event = self._told.get(counter.digest, NOTHING)
                state, _, still_open = text.rpartition(b":")
                if text and int(still_open):
                    self._told[counter.digest] = b"%b:%d" % (state, int(still_open) - 1), time, event

    def places(self, *, now: int) -> list[Place]:
        """Return the places that attempts of this process hold in the store at ``now`` (epoch milliseconds)."""
        held = list(self._held.items())
        return [Place(counter.digest, token, end) for token, (some, end) in held if end > now for counter in some]

    def clear(self, digests: Iterable[str], *, now: int) -> None:
        """Forget the failures that a login has cleared at ``now`` (epoch milliseconds); those of a lockout stand."""
        for digest in digests:
            answer = self.of(digest, now=now)
            if answer is not None and not answer.state.locked:
                self._told[digest] = b"", now, None

    def lose(self, *, now: int, began: float) -> None:
        """Note that the store is away from ``now`` on (epoch milliseconds), for a step that ``began`` (monotonic)."""
        self.forgotten(now=now)
        self.returns, self._met = None, began

    def forgotten(self, *, now: int) -> None:
        """Note that the store lost at ``now`` (epoch milliseconds) what it had."""
        self.lost_at, self._lost = now, monotonic()

    def recent(self) -> list[str]:
        """Return the counters that were asked for just before the store was lost, the latest first."""
        last = [digest for digest, (_, time, _) in list(self._told.items()) if time > self.lost_at - RECENT]
        return last[: -TOLD_AT_ONCE - 1 : -1]

    def unsure(self) -> int:
        """Return for how many milliseconds other processes may be about to tell what they have heard."""
        left = max(self._met + GRACE / 1000, self._lost + GRACE / 2000) - monotonic()
        return ceil(left * 1000) if left > 0 else 0

    def lost_since(self, began: float) -> bool:
        """Return whether the store was lost while a step went on that began then (``time.monotonic``)."""
        return began <= self._lost

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


def _order(text: bytes) -> tuple[int, int]:
    """Return what grows from one answer on a counter to the next: when its life began, and its failures since."""
    if not text:
        return 0, 0
    _, _, epoch, failures, _ = text.split(b":", 4)
    return int(epoch), int(failures)
