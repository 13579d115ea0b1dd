"""The outbox in Redis or Valkey, a stream beside the counters, and what could not be written of it.

Events are appended by the steps that count, in ``redis``; here is what a drain does with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from axes_async.counters.events import AttemptEvent
from axes_async.stores.contract import DeadLetter, Outbox, OutboxStore
from axes_async.stores.redis.connection import packed
from axes_async.stores.redis.server import Server


class RedisOutbox(Server, OutboxStore):
    """The half of the contract that is about events."""

    def read(self, after: str, count: int) -> list[tuple[str, AttemptEvent | bytes]]:
        """See ``OutboxStore.read``."""
        entries = self.call(lambda: self.client.xrange(self.outbox_key, min=f"({after}", count=count))
        return [(position.decode(), self._event(fields)) for position, fields in entries]

    def trim(self, name: str, position: str) -> None:
        """See ``OutboxStore.trim``."""
        milliseconds, _, number = position.partition("-")
        self.run("trim", [self.outbox_key, self.born_key], [name, f"{milliseconds}-{int(number) + 1}"])

    def rest(self, position: str, *, linger: int = 0) -> bool:
        """See ``OutboxStore.rest``."""
        return bool(self.run("rest", [self.outbox_key, self.nudged_key], [position, linger]))

    def outbox(self) -> Outbox:
        """See ``OutboxStore.outbox``."""
        name, last, events, oldest = self.run("outbox", [self.outbox_key, self.born_key], [])
        return Outbox(name.decode(), last.decode(), events, oldest.decode())

    def set_aside(self, entry: bytes, error: str) -> None:
        """See ``OutboxStore.set_aside``."""
        self.call(lambda: self.client.xadd(self.dead_letters_key, {"entry": entry, "error": error}))

    def dead_letters(self, after: str, count: int) -> list[DeadLetter]:
        """See ``OutboxStore.dead_letters``."""
        entries = self.call(lambda: self.client.xrange(self.dead_letters_key, min=f"({after}", count=count))
        return [DeadLetter(place.decode(), kept[b"entry"], kept[b"error"].decode()) for place, kept in entries]

    def dead_letter_count(self) -> int:
        """See ``OutboxStore.dead_letter_count``."""
        return int(self.call(lambda: self.client.xlen(self.dead_letters_key)))

    def put_back(self, letter: DeadLetter, body: str, outcome: str) -> None:
        """See ``OutboxStore.put_back``."""
        self.run("put_back", [self.outbox_key, self.born_key, self.dead_letters_key], [letter.position, body, outcome])

    def overflow(self) -> int:
        """See ``OutboxStore.overflow``."""
        return int(self.call(lambda: self.client.get(self.overflow_key)) or 0)

    def forget_overflow(self) -> int:
        """See ``OutboxStore.forget_overflow``."""
        return int(self.call(lambda: self.client.getdel(self.overflow_key)) or 0)

    def eviction(self) -> str:
        """See ``OutboxStore.eviction``."""
        try:
            told = self.call(lambda: self.client.info("memory")).get("maxmemory_policy", "")
        except AttributeError:
            return ""
        return str(told)

    def probe(self) -> None:
        """See ``Store.probe``."""
        if self.line is not None:
            self.call(partial(self.line.send, packed(("SET", self.probe_key, 1, "PX", 1000))))
        else:
            self.call(lambda: self.client.set(self.probe_key, 1, px=1000))

    @staticmethod
    def _event(fields: Mapping[bytes, bytes]) -> AttemptEvent | bytes:
        try:
            return AttemptEvent.parse(fields[b"v1"], fields[b"c"].decode())
        except (KeyError, ValueError, TypeError):
            return repr(fields).encode()
