"""What a worker does with a store in Redis or Valkey: it drains the outbox, and keeps the counters complete.

The outbox is a stream beside the counters, and another one of what could not be written. Events are appended by the
steps that count (``store``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import count
from typing import Any

from axes_async.counters.events import AttemptEvent
from axes_async.counters.state import ends_text
from axes_async.errors import StoreIncomplete, StoreUnavailable
from axes_async.stores.contract import DeadLetter, OutboxSize, OutboxStore, Position, SavedCounter, StoreKey
from axes_async.stores.redis.server import Server, fixed_time

PATIENCE = 2.0
"""Seconds to wait for an answer to what a worker asks: thousands of events take longer than one step of a login."""


class RedisOutbox(Server, OutboxStore):
    _load_numbers = count(1)
    """Of each load; one process does all those of a generation. A late one must not undo what was sent after it."""

    def read(self, after: Position, count: int) -> list[tuple[Position, AttemptEvent | bytes]]:
        entries = self.command("XRANGE", self.outbox_key, f"({after}", "+", "COUNT", count, patience=PATIENCE)
        return [(Position.parse(position), _event(fields)) for position, fields in entries]

    def trim(self, position: Position) -> None:
        first_kept = Position(position.generation, position.number + 1)
        self.run("trim", [self.outbox_key, self.trimmed_key], [str(position), str(first_kept)], patience=PATIENCE)

    def rearm(self, position: Position, *, pause: int = 0) -> bool:
        return bool(self.run("rearm", [self.outbox_key, self.nudged_key], [str(position), pause], patience=PATIENCE))

    def size(self) -> OutboxSize:
        keys = [self.outbox_key, self.overflow_key, self.dead_letters_key]
        events, first, overflow, dead_letters = self.run("size", keys, [], patience=PATIENCE)
        event = _event([b"e", first])
        oldest = event.time if isinstance(event, AttemptEvent) else 0
        return OutboxSize(events, oldest, overflow, dead_letters)

    def forget_overflow(self) -> int:
        return int(self.command("GETDEL", self.overflow_key) or 0)

    def set_aside(self, entry: bytes, error: str) -> None:
        self.command("XADD", self.dead_letters_key, "*", "entry", entry, "error", error)

    def dead_letters(self, after: str, count: int) -> list[DeadLetter]:
        entries = self.command("XRANGE", self.dead_letters_key, f"({after}", "+", "COUNT", count, patience=PATIENCE)
        return [_letter(position, fields) for position, fields in entries]

    def put_back(self, letter: DeadLetter) -> bool:
        reply = self.run("put_back", [self.state_key, self.outbox_key, self.dead_letters_key], [letter.position])
        if reply == b"incomplete":
            raise StoreIncomplete("An entry is put back when the store is complete again.")
        return bool(reply)

    def eviction(self) -> str:
        try:
            told = self.command("INFO", "memory")
        except StoreUnavailable:
            return ""
        found = re.search(rb"maxmemory_policy:(\S+)", told)
        return found[1].decode() if found else ""

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


def _event(fields: list[bytes]) -> AttemptEvent | bytes:
    """Return the event in an entry, or what is there in its place."""
    if len(fields) != 2 or fields[0] != b"e":
        return repr(fields).encode()
    try:
        return AttemptEvent.parse(fields[1])
    except ValueError:
        return fields[1]


def _letter(position: bytes, fields: list[Any]) -> DeadLetter:
    found = dict(zip(fields[::2], fields[1::2], strict=True))
    return DeadLetter(position.decode(), found.get(b"entry", b""), found.get(b"error", b"").decode(errors="replace"))


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
