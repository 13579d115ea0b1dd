"""The reset behind ``utils.reset``, ``axes_reset`` and the admin.

It writes what the outboxes hold, takes failures back in the rows, and has a sync write the rows into the store. Where
the store cannot be read, the rows alone are reset, and events that it still holds count nothing once it is back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal

from celery import shared_task
from django.db import InterfaceError, OperationalError

from axes_async.client.normalize import as_text, canonical_username, row_text, shown_name
from axes_async.clock import as_datetime
from axes_async.conf import get_settings
from axes_async.conf.networks import parse_address
from axes_async.counters.events import parameters_of
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
from axes_async.tasks.sync import adopt, needs_sync, sync_store

log = logging.getLogger(__name__)

AT_ONCE = 20_000
"""Rows that a reset of everything deletes itself; more are left to a worker, for they count nothing any more."""


@shared_task(
    name=publisher.RESET,
    autoretry_for=(StoreUnavailable, OperationalError, InterfaceError),
    retry_backoff=5,
    max_retries=10,
)
def reset(
    ip: str | None = None,
    username: str | None = None,
    ip_or_username: bool = False,
    rows: Sequence[str] | None = None,
    reason: str = "",
    by: str = "",
    counter: str | None = None,
) -> int:
    """Remove attempts, and lift the lockouts they stand for; return how many attempts went.

    :param ip: of this address; and of those that are counted with it, of an IPv6 address its whole /64.
    :param username: of this name, in any case and width; with ``ip``, those of the name from that address.
    :param ip_or_username: with both, those of either.
    :param rows: the ``AccessAttempt.key`` of each that is to go, in place of the others.
    :param reason: why, for the record.
    :param by: who asked for it, for the record.
    :param counter: the ``AttemptCounter.digest`` of a lockout, in place of the others: those of its name, address and
        agent, as far as it counts by them.
    :raises ValueError: if ``ip`` is no address, or ``username`` is empty.
    :raises StoreUnavailable: if the store cannot be reached, unless ``AXES_ON_STORE_FAILURE`` is ``"database"``. And if
        it falls silent when the rows are reset already: it turns logins away until the next sync, or the same reset
        once more, has told it.

    With no argument at all, everything. A worker that cannot reach the store or the database tries again after seconds,
    then minutes, for up to forty of them: nobody looks at the result of a password that was set anew.
    """
    if counter is None:
        scope = check_arguments(ip=ip, username=username, ip_or_username=ip_or_username, rows=rows)
    elif (named := _scope_of(counter)) is not None:
        scope = named
    else:
        return 0
    record = AccessReset(
        scope=scope.kind,
        username=scope.username,
        ip_address=scope.ip_address,
        by=row_text(by),
        reason=row_text(reason),
    )
    return _reset(scope, get_store(), record)


def mend(store: Store) -> None:
    """Do what a crash may have left to do: a reset of everything, and a sync. Raises ``StoreUnavailable``."""
    if StoreState.current(database()).reset_all_pending:
        record = AccessReset(scope="all", reason="A reset of everything was interrupted.")
        _reset(Scope(kind="all"), store, record, again=True)
    elif needs_sync(store):
        sync_store(store)


def count(ip: str | None = None, username: str | None = None, ip_or_username: bool = False) -> int:
    """Return how many attempts ``reset`` would remove; writes what the outboxes hold first."""
    scope = check_arguments(ip=ip, username=username, ip_or_username=ip_or_username)
    return _drained(get_store(), lambda outbox: attempts_in(scope, database()).count())[0]


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
        username=None if username is None else shown_name(username),
        ip_address=None if address is None else str(address),
    )


def _scope_of(digest: str) -> Scope | None:
    """Return what a reset of a counter is to reach; ``None`` if it has ended, so that there is nothing to reach."""
    row = AttemptCounter.objects.using(database()).filter(pk=digest).first()
    if row is None:
        return None
    keys = {name: getattr(row, f"{name}_key") for name in parameters_of(row.parameters)}
    return Scope(kind="counter", username=row.username, ip_address=row.ip_address, counter=keys)


def _drained(store: Store, work: Callable[[OutboxStore | None], int]) -> tuple[int, bool]:
    """Write what the outboxes hold, then do ``work`` with the store if it has an outbox.

    Where the store does not answer, it is done without it, if the settings let the database decide then. Else this
    raises ``StoreUnavailable``. Returns the result, and whether the store has answered.
    """
    outbox = store if isinstance(store, OutboxStore) else None
    try:
        if isinstance(store, CacheStore):
            store.probe()
        elif outbox is not None:
            outbox.key()  # Asked before the writer lock is taken: others would wait for it too.
        drain_to_end(outbox)
        return work(outbox), True
    except StoreUnavailable as error:
        if get_settings().on_store_failure != "database":
            raise
        log.warning("The reset goes by the rows alone: the store does not answer (%s).", error)
    drain_to_end(None)
    return work(None), False


def _reset(scope: Scope, store: Store, record: AccessReset, *, again: bool = False) -> int:
    """Reset, record it, and have the store told; return how many attempts went.

    :param again: only if there is a reset of everything that was interrupted.
    """
    using, everything = database(), scope.kind == "all"

    def work(outbox: OutboxStore | None) -> int:
        if everything and outbox is not None and not again:
            # The store is told first. Whoever dies then leaves rows that count, and nothing else that says so.
            adopt(outbox.key().generation, using)
            StoreState.objects.using(using).filter(pk=1).update(reset_all_pending=True)
        with writer_lock() as cursor:
            # No step of the database is at work until the commit; those of the store are, and come after the reset.
            state, at = exclusive_state(using), database_now(using)
            if again and not state.reset_all_pending:
                return 0  # It had not died, and has ended meanwhile.
            while write_next(cursor, outbox) >= BATCH:
                pass
            void = _void_until(scope, store, outbox, state, cursor)
            if void is not None:
                state.generation = void + 1
            if everything:
                counted = void_all(state, using, void=void or 0, at=at)
                state.reset_all_pending = False
                if isinstance(store, CacheStore):
                    AttemptCounter.objects.using(using).update(dirty=True)  # A cache cannot be told of generations.
            else:
                marks: dict[str, Any] = {"forgiven_at": as_datetime(at)}
                if not isinstance(store, DatabaseStore):
                    marks["dirty"] = True
                if void is not None:
                    marks["void_generation"] = void
                counted = Reset(scope=scope, using=using, at=at, marks=marks).take_back()
            state.save(using=using)
            record.reset_time, (record.attempts, record.counters) = as_datetime(at), counted
            record.save(using=using, force_insert=True)
        return record.attempts

    attempts, has_answered = _drained(store, work)
    if everything:
        is_large = attempts + record.counters > AT_ONCE
        if not (is_large and publisher.has_broker() and publisher.publish(publisher.EXPIRE)):
            delete_void(using)
    try:
        sync_store(store)
    except StoreUnavailable as error:
        told = f"The rows are reset, and the store cannot be told ({error}). The next sync does it."
        # It answered a moment ago. Who asks it next may find it well again, and the lockout as it was.
        if has_answered and AttemptCounter.objects.using(using).filter(dirty=True).exists():
            raise StoreUnavailable(told) from error
        log.warning(told)
    return attempts


def _void_until(
    scope: Scope, store: Store, outbox: OutboxStore | None, state: StoreState, cursor: DrainCursor
) -> int | None:
    """Return the generation up to which events that may yet come are to count nothing; ``None``: none may.

    If the store cannot be told what that takes, the database decides from now on.
    """
    if not isinstance(store, OutboxStore):
        return state.generation if scope.kind == "all" else None
    position = Position.parse(cursor.position)
    if outbox is not None and state.mode == StoreState.STORE:
        if scope.kind != "all":
            return None
        key = outbox.key()
        is_complete = key.status == "ok" and key.generation == state.generation
        # The store voids what it has counted, unless an event comes between.
        if is_complete and outbox.push(key.generation, position, [], void=key.generation) == "ok":
            return key.generation
    state.mode = StoreState.DATABASE
    return max(state.generation, position.generation) + 1  # A push that is under way begins one more.
