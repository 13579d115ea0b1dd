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

from axes_async.errors import StoreUnavailable
from axes_async.events import AttemptEvent, CounterState, worth_a_row
from axes_async.policy import Counter
from axes_async.stores.base import PERMANENT, Outcome, Store, Verdict

LOCK_LASTS = 2
"""Seconds after which a lock whose holder died is free again."""

_lock = RLock()


@dataclass(slots=True)
class _Life:
    """One counter as the cache holds it; ``reservations`` maps a token to the end of its lease."""

    epoch: int = 0
    failures: int = 0
    lifted: int = 0
    expires_at: int = 0
    blocked: int = 0
    told_at: int = 0
    reservations: dict[str, int] = field(default_factory=dict)

    @property
    def standing(self) -> int:
        return max(0, self.failures - self.lifted)

    def clear(self) -> None:
        self.epoch = self.failures = self.lifted = self.expires_at = self.blocked = self.told_at = 0

    def without_expired(self, now: int) -> _Life:
        if self.failures and 0 < self.expires_at <= now:
            self.clear()
        self.reservations = {token: end for token, end in self.reservations.items() if end > now}
        return self


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
            locked = [(counter, life) for counter, life in lives if self._is_locked(counter, life)]
            if locked:
                return self._blocked(locked, event, now=now, extend=extend)
            for counter, life in lives:
                others = len(life.reservations.keys() - {token})
                if 0 < counter.rule.limit <= life.standing + others:
                    return Outcome(Verdict.BUSY)
            for counter, life in lives if lease else ():
                life.reservations[token] = now + lease
                self._save(counter.digest, life, now)
        return Outcome()

    def _blocked(
        self, locked: list[tuple[Counter, _Life]], event: AttemptEvent | None, *, now: int, extend: bool
    ) -> Outcome:
        changed = []
        for counter, life in locked:
            if extend and counter.rule.window_ms:
                life.expires_at = now + counter.rule.window_ms
                if now - life.told_at >= 1000:
                    life.told_at = now
                    changed.append(self._state(counter, life))
        if event is not None:
            first = locked[0][1]
            first.blocked += 1
            event = event.seen(changed, repeats=first.blocked) if worth_a_row(first.blocked) or changed else None
        for counter, life in locked:
            self._save(counter.digest, life, now)
        return Outcome(Verdict.LOCKED, locked_until=self._locked_until(locked), event=event)

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
                    window = counter.rule.window_ms
                    if not self._is_locked(counter, life):
                        life.epoch = life.epoch if life.failures else now
                        life.failures += 1
                        life.expires_at = now + window if window else 0
                        newly = newly or self._is_locked(counter, life)
                    elif extend and window:
                        life.expires_at = now + window
                self._save(counter.digest, life, now)
            counted = [(counter, life) for counter, life in lives if counter in counters]
            until = self._locked_until(counted)
            seen = event.seen(self._state(counter, life) for counter, life in counted)
        return Outcome(Verdict.LOCKED if until else Verdict.ALLOWED, until, newly, event=seen)

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
            for counter, life in lives:
                life.reservations.pop(token, None)
                if counter in clear and life.failures and not self._is_locked(counter, life):
                    cleared.append(self._state(counter, life, cleared=True))
                    life.clear()
                self._save(counter.digest, life, now)
        return Outcome(event=event.seen(cleared) if always or cleared else None)

    def release(self, token: str, counters: Sequence[Counter], *, now: int) -> None:
        """See ``Store.release``."""
        with self._open(counters, now) as lives:
            for counter, life in lives:
                life.reservations.pop(token, None)
                self._save(counter.digest, life, now)

    def peek(self, counters: Sequence[Counter], *, now: int) -> Outcome:
        """See ``Store.peek``."""
        locked = [(counter, life) for counter, life in self._load(counters, now) if self._is_locked(counter, life)]
        return Outcome(Verdict.LOCKED if locked else Verdict.ALLOWED, self._locked_until(locked))

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
                if not isinstance(life, _Life) or life.epoch != state.epoch:
                    continue
                life.lifted, life.blocked = state.lifted, 0
                if not life.standing:
                    life.clear()
                self._save(state.digest, life, now)

    def states(self, counters: Sequence[Counter], *, now: int) -> list[CounterState]:
        """See ``Store.states``."""
        return [self._state(counter, life) for counter, life in self._load(counters, now)]

    @staticmethod
    def _is_locked(counter: Counter, life: _Life) -> bool:
        return 0 < counter.rule.limit <= life.standing

    def _locked_until(self, lives: Sequence[tuple[Counter, _Life]]) -> int:
        ends = [life.expires_at for counter, life in lives if self._is_locked(counter, life)]
        return PERMANENT if 0 in ends else max(ends, default=0)

    @staticmethod
    def _state(counter: Counter, life: _Life, *, cleared: bool = False) -> CounterState:
        return CounterState(
            digest=counter.digest,
            parameters=counter.rule.parameters,
            epoch=life.epoch,
            failures=life.failures,
            lifted=life.lifted,
            expires_at=life.expires_at,
            limit=counter.rule.limit,
            cleared=cleared,
        )

    def _key(self, digest: str) -> str:
        return f"{self.namespace}:c:{digest}"

    def _load(self, counters: Sequence[Counter], now: int) -> list[tuple[Counter, _Life]]:
        found = self._call("get_many", [self._key(counter.digest) for counter in counters])
        lives = []
        for counter in counters:
            life = found.get(self._key(counter.digest))
            lives.append((counter, (life if isinstance(life, _Life) else _Life()).without_expired(now)))
        return lives

    def _save(self, digest: str, life: _Life, now: int) -> None:
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
    def _open(self, counters: Sequence[Counter], now: int) -> Iterator[list[tuple[Counter, _Life]]]:
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
