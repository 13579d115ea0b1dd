"""How the store is kept complete for our database: the key, and counters that are written into it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from axes_async import clock
from axes_async.counters.state import ends_text
from axes_async.stores.contract import OutboxStore, Position, SavedCounter, StoreKey
from axes_async.stores.redis.server import Server


class RedisSync(Server, OutboxStore):
    """The part of the contract that is about completeness."""

    _load_numbers = count(1)
    """Of each load; one process does all those of a generation. A late one must not undo what was sent after it."""

    def key(self) -> StoreKey:
        return _key(self.run("key", [self.state_key, self.outbox_key], []))

    def invalidate(self, generation: int) -> StoreKey:
        return _key(self.run("invalidate", [self.state_key, self.outbox_key], [generation]))

    def load(self, generation: int, counters: Sequence[SavedCounter]) -> bool:
        keys = [self.state_key, self.loaded_key, *(self.counter_prefix + counter.digest for counter in counters)]
        number = next(self._load_numbers)
        return bool(self.run("load", keys, [generation, fixed_time(), number, *map(_text, counters)]))

    def complete(self, generation: int, void: int) -> bool:
        return bool(self.run("complete", [self.state_key], [generation, void]))

    def push(self, generation: int, position: Position, counters: Sequence[SavedCounter], *, void: int = 0) -> str:
        keys = [self.state_key, self.outbox_key, self.trimmed_key]
        keys += [self.counter_prefix + counter.digest for counter in counters]
        reply = self.run("push", keys, [generation, fixed_time(), str(position), void, *map(_text, counters)])
        return bytes(reply).decode()


def fixed_time() -> str:
    """Return the time that a test has set, '' for that of the server."""
    return "" if clock.fixed_ms is None else str(clock.fixed_ms())


def _key(reply: tuple[bytes, bytes]) -> StoreKey:
    text, last = reply
    if not text:
        return StoreKey(last=Position.parse(last))
    status, generation, void, _ = text.decode().split(" ")
    return StoreKey(status, int(generation), int(void), Position.parse(last))


def _text(counter: SavedCounter) -> str:
    """Return a counter as ``sync.lua`` takes it."""
    state = counter.state
    reservations = " ".join([f"{token}={end}" for token, end in counter.reservations.items()])
    return (
        f"{state.failures}:{state.since}:{state.expires_at}:{state.locked_until}:{ends_text(state.ends)}:"
        f"{counter.blocked}:{reservations}"
    )
