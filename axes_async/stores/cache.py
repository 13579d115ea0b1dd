"""Counters on Django's cache API: for development (LocMem) and for sites with Memcached or a database cache.

The same contract as on Redis, indivisible within a process, and as good across processes as ``cache.add`` is: a lock
that a slow process holds for longer than ``LOCK_LASTS`` is taken from it. There is no outbox: events are handed back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import RLock
from typing import Any

from django.core.cache.backends.base import BaseCache

from axes_async.counters.events import AttemptEvent, CounterState, worth_a_row
from axes_async.counters.rules import Counter, Rule
from axes_async.counters.state import Life
from axes_async.errors import StoreUnavailable
from axes_async.stores.contract import Store
from axes_async.stores.results import Outcome, Verdict, outcome_of

LOCK_LASTS = 2
"""Seconds after which a lock whose holder died is free again."""

_lock = RLock()


@dataclass(slots=True)
class _Kept(Life):
    """One counter as the cache holds it; ``reservations`` maps a token to the end of its lease."""

    blocked: int = 0
    told_at: int = 0
    reservations: dict[str, int] = field(default_factory=dict)

    def clear(self) -> None:
        Life.clear(self)
        self.blocked = self.told_at = 0

    def settle(self, rule: Rule, now: int) -> None:
        Life.settle(self, rule, now)
        self.reservations = {token: end for token, end in self.reservations.items() if end > now}


class CacheStore(Store):
    """The contract on a Django cache.

    :param cache: returns the cache to use in the thread that calls: not every backend's client may be shared.
    :param shared: whether other processes use the same cache; a cache of this process alone needs no lock in it.
    :param namespace: goes into every key.
    """

    has_outbox = False

    def __init__(self, cache: Callable[[], BaseCache], *, shared: bool, namespace: str = "axes") -> None:
        """Keep the cache; nothing is read yet."""
        self.cache = cache
        self.shared = shared
        self.namespace = namespace

    def reserve(
        self,
        token: str,
        counters: Sequence[Counter],
        event: AttemptEvent | None,
        *,
        now: int,
        lease: int,
        extend: bool,
    ) -> Outcome:
        """See ``Store.reserve``."""
        with self._open(counters, now) as lives:
            locked = [(counter, life) for counter, life in lives if life.is_locked(counter.rule, now)]
            if locked:
                return self._blocked(locked, event, now=now, extend=extend)
            for counter, life in lives:
                others = len(life.reservations.keys() - {token})
                if 0 < life.limit(counter.rule, now) <= life.standing + others:
                    return Outcome(Verdict.BUSY)
            for counter, life in lives if lease else ():
                life.reservations[token] = now + lease
                self._save(counter.digest, life, now)
        return Outcome()

    def _blocked(
        self, locked: list[tuple[Counter, _Kept]], event: AttemptEvent | None, *, now: int, extend: bool
    ) -> Outcome:
        changed = []
        for counter, life in locked:
            if extend and counter.rule.window_ms:
                life.prolong(counter.rule, now)
                if now - life.told_at >= 1000:
                    life.told_at = now
                    changed.append(life.state(counter, now))
        first = locked[0][1]
        first.blocked += 1
        repeats = first.blocked if worth_a_row(first.blocked) else 0
        if event is not None:
            event = event.seen(changed, repeats=first.blocked) if repeats or changed else None
        for counter, life in locked:
            self._save(counter.digest, life, now)
        return outcome_of(locked, now, event=event, repeats=repeats)

    def fail(
        self,
        token: str,
        counters: Sequence[Counter],
        release: Sequence[Counter],
        event: AttemptEvent,
        *,
        now: int,
        lease: int,
        extend: bool,
        again: bool = False,
    ) -> Outcome:
        """See ``Store.fail``."""
        newly = False
        with self._open([*counters, *release], now) as lives:
            for counter, life in lives:
                life.reservations.pop(token, None)
                if counter in counters:
                    if life.is_locked(counter.rule, now):
                        if extend:
                            life.prolong(counter.rule, now)
                    elif life.count(counter.rule, now):
                        newly, life.blocked = True, 0
                self._save(counter.digest, life, now)
            counted = [(counter, life) for counter, life in lives if counter in counters]
            seen = event.seen(life.state(counter, now) for counter, life in counted)
        return outcome_of(counted, now, newly=newly, event=seen)

    def succeed(
        self,
        token: str,
        counters: Sequence[Counter],
        clear: Sequence[Counter],
        event: AttemptEvent,
        *,
        now: int,
        lease: int,
        always: bool,
        again: bool = False,
    ) -> Outcome:
        """See ``Store.succeed``."""
        cleared = []
        with self._open([*(counter for counter in counters if counter not in clear), *clear], now) as lives:
            standing = {counter.digest: life.standing for counter, life in lives}
            for counter, life in lives:
                life.reservations.pop(token, None)
                if counter in clear and life.standing and not life.is_locked(counter.rule, now):
                    cleared.append(life.state(counter, now, cleared=True))
                    life.clear()
                self._save(counter.digest, life, now)
        found = standing if any(standing.values()) else None
        return Outcome(event=event.seen(cleared) if always or cleared else None, standing=found)

    def release(self, token: str, counters: Sequence[Counter], *, now: int) -> None:
        """See ``Store.release``."""
        with self._open(counters, now) as lives:
            for counter, life in lives:
                life.reservations.pop(token, None)
                self._save(counter.digest, life, now)

    def peek(self, counters: Sequence[Counter], *, now: int) -> Outcome:
        """See ``Store.peek``."""
        return outcome_of(self._load(counters, now), now)

    def record(self, event: AttemptEvent) -> Outcome:
        """See ``Store.record``."""
        return Outcome(event=event)

    def probe(self) -> None:
        """See ``Store.probe``."""
        try:
            if not self._keeps(f"{self.namespace}:probe"):
                raise StoreUnavailable("The cache keeps nothing.")
        finally:
            self._call("close")  # Most often asked for by a thread that ends when it has been answered.

    def adjust(self, states: Sequence[CounterState], *, now: int, lease: int) -> None:
        """See ``Store.adjust``."""
        for state in states:
            with self._held([state.digest]):
                life = self._call("get", self._key(state.digest))
                if not isinstance(life, _Kept) or life.epoch != state.epoch:
                    continue
                life.lift(state.lifted, state.limit)
                life.blocked = 0
                if not life.standing:
                    life.clear()
                self._save(state.digest, life, now)

    def states(self, counters: Sequence[Counter], *, now: int) -> list[CounterState]:
        """See ``Store.states``."""
        return [life.state(counter, now) for counter, life in self._load(counters, now)]

    def _key(self, digest: str) -> str:
        return f"{self.namespace}:c:{digest}"

    def _load(self, counters: Sequence[Counter], now: int) -> list[tuple[Counter, _Kept]]:
        found = self._call("get_many", [self._key(counter.digest) for counter in counters])
        lives = []
        for counter in counters:
            kept = found.get(self._key(counter.digest))
            life = kept if isinstance(kept, _Kept) else _Kept()
            life.settle(counter.rule, now)
            lives.append((counter, life))
        return lives

    def _save(self, digest: str, life: _Kept, now: int) -> None:
        """Write a counter, to live as long as its count or its last reservation; drop it where it holds nothing."""
        ends = [*life.reservations.values(), *([life.expires_at] if life.failures else [])]
        if not ends:
            self._call("delete", self._key(digest))
        elif 0 in ends:
            self._call("set", self._key(digest), life, timeout=None)
        else:
            # Memcached's clock ticks once a second: an entry may go up to a second before its time.
            self._call("set", self._key(digest), life, timeout=max(0, max(ends) - now) // 1000 + 2)

    @contextmanager
    def _open(self, counters: Sequence[Counter], now: int) -> Iterator[list[tuple[Counter, _Kept]]]:
        with self._held([counter.digest for counter in counters]):
            yield self._load(counters, now)

    @contextmanager
    def _held(self, digests: Sequence[str]) -> Iterator[None]:
        """Hold the counters of this process, and, but for a cache of this process alone, those of the others too."""
        with _lock:
            if not self.shared:
                yield
                return
            keys = [f"{self.namespace}:l:{digest}" for digest in sorted(set(digests))]
            for key in keys:
                self._wait_for(key)
            try:
                yield
            finally:
                for key in keys:
                    with suppress(StoreUnavailable):
                        self._call("delete", key)

    def _wait_for(self, key: str) -> None:
        """Take a lock, or take it over when its time is up; raises ``StoreUnavailable`` if nobody can have one."""
        give_up = time.monotonic() + LOCK_LASTS
        while not self._call("add", key, 1, timeout=LOCK_LASTS):
            if time.monotonic() > give_up:
                if not self._keeps(key):
                    raise StoreUnavailable("The cache keeps nothing: its client may hide that the server is away.")
                return
            time.sleep(0.002)

    def _keeps(self, key: str) -> bool:
        self._call("set", key, 1, timeout=LOCK_LASTS)
        return self._call("get", key) is not None

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return getattr(self.cache(), method)(*args, **kwargs)
        except Exception as error:
            # Every cache backend has its own exceptions; whatever it was, the counters were not reached.
            raise StoreUnavailable(f"{type(error).__name__}: {error}") from error
