"""Counters on Django's cache API: for development (LocMem) and for sites with Memcached or a database cache.

The same contract as on Redis: atomic within a process, and across processes as far as ``cache.add`` is. A lock that a
slow process holds for longer than ``LOCK_LASTS`` is taken from it. There is no outbox: events are handed back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from threading import RLock
from typing import Any

from django.core.cache.backends.base import BaseCache

from axes_async import clock
from axes_async.counters.rules import Counter
from axes_async.counters.state import CounterState
from axes_async.errors import StoreUnavailable
from axes_async.stores.contract import SavedCounter
from axes_async.stores.counting import CountingStore, Engine, KeptCounter
from axes_async.stores.results import StepResult
from axes_async.stores.step import Step, StepKind

LOCK_LASTS = 2
"""Seconds after which a lock whose holder died is free again."""

_locks = tuple(RLock() for _ in range(64))
"""What the threads of this process take before they touch a counter; each guards its share of all digests."""


class CacheStore(CountingStore):
    """The contract on a Django cache.

    :param cache: returns the cache to use in the thread that calls: not every backend's client may be shared.
    :param shared: whether other processes use the same cache; a cache of this process alone needs no lock in it.
    :param namespace: goes into every key.
    """

    def __init__(self, cache: Callable[[], BaseCache], *, shared: bool, namespace: str = "axes") -> None:
        self.cache = cache
        self.shared = shared
        self.namespace = namespace

    def do(self, step: Step) -> StepResult:
        if step.kind is StepKind.PEEK:
            return self.read(step.counters).do(step)
        with self._held([counter.digest for counter in step.all_counters]):
            engine = self.read(step.all_counters)
            result = engine.do(step)
            for digest in engine.touched:
                self._save(digest, engine.kept[digest], engine.now)
            return result

    def read(self, counters: Sequence[Counter]) -> Engine:
        return Engine(counters, self._kept([counter.digest for counter in counters]), _now())

    def probe(self) -> None:
        try:
            if not self._keeps(f"{self.namespace}:probe"):
                raise StoreUnavailable("The cache keeps nothing.")
        finally:
            self._call("close")  # Most often asked for by a thread that ends when it has been answered.

    def load(self, counters: Sequence[SavedCounter]) -> None:
        """Write ``counters``, as the rows have them, over the cache's copies; open reservations of both stay."""
        for saved in counters:
            with self._held([saved.digest]):
                now, found = _now(), self._kept([saved.digest])[saved.digest]
                open_ones = {token: end for token, end in found.reservations.items() if end > now}
                kept = KeptCounter(
                    state=replace(saved.state, ends=list(saved.state.ends)),
                    reservations={**saved.reservations, **open_ones},
                    blocked=saved.blocked,
                )
                self._save(saved.digest, kept, now)

    def _key(self, digest: str) -> str:
        return f"{self.namespace}:c:{digest}"

    def _kept(self, digests: Iterable[str]) -> dict[str, KeptCounter]:
        keys = {digest: self._key(digest) for digest in digests}
        found: Mapping[str, Any] = self._call("get_many", list(keys.values()))
        return {digest: _kept_of(found.get(key)) for digest, key in keys.items()}

    def _save(self, digest: str, kept: KeptCounter, now: int) -> None:
        """Write a counter, to live as long as its count or its last reservation; drop it where it holds nothing."""
        ends = [*kept.reservations.values(), *([kept.state.expires_at] if kept.state.failures else [])]
        if not ends:
            self._call("delete", self._key(digest))
            return
        # Memcached's clock ticks once a second: an entry may go up to a second before its time.
        timeout = None if 0 in ends else max(0, max(ends) - now) // 1000 + 2
        self._call("set", self._key(digest), _value_of(kept), timeout=timeout)

    @contextmanager
    def _held(self, digests: Iterable[str]) -> Iterator[None]:
        """Hold counters against other threads and, unless the cache is this process's own, other processes."""
        digests = sorted(set(digests))
        with ExitStack() as held:
            for place in sorted({hash(digest) % len(_locks) for digest in digests}):
                held.enter_context(_locks[place])
            for digest in digests if self.shared else ():
                key = f"{self.namespace}:l:{digest}"
                self._wait_for(key)
                held.callback(self._let_go, key)
            yield

    def _wait_for(self, key: str) -> None:
        """Take a lock, or take it over when its time is up; raises ``StoreUnavailable`` if nobody can have one."""
        give_up = time.monotonic() + LOCK_LASTS
        while not self._call("add", key, 1, timeout=LOCK_LASTS):
            if time.monotonic() > give_up:
                if not self._keeps(key):
                    raise StoreUnavailable("The cache keeps nothing: its client may hide that the server is away.")
                return
            time.sleep(0.002)

    def _let_go(self, key: str) -> None:
        with suppress(StoreUnavailable):
            self._call("delete", key)

    def _keeps(self, key: str) -> bool:
        self._call("set", key, 1, timeout=LOCK_LASTS)
        return self._call("get", key) is not None

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return getattr(self.cache(), method)(*args, **kwargs)
        except Exception as error:
            # Every cache backend has its own exceptions; whatever it was, the counters were not reached.
            raise StoreUnavailable(f"{type(error).__name__}: {error}") from error


def _now() -> int:
    """Return the time of this host: a cache does not tell that of its server."""
    return (clock.fixed_ms or clock.now_ms)()


def _value_of(kept: KeptCounter) -> tuple[Any, ...]:
    """Return plain values, which any later version can read."""
    state = kept.state
    numbers = (state.failures, state.since, state.expires_at, state.locked_until, kept.blocked, kept.told_at)
    return (*numbers, tuple(state.ends), dict(kept.reservations))


def _kept_of(value: Any) -> KeptCounter:
    """Return what ``_value_of`` made ``value`` of; an empty counter for anything else."""
    if not isinstance(value, tuple) or len(value) != 8:
        return KeptCounter()
    failures, since, expires_at, locked_until, blocked, told_at, ends, reservations = value
    state = CounterState(failures, since, expires_at, locked_until, list(ends))
    return KeptCounter(state, dict(reservations), blocked, told_at)
