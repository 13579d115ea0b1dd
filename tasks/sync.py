"""The sync: what the store may not know is written into it, always from the rows. See docs/protocol.md.

It is the one remedy: after a flush, a return from an outage, a reset, an import, and a crash in the middle of any of
these. No login waits for it: rows are locked for one portion at a time, and ``StoreState`` for a moment.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

from celery import shared_task
from django.db import transaction

from axes_async.clock import as_datetime, as_ms
from axes_async.errors import StoreUnavailable
from axes_async.models import AttemptCounter, StoreState, database
from axes_async.stores.cache import CacheStore
from axes_async.stores.contract import OutboxStore, Position, SavedCounter, Store, StoreKey
from axes_async.stores.database.mode import database_now, exclusive_state, shared_state, state_and_clock
from axes_async.stores.database.rows import saved_of
from axes_async.stores.factory import get_store
from axes_async.tasks.drain import BATCH, drain_batch, drain_to_end, write_next
from axes_async.tasks.projection.bulk import portions
from axes_async.tasks.projection.writer_lock import writer_lock

log = logging.getLogger(__name__)

T = TypeVar("T")

PORTION = 500
"""Rows that are read, and locked if they are dirty, at once."""

SENT = 200
"""Counters that are written in one step: two milliseconds or so, in which the server serves nobody else."""

LEASE = 2000
"""Milliseconds for which another sync keeps away; each step renews it that finds half of it gone."""

RETRY = 0.05
"""Seconds before a portion is sent again that the store has not answered."""

REST = 0.1
"""What part of the time that a portion of live counters took passes before the next: logins need the database, too."""

CONFLICTS = 10
"""How often events may come between rows and store, until the rest is left to the next sync."""

SAVED = (
    *("digest", "failures", "since", "limit", "expires_at", "locked_until", "ends"),
    *("blocked", "reservations", "generation"),
)
"""The columns of a counter that a store takes over."""


class _Overtaken(Exception):
    """Another sync is at work, or the store was lost anew: begin again later."""


@shared_task(name="axes_async.sync")
def sync() -> bool:
    """Have the store know what the rows know; return whether it does. Raises ``StoreUnavailable``."""
    return sync_store(get_store())


def needs_sync(store: Store) -> bool:
    """Return whether anything is not right between store and rows. Raises ``StoreUnavailable``."""
    using = database()
    if not isinstance(store, OutboxStore | CacheStore):
        return False
    if _dirty(using).exists():
        return True
    return isinstance(store, OutboxStore) and not _is_right(store.key(), state_and_clock(using)[0])


def sync_store(store: Store) -> bool:
    """Have ``store`` know what the rows know; return whether it is complete afterwards, and no row is dirty.

    Raises ``StoreUnavailable`` if the store does not answer; the database decides then, and the next sync begins anew.
    """
    if isinstance(store, CacheStore):
        return _load_cache(store, database())
    return _Sync(store, database()).run() if isinstance(store, OutboxStore) else True


def adopt(generation: int, using: str) -> None:
    """Note a generation that the store has reached by a push that the database does not know of.

    It is committed before the next one is given out, or the same one could be given out twice.
    """
    StoreState.objects.using(using).filter(pk=1, mode=StoreState.STORE, generation__lt=generation).update(
        generation=generation
    )


def _is_right(key: StoreKey, state: StoreState) -> bool:
    return state.mode == StoreState.STORE and key.status == "ok" and key.generation >= state.generation


def _dirty(using: str) -> Any:
    return AttemptCounter.objects.using(using).filter(dirty=True).order_by("digest")


def _clean(rows: Iterable[Any], using: str) -> None:
    AttemptCounter.objects.using(using).filter(pk__in=[row.digest for row in rows]).update(dirty=False)


def _saved(rows: Iterable[Any], void: int, using: str) -> list[SavedCounter]:
    now = database_now(using)
    return [saved_of(row, now, void=void) for row in rows]


def _load_cache(store: CacheStore, using: str) -> bool:
    while True:
        with transaction.atomic(using=using):
            void = shared_state(using).void_generation
            rows = list(_dirty(using).select_for_update()[:PORTION])
            store.load(_saved(rows, void, using))
            _clean(rows, using)
        if len(rows) < PORTION:
            return True


class _Sync:
    """One sync of a store that has an outbox."""

    def __init__(self, store: OutboxStore, using: str) -> None:
        self.store, self.using = store, using
        self.generation = 0
        self._renewed = 0.0

    def run(self) -> bool:
        key = self.store.key()
        try:
            is_right = _is_right(key, state_and_clock(self.using)[0])
            return self._push(key.generation) if is_right else self._complete_anew()
        except _Overtaken as why:
            log.info("The sync has stopped: %s", why)
            return False

    # Dirty rows into a store that is in use.

    def _push(self, generation: int) -> bool:
        """Write dirty rows between two events; return whether all were."""
        conflicts = 0
        while _dirty(self.using).exists():
            drain_to_end(self.store)
            reply = self._push_portion(generation)
            if reply == "ok":
                generation += 1
                conflicts = 0
            elif reply != "conflict" or (conflicts := conflicts + 1) >= CONFLICTS:
                return False
        return True

    def _push_portion(self, generation: int) -> str:
        adopt(generation, self.using)
        with writer_lock() as cursor:
            state = exclusive_state(self.using)
            if state.mode != StoreState.STORE or state.generation != generation:
                raise _Overtaken("the store does not decide any more, or in another generation.")
            rows = list(_dirty(self.using).select_for_update()[:SENT])
            # Last, so that as little as possible can come between.
            if write_next(cursor, self.store):
                rows = list(_dirty(self.using)[:SENT])
            saved = _saved(rows, state.void_generation, self.using)
            reply = self.store.push(generation, Position.parse(cursor.position), saved)
            if reply == "ok":
                state.generation, state.pushes = generation + 1, state.pushes + 1
                state.save(using=self.using, update_fields=["generation", "pushes"])
                _clean(rows, self.using)
            return reply

    # All that is needed, into a store that is out of use meanwhile.

    def _complete_anew(self) -> bool:
        self._begin()
        key = self._patiently(partial(self.store.invalidate, self.generation))
        if key.generation != self.generation:
            raise _Overtaken(f"the store is in generation {key.generation} already.")
        while self._patiently(partial(drain_batch, self.store)) >= BATCH:  # Nothing is appended meanwhile.
            pass
        if key.status == "lost":
            self._load_live()
        while not (self._patiently(self._load_dirty) and self._patiently(partial(self._load_dirty, last=True))):
            pass
        log.info("The store is complete again, in generation %d; it was %s.", self.generation, key.status)
        return not _dirty(self.using).exists()

    def _begin(self) -> None:
        with transaction.atomic(using=self.using):
            state, key, now = exclusive_state(self.using), self.store.key(), database_now(self.using)
            if _is_right(key, state):
                raise _Overtaken("another one has just ended.")
            if state.sync_until is not None and as_ms(state.sync_until) > now:
                raise _Overtaken("another one is at work.")
            # One more may have been given out by a push whose commit failed. A generation is never given out twice.
            self.generation = max(state.generation, key.generation, key.last.generation) + 2
            state.generation, state.mode = self.generation, StoreState.DATABASE
            state.sync_until = as_datetime(now + LEASE)
            state.save(using=self.using)
        self._renewed = time.monotonic()

    def _load_live(self) -> None:
        """Write every counter that counts.

        Rows are not locked: one that is changed meanwhile is dirty afterwards, and is written again.
        """
        void = state_and_clock(self.using)[0].void_generation
        live, last = AttemptCounter.objects.using(self.using).counting().order_by("digest"), ""
        while True:
            began = time.monotonic()
            rows = list(live.filter(digest__gt=last).values_list(*SAVED, named=True)[:PORTION])
            saved = [saved for saved in _saved(rows, void, self.using) if saved.state.failures]
            self._patiently(partial(self._load, saved))
            if len(rows) < PORTION:
                return
            last = rows[-1].digest
            time.sleep((time.monotonic() - began) * REST)

    def _load_dirty(self, *, last: bool = False) -> bool:
        """Write the next dirty rows; return whether these were all. With the last ones, the store is complete.

        :param last: keep all steps out until the commit.
        """
        with transaction.atomic(using=self.using):
            state = exclusive_state(self.using) if last else shared_state(self.using)
            if state.generation != self.generation:
                raise _Overtaken(f"the database is in generation {state.generation} already.")
            rows = list(_dirty(self.using).select_for_update()[:PORTION])
            self._load(_saved(rows, state.void_generation, self.using))
            _clean(rows, self.using)
            is_all = len(rows) < PORTION
            if last and is_all:
                if not self.store.complete(self.generation, state.void_generation):
                    raise _Overtaken("the store was lost meanwhile.")
                state.mode, state.synced, state.sync_until = StoreState.STORE, self.generation, None
                state.syncs += 1
                state.save(using=self.using)
        return is_all

    def _load(self, saved: Sequence[SavedCounter]) -> None:
        for some in portions(saved, SENT):
            if not self.store.load(self.generation, some):
                raise _Overtaken("the store was lost meanwhile.")

    def _patiently(self, work: Callable[[], T]) -> T:
        """Do ``work``, again if the store does not answer in the time that a login gives it; keep other syncs away.

        Nobody waits here, and one slow answer among thousands would have the sync begin anew.
        """
        give_up = time.monotonic() + LEASE / 1000
        while True:
            self._renew()
            try:
                return work()
            except StoreUnavailable:
                if time.monotonic() >= give_up:
                    raise
            time.sleep(RETRY)

    def _renew(self) -> None:
        if time.monotonic() - self._renewed < LEASE / 2000:
            return
        until = as_datetime(database_now(self.using) + LEASE)
        mine = StoreState.objects.using(self.using).filter(pk=1, generation=self.generation)
        if not mine.update(sync_until=until):
            raise _Overtaken("the database is in another generation already.")
        self._renewed = time.monotonic()
