"""The reset behind ``utils.reset``, ``axes_reset`` and the admin.

It writes what the outboxes hold, takes failures back in the rows, and has a sync write the rows into the store. Where
the store cannot be read, the rows alone are reset, and events that it still holds count nothing once it is back.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

from celery import shared_task

from axes_async.client.normalize import as_text, canonical_username, row_text
from axes_async.clock import as_datetime
from axes_async.conf import get_settings
from axes_async.conf.networks import parse_address
from axes_async.delivery import publisher
from axes_async.errors import StoreUnavailable
from axes_async.models import AccessReset, AttemptCounter, DrainCursor, StoreState, database
from axes_async.stores.cache import CacheStore
from axes_async.stores.contract import OutboxStore, Position, Store
from axes_async.stores.database.mode import database_now, exclusive_state
from axes_async.stores.database.store import DatabaseStore
from axes_async.stores.factory import get_store
from axes_async.tasks.drain import BATCH, drain_to_end, write_next
from axes_async.tasks.projection.resets import Reset, Scope, attempts_in, delete_void, void_all
from axes_async.tasks.projection.writer_lock import writer_lock
from axes_async.tasks.sync import adopt, sync_store

log = logging.getLogger(__name__)

AT_ONCE = 20_000
"""Rows that a reset of everything deletes itself; more are left to a worker, for they count nothing any more."""

EXPIRE = "axes_async.expire"


@shared_task(name="axes_async.reset")
def reset(
    ip: str | None = None,
    username: str | None = None,
    ip_or_username: bool = False,
    rows: Sequence[str] | None = None,
    reason: str = "",
    by: str = "",
) -> int:
    """Remove attempts, and lift the lockouts they stand for; return how many attempts went.

    :param ip: of this address; and of those that are counted with it, of an IPv6 address its whole /64.
    :param username: of this name, in any case and width; with ``ip``, those of the name from that address.
    :param ip_or_username: with both, those of either.
    :param rows: the ``AccessAttempt.key`` of each that is to go, in place of the others.
    :param reason: why, for the record.
    :param by: who asked for it, for the record.
    :raises ValueError: if ``ip`` is no address, or ``username`` is empty.
    :raises StoreUnavailable: if the store cannot be reached, unless ``AXES_ON_STORE_FAILURE`` is ``"database"``.

    With no argument at all, everything.
    """
    scope = check_arguments(ip=ip, username=username, ip_or_username=ip_or_username, rows=rows)
    store = get_store()
    outbox = _drained(store)
    try:
        attempts = _Reset(scope, store, outbox, by=row_text(by), reason=row_text(reason)).run()
    except StoreUnavailable:
        if outbox is None or get_settings().on_store_failure != "database":
            raise
        outbox = None
        attempts = _Reset(scope, store, outbox, by=row_text(by), reason=row_text(reason)).run()
    if outbox is not None or isinstance(store, CacheStore):
        try:
            sync_store(store)
        except StoreUnavailable as error:
            log.warning("The rows are reset, and the store cannot be told (%s). The next sync does it.", error)
    return attempts


def finish_pending() -> None:
    """Do a reset of everything again that was interrupted between store and rows."""
    using = database()
    if StoreState.objects.using(using).filter(pk=1, reset_all_pending=True).exists():
        reset(reason="A reset of everything was interrupted.")


def count(ip: str | None = None, username: str | None = None, ip_or_username: bool = False) -> int:
    """Return how many attempts ``reset`` would remove; writes what the outboxes hold first."""
    scope = check_arguments(ip=ip, username=username, ip_or_username=ip_or_username)
    _drained(get_store())
    number: int = attempts_in(scope, database()).count()
    return number


def check_arguments(
    *,
    ip: str | None = None,
    username: str | None = None,
    ip_or_username: bool = False,
    rows: Sequence[str] | None = None,
) -> Scope:
    """Return what a reset with these arguments is to reach.

    :raises ValueError: if ``ip`` is no address, or ``username`` is empty.
    """
    address, username = None if ip is None else parse_address(str(ip)), as_text(username)
    if ip is not None and address is None:
        raise ValueError(f"{ip!r} is not an IP address.")
    if username is not None and canonical_username(username) is None:
        raise ValueError("A username to reset is empty.")
    if rows is not None:
        return Scope(kind="rows", rows=tuple(rows))
    if ip is None and username is None:
        return Scope(kind="all")
    kind: Literal["either", "both"] = "either" if ip_or_username else "both"
    return Scope(
        kind=kind,
        username=None if username is None else row_text(username, tell_apart=True),
        ip_address=None if address is None else str(address),
    )


def _drained(store: Store) -> OutboxStore | None:
    """Write what the outboxes hold; return ``store`` if it has one that can be read.

    Raises ``StoreUnavailable`` if it cannot be read, and the settings do not let the database decide.
    """
    outbox = store if isinstance(store, OutboxStore) else None
    try:
        if isinstance(store, CacheStore):
            store.probe()
        if outbox is not None:
            outbox.key()
        drain_to_end(outbox)
    except StoreUnavailable:
        if get_settings().on_store_failure != "database":
            raise
        outbox = None
        drain_to_end(None)
    return outbox


class _Reset:
    """One reset, in one transaction."""

    def __init__(self, scope: Scope, store: Store, outbox: OutboxStore | None, *, by: str, reason: str) -> None:
        self.scope, self.outbox, self.by, self.reason = scope, outbox, by, reason
        self.standalone = isinstance(store, DatabaseStore)
        self.has_generations = isinstance(store, OutboxStore)
        self.using = database()

    def run(self) -> int:
        """Do it; return how many attempts went."""
        if self.scope.kind == "all" and self.outbox is not None:
            # The store is told first. Whoever dies then leaves rows that count, and nothing else that says so.
            adopt(self.outbox.key().generation, self.using)
            StoreState.objects.using(self.using).filter(pk=1).update(reset_all_pending=True)
        with writer_lock() as cursor:
            # No step of the database is at work until the commit; those of the store are, and come after the reset.
            state, at = exclusive_state(self.using), database_now(self.using)
            while write_next(cursor, self.outbox) >= BATCH:
                pass
            if self.scope.kind == "all":
                attempts, counters = self._all(state, cursor, at)
            else:
                attempts, counters = self._some(state, cursor, at)
            AccessReset.objects.using(self.using).create(
                reset_time=as_datetime(at),
                scope=self.scope.kind,
                username=self.scope.username,
                ip_address=self.scope.ip_address,
                attempts=attempts,
                counters=counters,
                by=self.by,
                reason=self.reason,
            )
        if self.scope.kind == "all" and (attempts + counters <= AT_ONCE or not _has_worker_expire()):
            delete_void(self.using)
        return attempts

    def _some(self, state: StoreState, cursor: DrainCursor, at: int) -> tuple[int, int]:
        void_events = None
        void = state.void_generation
        if self.has_generations and (self.outbox is None or state.mode == StoreState.DATABASE):
            void_events = self._latest(state, cursor)
            self._let_database_decide(state, void_events + 1)
        reset = Reset(
            scope=self.scope,
            using=self.using,
            at=at,
            void=void,
            void_events=void_events,
            dirty=not self.standalone,
        )
        return reset.take_back()

    def _all(self, state: StoreState, cursor: DrainCursor, at: int) -> tuple[int, int]:
        void, generation = state.generation, state.generation + 1
        if self.has_generations:
            pushed = self._push_void(state, cursor)
            if pushed is None:
                void = self._latest(state, cursor)
                self._let_database_decide(state, void + 1)
                generation = void + 1
            else:
                void, generation = pushed, pushed + 1
        number = void_all(state, self.using, void=void, at=at)
        state.generation, state.reset_all_pending = generation, False
        state.save(using=self.using)
        if not self.has_generations and not self.standalone:
            # A cache cannot be told of generations.
            AttemptCounter.objects.using(self.using).update(dirty=True)
        return number

    def _push_void(self, state: StoreState, cursor: DrainCursor) -> int | None:
        """Void what the store has counted, between two events; return the generation that is void, None for none."""
        if self.outbox is None or state.mode != StoreState.STORE:
            return None
        try:
            key = self.outbox.key()
            if key.status != "ok" or key.generation != state.generation:
                return None
            position = Position.parse(cursor.position)
            if self.outbox.push(key.generation, position, [], void=key.generation) == "ok":
                return key.generation
        except StoreUnavailable as error:
            if get_settings().on_store_failure != "database":
                raise
            log.warning("The store cannot be told of the reset (%s): the database decides.", error)
        return None

    def _latest(self, state: StoreState, cursor: DrainCursor) -> int:
        """Return the latest generation in which an event can have been appended, by a push that is under way too."""
        return max(state.generation, Position.parse(cursor.position).generation) + 1

    def _let_database_decide(self, state: StoreState, generation: int) -> None:
        state.generation, state.mode = generation, StoreState.DATABASE
        state.save(using=self.using, update_fields=["generation", "mode"])


def _has_worker_expire() -> bool:
    """Have a worker run the expiry, which finishes the reset; return whether it was told."""
    return publisher.has_broker() and publisher.publish(EXPIRE)
